"""The command `info`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .. import __version__

__all__ = ["info"]


def info(model: Path | None, presets: bool, as_json: bool) -> None:
    if presets:
        _show_presets(as_json)
        return
    facts = _model_facts(model) if model else _installation_facts()
    if as_json:
        click.echo(json.dumps(facts))
        return
    lines = _by_member(facts)
    width = max(map(len, lines))
    for name, value in lines.items():
        click.echo(f"{name:{width}}  {_in_line(value)}")


def _show_presets(as_json: bool) -> None:
    from ..training.presets import PRESETS, measured_results

    results = measured_results()
    if as_json:
        entries = {
            name: {
                "config": config.to_dict(),
                "test_accuracy": results[name].accuracy if name in results else None,
                "measured": asdict(results[name]) if name in results else None,
            }
            for name, config in PRESETS.items()
        }
        click.echo(json.dumps(entries))
        return
    from .report import preset_table
    from .terminal import console_of

    console_of().print(preset_table(results))


def _installation_facts() -> dict[str, Any]:
    import platform

    import numpy as np

    from .._cpu import usable_cores
    from ..data.fashion_mnist import find_folder
    from ..nn.backend import BACKEND_NAMES, unavailable_reason

    config: Any = np.show_config(mode="dicts")
    features = config["SIMD Extensions"]
    return {
        "fmnist-fast": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": " ".join(str(config["Build Dependencies"]["blas"][k]) for k in ("name", "version")),
        "backends": {name: unavailable_reason(name) or "available" for name in BACKEND_NAMES},
        "instruction set": _instruction_set(),
        "machine": platform.machine(),
        "cpu features": [*features["baseline"], *features["found"]],
        "threads": usable_cores(),
        "cache": _cache_or_none(),
        "fashion-mnist": str(find_folder() or "not here: 'fmnist-fast data fetch' gets it"),
    }


def _instruction_set() -> str | None:
    """What the compiled kernels use here."""
    from ..nn.backend import get_backend, instruction_set_of

    return instruction_set_of(get_backend())


def _cache_or_none() -> str | None:
    from ..data.cache import cache_folder

    try:
        return str(cache_folder())
    except OSError:  # the user has no home folder
        return None


def _model_facts(path: Path) -> dict[str, Any]:
    from ..models.load import load_model

    return load_model(path).metadata()


def _by_member(facts: dict[str, Any]) -> dict[str, Any]:
    """The same, where an ensemble's members have an entry each, less what all have alike."""
    members = facts.get("members", [])
    lines = {name: value for name, value in facts.items() if name != "members"}
    for number, member in enumerate(members, start=1):
        own = {name: value for name, value in member.items() if value != facts.get(name)}
        lines[f"member {number}"] = own
    return lines


def _in_line(value: Any) -> str:
    """A fact as text: nested ones as name: value, lists with commas."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_in_line(entry)}" for name, entry in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value)) if value else "none"
    return "none" if value is None else str(value)
