"""A trained model and its file: one safetensors file that says all about itself, without pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .calibration import calibrated
from .errors import BackendUnavailable, ModelFileError
from .files import write_atomically
from .kernels import Floats, Layers, Spec
from .network import Network

__all__ = [
    "FORMAT_VERSION",
    "SHIPPED",
    "SHIPPED_PHOTOS",
    "Model",
    "check_replaceable",
    "load_model",
]

# The model in the box: preset best, trained on Fashion-MNIST; models/MODEL_CARD.md describes it.
SHIPPED = Path(__file__).parent / "models" / "fashion-mnist.safetensors"

# The one for photographs: preset photos.
SHIPPED_PHOTOS = SHIPPED.with_name("photos.safetensors")

# 2 added the calibration.
FORMAT_VERSION = 2

# safetensors writes its metadata keys in random order, so all of it is one key with sorted JSON.
_KEY = "fmnist_fast"

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

    def predict_proba(self, x: ArrayLike) -> Floats:
        """Probability of every class, (n, k). x : uint8 images (n, 28, 28) or (n, 784), or floats
        in 0..1. Raises: ArgumentError, as Network.predict_proba.
        """
        return self._calibrated.predict_proba(x)

    @cached_property
    def _calibrated(self) -> Network:
        """The network whose last layer already gives the logits divided by the temperature."""
        return replace(self.network, params=calibrated(self.network.params, self.temperature))

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The most probable class of every row, (n,); `class_names` has their names."""
        labels_n: NDArray[np.int64] = self.predict_proba(x).argmax(axis=1)
        return labels_n

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the model file: the old one stays whole until the new one is on the disk.

        The same model gives the same bytes. Raises: ModelFileError if a model of another data set
        or another kind of file is there and force is False; OSError if it cannot be written.
        """
        path = Path(path)
        if not force:
            check_replaceable(path, self.dataset_name, self.dataset_checksum)
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The content of the model file."""
        from safetensors.numpy import save

        tensors = {}
        for name, array in _named(self.network.params):
            tensors[name] = np.ascontiguousarray(array)  # others are stored wrongly, silently
        description = json.dumps(self.describe(), sort_keys=True, allow_nan=False)
        return save(tensors, {_KEY: description})

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


def load_model(
    path: str | Path | None = None, backend: str = "auto", threads: int | None = None
) -> Model:
    """Read a model file and check all of it. path : None for the model that is in the package.

    Raises: ModelFileError, one line, if it is missing, damaged, foreign or of a newer format;
    BackendUnavailable if the backend cannot run it.
    """
    path = SHIPPED if path is None else Path(path)
    description, tensors = _read(path)
    version = description.get("format_version")
    if type(version) is not int or version < 1:
        raise ModelFileError(f"{path} is damaged: it has no format version")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} has format version {version}, newer than the {FORMAT_VERSION} that this "
            "fmnist-fast reads: upgrade fmnist-fast"
        )
    try:
        return _assemble(description, tensors, backend, threads)
    except BackendUnavailable:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{path} is damaged: {_reason(error)}") from error


def check_replaceable(path: Path, dataset_name: str, dataset_checksum: str) -> None:
    """Raise ModelFileError if `path` holds something that training must not replace."""
    if not path.exists():
        return
    try:
        description, _ = _read(path)
        there = description["dataset"]["name"], description["dataset"]["checksum"]
    except (ModelFileError, KeyError, TypeError):
        raise ModelFileError(
            f"{path} exists and is not a model of fmnist-fast: name another file, or use force "
            "(--force) to replace it"
        ) from None
    if there[1] != dataset_checksum:
        raise ModelFileError(
            f"{path} holds a model trained on {there[0]}, and this one is trained on "
            f"{dataset_name}: name another file, or use force (--force) to replace it"
        )


def _named(params: Layers) -> list[tuple[str, Floats]]:
    """Tensors under the names that they have in the file."""
    pairs = zip(params.weights, params.biases)
    return [
        (f"layers.{depth}.{kind}", array)
        for depth, pair in enumerate(pairs)
        for kind, array in zip(("weight", "bias"), pair)
    ]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Description and tensors, as the file has them."""
    from safetensors import SafetensorError, safe_open

    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise ModelFileError(f"{path} is {what}: give a file that 'fmnist-fast train' wrote")
    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}: train one with 'fmnist-fast train'")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ModelFileError(f"{path} is a safetensors file, but not one of fmnist-fast")
            description = json.loads(metadata[_KEY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        if _is_pickle(path):
            raise ModelFileError(
                f"{path} is a pickle, which is never opened here: load it in Python, as it was "
                "kept; an MLPClassifier has export()"
            ) from error
        raise ModelFileError(
            f"{path} is damaged or not a safetensors file: {_reason(error)}"
        ) from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {_reason(error)}") from error
    if not isinstance(description, dict):
        raise ModelFileError(f"{path} is damaged: its description is not an object")
    return description, tensors


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as pickle and joblib write it, and not with the size of the header of a
    safetensors file, of which the upper bytes are zero."""
    with path.open("rb") as file:
        begin = file.read(8)
    return begin[:1] == b"\x80" and any(begin[3:])


def _assemble(
    description: dict[str, Any], tensors: dict[str, NDArray], backend: str, threads: int | None
) -> Model:
    """The model, or KeyError, TypeError or ValueError that says what does not fit."""
    architecture, row = description["architecture"], description["input"]
    sizes = tuple(architecture["sizes"])
    if len(sizes) < 2 or not all(type(s) is int and 0 < s <= _MAX_WIDTH for s in sizes):
        raise ValueError(f"layer sizes {sizes}")
    spec = Spec(
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
    return Model(
        Network.of(spec, _parameters(spec, tensors), scale, backend, threads),
        class_names,
        shape,
        str(description["dataset"]["name"]),
        str(description["dataset"]["checksum"]),
        temperature,
        threshold,
        dict(description["training"]),
        dict(description["metrics"]),
    )


def _calibration(description: dict[str, Any]) -> tuple[float, float | None]:
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


def _parameters(spec: Spec, tensors: dict[str, NDArray]) -> Layers:
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
    return Layers(
        tuple(tensors[f"layers.{depth}.weight"] for depth in depths),
        tuple(tensors[f"layers.{depth}.bias"] for depth in depths),
    )


def _reason(error: Exception) -> str:
    """The error's text on one line."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    if isinstance(error, TypeError):
        return "a part of its description has the wrong type"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
