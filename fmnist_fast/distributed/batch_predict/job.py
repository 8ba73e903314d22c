"""Keeps the workers of a fleet busy with blocks, until all are scored."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from distributed import Client
from distributed.comm import CommClosedError

from ...errors import ClusterError, DataError, UserError
from ...models.ensemble import Ensemble, members_of
from ...models.model import Model
from ...nn.backend import backend_name
from ...vision.segmentation import OPENCV_MISSING
from ..tasks import Ended, Tasks
from ..worker import describe
from ..worker_pool import Fleet, Prepare
from .blocks import ArrayRows, Block, Chunk
from .readers import Reader
from .result_store import Partial
from .worker import Absent, Scored, Scoring, Trouble, keep_model, score

__all__ = ["View", "model_name", "model_to_workers", "score_all", "workers_identity"]

# Seconds between two looks at signals.
TICK = 0.2

# Blocks that a worker's thread has, one of them under way: the next begins while the answers of the
# last are on their way.
AHEAD = 2


class View(Protocol):
    """Told how it goes."""

    def update(self, partial: Partial, fleet: Fleet) -> None:
        """Some five times a second or more."""

    def note(self, message: str) -> None:
        """Something that people should know."""


def model_name(model: Path | None, backend: str) -> str:
    """What workers call a model file, by its content, when this backend computes it; None: those in
    the package. Raises: OSError.
    """
    content = "in the box" if model is None else sha256(model.read_bytes()).hexdigest()
    return f"{content}, {backend}"


def workers_identity(model: Model | Ensemble) -> dict[str, Any]:
    """What workers must be, to give the answers that would be given here."""
    here = describe(backend_name(members_of(model)[0].network.backend))
    return {name: value for name, value in here.items() if name != "host"}


def model_to_workers(model: Path | None, backend: str) -> Prepare:
    """What gives workers the model. None: those in the package. Raises: OSError."""
    name, content = model_name(model, backend), model.read_bytes() if model else None

    def prepare(client: Client, workers: Sequence[str]) -> Mapping[str, str]:
        said = client.run(
            keep_model, name, content, backend, workers=list(workers), on_error="return"
        )
        for error in said.values():
            if isinstance(error, UserError):
                raise error
        return {
            address: f"it cannot load the model: {error}"
            for address, error in said.items()
            if isinstance(error, Exception) and not isinstance(error, CommClosedError)
        }

    return prepare


def score_all(
    partial: Partial,
    how: Scoring,
    inputs: int,
    fleet: Fleet,
    view: View,
    should_stop: Callable[[], bool],
) -> bool:
    """Score all blocks that have no answers yet; False if should_stop() ended it before.

    inputs : numbers of a row. Raises: ClusterError if the scheduler is gone, or no worker can do
    it; DataError if a file is damaged or has changed; OSError; sqlite3.Error.
    """
    tasks, reader = Tasks(fleet, "block"), Reader(how.root, inputs)
    try:
        return _Job(partial, how, fleet, view, tasks, reader).run(should_stop)
    finally:
        tasks.close()
        reader.close()


class _Job:
    def __init__(
        self,
        partial: Partial,
        how: Scoring,
        fleet: Fleet,
        view: View,
        tasks: Tasks,
        reader: Reader,
    ) -> None:
        self.partial, self.how, self.fleet, self.view = partial, how, fleet, view
        self.tasks, self.reader = tasks, reader
        self.blocks: dict[int, Block] = {}
        self.plain = 0
        self.sending = False  # since a worker has not the files that are here

    def run(self, should_stop: Callable[[], bool]) -> bool:
        waiting = self.partial.waiting()
        more = True
        while more or self.tasks:
            if should_stop():
                return False
            self.fleet.look()
            for message in self.fleet.news():
                self.view.note(message)
            while more and len(self.tasks) < AHEAD * self.fleet.slots:
                number, block = next(waiting, (0, None))
                if block is None:
                    more = False
                else:
                    self.blocks[number] = block
                    self._submit(number, send=self.sending)
            for event in self.tasks.taken(TICK):
                self._ended(event)
            self.view.update(self.partial, self.fleet)
        if self.plain and self.how.segmentation == "auto":
            self.view.note(OPENCV_MISSING)
        return True

    def _submit(self, number: int, *, send: bool) -> None:
        block = self.blocks[number]
        packed = isinstance(block, ArrayRows) and block.packed
        chunks = self.reader.read(block) if send or packed else None
        if send and all(map(_whole, chunks or ())):
            self.sending = True  # what workers lack is here
        self.tasks.submit(number, score, block, chunks, self.how)

    def _ended(self, event: Ended) -> None:
        result = event.result
        if isinstance(result, Absent):
            self._submit(event.number, send=True)
            return
        del self.blocks[event.number]
        if isinstance(result, Trouble):
            raise (DataError if result.of_file else UserError)(result.why)
        if not isinstance(result, Scored):
            raise ClusterError(f"a block could not be scored: {result.why}")
        self.partial.keep(event.number, result.answers, result.rows, result.failed)
        self.plain += result.plain


def _whole(chunk: Chunk) -> bool:
    return not isinstance(chunk, list) or not any(encoded.why_not for encoded in chunk)
