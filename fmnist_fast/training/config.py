"""Training configurations, and their validation."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from math import inf
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError
from ..nn.calibration import TARGET_PRECISION
from ..nn.schedules import SCHEDULES

# photos: simulated photographs, new ones in every epoch.
AUGMENTATIONS = ("photos",)


class Range(NamedTuple):
    """Valid values of a number: at least `low`, or, if `open_low`, above it; and below `high`."""

    kind: type[Any]
    low: float
    high: float = inf
    open_low: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raise ArgumentError if a value is invalid. name : of the field."""
        if not isinstance(value, self.kind) or isinstance(value, bool):
            kind = "an integer" if self.kind is int else "a number"
            raise ArgumentError(f"{name} is {value!r}: give {kind}")
        if self.low < value < self.high or (value == self.low and not self.open_low):
            return
        low = "more than" if self.open_low else "at least"
        high = f" and less than {self.high:,}" if self.high < inf else ""
        raise ArgumentError(f"{name} is {value}: give {low} {self.low}{high}")


# The kernels count with 32 bits.
_COUNT = Range(int, 1, 2**31)

_RANGES = {
    "hidden": _COUNT,
    "epochs": _COUNT,
    "batch_size": _COUNT,
    "lr": Range(Real, 0, open_low=True),
    "l2": Range(Real, 0),
    "weight_decay": Range(Real, 0),
    "label_smoothing": Range(Real, 0, 1),
    "dropout": Range(Real, 0, 1),
    "validation": Range(int, 0, 2**31),
    "patience": _COUNT,
    "ema_epochs": _COUNT,
    "target_precision": Range(Real, 0, 1),
    "time_budget": Range(Real, 0, open_low=True),
    "seed": Range(int, 0),
}

# The name of an external teacher.
_TEACHER_ID = re.compile("sha256:[0-9a-f]{64}")


# Names that scikit-learn and Keras have for arguments of `train`.
_OTHER_NAMES = {
    "alpha": "l2",
    "hidden_layer_sizes": "hidden",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "max_iter": "epochs",
    "on_epoch_end": "callbacks",
    "random_state": "seed",
}


def check_names(names: Iterable[str], other: Iterable[str] = ()) -> None:
    """Raise ArgumentError, with the nearest valid name, for one that is no field of TrainingConfig.

    other : names that are valid, too.
    """
    known = [field.name for field in fields(TrainingConfig)] + list(other)
    for name in names:
        if name not in known:
            near = [_OTHER_NAMES[name]] if name in _OTHER_NAMES else get_close_matches(name, known)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
            raise ArgumentError(f"there is no argument {name!r}: {hint}")


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number; anything else unchanged."""
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Distillation:
    """Knowledge distillation: the targets of a network include predictions of teachers.

    The target is ``alpha * mean over teachers of softmax(logits / temperature)
    + (1 - alpha) * label``.

    Attributes
    ----------
    teacher : TrainingConfig or str
        Configuration of the teachers, which are trained first, each from its own seed; or
        "sha256:..." of the file of an external teacher, the argument `teacher` of `train`.
    n_teachers : int
        Number of teachers.
    temperature : float
        Temperature of the softmax.
    alpha : float
        Weight of the teachers, 0..1.

    References
    ----------
    Hinton, Vinyals, Dean (2015), section 2.
    """

    teacher: "TrainingConfig | str"
    n_teachers: int = 4
    temperature: float = 2.0
    alpha: float = 0.7

    def check(self, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if a value is invalid."""
        if isinstance(self.teacher, TrainingConfig):
            if self.teacher.distillation:
                raise ArgumentError("distillation: a teacher with teachers is not supported")
            self.teacher.check(rows, classes)
        elif not (isinstance(self.teacher, str) and _TEACHER_ID.fullmatch(self.teacher)):
            raise ArgumentError(
                f"distillation: teacher is {self.teacher!r}: give a TrainingConfig, or a trained "
                "model as the argument teacher of train()"
            )
        Range(int, 1).check("n_teachers", self.n_teachers)
        Range(Real, 0, open_low=True).check("temperature", self.temperature)
        if not (isinstance(self.alpha, int | float) and 0 <= self.alpha <= 1):
            raise ArgumentError(f"alpha is {self.alpha!r}: give a number from 0 to 1")


