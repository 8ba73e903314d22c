"""Inputs in arrays: IDX, .npy and .npz files, read in parts."""

import gzip
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from lzma import LZMAError
from math import prod
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from ...data.idx import GZIP_ERRORS, open_idx, read_header
from ...errors import DataError
from .blocks import ArrayRows, check_unchanged, fingerprint

__all__ = ["ArrayStream", "find_array", "read_rows", "split_array"]

# A block takes a worker some 0.1 s; dispatching it costs a tenth of that.
BLOCK_BYTES = 32 << 20

# Read at a time.
CHUNK_BYTES = 4 << 20

# Local header of a member of a zip file: size, and lengths of the name and of the extra field.
ZIP_HEADER, ZIP_LENGTHS = 30, struct.Struct("<26xHH")


def find_array(
    path: Path, name: str, kind: str, input_shape: tuple[int, ...], column: str | None
) -> ArrayRows:
    """Find the array of inputs in a file; return it as one block.

    name : of the file in messages. kind : idx, npy or npz. column : name of the array in an .npz
    file; None: the only one that fits.
    Raises: DataError, one line, if there is none, it is damaged, or does not fit; OSError.
    """
    with _damage_errors(name):
        if kind == "npz":
            return _find_member(path, name, input_shape, column)
        if kind == "idx":
            with open_idx(path) as file:
                rows, *shape = read_header(file, Path(name), 3, max_bytes=None)
                array = ArrayRows(
                    path=name,
                    fingerprint=fingerprint(str(path)),
                    begin=0,
                    rows=rows,
                    shape=tuple(shape),
                    dtype="|u1",
                    offset=file.tell(),
                    compression="gzip" if isinstance(file, gzip.GzipFile) else None,
                )
        else:
            with open(path, "rb") as file:
                array = _read_npy_header(file, path, name)
    size, expected = array.fingerprint.size, array.offset + array.rows * array.row_bytes
    if not array.compression and (size < expected or (kind == "idx" and size != expected)):
        raise DataError(f"{name} is damaged: its header promises {expected} bytes, it has {size}")
    return _checked(array, input_shape)


@contextmanager
def _damage_errors(name: str) -> Iterator[None]:
    """Convert errors of reading damaged or unknown files to DataError."""
    try:
        yield
    except (*GZIP_ERRORS, BadZipFile, LZMAError) as error:
        raise DataError(f"{name} is damaged: {error}") from error
    except RuntimeError as error:  # encrypted, or an unknown compression method
        raise DataError(f"{name} cannot be unpacked: {error}; save it again") from error
    except OSError as error:
        if error.filename is not None:
            raise
        # zipfile seeked to where a damaged archive said, or bz2 found no stream
        raise DataError(f"{name} is damaged: {error.strerror or error}") from error


def _read_npy_header(file: IO[bytes], path: Path, name: str) -> ArrayRows:
    """Read the header of an array; the file is then at its first row."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        (rows, *shape), fortran_order, dtype = read(file)
    except (KeyError, ValueError) as error:
        raise DataError(f"{name} holds no array of rows that can be read: {error}") from error
    if fortran_order and len(shape) and prod(shape) > 1:
        raise DataError(f"{name} is in Fortran order: save it again, in C order")
    if dtype.hasobject:
        raise DataError(f"{name} holds Python objects: save numbers")
    return ArrayRows(
        path=name,
        fingerprint=fingerprint(str(path)),
        begin=0,
        rows=rows,
        shape=tuple(shape),
        dtype=dtype.str,
        offset=file.tell(),
    )


def _find_member(
    path: Path, name: str, input_shape: tuple[int, ...], column: str | None
) -> ArrayRows:
    with ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        if column is not None and column not in members:
            raise DataError(f"{name} has no array {column}: it has {', '.join(members)}")
        found = {}
        for member, info in members.items():
            if info.filename.endswith(".npy") and column in (None, member):
                with archive.open(info) as file:
                    array = _read_npy_header(file, path, f"{name}: {member}")
                if column is not None or _mismatch(array, input_shape) is None:
                    found[member] = _in_archive(path, name, info, array)
    if len(found) != 1:
        which = f"several, {', '.join(found)}" if found else f"none of {', '.join(members)}"
        raise DataError(
            f"{name}: one array must have rows that the model takes, of shape {input_shape}; "
            f"{which}: name it with --column"
        )
    return _checked(next(iter(found.values())), input_shape)


def _in_archive(path: Path, name: str, info: ZipInfo, array: ArrayRows) -> ArrayRows:
    array = replace(array, path=name, member=info.filename)
    if info.compress_type != ZIP_STORED:
        return replace(array, compression="zip")
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        lengths = ZIP_LENGTHS.unpack(file.read(ZIP_HEADER))
    start = info.header_offset + ZIP_HEADER + sum(lengths)
    return replace(array, offset=start + array.offset)


def _checked(array: ArrayRows, input_shape: tuple[int, ...]) -> ArrayRows:
    mismatch = _mismatch(array, input_shape)
    if mismatch:
        raise DataError(f"{array.path} {mismatch}")
    return array


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


def read_rows(block: ArrayRows, path: str) -> Iterator[NDArray]:
    """Read the rows of an uncompressed block. Raises: DataError if the file changed; OSError."""
    check_unchanged(block, path)
    with open(path, "rb") as file:
        file.seek(block.offset + block.begin * block.row_bytes)
        yield from _read_next(file, block, block.rows)


def _read_next(file: IO[bytes], block: ArrayRows, rows: int) -> Iterator[NDArray]:
    """Read the next rows of an open file, in native byte order."""
    step = max(1, CHUNK_BYTES // block.row_bytes)
    for begin in range(0, rows, step):
        count = min(step, rows - begin)
        content = file.read(count * block.row_bytes)
        if len(content) < count * block.row_bytes:
            raise DataError(f"{block.path} is truncated: it ends before its last row")
        array = np.frombuffer(content, block.dtype).reshape(count, *block.shape)
        yield array.astype(array.dtype.newbyteorder("="), copy=False)


class ArrayStream:
    """Reads compressed arrays. Their blocks come in order: the file stays open in between."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._file: IO[bytes] | None = None
        self._open: tuple[str, str | None] = "", None
        self._row = 0

    def read(self, block: ArrayRows, path: str) -> list[NDArray]:
        """Read a block. Raises: DataError if the file has changed or is damaged; OSError."""
        check_unchanged(block, path)
        with _damage_errors(block.path):
            file = self._file
            if not file or self._open != (block.path, block.member) or self._row > block.begin:
                file = self._open_at_start(block, path)
            for _ in _read_next(file, block, block.begin - self._row):
                pass
            chunks = list(_read_next(file, block, block.rows))
            if isinstance(file, gzip.GzipFile):
                file.peek(1)  # reads the checksum after the last row, and compares it
        self._row = block.begin + block.rows
        return chunks

    def _open_at_start(self, block: ArrayRows, path: str) -> IO[bytes]:
        self.close()
        file: IO[bytes]
        if block.compression == "gzip":
            file = self._files.enter_context(open_idx(Path(path)))
        else:
            archive = self._files.enter_context(ZipFile(path))
            file = self._files.enter_context(archive.open(block.member or ""))
        file.read(block.offset)
        self._file, self._open, self._row = file, (block.path, block.member), 0
        return file

    def close(self) -> None:
        """Close the open file."""
        self._file = None
        self._files.close()
