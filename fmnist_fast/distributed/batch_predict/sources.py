"""Input files, folders and lists of image files, split into blocks."""

import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from math import prod
from pathlib import Path

from ...data.idx import GZIP_ERRORS, open_idx
from ...errors import DamagedFileError, DataError
from ...vision.image_io import SUFFIXES
from .array_inputs import find_array, split_array
from .blocks import Block, DamagedFile, ImageFiles, fingerprint
from .table_inputs import split_table

# Blocks of image files: at least MIN_BLOCKS, so that there is work for all workers, of at most
# MAX_FILES files and MAX_BYTES, so that none takes long, or much memory.
MIN_BLOCKS, MAX_FILES, MAX_BYTES = 32, 512, 16 << 20

# First bytes of files of arrays.
MAGIC = {b"PAR1": "parquet", b"\x93NUM": "npy", b"PK\x03\x04": "npz", b"\0\0\x08": "idx"}


def kind_of(path: str) -> str:
    """Return image, idx, npy, npz or parquet, by name and first bytes. What is no file is an image,
    too.
    """
    if path.lower().endswith(SUFFIXES) or not os.path.isfile(path):
        return "image"
    with suppress(OSError, ValueError, *GZIP_ERRORS), open_idx(Path(path)) as file:
        begin = file.read(4)
        for magic, kind in MAGIC.items():
            if begin.startswith(magic):
                return kind
    return "image"


class Inputs:
    """Files in order, possibly millions: their names and fingerprints are in a temporary database,
    not in memory. Names are bytes, as the system has them, and sorted as such.

    inputs : files and folders; a folder stands for all image files in it and its subfolders, sorted
    by name. Raises: DataError if a folder has none; OSError if one cannot be read.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._files = sqlite3.connect("")  # a temporary file
        self._files.execute(
            "CREATE TABLE files (input INT, path BLOB, kind TEXT, size INT, mtime_ns INT)"
        )
        self._files.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", _files_of(inputs))

    def digest(self) -> str:
        """Return a hash of names, sizes and times."""
        digest = sha256()
        query = "SELECT path, kind, size, mtime_ns FROM files ORDER BY input, path"
        for path, *others in self._files.execute(query):
            digest.update(path + repr(others).encode() + b"\0")
        return digest.hexdigest()

    def blocks(self, input_shape: tuple[int, ...], column: str | None) -> Iterator[Block]:
        """Yield all inputs as blocks, in order. column : of .npz and Parquet files.

        Raises: DataError, one line; OSError.
        """
        query = "SELECT count(*) FROM files WHERE kind = 'image'"
        (images,) = self._files.execute(query).fetchone()
        most = min(max(1, images // MIN_BLOCKS), MAX_FILES)
        paths: list[str] = []
        sizes: list[int] = []
        total = 0
        query = "SELECT path, kind, size FROM files ORDER BY input, path"
        for name, kind, size in self._files.execute(query):
            path = os.fsdecode(name)
            if kind == "image":
                paths.append(path)
                sizes.append(size)
                total += max(0, size)
            if paths and (len(paths) == most or total >= MAX_BYTES or kind != "image"):
                yield ImageFiles(tuple(paths), tuple(sizes))
                paths, sizes, total = [], [], 0
            if kind != "image":
                yield from _split(path, kind, input_shape, column)
        if paths:
            yield ImageFiles(tuple(paths), tuple(sizes))

    def close(self) -> None:
        """Delete the temporary database."""
        self._files.close()


def _split(
    path: str, kind: str, input_shape: tuple[int, ...], column: str | None
) -> Iterator[Block]:
    """Split a file of arrays or a Parquet file into blocks; warn of a damaged one."""
    try:
        if kind == "parquet":
            yield from split_table(path, prod(input_shape), column)
        else:
            yield from split_array(find_array(path, kind, input_shape, column))
    except DamagedFileError as error:
        warnings.warn(str(error), stacklevel=2)
        yield DamagedFile(path, str(error))


def _files_of(inputs: Iterable[str]) -> Iterator[tuple[int, bytes, str, int, int]]:
    """Yield number of the input, name, kind, size and time of every file; -1 if it is not there."""
    for number, path in enumerate(inputs):
        for file in _images_in(path) if os.path.isdir(path) else [path]:
            try:
                status = fingerprint(file)
            except (OSError, ValueError):
                status = (-1, -1)
            yield number, os.fsencode(file), kind_of(file), *status


def _images_in(folder: str) -> Iterator[str]:
    def fail(error: OSError) -> None:  # os.walk() would leave the images out
        raise error

    empty = True
    for where, _, names in os.walk(folder, onerror=fail):
        for name in names:
            if name.lower().endswith(SUFFIXES):
                empty = False
                yield os.path.join(where, name)
    if empty:
        raise DataError(f"{folder} is a folder without images: name one with .png or .jpg files")
