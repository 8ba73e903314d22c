"""Inputs in arrays: IDX, .npy and .npz files, read in parts."""

import gzip
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from ...data.idx import open_idx, read_header
from ...errors import DamagedFileError, DataError
from .blocks import ArrayRows, Rows, check_unchanged, damage_errors, fingerprint

# A block takes a worker some 0.1 s; dispatching it costs a tenth of that.
BLOCK_BYTES = 32 << 20

# Read at a time.
CHUNK_BYTES = 4 << 20

# Upper bound for the compression ratio of gzip (zlib's documentation, "Technical Details").
MAX_RATIO = 1032

# Local header of a member of a zip file: size, and lengths of the name and of the extra field.
ZIP_HEADER, ZIP_LENGTHS = 30, struct.Struct("<26xHH")


def find_array(path: str, kind: str, input_shape: tuple[int, ...], column: str | None) -> ArrayRows:
    """Find the array of inputs in a file; return it as one block.

    kind : idx, npy or npz. column : name of the array in an .npz file; None: the only one that
    fits. Raises: DataError, one line, if there is none or it does not fit; DamagedFileError;
    OSError.
    """
    with damage_errors(path):
        if kind == "npz":
            array = _find_member(path, input_shape, column)
        else:
            with open_idx(Path(path)) as file:
                array = _read_header(file, path, kind)
    size, _ = array.fingerprint
    if array.compression == "gzip":
        _check_size(array, size * MAX_RATIO)
    elif array.compression is None:
        _check_size(array, size, exact=kind == "idx")
    mismatch = _mismatch(array, input_shape)
    if mismatch:
        raise DataError(f"{path} {mismatch}")
    return array


def _check_size(array: ArrayRows, size: int, *, exact: bool = False) -> None:
    """Raise DamagedFileError if the array ends beyond so many bytes."""
    if np.dtype(array.dtype).hasobject:  # pickled: the header does not tell the size
        return
    end = array.offset + array.rows * array.row_bytes
    if size < end or (exact and size != end):
        raise DamagedFileError(
            f"{array.path} is damaged: its header promises {end} bytes, and it has {size}"
        )


def _read_header(file: BinaryIO, path: str, kind: str, member: str | None = None) -> ArrayRows:
    """Read the header of an array; the file is then at its first row."""
    if kind == "idx":
        (rows, *shape), dtype = read_header(file, Path(path), 3, max_bytes=None), np.dtype(np.uint8)
    else:
        rows, shape, dtype = _read_npy_header(file, f"{path}: {member}" if member else path)
    return ArrayRows(
        path=path,
        fingerprint=fingerprint(path),
        begin=0,
        rows=rows,
        shape=tuple(shape),
        dtype=dtype.str,
        offset=file.tell(),
        compression="gzip" if isinstance(file, gzip.GzipFile) else None,
        member=member,
    )


def _read_npy_header(file: BinaryIO, name: str) -> tuple[int, list[int], np.dtype]:
    """Return the number of rows, the shape of a row and the dtype."""
    with damage_errors(name):
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        if min(shape, default=1) < 0:
            raise ValueError(f"its shape is {shape}")
    rows, *row_shape = shape or (0,)  # a single number is no row
    if fortran_order and prod(row_shape) > 1:
        raise DataError(f"{name} is in Fortran order: save it again, in C order")
    return rows, row_shape, dtype


def _find_member(path: str, input_shape: tuple[int, ...], column: str | None) -> ArrayRows:
    with ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        if column is not None and column not in members:
            raise DataError(f"{path} has no array {column}: it has {', '.join(members)}")
        found = {}
        for member, info in members.items():
            if info.filename.endswith(".npy") and column in (None, member):
                with archive.open(info) as file:
                    array = _read_header(cast(BinaryIO, file), path, "npy", info.filename)
                if column is not None or _mismatch(array, input_shape) is None:
                    found[member] = _located(array, info)
    if len(found) != 1:
        which = f"several, {', '.join(found)}" if found else f"none of {', '.join(members)}"
        raise DataError(
            f"{path}: one array must have rows that the model takes, of shape {input_shape}; "
            f"{which}: name it with --column"
        )
    return next(iter(found.values()))


