"""Small data sets as IDX files, and one of them in the place of Fashion-MNIST."""

import gzip
import struct
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fmnist_fast.data import fashion_mnist
from fmnist_fast.data.cache import Arrays, compute_checksum
from fmnist_fast.data.datasets import Dataset, load_dataset
from fmnist_fast.errors import DataError

FILE_NAMES = tuple(fashion_mnist.FILES)


def idx_bytes(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


def random_arrays(seed=0, train=20, test=8, size=(6, 5), classes=10) -> Arrays:
    """uint8, with the highest label in the training part."""
    rng = np.random.default_rng(seed)
    y_train, y_test = (rng.integers(0, classes, n, dtype=np.uint8) for n in (train, test))
    y_train[0] = classes - 1
    x_train, x_test = (rng.integers(0, 256, (n, *size), dtype=np.uint8) for n in (train, test))
    return Arrays(x_train, y_train, x_test, y_test)


def write_folder(folder: Path, arrays: Arrays, plain=()) -> Path:
    """The four files, gzip but for those in `plain`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(FILE_NAMES, arrays, strict=True):
        if name in plain:
            (folder / name.removesuffix(".gz")).write_bytes(idx_bytes(array))
        else:
            (folder / name).write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    return folder


def constants_for(folder: Path, arrays: Arrays) -> dict:
    """Return the constants of `fashion_mnist` for the data set in the folder."""
    checksum = compute_checksum(arrays)
    return {
        "FILES": {name: sha256((folder / name).read_bytes()).hexdigest() for name in FILE_NAMES},
        "CHECKSUM": checksum,
        "CACHE_KEY": f"fashion-mnist-{checksum[:16]}",
    }


def same(one, other) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def arrays_of(dataset: Dataset) -> Arrays:
    return Arrays(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)


def error_message(*arguments) -> str:
    """Return the error message of `load_dataset`; check that it is one line."""
    with pytest.raises(DataError) as caught:
        load_dataset(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def load_quietly(*arguments) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(*arguments)
