"""Atomic file writes: after a failure a file has its old or its new content, never a part."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ArgumentError, UserError

# Bytes: 255 on Linux and macOS, less what free_name and ".unfinished" append.
MAX_NAME = 230

CHUNK = 1 << 20


def to_path(value: Any, name: str) -> Path:
    """Return a path of str, bytes or PathLike. name : of the argument. Raises: ArgumentError."""
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise ArgumentError(f"{name} is {value!r}: give a path") from None
    if not text or "\0" in text:
        raise ArgumentError(f"{name} is {text!r}: a path is not empty and has no null character")
    return Path(text)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file atomically: see `replaced`. Raises OSError."""
    with replaced(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the folder of `path` that replaces it when the block ends.

    The file is synced and renamed, then the folder is synced, so that an exception, a kill or a
    full disk leaves the old file or the new one. A symbolic link keeps its target, and an existing
    file its mode. Raises OSError, which names `path`.
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
        sync_file(temporary)
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Sync a file, so that its content survives a power failure."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync a folder, where the system can, so that renames in it survive a power failure."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_disk_space(path: Path, size: int, what: str) -> None:
    """Check before a long computation that `size` bytes can be written to `path`.

    Raises UserError that names `what`, the reason and what to do.
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
        if total and size > free:  # some file systems report 0
            need = f"takes {_bytes(size)}, and {_bytes(free)} are free there"
            if not free:
                need = "cannot be written: no space is left there"
            raise UserError(f"{what} {path} {need}: choose another folder, or make it smaller")
        with tempfile.TemporaryFile(dir=target.parent) as trial:
            for written in range(0, size, CHUNK):
                trial.write(bytes(min(CHUNK, size - written)))
            trial.flush()
    except OSError as error:
        raise UserError(
            f"{what} {path} cannot be written: {error.strerror}: choose another folder"
        ) from error


def _bytes(size: float) -> str:
    """Format a size: 512 B, 1.5 kB, 20.0 GB."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 1000 or unit == "TB":
            break
    return f"{size:.1f} {unit}"


def write_somewhere(path: Path, content: bytes) -> Path:
    """Write atomically to `path`, or if that fails to the same name in the temporary folder.

    Returns the path that was written. Raises OSError if both fail.
    """
    try:
        write_atomically(path, content)
        return path
    except OSError:
        fallback = free_name(Path(tempfile.gettempdir()) / path.name)
        write_atomically(fallback, content)
        return fallback


def free_name(path: Path) -> Path:
    """Return path, or the first of name-2, name-3, ... that does not exist."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate
