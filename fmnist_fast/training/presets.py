"""Recipes by name, and what they were measured to reach.

presets.json, beside this file, is written by benchmarks/preset_table.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..errors import ArgumentError
from .config import Distillation, TrainingConfig

__all__ = ["DEFAULT", "RESULTS_FILE", "PRESETS", "PresetResult", "measured_results", "preset"]

RESULTS_FILE = Path(__file__).with_name("presets.json")

DEFAULT = "standard"

_STANDARD = TrainingConfig()

# Teachers without label smoothing: what they say of the other classes is what they teach.
_LARGE = replace(_STANDARD, batch_size=256, lr=1.5e-3, label_smoothing=0.0)

# No rows are held back: the learning rate ends at nothing, so that the last epoch is the model.
_WIDE = replace(
    _LARGE, hidden=(1536, 512), epochs=30, weight_decay=0.2, label_smoothing=0.1, validation=0
)

# Chosen on the 5,000 validation rows of Fashion-MNIST; fast and standard have as many epochs as end
# within one second and four on two slow cores.
PRESETS = {
    "fast": replace(_STANDARD, epochs=5, weight_decay=0.0, hflip=False),
    "standard": _STANDARD,
    "best": replace(
        _STANDARD,
        epochs=80,
        label_smoothing=0.0,
        distillation=Distillation(
            replace(_LARGE, hidden=(1024, 512), epochs=16, weight_decay=0.1), n_teachers=4
        ),
    ),
    # Pullovers and shirts look like much else when their sleeves are spread, and few photographs
    # are of bags.
    "photos": replace(
        _STANDARD,
        epochs=40,
        batch_size=128,
        weight_decay=0.0,
        augment="photos",
        class_weight=((2, 1.5), (6, 1.2), (8, 0.7)),
        target_precision=0.68,
    ),
    "wide": replace(
        _WIDE, epochs=60, distillation=Distillation(_WIDE, n_teachers=4, temperature=1.0, alpha=0.8)
    ),
}

# A recipe that gets this share of its time is better than one that needs less: measured with
# standard of 30 epochs beside fast of 7, which are alike at 0.9 s.
ENOUGH = 0.6


def preset(name: str | None = None, **changes: Any) -> TrainingConfig:
    """The recipe called `name`, None for the default, with some of its fields changed.

    A time budget without a name takes the best recipe for the default's network that was measured
    to fit into it. Raises: ArgumentError for an unknown name; TypeError for an unknown field.
    """
    if name is not None and name not in PRESETS:
        raise ArgumentError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    budget = changes.get("time_budget")
    if name is None and isinstance(budget, int | float):
        name = _fitting(budget)
    return replace(PRESETS[name or DEFAULT], **changes)


def _fitting(budget: float) -> str:
    """The preset that takes the longest of those for which there is time enough."""
    seconds = {
        name: max(result.seconds)
        for name, result in measured_results().items()
        if PRESETS[name].hidden == PRESETS[DEFAULT].hidden and not PRESETS[name].augment
    }
    fitting = [name for name in seconds if ENOUGH * seconds[name] <= budget]
    return max(fitting or [min(seconds, key=seconds.__getitem__)], key=seconds.__getitem__)


@dataclass(frozen=True)
class PresetResult:
    """What a preset reached, one entry a seed. seconds : of training, teachers included.

    recipe : Recipe.to_dict() of what was measured. where : backend, processor, threads.
    """

    config: Mapping[str, Any]
    test_accuracy: tuple[float, ...]
    seconds: tuple[float, ...]
    date: str
    where: str

    @property
    def accuracy(self) -> float:
        """Mean on the test set."""
        return mean(self.test_accuracy)

    @property
    def spread(self) -> float:
        """Standard deviation of one seed's accuracy."""
        return stdev(self.test_accuracy) if len(self.test_accuracy) > 1 else 0.0


def measured_results() -> dict[str, PresetResult]:
    """What each preset reached on Fashion-MNIST, by name."""
    entries = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    return {
        name: PresetResult(
            entry["config"],
            tuple(entry["test_accuracy"]),
            tuple(entry["seconds"]),
            entry["date"],
            entry["where"],
        )
        for name, entry in entries.items()
    }
