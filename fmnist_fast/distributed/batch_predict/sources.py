"""What is to be scored: files of any kind, folders and lists of image files, cut into blocks."""

import gzip
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ...errors import DataError
from ...vision.image_io import SUFFIXES
from .array_inputs import blocks_of_array, find_array
from .blocks import Block, PictureFiles
from .table_inputs import blocks_of_table

__all__ = ["Inputs", "kind_of"]

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


class Inputs:
    """Files in their order, which may be millions: what is known of them is kept in a temporary
    file, not in memory. Names are bytes, as the system has them, and sorted as such.

    inputs : files and folders; of a folder come all files that have the name of an image, also of
    its folders, in the order of names. Raises: DataError if a folder has none; OSError if
    one cannot be read.
    """

    def __init__(self, inputs: Iterable[str]) -> None:
        self._table = sqlite3.connect("")  # a temporary file
        self._table.execute("CREATE TABLE files (path BLOB, kind TEXT, size INT, mtime_ns INT)")
        self._table.execute("CREATE TABLE found (path BLOB, size INT, mtime_ns INT)")
        try:
            for path in inputs:
                kind = kind_of(path)
                if kind == "folder":
                    self._add_folder(path)
                else:
                    name = os.fsencode(path)
                    entry = (name, kind, *_stamp(name))
                    self._table.execute("INSERT INTO files VALUES (?, ?, ?, ?)", entry)
        except BaseException:
            self.close()
            raise

    def _add_folder(self, folder: str) -> None:
        """All pictures in it. Raises: DataError if there are none; OSError."""
        paths = (
            os.fsencode(os.path.join(where, name))
            for where, _, names in os.walk(folder, onerror=_raise)
            for name in names
            if name.lower().endswith(SUFFIXES)
        )
        found = ((path, *_stamp(path)) for path in paths)
        self._table.executemany("INSERT INTO found VALUES (?, ?, ?)", found)
        if not self._table.execute("SELECT count(*) FROM found").fetchone()[0]:
            raise DataError(
                f"{folder} is a folder without images: name one with .png or .jpg files"
            )
        self._table.execute(
            "INSERT INTO files SELECT path, 'picture', size, mtime_ns FROM found ORDER BY path"
        )
        self._table.execute("DELETE FROM found")

    def digest(self) -> str:
        """Of names, sizes and times: another one if a file came, went or was changed."""
        digest = sha256()
        for path, *others in self._table.execute("SELECT * FROM files ORDER BY rowid"):
            digest.update(path + repr(others).encode() + b"\0")
        return digest.hexdigest()

    def blocks(self, input_shape: tuple[int, ...], field: str | None) -> Iterator[Block]:
        """All of them as blocks, in their order. field : of .npz and Parquet files.

        Raises: DataError, one line; OSError.
        """
        for kind, paths, sizes in self._runs():
            if kind == "picture":
                yield PictureFiles(tuple(paths), tuple(sizes))
            elif kind == "parquet":
                yield from blocks_of_table(Path(paths[0]), paths[0], input_shape, field)
            else:
                array = find_array(Path(paths[0]), paths[0], kind, input_shape, field)
                yield from blocks_of_array(array)

    def _runs(self) -> Iterator[tuple[str, list[str], list[int]]]:
        """(kind, paths, sizes): as many pictures as a block has, or one file of another kind."""
        rows = self._table.execute("SELECT path, kind, size FROM files ORDER BY rowid")
        most = min(max(1, self._count("WHERE kind = 'picture'") // LEAST_BLOCKS), MOST_FILES)
        pictures: list[str] = []
        sizes: list[int] = []
        room = MOST_BYTES
        for path, kind, size in rows:
            if kind == "picture":
                pictures.append(os.fsdecode(path))
                sizes.append(size)
                room -= max(0, size)
            if pictures and (len(pictures) == most or room <= 0 or kind != "picture"):
                yield "picture", pictures, sizes
                pictures, sizes, room = [], [], MOST_BYTES
            if kind != "picture":
                yield kind, [os.fsdecode(path)], [size]
        if pictures:
            yield "picture", pictures, sizes

    def _count(self, where: str = "") -> int:
        count: int = self._table.execute(f"SELECT count(*) FROM files {where}").fetchone()[0]
        return count

    def close(self) -> None:
        """Forget them."""
        self._table.close()


def _raise(error: OSError) -> None:
    """A folder that cannot be read would leave its images out."""
    raise error


def _stamp(path: bytes) -> tuple[int, int]:
    """(size, mtime in ns); -1 for what is not there, or not here."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns
