"""IDX files, the format of MNIST: a reader that validates the header and the length.

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

from ..errors import DamagedFileError, DataError

UINT8 = 8
GZIP_MAGIC = b"\x1f\x8b"

# Larger than any supported data set; a header that claims more is wrong or hostile.
MAX_BYTES = 4 << 30

# Memory is allocated as data arrives, since the header may claim any length.
READ_BYTES = 1 << 20

# Exceptions of reading a damaged gzip file.
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read the array of a uint8 IDX file, gzip or uncompressed.

    dimensions : expected number of dimensions: 3 for images, 1 for labels.
    Raises: DataError, one line that names the file and the defect.
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
    """Open a file for reading; gzip is recognized by its first bytes and decompressed."""
    with open(path, "rb") as file:
        compressed = file.peek(2)[:2] == GZIP_MAGIC
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file


def read_header(
    file: BinaryIO, path: Path, dimensions: int, max_bytes: int | None = MAX_BYTES
) -> tuple[int, ...]:
    """Read the header and return the shape; the file is then at the first byte of the array.

    max_bytes : largest size of the array; None: no limit. Raises: DataError.
    """
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it does not begin with two zero bytes")
    if magic[2] != UINT8:
        raise DataError(f"{path} holds values of IDX type 0x{magic[2]:02x}: only uint8 is read")
    if magic[3] != dimensions:
        raise DataError(f"{path} has {magic[3]} dimensions, not {dimensions}: are files mixed up?")
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DamagedFileError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if prod(shape) == 0:
        raise DataError(f"{path} is empty: its dimensions are {shape}")
    if max_bytes is not None and prod(shape) > max_bytes:
        raise DataError(f"{path} claims dimensions {shape}, more than {max_bytes >> 30} GiB")
    return shape


def _read_exactly(file: BinaryIO, path: Path, size: int) -> bytearray:
    """Read `size` bytes; DataError if the file has fewer or more."""
    content = bytearray()
    while chunk := file.read(min(READ_BYTES, size + 1 - len(content))):
        content += chunk
    if len(content) != size:
        found = "fewer" if len(content) < size else "more"
        raise DataError(f"{path} has {found} than the {size} bytes that its header promises")
    return content
