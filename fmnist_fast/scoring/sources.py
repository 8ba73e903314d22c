"""What is to be scored: files of any kind, folders and lists of image files, cut into blocks."""

import gzip
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from ..errors import DataError
from ..images import SUFFIXES
from .arrays import blocks_of_array, find_array
from .blocks import Block, PictureFiles
from .tables import blocks_of_table

__all__ = ["blocks_of", "kind_of"]

# Image files of a block: so many blocks at least, so that there is something to part, and so few
# files, and bytes, that no block takes long, or much room on its way to another machine.
LEAST_BLOCKS, MOST_FILES, MOST_BYTES = 32, 512, 16 << 20

# How files of arrays begin.
MAGIC = {b"PAR1": "parquet", b"\x93NUM": "npy", b"PK\x03\x04": "npz", b"\0\0\x08": "idx"}


def kind_of(path: str) -> str:
    """folder, picture, or by its first bytes: idx, npy, npz or parquet. What is no file, or has the
    name of an image, is a picture.
    """
    if os.path.isdir(path):
        return "folder"
    if path.lower().endswith(SUFFIXES) or not os.path.isfile(path):
        return "picture"
    with suppress(OSError, ValueError, EOFError, zlib.error), open(path, "rb") as file:
        begin = file.read(4)
        if begin[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                begin = unpacked.read(4)
        for magic, kind in MAGIC.items():
            if begin.startswith(magic):
                return kind
    return "picture"


def blocks_of(
    inputs: Iterable[str], input_shape: tuple[int, ...], field: str | None
) -> Iterator[Block]:
    """All inputs as blocks, in their order. inputs : files and folders; of a folder come all files
    that have the name of an image, also of its folders, in the order of names.

    field : of .npz and Parquet files. Names are kept in a temporary file, not in memory.
    Raises: DataError, one line; OSError.
    """
    with closing(_Names()) as names:
        for path in inputs:
            kind = kind_of(path)
            if kind == "folder":
                names.add_folder(path)
            else:
                names.add(path, kind)
        for kind, paths in names.runs():
            if kind == "picture":
                yield PictureFiles(tuple(paths))
            elif kind == "parquet":
                yield from blocks_of_table(Path(paths[0]), paths[0], input_shape, field)
            else:
                array = find_array(Path(paths[0]), paths[0], kind, input_shape, field)
                yield from blocks_of_array(array)


class _Names:
    """Names of files in their order, which may be millions. They are bytes, as the system has them,
    and sorted as such.
    """

    def __init__(self) -> None:
        self._table = sqlite3.connect("")  # a temporary file
        self._table.execute("CREATE TABLE names (path BLOB, kind TEXT)")
        self._table.execute("CREATE TABLE found (path BLOB)")

    def add(self, path: str, kind: str) -> None:
        """One more."""
        self._table.execute("INSERT INTO names VALUES (?, ?)", (os.fsencode(path), kind))

    def add_folder(self, folder: str) -> None:
        """All pictures in it. Raises: DataError if there are none."""
        found = (
            (os.fsencode(os.path.join(where, name)),)
            for where, _, names in os.walk(folder)
            for name in names
            if name.lower().endswith(SUFFIXES)
        )
        self._table.executemany("INSERT INTO found VALUES (?)", found)
        if not self._table.execute("SELECT count(*) FROM found").fetchone()[0]:
            raise DataError(
                f"{folder} is a folder without images: name one with .png or .jpg files"
            )
        self._table.execute("INSERT INTO names SELECT path, 'picture' FROM found ORDER BY path")
        self._table.execute("DELETE FROM found")

    def runs(self) -> Iterator[tuple[str, list[str]]]:
        """(kind, paths): as many pictures as a block has, or one file of another kind."""
        rows = self._table.execute("SELECT path, kind FROM names ORDER BY rowid")
        size = min(max(1, self._pictures() // LEAST_BLOCKS), MOST_FILES)
        pictures: list[str] = []
        room = MOST_BYTES
        for path, kind in rows:
            if kind == "picture":
                pictures.append(os.fsdecode(path))
                room -= _size(path)
            if pictures and (len(pictures) == size or room <= 0 or kind != "picture"):
                yield "picture", pictures
                pictures, room = [], MOST_BYTES
            if kind != "picture":
                yield kind, [os.fsdecode(path)]
        if pictures:
            yield "picture", pictures

    def _pictures(self) -> int:
        count: int = self._table.execute(
            "SELECT count(*) FROM names WHERE kind = 'picture'"
        ).fetchone()[0]
        return count

    def close(self) -> None:
        """Forget them."""
        self._table.close()


def _size(path: bytes) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0
