"""A trained network with its metadata, and the base class of models and ensembles."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._files import to_path, write_atomically
from ..kernels.interface import Floats, NetworkSpec, Params
from ..nn.calibration import scale_logits
from ..nn.network import Network
from .metadata import FORMAT_VERSION, Metadata
from .safetensors_io import Tensors, check_replaceable, serialize

# Far more than any network this package trains well; a file that claims more is damaged.
_MAX_WIDTH = 1 << 24

# Fields of NetworkSpec that a model file holds, besides the sizes; the others matter in training.
_ARCHITECTURE = ("activation", "loss", "dtype")


class BaseModel(ABC):
    """Methods that `Model` and `Ensemble` share."""

    dataset_name: str
    dataset_checksum: str

    @abstractmethod
    def predict_proba(self, x: ArrayLike) -> Floats:
        """Predict the probability of every class."""

    @abstractmethod
    def tensors(self) -> dict[str, Floats]:
        """Return the weights and biases by their names in the model file."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return the contents of the model file other than the tensors, as JSON types."""

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Predict the most probable class of every row.

        Parameters
        ----------
        x : array-like, shape (n, ...)
            Rows, as for `predict_proba`.

        Returns
        -------
        ndarray of int64, shape (n,)
            Class labels in ``0..k-1``, indices into `class_names`.

        Raises
        ------
        ArgumentError
            If `predict_proba` refuses `x`.
        """
        labels_n: NDArray[np.int64] = self.predict_proba(x).argmax(axis=1)
        return labels_n

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model file, atomically.

        An existing file is replaced when the new one is complete. The same model gives the same
        bytes.

        Parameters
        ----------
        path : str or Path
            Name of the file.
        force : bool, default=False
            Replace a model of another data set, or a file of another kind, too.

        Raises
        ------
        ModelFileError
            If such a file exists and `force` is False.
        OSError
            If the file cannot be written.
        """
        path = to_path(path, "path")
        if not force:
            check_replaceable(path, self.dataset_name, self.dataset_checksum)
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the content of the model file.

        Returns
        -------
        bytes
            A safetensors file.
        """
        return serialize(self.metadata(), self.tensors())


@dataclass(frozen=True)
class Model(BaseModel):
    """A trained network with its metadata.

    Attributes
    ----------
    network : Network
        Parameters and the backend that computes.
    class_names : tuple of str
        Name of each of the k classes.
    input_shape : tuple of int
        Shape of one row in the data set: ``(28, 28)`` for images, ``(i,)`` for a table.
    dataset_name : str
        Data set that the network was trained on.
    dataset_checksum : str
        SHA-256 of its contents; identifies it whatever its name.
    temperature : float
        Divisor of the logits, fitted on the validation rows.
    threshold : float or None
        Confidence threshold on the top probability; None if it is not known.
    training : mapping
        Training configuration, backend and instruction set.
    metrics : mapping
        Validation and test metrics, measured after training.
    """

    network: Network
    class_names: tuple[str, ...]
    input_shape: tuple[int, ...]
    dataset_name: str
    dataset_checksum: str
    temperature: float = 1.0
    threshold: float | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_state(
        cls, metadata: Metadata, tensors: Tensors, backend: str = "auto", threads: int | None = None
    ) -> "Model":
        """Build a model from its metadata and tensors.

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
        Model

        Raises
        ------
        KeyError, TypeError, ValueError, OverflowError
            If an entry or a tensor is missing or does not fit; the text names it.
        BackendUnavailable
            If the backend cannot run the network.
        """
        architecture, row = metadata["architecture"], metadata["input"]
        sizes = tuple(architecture["sizes"])
        if len(sizes) < 2 or not all(type(s) is int and 0 < s <= _MAX_WIDTH for s in sizes):
            raise ValueError(f"layer sizes {sizes}")
        spec = NetworkSpec(sizes, **{name: architecture[name] for name in _ARCHITECTURE})
        class_names, shape = tuple(metadata["class_names"]), tuple(row["shape"])
        calibration = metadata["calibration"]
        scale, temperature = float(row["scale"]), float(calibration["temperature"])
        if len(class_names) != sizes[-1] or not all(isinstance(name, str) for name in class_names):
            raise ValueError(f"{len(class_names)} class names for {sizes[-1]} classes")
        if not all(type(s) is int and s > 0 for s in shape) or prod(shape) != sizes[0]:
            raise ValueError(f"input shape {shape} for {sizes[0]} inputs")
        for name, value in (("input scale", scale), ("temperature", temperature)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"{name} {value}")
        params = _params(spec, tensors)
        _check_overflow(params, scale, temperature)
        return cls(
            network=Network.from_params(spec, params, scale, backend, threads),
            class_names=class_names,
            input_shape=shape,
            dataset_name=str(metadata["dataset"]["name"]),
            dataset_checksum=str(metadata["dataset"]["checksum"]),
            temperature=temperature,
            threshold=check_threshold(calibration["threshold"]),
            training=dict(metadata["training"]),
            metrics=dict(metadata["metrics"]),
        )

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Predict the probability of every class, calibrated by the temperature.

        Parameters
        ----------
        x : array-like, shape (n, 28, 28) or (n, i)
            uint8 pixels, or floats; floats must lie in 0..1 if the network was trained on pixels.

        Returns
        -------
        ndarray, shape (n, k)
            In the dtype of the network; rows sum to 1.

        Raises
        ------
        ArgumentError
            If `x` has another shape or dtype, or holds NaN or floats out of range.
        """
        return self.calibrated_network.predict_proba(x)

    @cached_property
    def calibrated_network(self) -> Network:
        """The network with the temperature folded into its last layer."""
        return replace(self.network, params=scale_logits(self.network.params, self.temperature))

    def tensors(self) -> dict[str, Floats]:
        """Return the weights and biases by their names in the model file.

        Returns
        -------
        dict of str to ndarray
            ``layers.0.weight`` of shape (i, o), ``layers.0.bias`` of shape (o,), and so on.
        """
        named: dict[str, Floats] = {}
        for depth, (weight_io, bias_o) in enumerate(zip(*self.network.params)):
            named |= {f"layers.{depth}.weight": weight_io, f"layers.{depth}.bias": bias_o}
        return named

    def metadata(self) -> dict[str, Any]:
        """Return the contents of the model file other than the tensors, as JSON types.

        Returns
        -------
        dict
            ``format_version``, ``architecture``, ``input``, ``class_names``, ``calibration``,
            ``dataset``, ``training`` and ``metrics``.
        """
        spec = self.network.spec
        return {
            "format_version": FORMAT_VERSION,
            "architecture": {
                "sizes": list(spec.sizes),
                **{name: getattr(spec, name) for name in _ARCHITECTURE},
            },
            "input": {"shape": list(self.input_shape), "scale": self.network.scale},
            "class_names": list(self.class_names),
            "calibration": {"temperature": self.temperature, "threshold": self.threshold},
            "dataset": {"name": self.dataset_name, "checksum": self.dataset_checksum},
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }


