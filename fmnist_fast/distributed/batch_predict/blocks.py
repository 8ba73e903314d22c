"""Blocks of inputs: small dataclasses that are sent to workers and stored as JSON."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import DamagedFileError, DataError


@dataclass(frozen=True)
class ImageFiles:
    """Image files. sizes : in bytes; -1 if a file is not there."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ArrayRows:
    """`rows` rows from row `begin` of an array in a file.

    shape : of a row. dtype : with byte order, as NumPy writes it. offset : of the array's first
    byte, after decompression. compression : None, "gzip" or "zip", which are read from the start.
    member : of a zip file.
    """

    path: str
    fingerprint: tuple[int, int]
    begin: int
    rows: int
    shape: tuple[int, ...]
    dtype: str
    offset: int
    compression: str | None = None
    member: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class RowGroups:
    """Row groups first..last-1 of a Parquet file: `rows` rows from row `begin`.

    column : of the inputs; None: the only ones that can be.
    """

    path: str
    fingerprint: tuple[int, int]
    begin: int
    rows: int
    first: int
    last: int
    column: str | None


@dataclass(frozen=True)
class DamagedFile:
    """A file of which nothing can be read: one row that has an error."""

    path: str
    error: str
    begin: int = 0
    rows: int = 1


Block: TypeAlias = "ImageFiles | ArrayRows | RowGroups | DamagedFile"
KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (ImageFiles, ArrayRows, RowGroups, DamagedFile)
}


@dataclass(frozen=True)
class Encoded:
    """Content of an image file, or why it has none."""

    content: bytes
    error: str = ""


@dataclass(frozen=True)
class Rows:
    """Rows of numbers (n, ...). errors : why some are missing, by row; those are 0."""

    rows: NDArray
    errors: dict[int, str] = field(default_factory=dict)


# Part of a block.
Chunk: TypeAlias = "Rows | list[Encoded]"


def row_count(block: Block) -> int:
    """Number of predictions of a block."""
    return len(block.paths) if isinstance(block, ImageFiles) else block.rows


def to_json(block: Block) -> str:
    """Serialize a block."""
    return json.dumps([type(block).__name__, asdict(block)])


def from_json(text: str) -> Block:
    """Invert to_json()."""
    kind, fields = json.loads(text)
    block: Block = KINDS[kind](
        **{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    )
    return block


def failed_rows(block: Block, error: str) -> Chunk:
    """Return the content of a block that cannot be read."""
    return [Encoded(b"", error)] * row_count(block)


@contextmanager
def damage_errors(name: str) -> Iterator[None]:
    """Convert whatever a parser raises for the content of a file to DamagedFileError, one line.

    name : of the file. Errors of opening it, and DataError, remain as they are.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of some 20 types: tokenize.TokenError, struct.error, ...
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if type(error) in (RuntimeError, NotImplementedError):  # encrypted, unknown compression
            raise DamagedFileError(f"{name} cannot be unpacked: {reason}; save it again") from error
        raise DamagedFileError(f"{name} is damaged: {reason}") from error


def fingerprint(path: str) -> tuple[int, int]:
    """Return the size of a file, and its modification time in ns. Raises: OSError."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def check_unchanged(block: ArrayRows | RowGroups, path: str) -> None:
    """Raise DataError if the file has changed since the block was made; OSError."""
    if fingerprint(path) != block.fingerprint:
        raise DataError(f"{block.path} has changed meanwhile")
