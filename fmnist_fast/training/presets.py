"""Presets: training configurations by name, and their measured accuracies and times.

presets.json, beside this file, is written by benchmarks/preset_table.py.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..errors import ArgumentError
from .config import Distillation, TrainingConfig, check_names

RESULTS_FILE = Path(__file__).with_name("presets.json")

DEFAULT = "standard"

# Teachers without label smoothing: students learn from the probabilities of the other classes.
_LARGE = TrainingConfig(batch_size=256, lr=1.5e-3, label_smoothing=0.0)

# No validation rows: the learning rate anneals to zero, so that the last epoch is the model.
_WIDE = replace(
    _LARGE, hidden=(1536, 512), epochs=30, weight_decay=0.2, label_smoothing=0.1, validation=0
)

# Chosen on the 5,000 validation rows of Fashion-MNIST; fast and standard have as many epochs as end
# within one second and four on two slow cores.
PRESETS = {
    "fast": TrainingConfig(epochs=5, weight_decay=0.0, hflip=False),
    "standard": TrainingConfig(),
    "best": TrainingConfig(
        epochs=80,
        label_smoothing=0.0,
        distillation=Distillation(
            replace(_LARGE, hidden=(1024, 512), epochs=16, weight_decay=0.1), n_teachers=4
        ),
    ),
    # Photographs of pullovers and shirts are the hardest to recognize, and few photographs are of
    # bags.
    "photos": TrainingConfig(
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

# A preset that gets this fraction of its time is better than one that needs less: measured with
# standard of 30 epochs and fast of 7, whose accuracies are equal at 0.9 s.
MIN_TIME_FRACTION = 0.6


def preset(name: str | None = None, **changes: Any) -> TrainingConfig:
    """Return a preset configuration, with some of its fields changed.

    Parameters
    ----------
    name : str, optional
        One of `PRESETS`. By default "standard"; with a time budget, the best preset for the same
        network that was measured to fit into it.
    **changes
        Fields of `TrainingConfig`.

    Raises
    ------
    ArgumentError
        If the name or a field is unknown.
    """
    check_names(changes)
    if name is not None and not (isinstance(name, str) and name in PRESETS):
        raise ArgumentError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    budget = changes.get("time_budget")
    if name is None and isinstance(budget, int | float):
        name = _fitting(budget)
    return replace(PRESETS[name or DEFAULT], **changes)


def _fitting(budget: float) -> str:
    """Return the slowest preset that fits into the time."""
    seconds = {
        name: max(result.seconds)
        for name, result in measured_results().items()
        if PRESETS[name].hidden == PRESETS[DEFAULT].hidden and not PRESETS[name].augment
    }
    fitting = [name for name in seconds if MIN_TIME_FRACTION * seconds[name] <= budget]
    return max(fitting or [min(seconds, key=seconds.__getitem__)], key=seconds.__getitem__)


@dataclass(frozen=True)
class PresetResult:
    """Measured results of a preset.

    Attributes
    ----------
    config : mapping
        `TrainingConfig.to_dict()` of what was measured.
    test_accuracy, seconds : sequence of float
        One entry a seed; seconds of training, teachers included.
    date : str
    where : str
        Backend, processor, threads.
    """

    config: Mapping[str, Any]
    test_accuracy: Sequence[float]
    seconds: Sequence[float]
    date: str
    where: str

    @property
    def accuracy(self) -> float:
        """Mean accuracy on the test set."""
        return mean(self.test_accuracy)

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over seeds."""
        return stdev(self.test_accuracy) if len(self.test_accuracy) > 1 else 0.0


def measured_results() -> dict[str, PresetResult]:
    """Return the results of each preset on Fashion-MNIST, by name."""
    entries = json.loads(RESULTS_FILE.read_text(encoding="utf-8"))
    return {name: PresetResult(**entry) for name, entry in entries.items()}
