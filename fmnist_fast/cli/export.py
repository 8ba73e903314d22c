"""The command `export`."""

from pathlib import Path

import click

from ..models.ensemble import single_member
from ..models.export import formats
from ..models.load import load_model
from .outputs import check_outputs, model_or_pretrained


def export(*, model: Path | None, to: str, out: Path | None, force: bool) -> None:
    """Run the command."""
    path, name = model_or_pretrained(model)
    out = out or Path(formats.default_name(path, to))
    check_outputs({"export": out}, path)
    loaded = single_member(load_model(path), path, "export")
    network, spec = loaded.network, loaded.network.spec
    formats.export(
        out,
        to,
        network.params,
        spec,
        class_names=loaded.class_names,
        scale=network.scale,
        temperature=loaded.temperature,
        force=force,
    )
    inputs = f"{spec.sizes[0]} {'numbers' if network.scale == 1 else 'pixels, 0..255'}"
    click.echo(f"saved {out}: {name}; takes {inputs}, returns {spec.sizes[-1]} probabilities")
