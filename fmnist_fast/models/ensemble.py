"""Several models that answer as one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArgumentError
from ..kernels.interface import Floats
from ..nn.calibration import TARGET_PRECISION, confidence_threshold
from ..nn.network import check_labels
from .model import FORMAT_VERSION as MODEL_VERSION
from .model import Model
from .safetensors_io import replace_model, serialize

__all__ = ["FORMAT_VERSION", "Ensemble", "members_of", "single_member"]

# Above that of single models, so that what knows no ensembles says that their files are newer.
FORMAT_VERSION = 3

# What all members must have alike, as users call it.
_ALIKE = {
    "class_names": "class names",
    "input_shape": "an input shape",
    "dataset_checksum": "a data set",
}

# What a file says of all members at once.
_SAID_ONCE = ("class_names", "dataset", "input")


@dataclass(frozen=True)
class Ensemble:
    """Models that answer as one: the mean of the probabilities that each would give.

    members : one or more, of one data set; their networks may differ, also in dtype.
    threshold : an answer less probable is "not sure"; None: not known. metrics : figures measured
    at the end.
    Raises: ArgumentError if the members do not go together.
    """

    members: tuple[Model, ...]
    threshold: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members:
            raise ArgumentError("an ensemble has no members: give one model or more")
        for number, member in enumerate(self.members, start=1):
            if not isinstance(member, Model):
                raise ArgumentError(
                    f"member {number} of an ensemble is {type(member).__name__}: give models"
                )
            for name, what in _ALIKE.items():
                if getattr(member, name) != getattr(self, name):
                    raise ArgumentError(
                        f"member {number} of an ensemble has {what} other than member 1's: give "
                        "models that were trained on one data set"
                    )

    @classmethod
    def from_state(
        cls,
        description: Mapping[str, Any],
        tensors: Mapping[str, NDArray],
        backend: str = "auto",
        threads: int | None = None,
    ) -> "Ensemble":
        """The ensemble that describe() and tensors() gave these of.

        Raises: KeyError, TypeError, ValueError or OverflowError that says what does not fit;
        BackendUnavailable.
        """
        entries, threshold = description["members"], description["calibration"]["threshold"]
        if not isinstance(entries, list):
            raise TypeError
        if threshold is not None and not 0 <= float(threshold) <= 1:
            raise ValueError(f"threshold {threshold}")
        own = [_of_member(tensors, number) for number in range(len(entries))]
        if sum(map(len, own)) != len(tensors):
            raise ValueError(f"it holds tensors of other members than its {len(entries)}")
        members = []
        for number, (entry, arrays) in enumerate(zip(entries, own), start=1):
            if entry["format_version"] != MODEL_VERSION:
                raise ValueError(f"member {number} has format version {entry['format_version']}")
            members.append(Model.from_state(entry, arrays, backend, threads))
        threshold = None if threshold is None else float(threshold)
        ensemble = cls(tuple(members), threshold, dict(description["metrics"]))
        said = ensemble.describe()
        for part in _SAID_ONCE:
            if description[part] != said[part]:
                raise ValueError(f"its {part} is not that of its members")
        return ensemble

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for every class."""
        return self.members[0].class_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row as the data set has it: (28, 28) for images, (i,) for a table."""
        return self.members[0].input_shape

    @property
    def dataset_name(self) -> str:
        """What the members were trained on."""
        return self.members[0].dataset_name

    @property
    def dataset_checksum(self) -> str:
        """Tells it apart from other data sets, whatever their names."""
        return self.members[0].dataset_checksum

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Probability of every class, (n, k), in the widest dtype of the members; x as for
        Model.predict_proba.

        (1/members) sum p_member, in float64 and in the members' order.
        Source: Hansen, Salamon (1990); Lakshminarayanan, Pritzel, Blundell (2017), section 2.4.
        Raises: ArgumentError, as Network.predict_proba.
        """
        said = [member.predict_proba(x) for member in self.members]
        mean_nk = np.zeros(said[0].shape)
        for probability_nk in said:
            mean_nk += probability_nk
        mean_nk /= len(said)
        out_nk: Floats = mean_nk.astype(np.result_type(*said))
        return out_nk

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The most probable class of every row, (n,); `class_names` has their names."""
        labels_n: NDArray[np.int64] = self.predict_proba(x).argmax(axis=1)
        return labels_n

    def with_threshold(
        self, x: ArrayLike, labels: ArrayLike, target_precision: float = TARGET_PRECISION
    ) -> "Ensemble":
        """The same ensemble with a confidence threshold fitted on held-out rows.

        x : as for predict_proba. labels : (n,), each in 0..k-1. target_precision : fraction of the
        confident predictions that must be correct.
        """
        probability_nk = self.predict_proba(x)
        labels_n = check_labels(labels, len(probability_nk), len(self.class_names), name="labels")
        hit_n = probability_nk.argmax(axis=1) == labels_n
        return replace(
            self,
            threshold=confidence_threshold(probability_nk.max(axis=1), hit_n, target_precision),
        )

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the file of the ensemble, as Model.save writes that of a model."""
        content, name = self.to_bytes(), self.dataset_name
        replace_model(Path(path), content, name, self.dataset_checksum, force=force)

    def to_bytes(self) -> bytes:
        """The content of the file."""
        return serialize(self.describe(), self.tensors())

    def tensors(self) -> dict[str, Floats]:
        """The weights of all members under the names that they have in the file."""
        return {
            f"{_prefix(number)}{name}": array
            for number, member in enumerate(self.members)
            for name, array in member.tensors().items()
        }

    def describe(self) -> dict[str, Any]:
        """What the file says besides the weights. members : what their own files would say."""
        return {
            "format_version": FORMAT_VERSION,
            "input": {"shape": list(self.input_shape)},
            "class_names": list(self.class_names),
            "calibration": {"threshold": self.threshold},
            "dataset": {"name": self.dataset_name, "checksum": self.dataset_checksum},
            "members": [member.describe() for member in self.members],
            "metrics": dict(self.metrics),
        }


def members_of(model: Model | Ensemble) -> tuple[Model, ...]:
    """The models whose mean answers; a model is the mean of itself."""
    return model.members if isinstance(model, Ensemble) else (model,)


def single_member(model: Model | Ensemble, name: str | Path, what: str) -> Model:
    """The only model of what a file holds. name : of the file. what : needs one network.

    Raises: ArgumentError if there are several.
    """
    members = members_of(model)
    if len(members) > 1:
        raise ArgumentError(
            f"{name} is an ensemble of {len(members)} models, and {what} needs one network: "
            f"distil it with 'fmnist-fast train --teacher {name}'"
        )
    return members[0]


def _prefix(number: int) -> str:
    return f"members.{number}."


def _of_member(tensors: Mapping[str, NDArray], number: int) -> dict[str, NDArray]:
    """Those of one member, under the names that they would have in its own file."""
    prefix = _prefix(number)
    return {
        name.removeprefix(prefix): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
