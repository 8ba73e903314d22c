"""Work that is under way on a fleet: given out again when a worker is lost, until it ends."""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Future
from distributed.scheduler import KilledWorker

from .worker_pool import Fleet

__all__ = ["Ended", "Lost", "Tasks"]

# So often work is given out when nobody knows what became of it.
ATTEMPTS = 5

# Seconds to wait for a result that is there, and what it means when it does not come: the worker
# that had it is gone, or the scheduler is.
ANSWER_SECONDS = 10
GONE = (OSError, TimeoutError, CancelledError)


@dataclass(frozen=True)
class Lost:
    """In place of a result: no worker came to the end of it."""

    why: str


@dataclass(frozen=True)
class Ended:
    """Work that is no longer under way. result : what it returned, or Lost."""

    number: int
    result: Any


class Tasks:
    """Work that was submitted and has not ended, each under a number. kind : names it for Dask."""

    def __init__(self, fleet: Fleet, kind: str) -> None:
        self._fleet, self._kind = fleet, kind
        self._work: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._futures: dict[int, Future] = {}
        self._attempts: dict[int, int] = {}
        self._submitted = 0
        self._generation = fleet.generation
        self._messages: SimpleQueue[Any] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def __contains__(self, number: int) -> bool:
        return number in self._futures

    def submit(self, number: int, work: Callable[..., Any], *arguments: Any) -> None:
        """Have a worker do it."""
        self._work[number] = work, arguments
        self._attempts[number] = self._attempts.get(number, 0) + 1
        self._give_out(number)

    def _give_out(self, number: int) -> None:
        work, arguments = self._work[number]
        self._submitted += 1  # a name that was used would have its old result
        name = f"{self._kind}-{number}-{self._submitted}"
        future = self._fleet.submit(work, *arguments, name=name)
        self._futures[number] = future
        future.add_done_callback(lambda done: self._messages.put((number, done)))

    def post(self, message: Any) -> None:
        """Let taken() give a message, from any thread."""
        self._messages.put(message)

    def taken(self, seconds: float) -> Iterator[Any]:
        """An Ended for all that ended, and what was posted; waits so long for the first.

        Raises: ClusterError if the scheduler is gone.
        """
        if self._generation != self._fleet.generation:
            self._generation = self._fleet.generation
            for number, future in list(self._futures.items()):
                self._give_out(number)
                future.cancel()
        try:
            message = self._messages.get(timeout=seconds)
            while True:
                if not self._is_future(message):
                    yield message
                elif self._futures.get(message[0]) is message[1]:
                    yield from self._ended(*message)
                message = self._messages.get_nowait()
        except Empty:
            pass

    @staticmethod
    def _is_future(message: Any) -> bool:
        return isinstance(message, tuple) and isinstance(message[1], Future)

    def _ended(self, number: int, future: Future) -> Iterator[Ended]:
        result = _result(future)
        if result is not None:
            self._forget(number)
            yield Ended(number, result)
            return
        self._fleet.check_scheduler()  # which forgot it, if it is not gone
        if self._attempts[number] < ATTEMPTS:
            work, arguments = self._work[number]
            self.submit(number, work, *arguments)
            return
        self._forget(number)
        yield Ended(number, Lost("no worker ended it"))

    def drop(self, number: int) -> None:
        """Its result is not wanted any more."""
        future = self._futures[number]
        self._forget(number)
        future.cancel()

    def _forget(self, number: int) -> None:
        del self._futures[number], self._work[number], self._attempts[number]

    def close(self) -> None:
        """Drop all."""
        for number in list(self._futures):
            if self._fleet.client.status == "running":
                self.drop(number)


def _result(future: Future) -> Any:
    """What it returned, or why it did not; None if nobody knows."""
    with suppress(*GONE):
        if future.status == "finished":
            return future.result(ANSWER_SECONDS)
        if future.status == "error":
            return _why(future.exception(ANSWER_SECONDS))
    return None


def _why(error: BaseException | None) -> Lost:
    if isinstance(error, KilledWorker):
        return Lost("the workers that ran it died, one after the other")
    return Lost(f"{type(error).__name__}: {error}")
