"""One training at a time: a queue of jobs, whoever wants them. Knows nothing of pages."""

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Lock, Thread
from time import monotonic
from typing import Any, Generic, TypeVar

from fmnist_fast.errors import UserError

__all__ = ["MOST_WAITING", "PATIENCE", "Job", "JobQueue", "QueueFull", "State"]

# Seconds after which a job that nobody has looked at is given up: a page asks every second, and a
# telephone that changes networks comes back within this.
PATIENCE = 30.0

# More would wait for longer than people do.
MOST_WAITING = 20

Result = TypeVar("Result")


class QueueFull(UserError):
    """So many jobs wait that one more is refused."""


class State(Enum):
    """What has become of a job. FAILED has an error; STOPPED had nothing to show yet."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Job(Generic[Result]):
    """Work that waits for its turn, runs or has ended.

    result : what the work returned, once the job is done. error : one line, once it has failed.
    """

    def __init__(
        self,
        work: Callable[[Callable[[], bool]], Result],
        present: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.state = State.WAITING
        self.result: Result | None = None
        self.error: str | None = None
        self._work, self._present, self._clock = work, present, clock
        self._asked_to_stop = False
        self._seen = clock()

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state not in (State.WAITING, State.RUNNING)

    def should_stop(self) -> bool:
        """Whether the work should come to an end: it was told to, or nobody waits for it."""
        return self._asked_to_stop or self.abandoned()

    def abandoned(self) -> bool:
        """Whether nobody has looked for PATIENCE seconds, and whoever asked for it is gone."""
        if self._present():
            self.seen()
        return self._clock() - self._seen > PATIENCE

    def seen(self) -> None:
        """Somebody still waits for this."""
        self._seen = self._clock()

    def stop(self) -> None:
        """Ask it to end; a job that waits never begins."""
        self._asked_to_stop = True

    def run(self) -> None:
        """Do the work; whatever happens in it ends in `state`, never in an exception."""
        self.state = State.RUNNING
        try:
            self.result = self._work(self.should_stop)
            self.state = State.DONE
        except KeyboardInterrupt:  # as a training ends that should_stop() has stopped
            self.state = State.STOPPED
        except UserError as error:
            self._fail(" ".join(str(error).split()))
        except MemoryError:
            self._fail("There is not enough memory for this: take narrower layers.")
        except Exception:
            logging.getLogger(__name__).exception("a job of the app failed")
            self._fail("Something went wrong. What it was is in the log of the app.")

    def _fail(self, error: str) -> None:
        self.error = error
        self.state = State.FAILED


class JobQueue:
    """First come, first served, one at a time. May be used from any thread.

    Jobs run in a thread of the queue's own, which ends when nothing waits.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._waiting: deque[Job[Any]] = deque()
        self._running: Job[Any] | None = None
        self._thread: Thread | None = None

    def submit(
        self,
        work: Callable[[Callable[[], bool]], Result],
        present: Callable[[], bool] = lambda: False,
    ) -> Job[Result]:
        """Put work in the queue.

        work : called with a function that it asks, some ten times a second, whether to stop.
        present : whether whoever wants the result is known to be there; else `position` must be
        asked every PATIENCE seconds, or the job is given up.
        Raises: QueueFull.
        """
        job = Job(work, present, self._clock)
        with self._lock:
            self._forget_lost()
            if len(self._waiting) >= MOST_WAITING:
                raise QueueFull(f"{MOST_WAITING} trainings wait already: try again later")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="app jobs", daemon=True)
                self._thread.start()
        return job

    def position(self, job: Job[Any]) -> int:
        """How many jobs come before this one; 0 also for one that runs or has ended.

        Whoever asks is taken to wait for the job.
        """
        job.seen()
        with self._lock:
            self._forget_lost()
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def _forget_lost(self) -> None:
        """Drop waiting jobs that nobody waits for any more, or that were stopped."""
        for job in [job for job in self._waiting if job.should_stop()]:
            self._waiting.remove(job)
            job.state = State.STOPPED

    def _serve(self) -> None:
        """Body of the thread."""
        while True:
            with self._lock:
                self._forget_lost()
                self._running = self._waiting.popleft() if self._waiting else None
                if self._running is None:
                    self._thread = None
                    return
                job = self._running
            job.run()
