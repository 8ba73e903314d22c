"""What runs in a worker of a cluster: it says what it is, and has the data sets that it was given.

Loads nothing of Dask's or Optuna's: a worker has the first already, and needs nothing of the other.
"""

import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..data import fashion_mnist
from ..data.augment import hflip
from ..data.cache import Arrays, find_cached, load_or_create
from ..data.datasets import Dataset
from ..errors import DataError
from ..nn.backend import get_backend, instruction_set_of, unavailable_reason

__all__ = ["DataKey", "arrays_of", "dataset_of", "describe", "has_data", "receive"]

# Packages that OpenCV comes in.
OPENCV = (
    *("opencv-python-headless", "opencv-python"),
    *("opencv-contrib-python-headless", "opencv-contrib-python"),
)

# Data sets that this process has found or was given, by checksum.
_DATASETS: dict[str, Dataset] = {}


@dataclass(frozen=True)
class DataKey:
    """What a data set is called, in place of its arrays. checksum : of those."""

    name: str
    checksum: str
    class_names: tuple[str, ...]
    hflip_invariant: bool

    @classmethod
    def of(cls, dataset: Dataset) -> "DataKey":
        return cls(dataset.name, dataset.checksum, dataset.class_names, dataset.hflip_invariant)

    @property
    def cache_key(self) -> str:
        """What the user's cache calls it."""
        return f"set-{self.checksum[:32]}"


def describe(backend: str) -> dict[str, Any]:
    """What decides whether this process trains, and cuts out pictures, as another does.

    backend : by name.
    """
    from .. import __version__

    why_not = unavailable_reason(backend)
    return {
        "fmnist_fast": __version__,
        "backend": backend if why_not is None else f"no {backend}: it {why_not}",
        "instruction_set": None if why_not else instruction_set_of(get_backend(backend)),
        "opencv": _version(*OPENCV),
        "pillow": _version("pillow"),
        "host": socket.gethostname(),
    }


def _version(*names: str) -> str | None:
    """Of the first of these packages that is installed. It is not loaded for that."""
    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def has_data(key: DataKey) -> bool:
    """Whether this machine has the data set already."""
    return _found(key) is not None


def receive(key: DataKey, arrays: Arrays) -> None:
    """Keep a data set in the cache of this machine, or if that cannot be, in this process."""
    kept, _ = load_or_create(key.cache_key, lambda: arrays, key.checksum)
    _keep(key, kept)


def arrays_of(dataset: Dataset) -> Arrays:
    """The arrays alone."""
    return Arrays(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)


def dataset_of(key: DataKey, *, x_train_with_flips: bool) -> Dataset:
    """The data set, memory-mapped where that can be.

    x_train_with_flips : with its horizontal flips, which are made once for all processes of this
    machine. Raises: DataError if it is not here.
    """
    dataset = _found(key)
    if dataset is None:
        raise DataError(f"the data set {key.name} is no longer on {socket.gethostname()}")
    if x_train_with_flips and dataset.x_train_with_flips is None:
        one_way = arrays_of(dataset)
        arrays, _ = load_or_create(
            f"both-ways-{key.checksum[:32]}", lambda: _with_mirror_images(one_way)
        )
        dataset = replace(dataset, x_train_with_flips=arrays.x_train)
        _DATASETS[key.checksum] = dataset
    return dataset


def _with_mirror_images(arrays: Arrays) -> Arrays:
    y_train = np.concatenate([arrays.y_train, arrays.y_train])
    return arrays._replace(x_train=hflip(arrays.x_train), y_train=y_train)


def _found(key: DataKey) -> Dataset | None:
    if key.checksum in _DATASETS:
        return _DATASETS[key.checksum]
    kept = find_cached(key.cache_key, key.checksum)
    if kept:
        return _keep(key, kept[0])
    if key.checksum == fashion_mnist.CHECKSUM:
        try:
            return _keep(key, fashion_mnist.load(download=False))
        except DataError:
            return None
    return None


def _keep(key: DataKey, arrays: Arrays) -> Dataset:
    dataset = Dataset(key.name, *arrays, key.class_names, key.checksum, key.hflip_invariant)
    _DATASETS[key.checksum] = dataset
    return dataset
