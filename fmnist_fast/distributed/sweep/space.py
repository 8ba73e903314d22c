"""Search space: ranges and choices for the fields of a training configuration, in a TOML file."""

import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ...errors import ArgumentError, UserError
from ...training.config import TrainingConfig

BUILT_IN = Path(__file__).with_name("space.toml")

# Fields that can be searched, and their type. The last three have choices only.
FIELDS = {
    **dict.fromkeys(("epochs", "batch_size", "ema_epochs"), "an integer"),
    **dict.fromkeys(("lr", "l2", "weight_decay", "label_smoothing", "dropout"), "a number"),
    "hidden": "a list of widths",
    "schedule": "a string",
    "hflip": "true or false",
}
NUMERIC = ("an integer", "a number")

# Why other fields cannot be searched.
NOT_SEARCHED = {
    "seed": "give --seed, and --seeds for several a trial",
    "validation": "all trials must be judged on the same rows",
    "time_budget": "then the clock would decide; give epochs",
}


@dataclass(frozen=True)
class Space:
    """Search space. searched : distributions by field, sorted; of `hidden`, the choices are labels
    like "128,64" or "none", since a study stores no tuples. fixed : fields that differ from the
    preset and are equal in all trials. source : file that defines it.
    """

    searched: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any]
    source: Path = BUILT_IN

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the parameters of a trial to fields of TrainingConfig."""
        chosen = {field: _from_label(field, params[field]) for field in self.searched}
        return {**self.fixed, **chosen}

    def extremes(self, field: str) -> list[Any]:
        """Return all choices of a searched field, or the least and the greatest value."""
        part: Any = self.searched[field]
        if isinstance(part, CategoricalDistribution):
            return [_from_label(field, choice) for choice in part.choices]
        return [part.low, part.high]

    def check(self, base: TrainingConfig, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if a trial of this space cannot be run."""
        try:
            base = replace(base, **self.fixed)
            base.check(rows, classes)
            extremes = {field: self.extremes(field) for field in self.searched}
            for field, values in extremes.items():
                for value in values:
                    replace(base, **{field: value}).check(rows, classes)
            highest = {f: max(v) for f, v in extremes.items() if FIELDS[f] == "a number"}
            replace(base, **highest).check(rows, classes)
        except ArgumentError as error:
            if self.source == BUILT_IN:
                raise
            raise ArgumentError(f"{self.source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON that identifies the space."""
        searched = {field: vars(part) for field, part in self.searched.items()}
        return {"searched": searched, "fixed": dict(self.fixed)}


def read_space(path: Path | None = None) -> Space:
    """Read a search space from a TOML file; None: the built-in one.

    Raises: UserError, one line with the file, the field and the mistake.
    """
    path = path or BUILT_IN
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        parts = {field: _parse(field, entries[field]) for field in sorted(entries)}
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error
    searched = {f: part for f, part in parts.items() if isinstance(part, BaseDistribution)}
    if not searched:
        raise ArgumentError(
            f"{path}: nothing to choose: give a field {{low = .., high = ..}} or choices"
        )
    return Space(searched, {f: v for f, v in parts.items() if f not in searched}, path)


def _parse(field: str, entry: Any) -> Any:
    """Parse a range, choices or a fixed value. Raises: ArgumentError."""
    if field in NOT_SEARCHED:
        raise ArgumentError(f"{field} cannot be searched: {NOT_SEARCHED[field]}")
    if field not in FIELDS:
        raise ArgumentError(f"unknown field {field!r}: choose from {', '.join(FIELDS)}")
    if isinstance(entry, dict):
        if entry.keys() == {"choices"}:
            return _choices(field, entry["choices"])
        if {"low", "high"} <= entry.keys() <= {"low", "high", "log", "step"}:
            return _range(field, **entry)
    elif not isinstance(entry, list) or field == "hidden":
        return _value(field, entry)
    raise ArgumentError(
        f"{field}: give {{low = .., high = ..}} with log or step, or {{choices = [..]}}"
    )


def _choices(field: str, values: Any) -> CategoricalDistribution:
    if not isinstance(values, list) or not values:
        raise ArgumentError(f"{field}: choices must be a list that is not empty")
    labels = [_to_label(_value(field, value)) for value in values]
    if len(set(labels)) < len(labels):
        raise ArgumentError(f"{field}: duplicate choice")
    return CategoricalDistribution(labels)


def _range(field: str, low: Any, high: Any, log: Any = False, step: Any = None) -> BaseDistribution:
    if FIELDS[field] not in NUMERIC:
        raise ArgumentError(f"{field} has no range: give {{choices = [..]}}")
    low, high = _value(field, low), _value(field, high)
    step = None if step is None else _value(field, step)
    stepped = step is not None
    for wrong, why in (
        (not isinstance(log, bool), "log is true or false"),
        (stepped and step <= 0, f"step is {step}: give more than 0"),
        (stepped and log, "give log or step, not both"),
        (stepped and 0 < high - low < step, f"step is {step}: give at most high - low"),
        (low >= high, f"low is {low} and high is {high}: low must be less"),
        (log and low <= 0, f"low is {low}: a log scale needs more than 0"),
    ):
        if wrong:
            raise ArgumentError(f"{field}: {why}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna reduces `high` to a multiple of the step
        if FIELDS[field] == "a number":
            return FloatDistribution(low, high, log=log, step=step)
        return IntDistribution(low, high, log=log, step=step or 1)


def _value(field: str, value: Any) -> Any:
    """Convert a value to the field's type. Raises: ArgumentError."""
    match FIELDS[field]:
        case "an integer" if type(value) is int:
            return value
        case "a number" if type(value) in (int, float) and isfinite(value):
            return float(value)
        case "a string" if isinstance(value, str):
            return value
        case "true or false" if isinstance(value, bool):
            return value
        case "a list of widths" if isinstance(value, list) and all(type(w) is int for w in value):
            return tuple(value)
    raise ArgumentError(f"{field}: {value!r} is not {FIELDS[field]}")


def _to_label(value: Any) -> Any:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else value


def _from_label(field: str, label: Any) -> Any:
    """Invert _to_label()."""
    if field != "hidden":
        return label
    return () if label == "none" else tuple(map(int, label.split(",")))