def _located(array: ArrayRows, info: ZipInfo) -> ArrayRows:
    """Add the place of a member in the archive, or that it is compressed."""
    _check_size(array, info.file_size)
    if info.compress_type != ZIP_STORED:
        return replace(array, compression="zip")
    with open(array.path, "rb") as file:
        file.seek(info.header_offset)
        lengths = ZIP_LENGTHS.unpack(file.read(ZIP_HEADER))
    start = info.header_offset + ZIP_HEADER + sum(lengths)
    return replace(array, offset=start + array.offset)


def _mismatch(array: ArrayRows, input_shape: tuple[int, ...]) -> str | None:
    """Why the model does not take these rows."""
    if array.rows == 0:
        return "has no rows"
    shape, expected = ([n for n in s if n != 1] for s in (array.shape, input_shape))
    if shape not in ([prod(input_shape)], expected):
        return f"has rows of shape {array.shape}, and the model takes {input_shape}"
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        return f"has dtype {dtype}: save pixels as integers of 0..255 or floats of 0..1"
    return None


def split_array(array: ArrayRows) -> Iterator[ArrayRows]:
    """Split an array into blocks."""
    step = max(1, BLOCK_BYTES // array.row_bytes)
    for begin in range(0, array.rows, step):
        yield replace(array, begin=begin, rows=min(step, array.rows - begin))


def read_rows(block: ArrayRows, path: str) -> Iterator[Rows]:
    """Read the rows of an uncompressed block. Raises: DataError; OSError."""
    check_unchanged(block, path)
    with open(path, "rb") as file:
        file.seek(block.offset + block.begin * block.row_bytes)
        yield from _read_next(file, block, block.rows)


def _read_next(file: BinaryIO, block: ArrayRows, rows: int) -> Iterator[Rows]:
    """Read the next rows of an open file, in native byte order."""
    step = max(1, CHUNK_BYTES // block.row_bytes)
    for begin in range(0, rows, step):
        count = min(step, rows - begin)
        content = file.read(count * block.row_bytes)
        if len(content) < count * block.row_bytes:
            raise DamagedFileError(f"{block.path} is truncated: it ends before its last row")
        array = np.frombuffer(content, block.dtype).reshape(count, *block.shape)
        yield Rows(array.astype(array.dtype.newbyteorder("="), copy=False))


class ArrayStream:
    """Reads compressed arrays. Their blocks come in order: the file stays open in between."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._file: Any = None
        self._array: ArrayRows | None = None  # that is open
        self._row = 0

    def read(self, block: ArrayRows, path: str) -> list[Rows]:
        """Read a block. Raises: DataError if the file has changed; DamagedFileError; OSError."""
        check_unchanged(block, path)
        array = replace(block, begin=0, rows=0)  # the same for all its blocks
        with damage_errors(block.path):
            if self._array != array or self._row > block.begin:
                self._open(array, path)
            for _ in _read_next(self._file, block, block.begin - self._row):
                pass
            chunks = list(_read_next(self._file, block, block.rows))
            if isinstance(self._file, gzip.GzipFile):
                self._file.peek(1)  # reads the checksum after the last row, and compares it
        self._row = block.begin + block.rows
        return chunks

    def _open(self, array: ArrayRows, path: str) -> None:
        self.close()
        if array.compression == "gzip":
            self._file = self._files.enter_context(open_idx(Path(path)))
        else:
            archive = self._files.enter_context(ZipFile(path))
            self._file = self._files.enter_context(archive.open(array.member or ""))
        self._file.read(array.offset)
        self._array, self._row = array, 0

    def close(self) -> None:
        """Close the open file."""
        self._files.close()