def check_threshold(threshold: Any) -> float | None:
    """Return the confidence threshold of a file as a float or None; ValueError if it is neither."""
    if threshold is None:
        return None
    if not 0 <= float(threshold) <= 1:
        raise ValueError(f"threshold {threshold}")
    return float(threshold)


def _params(spec: NetworkSpec, tensors: Tensors) -> Params:
    """Return the tensors of a file as parameters, their names, shapes and dtypes checked."""
    shapes: dict[str, tuple[int, ...]] = {}
    for depth, (i, o) in enumerate(spec.shapes):
        shapes |= {f"layers.{depth}.weight": (i, o), f"layers.{depth}.bias": (o,)}
    if shapes.keys() != tensors.keys():
        raise ValueError(f"it holds the tensors {', '.join(sorted(tensors)) or '(none)'}")
    for name, shape in shapes.items():
        array = tensors[name]
        if array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {spec.dtype} {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    arrays = [tensors[name] for name in shapes]  # weights and biases alternate
    return Params(tuple(arrays[::2]), tuple(arrays[1::2]))


def _check_overflow(params: Params, scale: float, temperature: float) -> None:
    """Raise ValueError if inputs of up to 255 * scale could overflow: predictions would be NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        first_io = params.weights[0]
        bound_i = np.full(len(first_io), 255 * scale, first_io.dtype)
        for weight_io, bias_o in zip(*scale_logits(params, temperature)):
            bound_i = bound_i @ np.abs(weight_io) + np.abs(bias_o)
    if not np.isfinite(bound_i).all():
        raise ValueError("its weights, scale and temperature overflow")
