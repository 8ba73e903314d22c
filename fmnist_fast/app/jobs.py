"""Queue of the jobs of all sessions; one runs at a time. Independent of Streamlit."""

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from threading import Lock, Thread
from time import monotonic
from typing import Any, Generic, TypeVar

from fmnist_fast.errors import UserError

__all__ = ["ABANDON_SECONDS", "MAX_WAITING", "Job", "JobQueue", "QueueFull", "State"]

# A job is abandoned if no page has polled it for so many seconds: pages poll every second, and a
# phone that changes networks reconnects within this.
ABANDON_SECONDS = 30.0

# More would wait longer than people do.
MAX_WAITING = 20

Result = TypeVar("Result")


class QueueFull(UserError):
    """MAX_WAITING jobs are waiting."""


class State(Enum):
    """State of a job. FAILED : with an error. STOPPED : without a result."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Job(Generic[Result]):
    """Work that is waiting, running or has ended.

    result : return value of the work, once the job is done. error : one line, once it has failed.
    """

    def __init__(
        self,
        work: Callable[[Callable[[], bool]], Result],
        connected: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.state = State.WAITING
        self.result: Result | None = None
        self.error: str | None = None
        self._work, self._connected, self._clock = work, connected, clock
        self._stop_requested = False
        self._last_polled = clock()

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state not in (State.WAITING, State.RUNNING)

    def should_stop(self) -> bool:
        """Whether the work should end: a stop was requested, or the job is abandoned."""
        return self._stop_requested or self.abandoned()

    def abandoned(self) -> bool:
        """Whether its session is disconnected and has not polled it for ABANDON_SECONDS."""
        if self._connected():
            self.mark_polled()
        return self._clock() - self._last_polled > ABANDON_SECONDS

    def mark_polled(self) -> None:
        """Restart the time after which the job is abandoned."""
        self._last_polled = self._clock()

    def stop(self) -> None:
        """Request an end; a job that is waiting never begins."""
        self._stop_requested = True

    def run(self) -> None:
        """Do the work; errors are recorded in `state` and `error`, never raised."""
        self.state = State.RUNNING
        try:
            self.result = self._work(self.should_stop)
            self.state = State.DONE
        except KeyboardInterrupt:  # raised by a training that should_stop() ended
            self.state = State.STOPPED
        except UserError as error:
            self._fail(" ".join(str(error).split()))
        except MemoryError:
            self._fail("Not enough memory: choose narrower layers.")
        except Exception:
            logging.getLogger(__name__).exception("a job of the app failed")
            self._fail("Internal error: see the log of the app.")

    def _fail(self, error: str) -> None:
        self.error = error
        self.state = State.FAILED


class JobQueue:
    """First-in, first-out queue; one job runs at a time. Thread-safe.

    Jobs run in a thread of the queue, which ends when no job is waiting.
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
        connected: Callable[[], bool] = lambda: False,
    ) -> Job[Result]:
        """Put work in the queue.

        work : called with a function that it polls, some ten times a second, whether to stop.
        connected : whether the session that wants the result is connected; if not, `position` must
        be called every ABANDON_SECONDS, or the job is abandoned.
        Raises: QueueFull.
        """
        job = Job(work, connected, self._clock)
        with self._lock:
            self._drop_stopped()
            if len(self._waiting) >= MAX_WAITING:
                raise QueueFull(f"{MAX_WAITING} trainings are waiting already: try again later")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="app jobs", daemon=True)
                self._thread.start()
        return job

    def position(self, job: Job[Any]) -> int:
        """Return the number of jobs before this one, 0 once it is running; counts as a poll."""
        job.mark_polled()
        with self._lock:
            self._drop_stopped()
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def _drop_stopped(self) -> None:
        """Remove waiting jobs that are abandoned or stopped."""
        for job in [job for job in self._waiting if job.should_stop()]:
            self._waiting.remove(job)
            job.state = State.STOPPED

    def _serve(self) -> None:
        """Body of the thread."""
        while True:
            with self._lock:
                self._drop_stopped()
                self._running = self._waiting.popleft() if self._waiting else None
                if self._running is None:
                    self._thread = None
                    return
                job = self._running
            job.run()
