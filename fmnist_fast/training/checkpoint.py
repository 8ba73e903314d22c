"""Checkpoints: what a run needs to go on as if nothing had happened, in a folder of its own.

    DIR/run.json                      what is being trained: recipe, data set, backend
    DIR/lock                          held while a run writes here
    DIR/step-000001720-<sha256>.safetensors   the last two states, each with its checksum as name
    DIR/teacher-1/...                 the same for a network that is trained first, to teach

Each file is the old one or the new one, never a part, whenever the process is killed.
"""

import json
import re
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._files import write_atomically
from ..errors import CheckpointError

__all__ = ["Checkpoints", "RunFolder", "Snapshot", "read_identity"]

FORMAT_VERSION = 1
IDENTITY = "run.json"
LOCK = "lock"
KEPT = 2

# Without a wish of the user's, checkpoints take at most this share of the time, and come at most
# once in so many seconds.
SHARE = 0.05
LEAST_SECONDS = 1.0

_KEY = "fmnist_fast"
_NAME = re.compile(r"step-(\d{9,})-([0-9a-f]{16})\.safetensors")


class Snapshot(NamedTuple):
    """A run at one step. tensors : arrays by name; facts : the rest, as JSON has it."""

    step: int
    tensors: Mapping[str, NDArray]
    facts: Mapping[str, Any]


class RunFolder:
    """The folder of one run, locked for this process until close()."""

    def __init__(self, folder: Path, every: int | None) -> None:
        from filelock import FileLock, Timeout

        self.folder, self._every = folder, every
        self._lock = FileLock(folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise CheckpointError(
                f"another run is writing to {folder}: wait for it, stop it, or name another folder"
            ) from None
        for leftover in folder.rglob(".*.tmp"):  # of a run that was killed
            leftover.unlink(missing_ok=True)

    @classmethod
    def create(cls, folder: Path, identity: Mapping[str, Any], every: int | None) -> "RunFolder":
        """A folder for a new run. Raises: CheckpointError if that cannot be; OSError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise CheckpointError(f"{folder} is no folder: name one, or a new one") from None
        made = cls(folder, every)
        try:
            if (folder / IDENTITY).exists():
                raise CheckpointError(
                    f"{folder} holds a run already: go on with it (--resume {folder}), or name "
                    "another folder"
                )
            strangers = [path.name for path in folder.iterdir() if path.name != LOCK]
            if strangers:
                raise CheckpointError(
                    f"{folder} holds other files ({strangers[0]}): name an empty or a new folder"
                )
            content = {"format_version": FORMAT_VERSION, **identity}
            text = json.dumps(content, indent=2, sort_keys=True) + "\n"
            write_atomically(folder / IDENTITY, text.encode())
        except BaseException:
            made.close()
            raise
        return made

    @classmethod
    def open(cls, folder: Path, every: int | None) -> "RunFolder":
        """The folder of a run to go on with. Raises: CheckpointError if there is none."""
        read_identity(folder)
        return cls(folder, every)

    def stage(self, name: str = "") -> "Checkpoints":
        """Where one network of the run keeps its states."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Checkpoints(folder, self._every)

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.release()


def read_identity(folder: Path) -> dict[str, Any]:
    """What the run in this folder trains. Raises: CheckpointError, one line, if it holds none."""
    path = folder / IDENTITY
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
        version = identity["format_version"]
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} holds no run to go on with: start one with --checkpoint {folder}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} has checkpoints of format {version}, and this fmnist-fast reads "
            f"{FORMAT_VERSION}: use the version that wrote them"
        )
    return dict(identity)


class Checkpoints:
    """The states of one network on its way, newest last; only the last two stay.

    every : epochs between two of them; None: as often as they cost little.
    """

    def __init__(self, folder: Path, every: int | None) -> None:
        self.folder, self.every = folder, every
        self._cost = 0.0
        self._last = perf_counter()
        self._warned = False

    def due(self, epoch_done: int | None) -> bool:
        """Whether to save now. epoch_done : the epoch that was just completed, if one was."""
        if self.every is not None:
            return epoch_done is not None and epoch_done % self.every == 0
        return perf_counter() - self._last >= max(LEAST_SECONDS, self._cost / SHARE)

    def save(self, snapshot: Snapshot) -> bool:
        """Write a state, then let go of the oldest; False, after a warning, if it cannot be.

        A disk that is full must cost neither the training nor the states before.
        """
        start = perf_counter()
        try:
            content = _to_bytes(snapshot)
            digest = sha256(content).hexdigest()[:16]
            name = f"step-{snapshot.step:09d}-{digest}.safetensors"
            write_atomically(self.folder / name, content)
            for path in self._states()[:-KEPT]:
                path.unlink(missing_ok=True)
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"no checkpoint in {self.folder}: {error.strerror or error}; the training goes "
                    "on, and those before stay",
                    stacklevel=2,
                )
            self._warned = True
            return False
        finally:
            self._last = perf_counter()
            self._cost = self._last - start
        return True

    def latest(self) -> Snapshot | None:
        """The newest state that is whole; None if there is none. Damaged ones are named."""
        for path in reversed(self._states()):
            content = path.read_bytes()
            match = _NAME.fullmatch(path.name)
            assert match
            if sha256(content).hexdigest()[:16] == match[2]:
                return _from_bytes(int(match[1]), content)
            warnings.warn(f"{path} is damaged: going on with the one before", stacklevel=2)
        return None

    def _states(self) -> list[Path]:
        """Oldest first."""
        found = (path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))
        return sorted(found, key=lambda path: (int(path.name.split("-")[1]), path.name))


def _to_bytes(snapshot: Snapshot) -> bytes:
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(array) for name, array in snapshot.tensors.items()}
    return save(tensors, {_KEY: json.dumps(snapshot.facts, sort_keys=True)})


def _from_bytes(step: int, content: bytes) -> Snapshot:
    from safetensors.numpy import load

    size = int.from_bytes(content[:8], "little")  # the header's, as the format has it
    facts = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_KEY])
    return Snapshot(step, load(content), facts)
