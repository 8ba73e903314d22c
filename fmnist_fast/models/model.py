"""A trained network that knows what it was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..kernels.interface import Floats, NetworkSpec, Params
from ..nn.calibration import scale_logits
from ..nn.network import Network
from .safetensors_io import replace_model, serialize

__all__ = ["FORMAT_VERSION", "Model"]

# 2 added the calibration.
FORMAT_VERSION = 2

# Far more than any network this package trains well; a file that claims more is damaged.
_MAX_WIDTH = 1 << 24


@dataclass(frozen=True)
class Model:
    """A network that knows what it was trained on.

    input_shape : shape of one row as the data set has it: (28, 28) for images, (i,) for a table.
    temperature : logits are divided by it, so that probabilities mean what they say; it was fitted
    on the validation rows. threshold : an answer less probable is "not sure"; None: not known.
    training : the recipe, for whoever wants to repeat it. metrics : figures measured at the end.
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
        cls,
        description: Mapping[str, Any],
        tensors: Mapping[str, NDArray],
        backend: str = "auto",
        threads: int | None = None,
    ) -> "Model":
        """The model that describe() and tensors() gave these of.

        Raises: KeyError, TypeError, ValueError or OverflowError that says what does not fit;
        BackendUnavailable.
        """
        architecture, row = description["architecture"], description["input"]
        sizes = tuple(architecture["sizes"])
        if len(sizes) < 2 or not all(type(s) is int and 0 < s <= _MAX_WIDTH for s in sizes):
            raise ValueError(f"layer sizes {sizes}")
        spec = NetworkSpec(
            sizes,
            activation=architecture["activation"],
            loss=architecture["loss"],
            dtype=architecture["dtype"],
        )
        class_names, shape = tuple(description["class_names"]), tuple(row["shape"])
        scale = float(row["scale"])
        if len(class_names) != sizes[-1] or not all(isinstance(name, str) for name in class_names):
            raise ValueError(f"{len(class_names)} class names for {sizes[-1]} classes")
        if not all(type(s) is int and s > 0 for s in shape) or prod(shape) != sizes[0]:
            raise ValueError(f"input shape {shape} for {sizes[0]} inputs")
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"input scale {scale}")
        temperature, threshold = _calibration(description)
        return cls(
            Network.from_params(spec, _parameters(spec, tensors), scale, backend, threads),
            class_names,
            shape,
            str(description["dataset"]["name"]),
            str(description["dataset"]["checksum"]),
            temperature,
            threshold,
            dict(description["training"]),
            dict(description["metrics"]),
        )

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Probability of every class, (n, k). x : uint8 images (n, 28, 28) or (n, 784), or floats
        in 0..1. Raises: ArgumentError, as Network.predict_proba.
        """
        return self.calibrated_network.predict_proba(x)

    @cached_property
    def calibrated_network(self) -> Network:
        """The network whose last layer already gives the logits divided by the temperature."""
        return replace(self.network, params=scale_logits(self.network.params, self.temperature))

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The most probable class of every row, (n,); `class_names` has their names."""
        labels_n: NDArray[np.int64] = self.predict_proba(x).argmax(axis=1)
        return labels_n

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model file: the old one stays whole until the new one is on the disk.

        The same model gives the same bytes. Raises: ModelFileError if a model of another data set
        or another kind of file is there and force is False; OSError if it cannot be written.
        """
        content, name = self.to_bytes(), self.dataset_name
        replace_model(Path(path), content, name, self.dataset_checksum, force=force)

    def to_bytes(self) -> bytes:
        """The content of the model file."""
        return serialize(self.describe(), self.tensors())

    def tensors(self) -> dict[str, Floats]:
        """The weights under the names that they have in the file."""
        pairs = zip(*self.network.params)
        return {
            f"layers.{depth}.{kind}": array
            for depth, pair in enumerate(pairs)
            for kind, array in zip(("weight", "bias"), pair)
        }

    def describe(self) -> dict[str, Any]:
        """What the file says besides the weights."""
        spec = self.network.spec
        return {
            "format_version": FORMAT_VERSION,
            "architecture": {
                "sizes": list(spec.sizes),
                "activation": spec.activation,
                "loss": spec.loss,
                "dtype": spec.dtype,
            },
            "input": {"shape": list(self.input_shape), "scale": self.network.scale},
            "class_names": list(self.class_names),
            "calibration": {"temperature": self.temperature, "threshold": self.threshold},
            "dataset": {"name": self.dataset_name, "checksum": self.dataset_checksum},
            "training": dict(self.training),
            "metrics": dict(self.metrics),
        }


def _calibration(description: Mapping[str, Any]) -> tuple[float, float | None]:
    """Temperature and threshold; files of version 1 have none."""
    if description["format_version"] < 2:
        return 1.0, None
    entries = description["calibration"]
    temperature, threshold = float(entries["temperature"]), entries["threshold"]
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature {temperature}")
    if threshold is not None and not 0 <= float(threshold) <= 1:
        raise ValueError(f"threshold {threshold}")
    return temperature, None if threshold is None else float(threshold)


def _parameters(spec: NetworkSpec, tensors: Mapping[str, NDArray]) -> Params:
    shapes: dict[str, tuple[int, ...]] = {}
    for depth, (i, o) in enumerate(spec.shapes):
        shapes |= {f"layers.{depth}.weight": (i, o), f"layers.{depth}.bias": (o,)}
    if shapes.keys() != tensors.keys():
        raise ValueError(f"it holds the tensors {', '.join(sorted(tensors)) or '(none)'}")
    for name, shape in shapes.items():
        array = tensors[name]
        if array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, expected {spec.dtype} {shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values")
    depths = range(len(spec.shapes))
    return Params(
        tuple(tensors[f"layers.{depth}.weight"] for depth in depths),
        tuple(tensors[f"layers.{depth}.bias"] for depth in depths),
    )
