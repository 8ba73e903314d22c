"""Arrays of numbers in IDX, .npy and .npz files, read a part at a time."""

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
from .blocks import ArrayRows, check_stamp, stamp_of

__all__ = ["Streams", "blocks_of_array", "find_array", "read_rows"]

# Bytes of a block, and of what is read of it at a time. A block is scored in some 0.1 s; to give it
# to a worker, and take its answers, takes a tenth of that of everybody's time.
BLOCK_BYTES, CHUNK_BYTES = 32 << 20, 4 << 20

# The part of a zip file before a member: its length without name and extra field, and where those
# two lengths are.
ZIP_HEAD, ZIP_LENGTHS = 30, struct.Struct("<26xHH")


def find_array(
    path: Path, shown: str, kind: str, input_shape: tuple[int, ...], field: str | None
) -> ArrayRows:
    """The array of inputs in a file, as one block of all its rows.

    shown : how people call the file. kind : idx, npy or npz. field : the name of the array in an
    .npz file; None: the only one that fits.
    Raises: DataError, one line, if there is none, or it is damaged or does not fit; OSError.
    """
    with _whole(shown):
        if kind == "idx":
            return _checked(_idx(path, shown), input_shape)
        if kind == "npy":
            with open(path, "rb") as file:
                found = _npy(file, path, shown)
            if found.stamp.size < _end(found):
                raise _misses(found)
            return _checked(found, input_shape)
        return _npz(path, shown, input_shape, field)


@contextmanager
def _whole(shown: str) -> Iterator[None]:
    """What reading a damaged file, or an archive of an unknown kind, raises as DataError."""
    try:
        yield
    except (*GZIP_ERRORS, BadZipFile, LZMAError) as error:
        raise DataError(f"{shown} is damaged: {error}") from error
    except RuntimeError as error:  # encrypted, or packed in a way that zipfile does not know
        raise DataError(f"{shown} cannot be unpacked: {error}; save it again") from error
    except OSError as error:
        if error.filename is not None:
            raise
        # zipfile went to where a damaged archive said, or bz2 found no stream
        raise DataError(f"{shown} is damaged: {error.strerror or error}") from error


def _idx(path: Path, shown: str) -> ArrayRows:
    with open_idx(path) as file:
        rows, *shape = read_header(file, Path(shown), 3, max_bytes=None)
        packed = "gzip" if isinstance(file, gzip.GzipFile) else None
        found = ArrayRows(
            shown, stamp_of(str(path)), 0, rows, tuple(shape), "|u1", file.tell(), packed
        )
    if not packed and found.stamp.size != _end(found):
        raise _misses(found)
    return found


def _end(array: ArrayRows) -> int:
    """Where its last byte is followed by another array, or by nothing."""
    return array.offset + array.rows * array.row_bytes


def _misses(array: ArrayRows) -> DataError:
    return DataError(
        f"{array.path} is damaged: its header promises {_end(array)} bytes, it has "
        f"{array.stamp.size}"
    )


def _npy(file: IO[bytes], path: Path, shown: str) -> ArrayRows:
    """The header of an array; the file is then at its first row."""
    try:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        (rows, *shape), fortran, dtype = read(file)
    except (KeyError, ValueError) as error:
        raise DataError(f"{shown} holds no array of rows that can be read: {error}") from error
    if fortran and len(shape) and prod(shape) > 1:
        raise DataError(f"{shown} is in Fortran's order: save it again, in C order")
    if dtype.hasobject:
        raise DataError(f"{shown} holds Python objects: save numbers")
    return ArrayRows(shown, stamp_of(str(path)), 0, rows, tuple(shape), dtype.str, file.tell())


def _npz(path: Path, shown: str, input_shape: tuple[int, ...], field: str | None) -> ArrayRows:
    with ZipFile(path) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
        if field is not None and field not in members:
            raise DataError(f"{shown} has no array {field}: it has {', '.join(members)}")
        found = {}
        for name, info in members.items():
            if info.filename.endswith(".npy") and field in (None, name):
                with archive.open(info) as file:
                    array = _npy(file, path, f"{shown}: {name}")
                if field is not None or _misfit(array, input_shape) is None:
                    found[name] = _of_member(path, shown, info, array)
    if len(found) != 1:
        which = f"several, {', '.join(found)}" if found else f"none of {', '.join(members)}"
        raise DataError(
            f"{shown}: one array must have rows that the model takes, of shape {input_shape}; "
            f"{which}: name it with --column"
        )
    return _checked(next(iter(found.values())), input_shape)


