"""Tasks submitted to a worker pool, resubmitted when their result is lost."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future
from distributed.scheduler import KilledWorker

from .worker_pool import WorkerPool

# Submissions of a task whose result cannot be fetched. Deaths of workers are counted by Dask
# (`allowed-failures`).
MAX_ATTEMPTS = 5

# Seconds to wait for the result of a finished task. It does not come if its worker or the scheduler
# has died since.
FETCH_SECONDS = 10


@dataclass(frozen=True)
class TaskFailure:
    """Failure of a task, returned in place of its result."""

    error: str


@dataclass(frozen=True)
class Finished:
    """A task that is no longer running. result : its return value, or TaskFailure."""

    number: int
    result: Any


@dataclass
class _Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    attempts: int = 0
    future: Any = None


class Tasks:
    """Running tasks by number. kind : prefix of their keys."""

    def __init__(self, pool: WorkerPool, kind: str) -> None:
        self._pool, self._kind, self._epoch = pool, kind, pool.epoch
        self._tasks: dict[int, _Task] = {}
        self._dispatched = 0
        self._messages: SimpleQueue[Any] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, number: int) -> bool:
        return number in self._tasks

    def submit(self, number: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Run function(*arguments) on a worker."""
        self._tasks[number] = _Task(function, arguments)
        self._dispatch(number)

    def _dispatch(self, number: int) -> None:
        task = self._tasks[number]
        task.attempts += 1
        self._dispatched += 1  # Dask would return the old result for a key that it knows
        key = f"{self._kind}-{number}-{self._dispatched}"
        task.future = self._pool.submit(task.function, *task.arguments, name=key)
        task.future.add_done_callback(lambda future: self.emit((number, future)))

    def emit(self, message: Any) -> None:
        """Have poll() return a message. Callable from any thread."""
        self._messages.put(message)

    def poll(self, seconds: float) -> Iterator[Any]:
        """Wait for the first of: finished tasks, as Finished, and emitted messages; yield all.

        Raises: ClusterError if the scheduler is gone.
        """
        if self._epoch != self._pool.epoch:
            self._epoch = self._pool.epoch
            for number, task in self._tasks.items():
                stale = task.future
                self._dispatch(number)
                stale.cancel()
        with suppress(Empty):
            message = self._messages.get(timeout=seconds)
            while True:
                if not (isinstance(message, tuple) and isinstance(message[1], Future)):
                    yield message
                elif message[0] in self and self._tasks[message[0]].future is message[1]:
                    yield from self._finish(*message)
                message = self._messages.get_nowait()

    def _finish(self, number: int, future: Future) -> Iterator[Finished]:
        result = _fetch(future)
        if result is None:  # forgotten by the scheduler, unless that is gone
            self._pool.check_scheduler()
            if self._tasks[number].attempts < MAX_ATTEMPTS:
                self._dispatch(number)
                return
            result = TaskFailure("no worker completed it")
        del self._tasks[number]
        yield Finished(number, result)

    def cancel(self, number: int) -> None:
        """Discard a task and its result."""
        self._tasks.pop(number).future.cancel()

    def close(self) -> None:
        """Cancel all tasks."""
        for number in list(self._tasks):
            if self._pool.client.status == "running":
                self.cancel(number)


def _fetch(future: Future) -> Any:
    """Return the result or the error, or None if neither can be had any more."""
    with suppress(OSError, TimeoutError, CancelledError):
        if future.status == "finished":
            return future.result(FETCH_SECONDS)
        if future.status == "error":
            error = future.exception(FETCH_SECONDS)
            if isinstance(error, KilledWorker):
                return TaskFailure("the workers that ran it died, one after the other")
            return TaskFailure(f"{type(error).__name__}: {error}")
    return None
