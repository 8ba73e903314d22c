"""Decoded data sets in the user's cache folder: memory-mapped, written once, never half."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from errno import ENOENT
from hashlib import sha256
from pathlib import Path
from time import time
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._files import sync_folder

__all__ = [
    "Arrays",
    "cache_folder",
    "load_or_create",
    "compute_checksum",
    "find_cached",
    "cache_path",
    "make_read_only",
]


# Far more than it takes to write a data set.
DRAFT_SECONDS = 3600


class Arrays(NamedTuple):
    """The four arrays of a data set: x (n, ...), y (n,)."""

    x_train: NDArray
    y_train: NDArray
    x_test: NDArray
    y_test: NDArray


def cache_folder() -> Path:
    """This package's folder in the user's cache; it may not exist yet.

    Raises: OSError if the user has no home folder.
    """
    from platformdirs import user_cache_path

    try:
        return user_cache_path("fmnist-fast")
    except RuntimeError as error:
        raise OSError(ENOENT, "there is no home folder") from error


def compute_checksum(arrays: Arrays) -> str:
    """sha256 over names, dtypes, shapes and contents: the same however the data is stored."""
    digest = sha256()
    for name, array in arrays._asdict().items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def make_read_only(arrays: Arrays) -> Arrays:
    """The same arrays, which nobody can write to from now on."""
    for array in arrays:
        array.setflags(write=False)
    return arrays


def load_or_create(
    key: str, make: Callable[[], Arrays], expected: str | None = None
) -> tuple[Arrays, str]:
    """The data set kept under `key`, made and kept now if it is not there; and its checksum.

    The arrays are read-only. key : names the data and all that its bits depend on. expected : the
    checksum that it must have; a copy that has another, or is damaged, is made again.
    A cache that cannot be written costs a warning and the time to make the set again.
    """
    kept = find_cached(key, expected)
    if kept is not None:
        return kept
    arrays = make_read_only(make())
    checksum = compute_checksum(arrays)
    try:
        _keep(key, arrays, checksum)
    except OSError as error:
        warnings.warn(
            f"the decoded data set could not be kept in the user's cache: "
            f"{error.strerror or error}; it will be decoded again next time",
            stacklevel=2,
        )
        return arrays, checksum
    return find_cached(key, expected) or (arrays, checksum)


def find_cached(key: str, expected: str | None = None) -> tuple[Arrays, str] | None:
    """The data set kept under `key`, read-only and memory-mapped, and its checksum.

    None if there is none, or if its contents do not have the checksum. Reading all of it costs
    35 ms for the 55 MB of Fashion-MNIST; training on a damaged copy would cost more.
    """
    try:
        folder = cache_path(key)
        # A memory map keeps its file open; a plain view of it is an ordinary read-only array.
        arrays = Arrays(
            *(np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in Arrays._fields)
        )
        checksum = (folder / "checksum").read_text()
    except (OSError, ValueError, EOFError):  # not there, or cut short by a full disk
        return None
    if checksum != (expected or checksum) or compute_checksum(arrays) != checksum:
        return None
    return arrays, checksum


def cache_path(key: str) -> Path:
    """Where the decoded set of that key is kept, if it is."""
    return cache_folder() / "decoded" / key


def _keep(key: str, arrays: Arrays, checksum: str) -> None:
    """Write the set beside its place, then rename the folder: it is there whole or not at all."""
    final = cache_path(key)
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_old_drafts(final.parent)
    draft = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=final.parent))
    try:
        for name, array in arrays._asdict().items():
            with open(draft / f"{name}.npy", "wb") as file:
                np.save(file, array)
                _sync(file)
        with open(draft / "checksum", "wb") as file:
            file.write(checksum.encode())
            _sync(file)
        sync_folder(draft)
        if final.is_dir() and find_cached(key) is None:  # damaged
            shutil.rmtree(final, ignore_errors=True)
        elif final.exists() and not final.is_dir():
            final.unlink()
        try:
            draft.rename(final)
        except OSError:
            if find_cached(key) is None:  # else another process was faster: its copy is the same
                raise
        sync_folder(final.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _remove_old_drafts(folder: Path) -> None:
    """Drafts that a killed process left; one that is being written is younger than this."""
    for draft in folder.glob(".*"):
        with suppress(OSError):  # another process removes it as well
            if time() - draft.stat().st_mtime > DRAFT_SECONDS:
                shutil.rmtree(draft, ignore_errors=True)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
