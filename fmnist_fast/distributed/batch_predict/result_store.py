"""Answers so far, block by block, in a file beside the one that they will be in: what a stop or a
kill leaves, the same command goes on with.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ArgumentError
from .blocks import Block, block_of, number_of_rows, text_of

__all__ = ["Partial", "open_partial", "partial_path"]

# Blocks that are asked of the file at a time.
AT_A_TIME = 64

# Bytes of a page: answers of a block are some 400 kB, and every page of them costs.
PAGE_BYTES = 32 << 10

# What people are told of some of what must be the same.
CALLED = {"inputs": "inputs, or files that were changed meanwhile,"}

# Of the file's layout.
VERSION = 2


def partial_path(out: Path) -> Path:
    """Where the answers are kept until `out` is complete."""
    return out.with_name(f"{out.name}.partial")


@contextmanager
def open_partial(
    path: Path, identity: Mapping[str, Any], blocks: Iterable[Block], *, force: bool = False
) -> Iterator["Partial"]:
    """New, of these blocks, or what is there to go on with; nobody else's while it is open.

    identity : what must be the same to go on, plain JSON. force : forget what cannot be gone on
    with; where there are no answers yet, nothing is lost with it. Raises: ArgumentError if what is
    there is of another run, or in use, or no such file; OSError if it cannot be written.
    """
    if path.exists() and not path.is_file():
        raise ArgumentError(f"{path} is not a file, and answers must be kept there: move it")
    partial = None
    try:
        try:
            partial = Partial(path, identity, blocks)
        except (_Foreign, sqlite3.DatabaseError) as error:
            lost_nothing = isinstance(error, _Foreign) and not error.answers
            if not (force or lost_nothing) or isinstance(error, sqlite3.OperationalError):
                raise
            _remove(path)
            partial = Partial(path, identity, blocks)
        yield partial
    except sqlite3.Error as error:
        raise _for_people(path, error) from error
    finally:
        if partial:
            partial.close()


class _Foreign(ArgumentError):
    """Answers of another run. answers : whether there are any."""

    def __init__(self, message: str, answers: bool) -> None:
        super().__init__(message)
        self.answers = answers


class Partial:
    """Blocks in their order, and the answers of those that were scored. Made by open_partial()."""

    def __init__(self, path: Path, identity: Mapping[str, Any], blocks: Iterable[Block]) -> None:
        self.path = path
        new = not path.exists()
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._open(identity, blocks)
        except BaseException as error:
            self._db.close()
            if new and "locked" not in str(error):  # then another command was faster
                _remove(path)
            raise
        self.rows = self._value("SELECT sum(rows) FROM blocks")
        self.done = self._value("SELECT sum(rows) FROM blocks WHERE answers IS NOT NULL")
        self.failed = self._value("SELECT sum(failed) FROM blocks")

    def _open(self, identity: Mapping[str, Any], blocks: Iterable[Block]) -> None:
        for setting in (
            f"page_size = {PAGE_BYTES}",
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = NORMAL",
        ):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("BEGIN IMMEDIATE")
        if self._value("SELECT count(*) FROM sqlite_master"):
            self._check(identity)
        else:
            self._begin(identity, blocks)
        self._db.execute("COMMIT")

    def _begin(self, identity: Mapping[str, Any], blocks: Iterable[Block]) -> None:
        self._db.execute("CREATE TABLE about (version INTEGER, identity TEXT)")
        self._db.execute("INSERT INTO about VALUES (?, ?)", (VERSION, json.dumps(identity)))
        self._db.execute(
            "CREATE TABLE blocks (number INTEGER PRIMARY KEY, block TEXT, rows INTEGER, "
            "failed INTEGER, answers BLOB)"
        )
        entries = ((text_of(block), number_of_rows(block)) for block in blocks)
        self._db.executemany("INSERT INTO blocks (block, rows) VALUES (?, ?)", entries)

    def _check(self, identity: Mapping[str, Any]) -> None:
        row = self._db.execute("SELECT version, identity FROM about").fetchone()
        version, there = row or (0, "{}")
        before, now = json.loads(there), json.loads(json.dumps(identity))
        differing = [name for name in now if before.get(name) != now[name]]
        if version != VERSION or differing:
            what = [CALLED.get(name, name.replace("_", " ")) for name in differing]
            raise _Foreign(
                f"{self.path} has answers of another run, with other "
                f"{' and '.join(what) or 'versions of fmnist-fast'}: finish that first, or begin "
                "anew with --force",
                answers=self._value("SELECT count(*) FROM blocks WHERE answers IS NOT NULL") > 0,
            )

    def _value(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0] or 0

    def to_do(self) -> int:
        """Blocks that have no answers yet."""
        return self._value("SELECT count(*) FROM blocks WHERE answers IS NULL")

    def waiting(self) -> Iterator[tuple[int, Block]]:
        """(number, block) of those that have no answers, in order; from here on."""
        last = 0
        while True:
            some = self._db.execute(
                "SELECT number, block FROM blocks WHERE number > ? AND answers IS NULL "
                "ORDER BY number LIMIT ?",
                (last, AT_A_TIME),
            ).fetchall()
            if not some:
                return
            for number, text in some:
                last = number
                yield number, block_of(text)

    def keep(self, number: int, answers: bytes, rows: int, failed: int) -> None:
        """The answers of a block, which a kill does not take away any more."""
        self._db.execute(
            "UPDATE blocks SET answers = ?, failed = ? WHERE number = ?", (answers, failed, number)
        )
        self.done += rows
        self.failed += failed

    def answers(self) -> Iterator[tuple[Block, bytes]]:
        """All blocks, in order, and their answers."""
        for text, answers in self._db.execute("SELECT block, answers FROM blocks ORDER BY number"):
            yield block_of(text), answers

    def close(self) -> None:
        """What is kept stays."""
        self._db.close()

    def remove(self) -> None:
        """It is not needed any more."""
        self._db.close()
        _remove(self.path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _for_people(path: Path, error: sqlite3.Error) -> Exception:
    text = str(error)
    if "locked" in text:
        return ArgumentError(f"{path} is in use: another command scores into it")
    if "not a database" in text or "malformed" in text or "no such" in text:
        return ArgumentError(f"{path} is damaged, or none of ours: begin anew with --force")
    return OSError(None, text, str(path))
