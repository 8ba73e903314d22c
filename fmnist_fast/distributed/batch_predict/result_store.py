"""Predictions so far, by block, in an SQLite file beside the output: a command that was stopped or
killed is resumed from it.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ArgumentError
from .blocks import Block, from_json, row_count, to_json

# Predictions of a block are some 400 kB, and every page of them costs.
PAGE_BYTES = 32 << 10

# How messages name entries of the identity.
NAMES = {"inputs": "inputs, or files that were changed meanwhile"}

# Of the tables.
FORMAT_VERSION = 3


@contextmanager
def open_results(
    path: Path, identity: Mapping[str, Any], blocks: Iterable[Block], *, force: bool = False
) -> Iterator["ResultStore"]:
    """Create a store of these blocks, or resume it, and lock it for other processes.

    identity : what must be equal to resume, plain JSON. force : replace a store that cannot be
    resumed; one without predictions is replaced anyway. Raises: ArgumentError if the file is of
    another command, in use, or no store; OSError if it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ArgumentError(f"{path} is not a file, and predictions must be kept there: move it")
    store = None
    try:
        try:
            store = ResultStore(path, identity, blocks)
        except (ArgumentError, sqlite3.DatabaseError) as error:
            if not force or isinstance(error, sqlite3.OperationalError):
                raise
            _remove(path)
            store = ResultStore(path, identity, blocks)
        yield store
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text:
            raise ArgumentError(f"{path} is in use by another command") from error
        if "not a database" in text or "malformed" in text or "no such" in text:
            raise ArgumentError(
                f"{path} is damaged, or not a file of fmnist-fast: begin anew with --force"
            ) from error
        raise OSError(None, text, str(path)) from error
    finally:
        if store:
            store.close()


class ResultStore:
    """Blocks in order, and the predictions of some. Made by open_results()."""

    def __init__(self, path: Path, identity: Mapping[str, Any], blocks: Iterable[Block]) -> None:
        self.path = path
        new = not path.exists()
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("BEGIN IMMEDIATE")
            exists = self._count("SELECT count(*) FROM sqlite_master")
            if not exists or not self._resumes(identity):
                self._create(identity, blocks)
            self._db.execute("COMMIT")
        except BaseException as error:
            self._db.close()
            if new and "locked" not in str(error):  # by another command that was faster
                _remove(path)
            raise
        self.rows = self._count("SELECT sum(rows) FROM blocks")
        self.done = self._count("SELECT sum(rows) FROM blocks WHERE predictions IS NOT NULL")
        self.failed = self._count("SELECT sum(failed) FROM blocks")

    def _create(self, identity: Mapping[str, Any], blocks: Iterable[Block]) -> None:
        self._db.execute("DROP TABLE IF EXISTS about")
        self._db.execute("DROP TABLE IF EXISTS blocks")
        self._db.execute("CREATE TABLE about (version INTEGER, identity TEXT)")
        self._db.execute("INSERT INTO about VALUES (?, ?)", (FORMAT_VERSION, json.dumps(identity)))
        self._db.execute(
            "CREATE TABLE blocks (number INTEGER PRIMARY KEY, block TEXT, rows INTEGER, "
            "failed INTEGER, predictions BLOB)"
        )
        entries = ((to_json(block), row_count(block)) for block in blocks)
        self._db.executemany("INSERT INTO blocks (block, rows) VALUES (?, ?)", entries)

    def _resumes(self, identity: Mapping[str, Any]) -> bool:
        """Whether the store is of this command, or else empty. Raises: ArgumentError if neither."""
        row = self._db.execute("SELECT version, identity FROM about").fetchone()
        version, stored = row or (0, "{}")
        before, now = json.loads(stored), json.loads(json.dumps(identity))
        if version != FORMAT_VERSION:
            raise ArgumentError(f"{self.path} is of another version of fmnist-fast: use --force")
        differing = [NAMES.get(n, n.replace("_", " ")) for n in now if before.get(n) != now[n]]
        if differing and self._count("SELECT count(*) FROM blocks WHERE predictions IS NOT NULL"):
            raise ArgumentError(
                f"{self.path} has predictions of another command, with other "
                f"{' and '.join(differing)}: finish that first, or begin anew with --force"
            )
        return not differing

    def _count(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0] or 0

    def blocks_left(self) -> int:
        """Count the blocks without predictions."""
        return self._count("SELECT count(*) FROM blocks WHERE predictions IS NULL")

    def waiting(self) -> Iterator[tuple[int, Block]]:
        """Yield (number, block) of those without predictions, in order, each once."""
        waiting = "SELECT number FROM blocks WHERE predictions IS NULL ORDER BY number"
        for key in self._db.execute(waiting).fetchall():
            query = "SELECT number, block FROM blocks WHERE number = ?"
            number, text = self._db.execute(query, key).fetchone()
            yield number, from_json(text)

    def store(self, number: int, predictions: bytes, rows: int, failed: int) -> None:
        """Store the predictions of a block; a kill does not lose them."""
        update = "UPDATE blocks SET predictions = ?, failed = ? WHERE number = ?"
        self._db.execute(update, (predictions, failed, number))
        self.done += rows
        self.failed += failed

    def results(self) -> Iterator[tuple[Block, bytes]]:
        """Yield all blocks, in order, and their predictions."""
        query = "SELECT block, predictions FROM blocks ORDER BY number"
        for text, predictions in self._db.execute(query):
            yield from_json(text), predictions

    def close(self) -> None:
        """Close the file, to be resumed."""
        self._db.close()

    def remove(self) -> None:
        """Delete the file."""
        self._db.close()
        _remove(self.path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
