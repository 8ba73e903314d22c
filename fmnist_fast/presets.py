"""Recipes by name. What they reach is measured by benchmarks/preset_table.py."""

from dataclasses import replace
from typing import Any

from .errors import ArgumentError
from .recipe import Distillation, Recipe

__all__ = ["DEFAULT", "PRESETS", "preset"]

DEFAULT = "standard"

_STANDARD = Recipe()

# Chosen on the 5,000 validation rows of Fashion-MNIST.
PRESETS = {
    "fast": replace(_STANDARD, epochs=5, weight_decay=0.0, flips=False),
    "standard": _STANDARD,
    "best": replace(
        _STANDARD,
        epochs=80,
        label_smoothing=0.0,
        distillation=Distillation(
            Recipe(
                hidden=(1024, 512),
                epochs=16,
                batch_size=256,
                lr=1.5e-3,
                weight_decay=0.1,
                label_smoothing=0.1,
            )
        ),
    ),
    "wide": replace(
        _STANDARD,
        hidden=(1536, 512),
        epochs=40,
        batch_size=256,
        lr=1.5e-3,
        weight_decay=0.2,
        label_smoothing=0.1,
    ),
}


def preset(name: str | None = None, **changes: Any) -> Recipe:
    """The recipe called `name`, None for the default, with some of its fields changed.

    Raises: ArgumentError for an unknown name; TypeError for an unknown field.
    """
    if name is not None and name not in PRESETS:
        raise ArgumentError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    return replace(PRESETS[name or DEFAULT], **changes)
