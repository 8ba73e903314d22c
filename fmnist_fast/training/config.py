"""Recipes: what decides the weights, apart from the data."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..nn.calibration import TARGET_PRECISION
from ..nn.schedules import SCHEDULES

__all__ = ["AUGMENTATIONS", "Distillation", "TrainingConfig"]

# photos: every epoch sees other images, such as photographs of clothes give when they are cut out.
AUGMENTATIONS = ("photos",)

# What the kernels count with; more of anything is a slip of the finger.
MOST = 2**31 - 1

# Fields that hold whole numbers, and the least that each may be.
_WHOLE = {"epochs": 1, "batch_size": 1, "ema_epochs": 1, "seed": 0}
_NUMBERS = ("lr", "l2", "weight_decay", "label_smoothing", "dropout", "target_precision")


# How a teacher that is given is called.
_GIVEN = re.compile("sha256:[0-9a-f]{64}")


def _plain(value: Any) -> Any:
    """A number of NumPy's as Python's; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Distillation:
    """How a network learns from larger ones, which are trained first, each from its own seed, or
    from one that is given.

    teacher : their recipe; or "sha256:..." of the file of a model or an ensemble, which is the
    argument `teacher` of train() and says nothing else about it.
    The network is asked for  share * teachers' mean of softmax(logits / temperature)
    + (1 - share) * the label.  Source: Hinton, Vinyals, Dean (2015), section 2.
    """

    teacher: "TrainingConfig | str"
    n_teachers: int = 4
    temperature: float = 2.0
    alpha: float = 0.7

    def check(self, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if nobody can be taught like that."""
        if isinstance(self.teacher, str):
            if not _GIVEN.fullmatch(self.teacher):
                raise ArgumentError(
                    f"the teacher of a distillation is {self.teacher!r}: give a Recipe, or a "
                    "trained model as the argument teacher of train()"
                )
        elif self.teacher.distillation:
            raise ArgumentError("distillation: a teacher with teachers of its own is not supported")
        if not (isinstance(self.n_teachers, int) and self.n_teachers >= 1):
            raise ArgumentError(
                f"n_teachers is {self.n_teachers!r}: give a whole number, at least 1"
            )
        if not 0 < self.temperature < float("inf"):
            raise ArgumentError(f"temperature is {self.temperature!r}: give a number above 0")
        if not 0 <= self.alpha <= 1:
            raise ArgumentError(f"alpha is {self.alpha!r}: give a number from 0 to 1")
        if not isinstance(self.teacher, str):
            self.teacher.check(rows, classes)


@dataclass(frozen=True)
class TrainingConfig:
    """What decides the weights, apart from the data: same recipe, same machine, same bits.

    hidden : widths of the hidden layers. lr : the largest learning rate of the schedule.
    schedule : onecycle, cosine or constant. l2 : factor of the penalty l2/2 sum w^2.
    weight_decay : every step takes this share of its learning rate from the weights (decoupled
    decay). label_smoothing : share of every target that all classes have alike. dropout : share of
    the hidden layers' outputs that every row of every epoch does without. flips : half of the
    images of an epoch, by chance, are seen in the mirror (None: where the data set says that a
    mirror image shows the same thing). augment : "photos" shows images such as photographs give
    when the garment is cut out of them, other ones in every epoch (imitation.py); None: the images
    as they are. class_weight : {label: weight}, others count 1; "balanced", every class counts
    alike; or None, every row does.
    validation : rows held back to choose the best epoch (None: 5,000, or a twelfth of a smaller
    set; 0: none, the last epoch is the model). patience : stop after so many epochs without a
    better validation accuracy. average : over how many epochs the weights are averaged that are
    judged and saved (1: those of the epoch as they are); it wants a learning rate that stays.
    sure : share of the answers called sure that must be right, on the validation rows.
    time_budget : seconds for the whole run, in place of `epochs`; then the clock decides the bits.
    distillation : teachers to learn from.
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
        """Plain numbers for NumPy's, which no model file can hold; check() judges the rest."""
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))
        for name in (*_NUMBERS, "time_budget"):
            if isinstance(getattr(self, name), int):
                object.__setattr__(self, name, float(getattr(self, name)))
        if not isinstance(self.hidden, (int, str)):
            object.__setattr__(self, "hidden", tuple(map(_plain, self.hidden)))
        if isinstance(self.class_weight, Mapping):
            pairs = ((_plain(k), _plain(w)) for k, w in self.class_weight.items())
            object.__setattr__(self, "class_weight", tuple(sorted(pairs)))

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "TrainingConfig":
        """The recipe that to_dict() made the entries of. Raises: TypeError."""
        entries = dict(entries)
        if entries.get("distillation"):
            parts = dict(entries["distillation"])
            if not isinstance(parts["teacher"], str):
                parts["teacher"] = cls.from_dict(parts["teacher"])
            entries["distillation"] = Distillation(**parts)
        if isinstance(entries.get("class_weight"), list):
            entries["class_weight"] = dict(entries["class_weight"])
        return cls(**entries)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON has it."""
        entries = asdict(self)
        entries["hidden"] = list(self.hidden)
        if self.distillation and isinstance(self.distillation.teacher, TrainingConfig):
            entries["distillation"]["teacher"] = self.distillation.teacher.to_dict()
        if isinstance(self.class_weight, tuple):
            entries["class_weight"] = [list(pair) for pair in self.class_weight]
        return entries

    def difference(self, other: "TrainingConfig") -> str | None:
        """The first field in which the two differ."""
        mine = (field.name for field in fields(self))
        return next((name for name in mine if getattr(self, name) != getattr(other, name)), None)

    def with_teacher(self, teacher: str) -> "TrainingConfig":
        """The same with a teacher that is given, in place of those it may have."""
        how = self.distillation or Distillation(teacher)
        return replace(self, distillation=replace(how, teacher=teacher, n_teachers=1))

    @property
    def external_teacher(self) -> str | None:
        """What the teacher is called that must be given, if one must be."""
        teacher = self.distillation.teacher if self.distillation else None
        return teacher if isinstance(teacher, str) else None

    def held_back(self, rows: int) -> int:
        """How many of a training set's rows are for validation."""
        return min(5000, rows // 12) if self.validation is None else self.validation

    def check(self, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if this cannot train on such a set."""
        self._check_whole_numbers(rows)
        self._check_numbers()
        self._check_choices(classes)
        if self.held_back(rows) >= rows:
            raise ArgumentError(
                f"validation is {self.validation}, but the training set has only {rows} rows: "
                "leave some to train on"
            )
        if self.patience is not None and not self.held_back(rows):
            raise ArgumentError("patience needs validation rows: leave validation out, or patience")
        if self.distillation:
            self.distillation.check(rows, classes)

    def _check_whole_numbers(self, rows: int) -> None:
        if isinstance(self.hidden, (int, str)):
            raise ArgumentError(f"hidden is {self.hidden!r}: give the widths, like (128, 64)")
        fields: tuple[tuple[str, Any, int], ...] = (
            *((name, getattr(self, name), least) for name, least in _WHOLE.items()),
            ("validation", self.held_back(rows), 0),
            ("patience", 1 if self.patience is None else self.patience, 1),
            *(("hidden", width, 1) for width in self.hidden),
        )
        for name, value, least in fields:
            if not isinstance(value, int):
                raise ArgumentError(f"{name} is {value!r}: give a whole number")
            if value < least:
                raise ArgumentError(f"{name} is {value}: give at least {least}")
            if value > MOST and name != "seed":
                raise ArgumentError(f"{name} is {value}: give at most {MOST:,}")

    def _check_numbers(self) -> None:
        for name in _NUMBERS:
            number: Any = getattr(self, name)
            if not isinstance(number, int | float):
                raise ArgumentError(f"{name} is {number!r}: give a number")
            if name == "lr" and not (isfinite(number) and number > 0):
                raise ArgumentError(f"lr is {number}: give a number above 0")
            if not (isfinite(number) and number >= 0):
                raise ArgumentError(f"{name} is {number}: give 0 or more")
        if self.weight_decay * self.lr >= 1:
            raise ArgumentError(
                f"lr is {self.lr:g} and weight_decay is {self.weight_decay:g}: their product, the "
                "share of the weights that a step takes away, must be less than 1"
            )
        if self.target_precision >= 1:
            raise ArgumentError(
                f"target_precision is {self.target_precision:g}: give a share below 1, like 0.97"
            )
        for name in ("label_smoothing", "dropout"):
            if getattr(self, name) >= 1:
                raise ArgumentError(f"{name} is {getattr(self, name)}: give less than 1")
        seconds: Any = self.time_budget
        if seconds is not None and not (
            isinstance(seconds, int | float) and 0 < seconds < float("inf")
        ):
            raise ArgumentError(f"time_budget is {seconds!r}: give seconds, more than 0")

    def _check_choices(self, classes: int) -> None:
        if not isinstance(self.hflip, bool | None):
            raise ArgumentError(f"hflip is {self.hflip!r}: give True, False or None")
        if self.augment is not None and self.augment not in AUGMENTATIONS:
            choices = ", ".join(AUGMENTATIONS)
            raise ArgumentError(f"unknown augment {self.augment!r}: choose from {choices}")
        teacher = self.distillation.teacher if self.distillation else None
        if isinstance(teacher, TrainingConfig) and self.augment != teacher.augment:
            raise ArgumentError(
                f"augment is {self.augment!r}, and {teacher.augment!r} for the teachers, who must "
                "have seen such images: leave it out, or give both the same"
            )
        if self.schedule not in SCHEDULES:
            choices = ", ".join(SCHEDULES)
            raise ArgumentError(f"unknown schedule {self.schedule!r}: choose from {choices}")
        if isinstance(self.class_weight, str) and self.class_weight != "balanced":
            raise ArgumentError(
                f"class_weight is {self.class_weight!r}: give 'balanced' or {{label: weight}}"
            )
        for label, weight in self.class_weight if isinstance(self.class_weight, tuple) else ():
            if not (isinstance(label, int) and 0 <= label < classes):
                raise ArgumentError(
                    f"class_weight names the label {label!r}: they are 0..{classes - 1}"
                )
            if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
                raise ArgumentError(f"class_weight of label {label} is {weight!r}: give 0 or more")
