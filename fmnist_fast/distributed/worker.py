"""Runs in worker processes: describes them, and keeps the data sets that they receive.

Imports neither Dask nor Optuna: a worker has the first, and needs nothing of the second.
"""

import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from .. import __version__
from ..data import fashion_mnist
from ..data.augment import hflip
from ..data.cache import Arrays, find_cached, load_or_create
from ..data.datasets import Dataset
from ..errors import DataError
from ..nn.backend import get_backend, instruction_set_of, unavailable_reason

# Distributions of OpenCV on PyPI.
OPENCV = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)

# Data sets of this process, by checksum.
_DATASETS: dict[str, Dataset] = {}


@dataclass(frozen=True)
class DataKey:
    """Identity and metadata of a data set, without its arrays."""

    name: str
    checksum: str
    class_names: tuple[str, ...]
    hflip_invariant: bool

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "DataKey":
        return cls(**{field.name: getattr(dataset, field.name) for field in fields(cls)})

    @property
    def cache_key(self) -> str:
        """Key of the data set in the user's cache."""
        return f"set-{self.checksum[:32]}"


def describe(backend: str) -> dict[str, Any]:
    """Describe what must be equal for two processes to compute equal bits with a backend."""
    error = unavailable_reason(backend)
    return {
        "fmnist_fast": __version__,
        "backend": backend if error is None else f"no {backend}: it {error}",
        "instruction_set": None if error else instruction_set_of(get_backend(backend)),
        "opencv": _version(*OPENCV),
        "pillow": _version("pillow"),
    }


def _version(*distributions: str) -> str | None:
    """Version of the first of them that is installed, without importing it."""
    for name in distributions:
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def has_data(key: DataKey) -> bool:
    """Whether this machine has the data set."""
    return _find(key) is not None


def receive(key: DataKey, arrays: Arrays) -> None:
    """Store a data set in the cache of this machine, or in this process if that fails."""
    kept, _ = load_or_create(key.cache_key, lambda: arrays, key.checksum)
    _keep(key, kept)


def arrays_of(dataset: Dataset) -> Arrays:
    """Return the four arrays of a data set."""
    return Arrays(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)


def find_dataset(key: DataKey, *, x_train_with_flips: bool) -> Dataset:
    """Return the data set, memory-mapped where possible.

    x_train_with_flips : with its horizontal flips, computed once for all processes of a machine.
    Raises: DataError if it is not here.
    """
    dataset = _find(key)
    if dataset is None:
        raise DataError(f"the data set {key.name} is no longer on {socket.gethostname()}")
    if x_train_with_flips and dataset.x_train_with_flips is None:
        plain = arrays_of(dataset)
        arrays, _ = load_or_create(f"both-ways-{key.checksum[:32]}", lambda: _with_flips(plain))
        dataset = replace(dataset, x_train_with_flips=arrays.x_train)
        _DATASETS[key.checksum] = dataset
    return dataset


def _with_flips(arrays: Arrays) -> Arrays:
    y_train = np.concatenate([arrays.y_train, arrays.y_train])
    return arrays._replace(x_train=hflip(arrays.x_train), y_train=y_train)


def _find(key: DataKey) -> Dataset | None:
    if key.checksum in _DATASETS:
        return _DATASETS[key.checksum]
    kept = find_cached(key.cache_key, key.checksum)
    if kept:
        return _keep(key, kept[0])
    if key.checksum == fashion_mnist.CHECKSUM:
        with suppress(DataError):
            return _keep(key, fashion_mnist.load(download=False))
    return None


def _keep(key: DataKey, arrays: Arrays) -> Dataset:
    dataset = Dataset(**asdict(key), **arrays._asdict())
    _DATASETS[key.checksum] = dataset
    return dataset
