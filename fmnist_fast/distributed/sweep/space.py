"""What a sweep may choose from: ranges and choices for the fields of a recipe, in a TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from ...errors import ArgumentError, UserError
from ...training.config import TrainingConfig

__all__ = ["BUILT_IN", "Choices", "Range", "Space", "read_space"]

BUILT_IN = Path(__file__).with_name("space.toml")

# What a sweep may change, and whether it is whole numbers, numbers, or only choices.
_WHOLE = ("epochs", "batch_size", "ema_epochs")
_NUMBERS = ("lr", "l2", "weight_decay", "label_smoothing", "dropout")
_CHOSEN = ("hidden", "schedule", "hflip")
_FIELDS = (*_WHOLE, *_NUMBERS, *_CHOSEN)

# What is to be given of a field.
_GIVE = "{}: give {{low = .., high = ..}} with log or step, or {{choices = [..]}}"

# Why others are not among them.
_OTHERS = {
    "seed": "give --seed, and --seeds for several a trial",
    "validation": "all trials must be judged on the same rows",
    "time_budget": "then the clock would decide; give epochs",
}


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included. step : only every so many; log : alike on the
    logarithm's scale. Of whole numbers if `low` is an int.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value there is."""
        return self.low, self.high


@dataclass(frozen=True)
class Choices:
    """One of these: numbers, words, or tuples of widths."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them."""
        return self.values

    def names(self) -> tuple[str | float, ...]:
        """The same as a study can hold them: (128, 64) is "128,64", () is "none"."""
        return tuple(map(_name, self.values))

    def called(self, name: str | float) -> Any:
        """The value of that name."""
        return self.values[self.names().index(name)]


Part: TypeAlias = Range | Choices


@dataclass(frozen=True)
class Space:
    """searched : what is chosen anew for every trial, by field, in the order of names.
    fixed : fields that are alike in all of them, but other than the preset's. source : the file
    that says so.
    """

    searched: Mapping[str, Part]
    fixed: Mapping[str, Any]
    source: Path = BUILT_IN

    def settings(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of a recipe, from what a study calls them."""
        chosen = {}
        for field, part in self.searched.items():
            value = params[field]
            chosen[field] = part.called(value) if isinstance(part, Choices) else value
        return {**self.fixed, **chosen}

    def check(self, base: TrainingConfig, rows: int, classes: int) -> None:
        """Raise ArgumentError, naming the field, if any trial of this space could not be run."""
        try:
            self._check(base, rows, classes)
        except ArgumentError as error:
            if self.source == BUILT_IN:
                raise
            raise ArgumentError(f"{self.source}: {error}") from error

    def _check(self, base: TrainingConfig, rows: int, classes: int) -> None:
        base = replace(base, **self.fixed)
        base.check(rows, classes)
        for field, part in self.searched.items():
            for value in part.ends:
                replace(base, **{field: value}).check(rows, classes)
        highest = {f: max(p.ends) for f, p in self.searched.items() if f in _NUMBERS}
        replace(base, **highest).check(rows, classes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, for telling spaces apart."""
        searched = {field: asdict(part) for field, part in self.searched.items()}
        return {"searched": searched, "fixed": dict(self.fixed)}


def read_space(path: Path | None = None) -> Space:
    """The space in a TOML file; None: the built-in one.

    Raises: UserError, one line that names the file, the field and what is wrong.
    """
    path = path or BUILT_IN
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    searched: dict[str, Part] = {}
    fixed: dict[str, Any] = {}
    try:
        for field in sorted(entries):
            _check_name(field)
            value = entries[field]
            if isinstance(value, dict):
                searched[field] = _part(field, value)
            elif isinstance(value, list) and field != "hidden":
                raise ArgumentError(_GIVE.format(field))
            else:
                fixed[field] = _value(field, value)
        if not searched:
            raise ArgumentError("nothing to choose: give a field {low = .., high = ..} or choices")
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error
    return Space(searched, fixed, path)


def _check_name(field: str) -> None:
    if field in _OTHERS:
        raise ArgumentError(f"{field} is not for a sweep to choose: {_OTHERS[field]}")
    if field not in _FIELDS:
        raise ArgumentError(f"unknown field {field!r}: choose from {', '.join(_FIELDS)}")


def _part(field: str, entries: Mapping[str, Any]) -> Part:
    """A range or choices. Raises: ArgumentError."""
    if entries.keys() == {"choices"}:
        return _choices(field, entries["choices"])
    strange = entries.keys() - {"low", "high", "log", "step"}
    if strange or not {"low", "high"} <= entries.keys():
        raise ArgumentError(_GIVE.format(field))
    if field in _CHOSEN:
        raise ArgumentError(f"{field} has no range: give {{choices = [..]}}")
    return _range(field, entries)


def _choices(field: str, values: Any) -> Choices:
    if not isinstance(values, list) or not values:
        raise ArgumentError(f"{field}: choices must be a list with something in it")
    chosen = tuple(_value(field, value) for value in values)
    if len({_name(value) for value in chosen}) < len(chosen):
        raise ArgumentError(f"{field}: a choice stands there twice")
    return Choices(chosen)


def _range(field: str, entries: Mapping[str, Any]) -> Range:
    low, high = (_value(field, entries[end]) for end in ("low", "high"))
    log, step = entries.get("log", False), entries.get("step")
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
        high = _last_of_steps(low, high, step)
    if low >= high:
        raise ArgumentError(f"{field}: low is {low} and high is {high}: low must be less")
    if log and low <= 0:
        raise ArgumentError(f"{field}: low is {low}: on a logarithm's scale give more than 0")
    return Range(low, high, log, step)


def _last_of_steps(low: float, high: float, step: float) -> float:
    """The greatest number that steps reach; `high` itself where only rounding is between."""
    last = low + int((high - low) / step * (1 + 1e-12)) * step
    return high if abs(high - last) < 1e-9 * step else last


def _value(field: str, value: Any) -> Any:
    """A value of that field, of the type that the recipe has. Raises: ArgumentError."""
    if field in _WHOLE and type(value) is int:
        return value
    if field in _NUMBERS and type(value) in (int, float) and isfinite(value):
        return float(value)
    if field == "schedule" and isinstance(value, str):
        return value
    if field == "hflip" and isinstance(value, bool):
        return value
    if field == "hidden" and isinstance(value, list) and all(type(w) is int for w in value):
        return tuple(value)
    kind = (
        "a whole number"
        if field in _WHOLE
        else "a number"
        if field in _NUMBERS
        else {"schedule": "a word", "hflip": "true or false", "hidden": "a list of widths"}[field]
    )
    raise ArgumentError(f"{field}: {value!r} is not {kind}")


def _name(value: Any) -> str | float:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    name: str | float = value
    return name
