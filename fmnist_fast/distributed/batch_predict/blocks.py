"""Blocks of inputs: small and plain, so that they go into a file, or to a worker anywhere."""

import json
import os
from dataclasses import asdict, dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError

__all__ = [
    "ArrayRows",
    "Block",
    "Chunk",
    "Encoded",
    "FlawedRows",
    "PictureFiles",
    "RowGroups",
    "Stamp",
    "block_of",
    "check_stamp",
    "number_of_rows",
    "stamp_of",
    "text_of",
]


@dataclass(frozen=True)
class Stamp:
    """Tells whether a file is the one that it was."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class PictureFiles:
    """Image files. sizes : in bytes; -1 of those that are not there, or not here."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ArrayRows:
    """Rows begin, begin + 1, ..., so many, of an array of numbers in a file.

    shape, dtype : of one row; dtype as NumPy writes it, with the order of bytes. packed : None, or
    "gzip" or "zip", which can only be read from the beginning. member : of the zip file. offset :
    of the array's first byte, in the file or in what is unpacked from it.
    """

    path: str
    stamp: Stamp
    begin: int
    rows: int
    shape: tuple[int, ...]
    dtype: str
    offset: int
    packed: str | None = None
    member: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class RowGroups:
    """Row groups first..last-1 of a Parquet file, whose rows are begin, begin + 1, ..., so many.

    field : the column that has the inputs; None: the only ones that can have them.
    """

    path: str
    stamp: Stamp
    begin: int
    rows: int
    first: int
    last: int
    field: str | None


Block: TypeAlias = "PictureFiles | ArrayRows | RowGroups"
KINDS: dict[str, type] = {kind.__name__: kind for kind in (PictureFiles, ArrayRows, RowGroups)}


@dataclass(frozen=True)
class Encoded:
    """A picture as its file has it, or why there is none."""

    content: bytes
    why_not: str = ""


@dataclass(frozen=True)
class FlawedRows:
    """Rows of numbers (n, ...), and why some are none, by row; those are 0."""

    rows: NDArray
    why_not: dict[int, str]


# Some of what is in a block: rows of numbers (n, ...), or pictures.
Chunk: TypeAlias = "NDArray | FlawedRows | list[Encoded]"


def number_of_rows(block: Block) -> int:
    """How many answers there will be."""
    return len(block.paths) if isinstance(block, PictureFiles) else block.rows


def text_of(block: Block) -> str:
    """A line that block_of() makes the block of."""
    return json.dumps([type(block).__name__, asdict(block)])


def block_of(text: str) -> Block:
    """The block that text_of() wrote."""
    kind, fields = json.loads(text)
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    if "stamp" in fields:
        fields["stamp"] = Stamp(**fields["stamp"])
    block: Block = KINDS[kind](**fields)
    return block


def stamp_of(path: str) -> Stamp:
    """Raises: OSError."""
    status = os.stat(path)
    return Stamp(status.st_size, status.st_mtime_ns)


def check_stamp(block: ArrayRows | RowGroups, path: str) -> None:
    """Raises: DataError if the file has changed since the block was made; OSError."""
    if stamp_of(path) != block.stamp:
        raise DataError(f"{block.path} has changed meanwhile")
