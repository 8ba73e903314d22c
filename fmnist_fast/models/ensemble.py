"""Ensembles: the mean of the probabilities of several models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ArgumentError
from ..kernels.interface import Floats
from ..nn.calibration import TARGET_PRECISION, confidence_threshold
from ..nn.network import check_labels
from .metadata import FORMAT_VERSION, Metadata
from .model import BaseModel, Model, check_threshold
from .safetensors_io import Tensors


@dataclass(frozen=True)
class Ensemble(BaseModel):
    """An ensemble of models that predicts the mean of their probabilities.

    Attributes
    ----------
    members : tuple of Model
        At least one model; all trained on one data set. Their networks may differ, also in dtype.
    threshold : float or None
        Confidence threshold on the top probability; None if it is not known.
    metrics : mapping
        Validation and test metrics, measured after training.

    Raises
    ------
    ArgumentError
        If there are no members, or their classes, input shapes or data sets differ.
    """

    members: tuple[Model, ...]
    threshold: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.members, Iterable):
            raise ArgumentError(f"members is {type(self.members).__name__}: give several models")
        object.__setattr__(self, "members", tuple(self.members))
        if not self.members:
            raise ArgumentError("an ensemble has no members: give one model or more")
        for number, member in enumerate(self.members, start=1):
            if not isinstance(member, Model):
                raise ArgumentError(f"member {number} is {type(member).__name__}: give models")
            for name in ("class_names", "input_shape", "dataset_checksum"):
                if getattr(member, name) != getattr(self, name):
                    raise ArgumentError(
                        f"member {number} of an ensemble has another {name} than member 1: give "
                        "models that were trained on one data set"
                    )

    @classmethod
    def from_state(
        cls, metadata: Metadata, tensors: Tensors, backend: str = "auto", threads: int | None = None
    ) -> "Ensemble":
        """Build an ensemble from its metadata and tensors.

        Parameters
        ----------
        metadata : mapping
            Result of `metadata`, of the current format version.
        tensors : mapping of str to ndarray
            Result of `tensors`.
        backend : str, default="auto"
            Backend that computes.
        threads : int, optional
            Number of threads; by default as many as the work is worth.

        Returns
        -------
        Ensemble

        Raises
        ------
        KeyError, TypeError, ValueError, OverflowError
            If an entry or a tensor is missing or does not fit; the text names it.
        BackendUnavailable
            If the backend cannot run a network.
        """
        entries = metadata["members"]
        if not isinstance(entries, list):
            raise TypeError
        threshold = check_threshold(metadata["calibration"]["threshold"])
        members = []
        for number, entry in enumerate(entries):
            if (version := entry["format_version"]) != FORMAT_VERSION:
                raise ValueError(f"member {number + 1} has format version {version}")
            prefix = f"members.{number}."
            own = {
                name.removeprefix(prefix): array
                for name, array in tensors.items()
                if name.startswith(prefix)
            }
            members.append(Model.from_state(entry, own, backend, threads))
        ensemble = cls(tuple(members), threshold, dict(metadata["metrics"]))
        if ensemble.tensors().keys() != tensors.keys():
            raise ValueError(f"it holds tensors of other members than its {len(entries)}")
        expected = ensemble.metadata()
        for key in ("class_names", "dataset", "input"):
            if metadata[key] != expected[key]:
                raise ValueError(f"its {key} is not that of its members")
        return ensemble

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each of the k classes."""
        return self.members[0].class_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row in the data set: ``(28, 28)`` for images, ``(i,)`` for a table."""
        return self.members[0].input_shape

    @property
    def dataset_name(self) -> str:  # type: ignore[override]
        """Data set that the members were trained on."""
        return self.members[0].dataset_name

    @property
    def dataset_checksum(self) -> str:  # type: ignore[override]
        """SHA-256 of its contents; identifies it whatever its name."""
        return self.members[0].dataset_checksum

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Predict the mean of the members' probabilities.

        Summed in float64, in the order of the members.

        Parameters
        ----------
        x : array-like, shape (n, 28, 28) or (n, i)
            Rows, as for `Model.predict_proba`.

        Returns
        -------
        ndarray, shape (n, k)
            In the widest dtype of the members; rows sum to 1.

        Raises
        ------
        ArgumentError
            If `x` has another shape or dtype, or holds NaN or floats out of range.

        References
        ----------
        Hansen, Salamon (1990); Lakshminarayanan, Pritzel, Blundell (2017), section 2.4.
        """
        probabilities = [member.predict_proba(x) for member in self.members]
        mean_nk: Floats = sum(probabilities, np.zeros(probabilities[0].shape)) / len(probabilities)
        return mean_nk.astype(np.result_type(*probabilities))

    def with_threshold(
        self, x: ArrayLike, labels: ArrayLike, target_precision: float = TARGET_PRECISION
    ) -> "Ensemble":
        """Return the ensemble with a confidence threshold fitted on held-out rows.

        Parameters
        ----------
        x : array-like, shape (n, ...)
            Rows, as for `predict_proba`.
        labels : array-like of int, shape (n,)
            Class labels in ``0..k-1``.
        target_precision : float
            Fraction of the confident predictions that must be correct.

        Returns
        -------
        Ensemble
            Its threshold is None if no threshold reaches the target precision.

        Raises
        ------
        ArgumentError
            If `x`, `labels` or `target_precision` has a wrong shape, dtype or range.
        """
        if not (isinstance(target_precision, int | float) and 0 <= target_precision <= 1):
            raise ArgumentError(f"target_precision is {target_precision!r}: give 0 to 1")
        probability_nk = self.predict_proba(x)
        if not len(probability_nk):
            raise ArgumentError("x has no rows: give at least one")
        labels_n = check_labels(labels, len(probability_nk), len(self.class_names), name="labels")
        hit_n = probability_nk.argmax(axis=1) == labels_n
        threshold = confidence_threshold(probability_nk.max(axis=1), hit_n, target_precision)
        return replace(self, threshold=threshold)

    def tensors(self) -> dict[str, Floats]:
        """Return the weights and biases of all members by their names in the model file.

        Returns
        -------
        dict of str to ndarray
            The tensors of each member, their names behind ``members.0.``, ``members.1.``, ...
        """
        return {
            f"members.{number}.{name}": array
            for number, member in enumerate(self.members)
            for name, array in member.tensors().items()
        }

    def metadata(self) -> dict[str, Any]:
        """Return the contents of the model file other than the tensors, as JSON types.

        Returns
        -------
        dict
            ``format_version``, ``input``, ``class_names``, ``calibration``, ``dataset``,
            ``metrics`` and ``members``, a list of the metadata of each member.
        """
        return {
            "format_version": FORMAT_VERSION,
            "input": {"shape": list(self.input_shape)},
            "class_names": list(self.class_names),
            "calibration": {"threshold": self.threshold},
            "dataset": {"name": self.dataset_name, "checksum": self.dataset_checksum},
            "members": [member.metadata() for member in self.members],
            "metrics": dict(self.metrics),
        }


def members_of(model: Model | Ensemble) -> tuple[Model, ...]:
    """Return the members of an ensemble, or the model itself as the only one."""
    return model.members if isinstance(model, Ensemble) else (model,)


def single_member(model: Model | Ensemble, name: str | Path, purpose: str) -> Model:
    """Return the only network of a model file; ArgumentError if it has several.

    name : of the file. purpose : what needs a single network.
    """
    members = members_of(model)
    if len(members) > 1:
        raise ArgumentError(
            f"{name} is an ensemble of {len(members)} models, and {purpose} needs one network: "
            f"distil it with 'fmnist-fast train --teacher {name}'"
        )
    return members[0]
