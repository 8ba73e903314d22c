"""What is in a block, read by whoever has its files."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...errors import DataError
from .array_inputs import Streams, read_rows
from .blocks import ArrayRows, Block, Chunk, Encoded, PictureFiles
from .table_inputs import read_groups

__all__ = ["Reader", "read"]


def read(block: Block, root: str, inputs: int) -> Iterator[Chunk]:
    """Chunk by chunk; not of packed arrays, which Reader reads.

    root : what relative paths are relative to. inputs : numbers of a row.
    Raises: OSError if a file is not there; DataError if it has changed or is damaged.
    """
    if isinstance(block, PictureFiles):
        for path, size in zip(block.paths, block.sizes, strict=True):
            encoded = _encoded(os.path.join(root, path))
            if size >= 0 and not encoded.why_not and len(encoded.content) != size:
                raise DataError(f"{path} has changed meanwhile")
            yield [encoded]
    elif isinstance(block, ArrayRows):
        yield from read_rows(block, os.path.join(root, block.path))
    else:
        yield from read_groups(block, os.path.join(root, block.path), inputs)


def _encoded(path: str) -> Encoded:
    """Raises: OSError."""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            return Encoded(b"", "not a file")
        return Encoded(Path(path).read_bytes())
    except ValueError:
        return Encoded(b"", "not a name that a file can have")


class Reader:
    """Reads blocks for workers that cannot: as read() does, also packed arrays."""

    def __init__(self, root: str, inputs: int) -> None:
        self._root, self._inputs = root, inputs
        self._streams = Streams()

    def read(self, block: Block) -> list[Chunk]:
        """All of it. A picture that is not there has a reason in its place."""
        if isinstance(block, PictureFiles):
            return [[self._picture(path)] for path in block.paths]
        if isinstance(block, ArrayRows) and block.packed:
            return list(self._streams.read(block, os.path.join(self._root, block.path)))
        return list(read(block, self._root, self._inputs))

    def _picture(self, path: str) -> Encoded:
        try:
            return _encoded(os.path.join(self._root, path))
        except OSError as error:
            return Encoded(b"", error.strerror or "it cannot be read")

    def close(self) -> None:
        """Close what is open."""
        self._streams.close()