def _of_member(path: Path, shown: str, info: ZipInfo, array: ArrayRows) -> ArrayRows:
    array = replace(array, path=shown, member=info.filename)
    if info.compress_type != ZIP_STORED:
        return replace(array, packed="zip")
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        lengths = ZIP_LENGTHS.unpack(file.read(ZIP_HEAD))
    return replace(array, offset=info.header_offset + ZIP_HEAD + sum(lengths) + array.offset)


def _checked(array: ArrayRows, input_shape: tuple[int, ...]) -> ArrayRows:
    why_not = _misfit(array, input_shape)
    if why_not:
        raise DataError(f"{array.path} {why_not}")
    return array


def _misfit(array: ArrayRows, input_shape: tuple[int, ...]) -> str | None:
    """Why the model does not take these rows."""
    if array.rows == 0:
        return "has no rows"
    flat = (prod(input_shape),)
    if _without_ones(array.shape) not in (flat, _without_ones(input_shape)):
        return f"has rows of shape {array.shape}, and the model takes {input_shape}"
    dtype = np.dtype(array.dtype)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        return f"has dtype {dtype}: save pixels as integers of 0..255 or floats of 0..1"
    return None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def blocks_of_array(array: ArrayRows) -> Iterator[ArrayRows]:
    """The array in blocks."""
    step = max(1, BLOCK_BYTES // array.row_bytes)
    for begin in range(0, array.rows, step):
        yield replace(array, begin=begin, rows=min(step, array.rows - begin))


def read_rows(block: ArrayRows, path: str) -> Iterator[NDArray]:
    """The rows of a block that is not packed. Raises: DataError if the file changed; OSError."""
    check_stamp(block, path)
    with open(path, "rb") as file:
        file.seek(block.offset + block.begin * block.row_bytes)
        yield from _rows(file, block, block.rows)


def _rows(file: IO[bytes], block: ArrayRows, rows: int) -> Iterator[NDArray]:
    """The next rows of an open file, native."""
    at_a_time = max(1, CHUNK_BYTES // block.row_bytes)
    while rows:
        count = min(rows, at_a_time)
        content = file.read(count * block.row_bytes)
        if len(content) < count * block.row_bytes:
            raise DataError(f"{block.path} is truncated: it ends before its last row")
        array = np.frombuffer(content, block.dtype).reshape(count, *block.shape)
        yield array.astype(array.dtype.newbyteorder("="), copy=False)
        rows -= count


class Streams:
    """Reads packed arrays, whose blocks come in order: the file stays open from one to the next."""

    def __init__(self) -> None:
        self._files = ExitStack()
        self._file: IO[bytes] | None = None
        self._at: tuple[str, str | None, int] = "", None, 0

    def read(self, block: ArrayRows, path: str) -> list[NDArray]:
        """Its rows. Raises: DataError if the file has changed or is damaged; OSError."""
        check_stamp(block, path)
        with _whole(block.path):
            file = self._opened(block, path)
            for _ in _rows(file, block, block.begin - self._at[2]):
                pass
            chunks = list(_rows(file, block, block.rows))
            if isinstance(file, gzip.GzipFile):
                file.peek(1)  # past the last row is the checksum, which it compares then
        self._at = block.path, block.member, block.begin + block.rows
        return chunks

    def _opened(self, block: ArrayRows, path: str) -> IO[bytes]:
        """Somewhere before the block."""
        *same, at = self._at
        if self._file and same == [block.path, block.member] and at <= block.begin:
            return self._file
        self.close()
        file: IO[bytes]
        if block.packed == "gzip":
            file = self._files.enter_context(open_idx(Path(path)))
        else:
            archive = self._files.enter_context(ZipFile(path))
            file = self._files.enter_context(archive.open(block.member or ""))
        file.read(block.offset)
        self._file, self._at = file, (block.path, block.member, 0)
        return file

    def close(self) -> None:
        """Close what is open."""
        self._file = None
        self._files.close()
