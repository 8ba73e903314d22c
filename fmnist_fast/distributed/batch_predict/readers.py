"""Reads blocks: on a worker that has the files, or here for one that has not."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from .array_inputs import ArrayStream, read_rows
from .blocks import ArrayRows, Block, Chunk, DamagedFile, Encoded, ImageFiles, failed_rows
from .table_inputs import read_groups


def read(block: Block, folder: str, inputs: int) -> Iterator[Chunk]:
    """Read a block, unless it is compressed, in chunks.

    folder : of relative paths. inputs : numbers of a row.
    Raises: OSError if a file is not there; DataError if it has changed; DamagedFileError.
    """
    if isinstance(block, ImageFiles):
        for path, size in zip(block.paths, block.sizes, strict=True):
            encoded = _read_image(os.path.join(folder, path))
            if size >= 0 and not encoded.error and len(encoded.content) != size:
                raise DataError(f"{path} has changed meanwhile")
            yield [encoded]
    elif isinstance(block, DamagedFile):
        yield failed_rows(block, block.error)
    elif isinstance(block, ArrayRows):
        yield from read_rows(block, os.path.join(folder, block.path))
    else:
        yield from read_groups(block, os.path.join(folder, block.path), inputs)


def _read_image(path: str) -> Encoded:
    """Read an image file. Raises: OSError."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            return Encoded(b"", "not a file")
        return Encoded(Path(path).read_bytes())
    except ValueError:
        return Encoded(b"", "not a name that a file can have")


class LocalReader:
    """Reads blocks for workers that cannot, and compressed arrays."""

    def __init__(self, folder: str, inputs: int) -> None:
        self._folder, self._inputs = folder, inputs
        self._stream = ArrayStream()

    def read(self, block: Block) -> list[Chunk]:
        """Read a whole block. An image that is not there has an error."""
        if isinstance(block, ImageFiles):
            return [[self._image(path)] for path in block.paths]
        if isinstance(block, ArrayRows) and block.compression:
            return list(self._stream.read(block, os.path.join(self._folder, block.path)))
        return list(read(block, self._folder, self._inputs))

    def _image(self, path: str) -> Encoded:
        try:
            return _read_image(os.path.join(self._folder, path))
        except OSError as error:
            return Encoded(b"", error.strerror or "it cannot be read")

    def close(self) -> None:
        """Close open files."""
        self._stream.close()
