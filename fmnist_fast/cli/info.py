"""The command `info`."""

import platform
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import __version__
from .._cpu import usable_cores
from ..data.cache import cache_folder
from ..data.fashion_mnist import find_folder
from ..models.load import load_model
from ..nn.backend import BACKEND_NAMES, get_backend, instruction_set_of, unavailable_reason
from ..training.presets import PRESETS, measured_results
from .report import preset_table
from .terminal import make_console, print_json


def info(*, model: Path | None, presets: bool, as_json: bool) -> None:
    """Run the command."""
    if presets:
        _show_presets(as_json)
        return
    facts = load_model(model).metadata() if model else _describe_installation()
    if as_json:
        print_json(facts)
        return
    lines = _one_line_per_member(facts)
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(f"{name:{width}}  {_as_text(value)}")


def _show_presets(as_json: bool) -> None:
    results = measured_results()
    if not as_json:
        make_console().print(preset_table(results))
        return
    print_json(
        {
            name: {
                "config": config.to_dict(),
                "test_accuracy": results[name].accuracy if name in results else None,
                "measured": asdict(results[name]) if name in results else None,
            }
            for name, config in PRESETS.items()
        }
    )


def _describe_installation() -> dict[str, Any]:
    config: Any = np.show_config(mode="dicts")
    features = config["SIMD Extensions"]
    cache = None
    with suppress(OSError):  # the user has no home folder
        cache = str(cache_folder())
    return {
        "fmnist-fast": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": " ".join(str(config["Build Dependencies"]["blas"][k]) for k in ("name", "version")),
        "backends": {name: unavailable_reason(name) or "available" for name in BACKEND_NAMES},
        "instruction set": instruction_set_of(get_backend()),
        "machine": platform.machine(),
        "cpu features": [*features["baseline"], *features["found"]],
        "threads": usable_cores(),
        "cache": cache,
        "fashion-mnist": str(find_folder() or "not here: 'fmnist-fast data fetch' downloads it"),
    }


def _one_line_per_member(facts: dict[str, Any]) -> dict[str, Any]:
    """Replace an ensemble's members by an entry for each, without the values common to all."""
    lines = {name: value for name, value in facts.items() if name != "members"}
    for number, member in enumerate(facts.get("members", []), start=1):
        own = {name: value for name, value in member.items() if value != facts.get(name)}
        lines[f"member {number}"] = own
    return lines


def _as_text(value: Any) -> str:
    """Format a fact: dicts as `name: value`, lists with spaces."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_as_text(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
