"""Data sets: by name, from a folder of IDX files, or from an .npz file."""

import os
import warnings
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from .._files import to_path
from ..errors import ArgumentError, DataError
from . import fashion_mnist, synthetic
from .cache import Arrays, compute_checksum, load_or_create, make_read_only

DATASET_NAMES = ("auto", "fashion-mnist", "synthetic")

MAX_CLASSES = 256


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set.

    The arrays are not copied: they must not be changed while a network is trained on them.

    Attributes
    ----------
    name : str
        Name of the data set, or of its folder or file.
    x_train, x_test : ndarray of uint8, float32 or float64, shape (n, height, width) or (n, i)
        Images or rows; read-only.
    y_train, y_test : ndarray of int, shape (n,)
        Class labels in ``0..k-1``.
    class_names : tuple of str
        Name of each of the k classes.
    checksum : str
        SHA-256 of the contents; identifies the data set whatever its name.
    hflip_invariant : bool
        Whether a horizontal flip keeps the class: true for clothes, false for digits.
    x_train_with_flips : ndarray or None, shape (2n, height, width)
        `x_train` followed by its horizontal flips, if they were computed already.

    Raises
    ------
    ArgumentError
        If the parts do not fit together, or one has no rows.
    """

    name: str
    x_train: NDArray
    y_train: NDArray[np.integer]
    x_test: NDArray
    y_test: NDArray[np.integer]
    class_names: tuple[str, ...]
    checksum: str
    hflip_invariant: bool = False
    x_train_with_flips: NDArray | None = None

    def __post_init__(self) -> None:
        """Raise ArgumentError for parts that do not fit together; values are checked later."""
        for x_name, y_name in (("x_train", "y_train"), ("x_test", "y_test")):
            x, labels = getattr(self, x_name), getattr(self, y_name)
            if not isinstance(x, np.ndarray) or x.ndim < 2:
                found = f"has shape {x.shape}" if isinstance(x, np.ndarray) else f"is {type(x)}"
                raise ArgumentError(f"{x_name} {found}: give an array of rows, (n, ...)")
            if not len(x):
                raise ArgumentError(f"{x_name} has no rows: give at least one")
            if np.shape(labels) != (len(x),):
                raise ArgumentError(
                    f"{y_name} has shape {np.shape(labels)}: give one label a row, ({len(x)},)"
                )
        if prod(self.x_train.shape[1:]) != prod(self.x_test.shape[1:]):
            raise ArgumentError(
                f"x_test has rows of shape {self.x_test.shape[1:]}: give {self.x_train.shape[1:]}, "
                "as x_train has"
            )
        if not isinstance(self.class_names, tuple | list) or not self.class_names:
            raise ArgumentError(f"class_names is {self.class_names!r}: give a name for every class")
        flips = self.x_train_with_flips
        if flips is not None and np.shape(flips)[:1] != (2 * len(self.x_train),):
            raise ArgumentError("x_train_with_flips must be x_train, followed by its flips")


def load_dataset(
    name: str | Path = "auto", data_dir: str | Path | None = None, *, download: bool = True
) -> Dataset:
    """Load a data set by name, from a folder of IDX files, or from an .npz file.

    Parameters
    ----------
    name : str or Path, default="auto"
        ``"fashion-mnist"``; ``"synthetic"``, drawn by this package; ``"auto"``, Fashion-MNIST if it
        is available, else synthetic, with a warning; a folder of the four IDX files (gzip or
        uncompressed, any image size, up to 256 classes); or an .npz file with the arrays
        ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
    data_dir : str or Path, optional
        Folder of Fashion-MNIST's files, searched before ``$FMNIST_FAST_DATA``, the user's cache and
        the network.
    download : bool, default=True
        Whether Fashion-MNIST may be downloaded.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the data set is missing or damaged; one line that says what to do. Only ``"auto"`` falls
        back to another data set.
    """
    path = to_path(name, "name")
    if str(path) in ("auto", "fashion-mnist"):
        folder = None if data_dir is None else to_path(data_dir, "data_dir")
        try:
            return _fashion_mnist(folder, download)
        except fashion_mnist.DatasetUnavailable as error:
            if str(path) != "auto":
                raise
            if fashion_mnist.first_failure():
                message = (
                    f"{error}. Falling back to synthetic, a data set drawn by this package, whose "
                    "accuracies say nothing about Fashion-MNIST"
                )
            else:
                message = "there is still no Fashion-MNIST here: falling back to synthetic"
            warnings.warn(message, stacklevel=2)
    if str(path) in ("auto", "synthetic"):
        return _synthetic()
    if os.path.isdir(path):  # False, and no exception, for names that are too long
        return _custom(path.resolve().name, str(path), fashion_mnist.read_folder(path))
    if os.path.isfile(path):
        return _custom(path.stem, str(path), _read_npz(path))
    raise DataError(
        f"there is no data set {str(name)!r}: give {', '.join(DATASET_NAMES)}, a folder of IDX "
        "files or an .npz file"
    )


def as_dataset(given: Any) -> Dataset:
    """Return a Dataset as it is, and (x_train, y_train, x_test, y_test) as one that has copies.

    Raises: ArgumentError that says what to give.
    """
    if isinstance(given, Dataset):
        return given
    fields = ", ".join(Arrays._fields)
    if not (isinstance(given, tuple | list) and len(given) == 4):
        count = f" of {len(given)}" if isinstance(given, tuple | list) else ""
        raise ArgumentError(
            f"dataset is {type(given).__name__}{count}: give load_dataset(...), or the arrays "
            f"({fields}); MLPClassifier takes rows and labels without a test set"
        )
    try:
        arrays = Arrays(*(np.array(values) for values in given))
        return _custom("arrays", "dataset", arrays)
    except ValueError as error:  # ragged lists; DataError
        raise ArgumentError(str(error)) from error


def _fashion_mnist(data_dir: Path | None, download: bool) -> Dataset:
    arrays = fashion_mnist.load(data_dir, download=download)
    names = fashion_mnist.CLASS_NAMES
    return Dataset("fashion-mnist", *arrays, names, fashion_mnist.CHECKSUM, True)


def _synthetic() -> Dataset:
    import PIL

    # NumPy draws the random numbers and Pillow the shapes: a new version may change the bits.
    key = f"synthetic-{synthetic.VERSION}-pillow-{PIL.__version__}-numpy-{np.__version__}"
    arrays, checksum = load_or_create(key, lambda: Arrays(*synthetic.draw_synthetic()))
    return Dataset("synthetic", *arrays, fashion_mnist.CLASS_NAMES, checksum, True)


def _read_npz(path: Path) -> Arrays:
    required = ", ".join(Arrays._fields)
    try:
        with open(path, "rb") as file:
            if not is_zipfile(file):
                raise ValueError("it is not a zip archive")
            with np.load(file, allow_pickle=False) as arrays:
                return Arrays(*(np.asarray(arrays[name]) for name in Arrays._fields))
    except Exception as error:  # zipfile and NumPy raise a dozen types for damaged files
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} is not an .npz file with {required}: {reason}") from error


def _custom(name: str, where: str, arrays: Arrays) -> Dataset:
    """Return a data set of the user's, checked. where : its path, for messages."""
    checked = Arrays(
        *_check_part(where, "train", arrays.x_train, arrays.y_train),
        *_check_part(where, "test", arrays.x_test, arrays.y_test),
    )
    x_train, y_train, x_test, y_test = make_read_only(checked)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise DataError(
            f"{where}: the training rows are {x_train.dtype} {x_train.shape[1:]}, the test rows "
            f"{x_test.dtype} {x_test.shape[1:]}: they must be equal"
        )
    name = name.encode("utf-8", "replace").decode()  # a path may contain undecodable bytes
    checksum = compute_checksum(checked)
    classes = int(max(y_train.max(), y_test.max())) + 1
    class_names = tuple(str(label) for label in range(classes))
    if checksum == fashion_mnist.CHECKSUM:
        name, class_names = "fashion-mnist", fashion_mnist.CLASS_NAMES
    return Dataset(name, *checked, class_names, checksum, checksum == fashion_mnist.CHECKSUM)


def _check_part(where: str, part: str, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Return x as uint8, float32 or float64 (n, ...) and y as uint8 (n,); DataError if invalid."""
    if x.dtype not in (np.uint8, np.float32, np.float64):
        raise DataError(f"{where}: x_{part} has dtype {x.dtype}: store uint8, float32 or float64")
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{where}: x_{part} has shape {x.shape}: it needs rows, (n, ...)")
    with np.errstate(over="ignore"):
        finite = x.dtype == np.uint8 or np.isfinite(x.astype(np.float32)).all()
    if not finite:
        raise DataError(
            f"{where}: x_{part} holds NaN, infinite values or numbers too large for float32: "
            "remove or replace them"
        )
    labels = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if labels.shape != (len(x),):
        raise DataError(f"{where}: y_{part} has shape {y.shape} for {len(x)} rows of x_{part}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: y_{part} has dtype {y.dtype}: labels must be integers")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise DataError(
            f"{where}: y_{part} holds labels from {labels.min()} to {labels.max()}: "
            f"they must lie in 0..{MAX_CLASSES - 1}"
        )
    return np.ascontiguousarray(x), labels.astype(np.uint8)
