"""Scheduling loop of batch prediction: dispatches blocks to Dask workers, stores their results."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.comm import CommClosedError

from ...errors import ClusterError, DamagedFileError, DataError, UserError
from ...models.ensemble import Ensemble, members_of
from ...models.model import Model
from ...nn.backend import backend_name
from ...vision.segmentation import OPENCV_MISSING
from ..tasks import Finished, Tasks
from ..worker import describe
from ..worker_pool import Prepare, WorkerPool
from .blocks import ArrayRows, Block, Chunk, failed_rows
from .readers import LocalReader
from .result_store import ResultStore
from .worker import BlockError, FilesMissing, PredictConfig, Predicted, keep_model, predict

# Between two looks at signals.
POLL_SECONDS = 0.2

# Blocks of a worker thread: one is predicted while the results of the last are on their way.
BLOCKS_PER_SLOT = 2


class PredictObserver:
    """Receives the events of a batch prediction; override what you need."""

    def update(self, store: ResultStore, pool: WorkerPool) -> None:
        """Called some five times a second or more."""

    def note(self, message: str) -> None:
        """Called with warnings, such as rejected workers."""


def model_name(model: Path | None, backend: str) -> str:
    """Name a model file in workers, by content and backend; None: the pretrained models.

    Raises: OSError.
    """
    content = "pretrained" if model is None else sha256(model.read_bytes()).hexdigest()
    return f"{content}, {backend}"


def workers_identity(model: Model | Ensemble) -> dict[str, Any]:
    """Return what must be equal in workers for equal predictions."""
    return describe(backend_name(members_of(model)[0].network.backend))


def model_to_workers(model: Path | None, backend: str) -> Prepare:
    """Return a function that sends a model to workers. None: the pretrained models.

    Raises: OSError.
    """
    name, content = model_name(model, backend), model.read_bytes() if model else None

    def prepare(client: Client, workers: Sequence[str]) -> Mapping[str, str]:
        results = client.run(
            keep_model, name, content, backend, workers=list(workers), on_error="return"
        )
        for error in results.values():
            if isinstance(error, UserError):
                raise error
        return {
            address: f"it cannot load the model: {error}"
            for address, error in results.items()
            if isinstance(error, Exception) and not isinstance(error, CommClosedError)
        }

    return prepare


def predict_all(
    store: ResultStore,
    config: PredictConfig,
    inputs: int,
    pool: WorkerPool,
    observer: PredictObserver,
    should_stop: Callable[[], bool],
) -> bool:
    """Predict all blocks without predictions; return False if should_stop() ended it before.

    inputs : numbers of a row. Rows of a damaged file have an error in place of a prediction.
    Raises: ClusterError if the scheduler is gone, or no worker can do it; DataError if a file has
    changed; OSError; sqlite3.Error.
    """
    job = _Job(store, config, pool, observer, LocalReader(config.folder, inputs))
    try:
        more = True
        while more or job.tasks:
            if should_stop():
                return False
            pool.refresh()
            for message in pool.poll_messages():
                observer.note(message)
            more = more and job.dispatch()
            for event in job.tasks.poll(POLL_SECONDS):
                job.finish(event)
            observer.update(store, pool)
    finally:
        job.tasks.close()
        job.reader.close()
    if job.by_histogram and config.segmentation == "auto":
        observer.note(OPENCV_MISSING)
    return True


class _Job:
    def __init__(
        self,
        store: ResultStore,
        config: PredictConfig,
        pool: WorkerPool,
        observer: PredictObserver,
        reader: LocalReader,
    ) -> None:
        self.store, self.config, self.pool = store, config, pool
        self.observer, self.reader = observer, reader
        self.tasks = Tasks(pool, "block")
        self.waiting = store.waiting()
        self.blocks: dict[int, Block] = {}  # running
        self.by_histogram = 0
        self.send_files = False  # since a worker lacks files that are here

    def dispatch(self) -> bool:
        """Submit blocks while there are slots; return whether blocks may be left."""
        while len(self.tasks) < BLOCKS_PER_SLOT * self.pool.slots:
            number, block = next(self.waiting, (0, None))
            if block is None:
                return False
            self.blocks[number] = block
            self._submit(number, send_files=self.send_files)
        return True

    def _submit(self, number: int, *, send_files: bool) -> None:
        block = self.blocks[number]
        chunks: list[Chunk] | None = None
        if send_files or (isinstance(block, ArrayRows) and block.compression):
            try:
                chunks = self.reader.read(block)
            except DamagedFileError as error:
                self.observer.note(str(error))
                chunks = [failed_rows(block, str(error))]
            images = [image for chunk in chunks if isinstance(chunk, list) for image in chunk]
            # What the worker lacks is here, unless an image is missing here, too.
            self.send_files |= send_files and not any(image.error for image in images)
        self.tasks.submit(number, predict, block, chunks, self.config)

    def finish(self, event: Finished) -> None:
        """Store the predictions of a block, or send its files. Raises: UserError."""
        result = event.result
        if isinstance(result, FilesMissing):
            self._submit(event.number, send_files=True)
            return
        del self.blocks[event.number]
        if isinstance(result, BlockError):
            raise (DataError if result.of_file else UserError)(result.error)
        if not isinstance(result, Predicted):
            raise ClusterError(f"a block could not be predicted: {result.error}")
        self.store.store(event.number, result.predictions, result.rows, result.failed)
        self.by_histogram += result.by_histogram
