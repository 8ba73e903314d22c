"""Search space: ranges and choices for the fields of a training configuration, in a TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import ArgumentError, UserError
from ...training.config import TrainingConfig

__all__ = ["BUILT_IN", "FIELDS", "Choices", "Range", "Space", "read_space"]

BUILT_IN = Path(__file__).with_name("space.toml")

# Fields that can be searched, and their type. The last three have choices only.
FIELDS = {
    **dict.fromkeys(("epochs", "batch_size", "ema_epochs"), "a whole number"),
    **dict.fromkeys(("lr", "l2", "weight_decay", "label_smoothing", "dropout"), "a number"),
    "hidden": "a list of widths",
    "schedule": "a word",
    "hflip": "true or false",
}
NUMERIC = ("a whole number", "a number")

# Why other fields cannot be searched.
NOT_SEARCHED = {
    "seed": "give --seed, and --seeds for several a trial",
    "validation": "all trials must be judged on the same rows",
    "time_budget": "then the clock would decide; give epochs",
}


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; integers if `low` is one. log : on a logarithmic
    scale. step : distance of the values.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def extremes(self) -> tuple[float, float]:
        """Values to validate: the least and the greatest."""
        return self.low, self.high


@dataclass(frozen=True)
class Choices:
    """A list of numbers, words, booleans, or tuples of layer widths."""

    values: tuple[Any, ...]

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values to validate: all of them."""
        return self.values

    def labels(self) -> tuple[str | float, ...]:
        """Represent the values in a study: (128, 64) is "128,64", () is "none"."""
        return tuple(map(_label, self.values))

    def value_of(self, label: str | float) -> Any:
        """Return the value that a label stands for."""
        return self.values[self.labels().index(label)]


Part: TypeAlias = Range | Choices


@dataclass(frozen=True)
class Space:
    """Search space. searched : by field, sorted. fixed : fields that differ from the preset and are
    equal in all trials. source : file that defines it.
    """

    searched: Mapping[str, Part]
    fixed: Mapping[str, Any]
    source: Path = BUILT_IN

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the parameters of a trial to fields of TrainingConfig."""
        chosen = {
            field: part.value_of(params[field]) if isinstance(part, Choices) else params[field]
            for field, part in self.searched.items()
        }
        return {**self.fixed, **chosen}

    def check(self, base: TrainingConfig, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if a trial of this space cannot be run."""
        try:
            base = replace(base, **self.fixed)
            base.check(rows, classes)
            for field, part in self.searched.items():
                for value in part.extremes:
                    replace(base, **{field: value}).check(rows, classes)
            numbers = {f: p for f, p in self.searched.items() if FIELDS[f] == "a number"}
            highest = {field: max(part.extremes) for field, part in numbers.items()}
            replace(base, **highest).check(rows, classes)
        except ArgumentError as error:
            if self.source == BUILT_IN:
                raise
            raise ArgumentError(f"{self.source}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON that identifies the space."""
        searched = {field: asdict(part) for field, part in self.searched.items()}
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
    searched = {f: part for f, part in parts.items() if isinstance(part, Range | Choices)}
    if not searched:
        raise ArgumentError(
            f"{path}: nothing to choose: give a field {{low = .., high = ..}} or choices"
        )
    return Space(searched, {f: v for f, v in parts.items() if f not in searched}, path)


def _parse(field: str, entry: Any) -> Any:
    """Parse a range, choices or a fixed value. Raises: ArgumentError."""
    if field in NOT_SEARCHED:
        raise ArgumentError(f"{field} is not for a sweep to choose: {NOT_SEARCHED[field]}")
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


def _choices(field: str, values: Any) -> Choices:
    if not isinstance(values, list) or not values:
        raise ArgumentError(f"{field}: choices must be a list with something in it")
    choices = Choices(tuple(_value(field, value) for value in values))
    if len(set(choices.labels())) < len(values):
        raise ArgumentError(f"{field}: a choice stands there twice")
    return choices


def _range(field: str, low: Any, high: Any, log: Any = False, step: Any = None) -> Range:
    if FIELDS[field] not in NUMERIC:
        raise ArgumentError(f"{field} has no range: give {{choices = [..]}}")
    low, high = _value(field, low), _value(field, high)
    if not isinstance(log, bool):
        raise ArgumentError(f"{field}: log is true or false")
    if step is not None:
        step = _value(field, step)
        if step <= 0:
            raise ArgumentError(f"{field}: step is {step}: give more than 0")
        if log:
            raise ArgumentError(f"{field}: give log or step, not both")
        if 0 < high - low < step:
            raise ArgumentError(f"{field}: step is {step}: give at most high - low")
        last = low + int((high - low) / step * (1 + 1e-12)) * step
        high = high if abs(high - last) < 1e-9 * step else last  # only rounding is between
    if low >= high:
        raise ArgumentError(f"{field}: low is {low} and high is {high}: low must be less")
    if log and low <= 0:
        raise ArgumentError(f"{field}: low is {low}: on a logarithm's scale give more than 0")
    return Range(low, high, log, step)


def _value(field: str, value: Any) -> Any:
    """Convert a value to the field's type. Raises: ArgumentError."""
    match FIELDS[field]:
        case "a whole number" if type(value) is int:
            return value
        case "a number" if type(value) in (int, float) and isfinite(value):
            return float(value)
        case "a word" if isinstance(value, str):
            return value
        case "true or false" if isinstance(value, bool):
            return value
        case "a list of widths" if isinstance(value, list) and all(type(w) is int for w in value):
            return tuple(value)
    raise ArgumentError(f"{field}: {value!r} is not {FIELDS[field]}")


def _label(value: Any) -> str | float:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    label: str | float = value
    return label
