"""Checkpoints: the state of a training in a folder, from which it resumes to the same bytes.

    DIR/run.json                      what is trained: configuration, data set, backend
    DIR/lock                          held while a process writes here
    DIR/step-000001720-<sha256>.safetensors   the last two snapshots, named by their checksums
    DIR/teacher-1/...                 the same for a teacher, which is trained first

Files are replaced atomically, so that a process may be killed at any time.
"""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from numpy.typing import NDArray

from .._files import sync_folder, write_atomically
from ..errors import CheckpointError
from ..models.safetensors_io import error_text, load_file, serialize
from ..nn.network import check_threads
from .config import TrainingConfig

FORMAT_VERSION = 2
IDENTITY = "run.json"
LOCK = "lock"
CHECKPOINTS_KEPT = 2

# Unless the user sets an interval, checkpoints take at most this fraction of the time, and are at
# least so many seconds apart.
TIME_FRACTION = 0.05
MIN_SECONDS = 1.0

_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.safetensors")


class Snapshot(NamedTuple):
    """State of a network's training after a step. metadata : all but the tensors, plain JSON."""

    step: int
    tensors: Mapping[str, NDArray]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class RunIdentity:
    """What is trained in a folder: the content of run.json.

    config : not checked for a data set. dataset : its name and checksum. metadata : of the caller
    of `train`, plain JSON.
    """

    config: TrainingConfig
    dataset: Mapping[str, str]
    backend: str
    instruction_set: str | None
    fmnist_fast: str
    threads: int | None
    metadata: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {**vars(self), "format_version": FORMAT_VERSION, "config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "RunIdentity":
        """Invert `to_dict`. Raises: KeyError, TypeError or ValueError if an entry is not valid."""
        values = {field.name: entries[field.name] for field in fields(cls)}
        texts = {name: values[name] for name in ("backend", "fmnist_fast")}
        texts |= {name: values["dataset"][name] for name in ("name", "checksum")}
        for name, value in texts.items():
            if not isinstance(value, str):
                raise ValueError(f"its {name} is {value!r}")
        check_threads(values["threads"])
        if not isinstance(values["metadata"], dict):
            raise TypeError
        return cls(**values | {"config": TrainingConfig.from_dict(values["config"])})


class CheckpointFolder:
    """The folder of one training, locked for this process until close()."""

    def __init__(self, folder: Path, every: int | None) -> None:
        from filelock import FileLock, Timeout

        self.folder, self._every = folder, every
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(f"another process is writing to {folder}: wait for it") from None
        for leftover in folder.rglob(".*.tmp"):  # of a process that was killed
            leftover.unlink(missing_ok=True)

    @classmethod
    def create(cls, folder: Path, identity: RunIdentity, every: int | None) -> "CheckpointFolder":
        """Make the folder of a new training. Raises: CheckpointError; OSError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
        except (FileExistsError, NotADirectoryError):
            raise CheckpointError(f"{folder} is not a folder: name an empty or a new one") from None
        made = cls(folder, every)
        try:
            if (folder / IDENTITY).exists():
                raise CheckpointError(
                    f"{folder} already has checkpoints: resume from them, or name another folder"
                )
            others = [path.name for path in folder.iterdir() if path.name != LOCK]
            if others:
                raise CheckpointError(f"{folder} holds other files ({others[0]}): name a new one")
            text = json.dumps(identity.to_dict(), indent=2, sort_keys=True) + "\n"
            write_atomically(folder / IDENTITY, text.encode())
        except BaseException:
            made.close()
            raise
        return made

    def checkpoints(self, name: str = "") -> "Checkpoints":
        """Return the checkpoints of one network of the training."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        sync_folder(self.folder)
        return Checkpoints(folder, self._every)

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()


def read_identity(folder: Path) -> RunIdentity:
    """Return what is trained in this folder. Raises: CheckpointError if it has no checkpoints."""
    path = folder / IDENTITY
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if (version := entries["format_version"]) == FORMAT_VERSION:
            return RunIdentity.from_dict(entries)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} has no checkpoints to resume from: write some with --checkpoint {folder}"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged_identity(folder, error) from error
    raise CheckpointError(
        f"{folder} has checkpoints of format {version}: use the version that wrote them"
    )


def damaged_identity(folder: Path, error: Exception) -> CheckpointError:
    """Return the error to raise if an entry of the folder's run.json is not valid."""
    return CheckpointError(
        f"{folder / IDENTITY} is damaged or unreadable: {error_text(error)}; restore the file, or "
        "train anew in another folder"
    )


class Checkpoints:
    """The snapshots of one network; only the last two are kept.

    every : epochs between two of them; None: as often as `TIME_FRACTION` allows.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.folder, self.every = folder, every
        self._cost = 0.0
        self._last = perf_counter()
        self._warned = False

    def due(self, epoch_done: int | None) -> bool:
        """Return whether to save now. epoch_done : the epoch that has just ended, if any."""
        if self.every is not None:
            return epoch_done is not None and epoch_done % self.every == 0
        return perf_counter() - self._last >= max(MIN_SECONDS, self._cost / TIME_FRACTION)

    def save(self, snapshot: Snapshot) -> bool:
        """Write a snapshot and delete the oldest; False, after a warning, if that fails.

        A full disk must stop neither the training nor damage earlier snapshots.
        """
        start = perf_counter()
        try:
            content = serialize(snapshot.metadata, snapshot.tensors, allow_nan=True)
            digest = sha256(content).hexdigest()[:16]
            name = f"step-{snapshot.step:09d}-{digest}.safetensors"
            write_atomically(self.folder / name, content)
            for _, _, path in self._files()[:-CHECKPOINTS_KEPT]:
                path.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                reason = f"{error.strerror or error}; training continues"
                warnings.warn(f"no checkpoint was written to {self.folder}: {reason}", stacklevel=2)
            self._warned = True
            return False
        finally:
            self._last = perf_counter()
            self._cost = self._last - start
        return True

    def latest(self) -> Snapshot | None:
        """Return the newest intact snapshot, None if there is none; warn of damaged ones."""
        for step, digest, path in reversed(self._files()):
            if sha256(path.read_bytes()).hexdigest()[:16] == digest:
                metadata, tensors = load_file(path, allow_nan=True)
                return Snapshot(step, tensors, metadata)
            warnings.warn(f"{path} is damaged: resuming from the one before", stacklevel=2)
        return None

    def _files(self) -> list[tuple[int, str, Path]]:
        """Return step, checksum and path of every snapshot, oldest first."""
        matches = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((int(m[1]), m[2], self.folder / m[0]) for m in matches if m)
