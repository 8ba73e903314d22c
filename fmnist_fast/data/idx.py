"""Reading IDX files, the format of MNIST and its relatives, without trusting them.

Format: two zero bytes, a type (8: uint8), the number of dimensions, each dimension as a big-endian
32-bit number, then the data. Source: LeCun, Cortes, Burges, "The MNIST database".
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

__all__ = ["GZIP_ERRORS", "open_idx", "read_header", "read_idx"]

UINT8 = 8
GZIP_MAGIC = b"\x1f\x8b"

# More than any set this package is for; a header that claims more is wrong or hostile.
MAX_BYTES = 4 << 30

# A header may lie about the length, so the room for it is not taken before the data has come.
CHUNK = 1 << 20

# What reading a damaged gzip file raises.
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in a uint8 IDX file, gzip or plain.

    dimensions : how many it must have: 3 for images, 1 for labels.
    Raises: DataError, one line that names the file and what is wrong with it.
    """
    try:
        with open_idx(path) as file:
            shape = read_header(file, path, dimensions)
            content = _read_exactly(file, path, prod(shape))
    except GZIP_ERRORS as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


@contextmanager
def open_idx(path: Path) -> Iterator[BinaryIO]:
    """The plain content of the file, which is recognised as gzip by its first bytes."""
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP_MAGIC
        file.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast(BinaryIO, unpacked)
        else:
            yield file


def read_header(
    file: BinaryIO, path: Path, dimensions: int, most: int | None = MAX_BYTES
) -> tuple[int, ...]:
    """The dimensions of the array, which the file is then at the first byte of.

    most : bytes that the array may have; None: any number. Raises: DataError.
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it does not begin with two zero bytes")
    if magic[2] != UINT8:
        raise DataError(f"{path} holds values of IDX type 0x{magic[2]:02x}: only uint8 is read")
    if magic[3] != dimensions:
        raise DataError(
            f"{path} has {magic[3]} dimensions, expected {dimensions}: "
            "images have 3, labels 1; are the files mixed up?"
        )
    packed = file.read(4 * dimensions)
    if len(packed) < 4 * dimensions:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{dimensions}I", packed)
    if prod(shape) == 0:
        raise DataError(f"{path} is empty: its dimensions are {shape}")
    if most is not None and prod(shape) > most:
        raise DataError(f"{path} claims dimensions {shape}, more than {most >> 30} GiB")
    return shape


def _read_exactly(file: BinaryIO, path: Path, size: int) -> bytearray:
    """size bytes, and then the file must end."""
    content = bytearray()
    while len(content) <= size:
        chunk = file.read(min(CHUNK, size + 1 - len(content)))
        if not chunk:
            break
        content += chunk
    if len(content) < size:
        raise DataError(
            f"{path} is truncated: its header promises {size} bytes, it has {len(content)}"
        )
    if len(content) > size:
        raise DataError(f"{path} goes on after the {size} bytes that its header promises")
    return content
