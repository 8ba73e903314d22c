"""Writing files so that nothing is lost: a file is the old one or the new one, never a part."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

__all__ = [
    "check_room",
    "free_name",
    "replaced",
    "sync_folder",
    "write_atomically",
    "write_somewhere",
]


# What Linux and macOS allow, less the room for what free_name adds and for ".unfinished".
MAX_NAME = 230

CHUNK = 1 << 20


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by content, as replaced() does. Raises: OSError."""
    with replaced(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """An empty file to be written, that then replaces `path`: it lies beside it; fsync, rename,
    fsync of the folder.

    An exception, a kill or a full disk at any moment leaves the old file or the new one. A symbolic
    link keeps pointing where it did. Raises: OSError.
    """
    target = Path(os.path.realpath(path))
    # Short, since the target's name may already be as long as the file system allows.
    temporary = target.with_name(f".{os.getpid()}-{threading.get_ident() % 100_000}.tmp")
    try:
        temporary.touch()
        mode = target.stat().st_mode & 0o777 if target.exists() else None
        if mode is not None:
            os.chmod(temporary, mode | 0o200)
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, where the system lets folders be synced."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_room(path: Path, size: int, what: str) -> None:
    """Fail now, not after the work, if `size` bytes cannot be written beside `path`.

    Raises: UserError, one line that names `what`, the reason and what to do.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UserError(f"{what} {path} is a folder: name a file in it")
    if len(os.fsencode(target.name)) > MAX_NAME:
        raise UserError(f"{what} {path}: the name is too long: at most {MAX_NAME} bytes")
    if not target.parent.is_dir():
        raise UserError(f"{what} {path}: the folder {target.parent} does not exist: create it")
    try:
        total, _, free = shutil.disk_usage(target.parent)
        if total and size > free:  # some file systems do not say
            raise UserError(
                f"{what} {path} takes {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are "
                "free there: choose another folder, or make it smaller"
            )
        with tempfile.TemporaryFile(dir=target.parent) as trial:
            for written in range(0, size, CHUNK):
                trial.write(bytes(min(CHUNK, size - written)))
            trial.flush()
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be written: {error.strerror}: choose another folder"
        ) from error


def write_somewhere(path: Path, content: bytes) -> Path:
    """write_atomically, or if that fails the same file name in the folder for temporary files.

    Returns: where it was written. Raises: OSError if neither place takes it.
    """
    try:
        write_atomically(path, content)
        return path
    except OSError:
        refuge = free_name(Path(tempfile.gettempdir()) / path.name)
        write_atomically(refuge, content)
        return refuge


def free_name(path: Path) -> Path:
    """path, or the first of name-2, name-3, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