@dataclass(frozen=True)
class TrainingConfig:
    """Configuration of a training.

    The same configuration, data, backend and number of threads give the same bits on a machine.

    Attributes
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    epochs, batch_size, seed : int
    lr : float
        Peak learning rate of the schedule.
    schedule : str
        Learning-rate schedule: onecycle, cosine or constant.
    l2 : float
        Factor of the penalty ``l2 / 2 * sum w^2``.
    weight_decay : float
        Decoupled weight decay: every step subtracts this, times the learning rate, of the weights.
    label_smoothing : float
        Label smoothing factor.
    dropout : float
        Dropout rate of the hidden layers.
    hflip : bool, optional
        Flip half of the images of an epoch horizontally, at random. By default if the data set is
        flip-invariant.
    augment : str, optional
        "photos": simulated photographs, new ones in every epoch. By default the images as they are.
    class_weight : dict or str, optional
        {label: weight}, 1 for other labels; "balanced": inversely proportional to class frequency.
    validation : int, optional
        Number of validation rows, which choose the best epoch. By default 5,000, or a twelfth of a
        smaller set; 0: the last epoch is the model.
    patience : int, optional
        Stop after so many consecutive epochs whose validation accuracy is below the best.
    ema_epochs : int
        Average the weights over so many epochs for evaluation and the model (1: no average). Needs
        a learning rate that does not anneal.
    target_precision : float
        Fraction of the confident predictions that must be right, on the validation rows.
    time_budget : float, optional
        Seconds for the whole training, in place of `epochs`; the bits then depend on the clock.
    dtype : str
        float32 or float64.
    distillation : Distillation, optional
        Teachers to learn from.
    """

    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 25
    batch_size: int = 64
    lr: float = 2e-3
    schedule: str = "onecycle"
    l2: float = 0.0
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    dropout: float = 0.0
    hflip: bool | None = None
    augment: str | None = None
    class_weight: tuple[tuple[int, float], ...] | str | None = None
    validation: int | None = None
    patience: int | None = None
    ema_epochs: int = 1
    target_precision: float = TARGET_PRECISION
    time_budget: float | None = None
    seed: int = 0
    dtype: str = "float32"
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        """Convert NumPy scalars, which JSON cannot hold; check() validates the fields."""
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))
        if not isinstance(self.distillation, Distillation | None):
            raise ArgumentError(f"distillation is {self.distillation!r}: give a Distillation")
        for name, valid in _RANGES.items():
            if valid.kind is Real and isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))
        if isinstance(self.hidden, Iterable) and not isinstance(self.hidden, str | bytes):
            object.__setattr__(self, "hidden", tuple(map(_plain, self.hidden)))
        if isinstance(self.class_weight, Mapping):
            pairs = [(_plain(k), _plain(w)) for k, w in self.class_weight.items()]
            if all(isinstance(label, int) for label, _ in pairs):  # else check() refuses them
                pairs.sort()
            object.__setattr__(self, "class_weight", tuple(pairs))

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "TrainingConfig":
        """Return the configuration that `to_dict` made the entries of. Raises: TypeError."""
        entries = dict(entries)
        if entries.get("distillation"):
            parts = dict(entries["distillation"])
            if not isinstance(parts["teacher"], str):
                parts["teacher"] = cls.from_dict(parts["teacher"])
            entries["distillation"] = Distillation(**parts)
        if isinstance(entries.get("class_weight"), list):  # pairs, in JSON
            entries["class_weight"] = dict(entries["class_weight"])
        return cls(**entries)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON."""
        entries: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # tuples become lists
        return entries

    def difference(self, other: "TrainingConfig") -> str | None:
        """Return the name of the first field that differs, None if none does."""
        theirs = vars(other)
        return next((name for name, value in vars(self).items() if value != theirs[name]), None)

    def with_teacher(self, teacher: str) -> "TrainingConfig":
        """Return this configuration with an external teacher in place of its own teachers."""
        how = self.distillation or Distillation(teacher)
        return replace(self, distillation=replace(how, teacher=teacher, n_teachers=1))

    @property
    def external_teacher(self) -> str | None:
        """Name of the external teacher, None if there is none."""
        teacher = self.distillation.teacher if self.distillation else None
        return teacher if isinstance(teacher, str) else None

    def n_validation(self, rows: int) -> int:
        """Return how many rows of a training set are for validation."""
        return min(5000, rows // 12) if self.validation is None else self.validation

    def check(self, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if a value is invalid for such a training set."""
        self._check_numbers()
        self._check_choices(classes)
        if self.n_validation(rows) >= rows:
            raise ArgumentError(f"validation is {self.validation}: give less than all {rows} rows")
        if self.patience is not None and not self.n_validation(rows):
            raise ArgumentError("patience needs validation rows: leave validation out, or patience")
        if self.distillation:
            self.distillation.check(rows, classes)

    def _check_numbers(self) -> None:
        if not isinstance(self.hidden, tuple):
            raise ArgumentError(f"hidden is {self.hidden!r}: give the widths, like (128, 64)")
        for name, valid in _RANGES.items():
            value = getattr(self, name)
            for number in value if name == "hidden" else (value,):
                if not (number is None and getattr(TrainingConfig, name) is None):  # optional
                    valid.check(name, number)
        if self.weight_decay * self.lr >= 1:
            raise ArgumentError(
                f"lr is {self.lr:g} and weight_decay is {self.weight_decay:g}: their product, the "
                "fraction of the weights that a step subtracts, must be less than 1"
            )

    def _check_choices(self, classes: int) -> None:
        if not isinstance(self.hflip, bool | None):
            raise ArgumentError(f"hflip is {self.hflip!r}: give True, False or None")
        for name, choices in (("augment", AUGMENTATIONS), ("schedule", tuple(SCHEDULES))):
            value = getattr(self, name)
            if not isinstance(value, str | None) or (
                value not in choices and value != getattr(TrainingConfig, name)
            ):
                raise ArgumentError(f"unknown {name} {value!r}: choose from {', '.join(choices)}")
        teacher = self.distillation.teacher if self.distillation else None
        if isinstance(teacher, TrainingConfig) and self.augment != teacher.augment:
            raise ArgumentError(
                f"augment is {self.augment!r}, and {teacher.augment!r} for the teachers: give one"
            )
        if not isinstance(self.dtype, str) or self.dtype not in ("float32", "float64"):
            raise ArgumentError(f"dtype is {self.dtype!r}: give 'float32' or 'float64'")
        weights = self.class_weight
        if weights is None or (isinstance(weights, str) and weights == "balanced"):
            return
        if not (
            isinstance(weights, tuple)
            and all(isinstance(pair, tuple) and len(pair) == 2 for pair in weights)
        ):
            raise ArgumentError(
                f"class_weight is {weights!r}: give 'balanced' or {{label: weight}}"
            )
        for label, weight in weights:
            if not (isinstance(label, int) and 0 <= label < classes):
                raise ArgumentError(f"class_weight: label {label!r} is not in 0..{classes - 1}")
            if not (isinstance(weight, int | float) and 0 <= weight < inf):
                raise ArgumentError(f"class_weight of label {label} is {weight!r}: give 0 or more")
