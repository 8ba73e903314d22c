"""Queue of the jobs of all sessions; one runs at a time. Independent of Streamlit."""

import logging
from collections.abc import Callable
from enum import Enum
from threading import Lock, Thread
from time import monotonic
from typing import Any

from fmnist_fast.errors import UserError

# A job is abandoned if no page has polled it for so many seconds: pages poll every second, and a
# phone that changes networks reconnects within this.
ABANDON_SECONDS = 30.0

# More would wait longer than people do.
MAX_WAITING = 20

# Called with a function that it polls, some ten times a second, whether to stop.
Work = Callable[[Callable[[], bool]], Any]


class QueueFull(UserError):
    """MAX_WAITING jobs are waiting."""


class State(Enum):
    """State of a job. FAILED : with an error. STOPPED : without a result."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


class Job:
    """Work that is waiting, running or has ended. Arguments : see JobQueue.submit.

    result : return value of the work, once the job is done. error : one line, once it has failed.
    """

    def __init__(
        self, work: Work, connected: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self.work: Any = work
        self.state = State.WAITING
        self.result: Any = None
        self.error: str | None = None
        self._connected, self._clock = connected, clock
        self._stop_requested = False
        self._last_polled = clock()

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state not in (State.WAITING, State.RUNNING)

    def should_stop(self) -> bool:
        """Whether the work should end: a stop was requested, or the job is abandoned, since its
        session is disconnected and has not polled it for ABANDON_SECONDS.
        """
        if self._connected():
            self.mark_polled()
        abandoned = self._clock() - self._last_polled > ABANDON_SECONDS
        return self._stop_requested or abandoned

    def mark_polled(self) -> None:
        """Restart the time after which the job is abandoned."""
        self._last_polled = self._clock()

    def stop(self) -> None:
        """Request an end; a job that is waiting never begins."""
        self._stop_requested = True

    def run(self) -> None:
        """Do the work; errors are recorded in `state` and `error`, never raised."""
        state = State.FAILED
        try:
            self.result = self.work(self.should_stop)
            state = State.DONE
        except KeyboardInterrupt:  # raised by a training that should_stop() ended
            state = State.STOPPED
        except UserError as error:
            self.error = " ".join(str(error).split())
        except MemoryError:
            self.error = "Not enough memory: choose narrower layers."
        except Exception:
            logging.getLogger(__name__).exception("a job of the app failed")
            self.error = "Internal error: see the log of the app."
        self.state = state


class JobQueue:
    """First-in, first-out queue; one job runs at a time. Thread-safe.

    Jobs run in a thread of the queue, which ends when no job is waiting.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._jobs: list[Job] = []  # the running one and those that wait, in order
        self._thread: Thread | None = None

    def submit(self, work: Work, connected: Callable[[], bool] = lambda: False) -> Job:
        """Put work in the queue.

        connected : whether the session that wants the result is connected; if not, `position` must
        be called every ABANDON_SECONDS, or the job is abandoned.
        Raises: QueueFull.
        """
        job = Job(work, connected, self._clock)
        with self._lock:
            self._drop_ended()
            if len(self._jobs) > MAX_WAITING:
                raise QueueFull(f"{MAX_WAITING} trainings are waiting already: try again later")
            self._jobs.append(job)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="app jobs", daemon=True)
                self._thread.start()
        return job

    def position(self, job: Job) -> int:
        """Return the number of jobs before this one, 0 once it is running; counts as a poll."""
        job.mark_polled()
        with self._lock:
            self._drop_ended()
            return self._jobs.index(job) if job in self._jobs else 0

    def _drop_ended(self) -> None:
        """Remove jobs that have ended, and waiting ones that are abandoned or stopped."""
        for job in self._jobs:
            if job.state is State.WAITING and job.should_stop():
                job.state = State.STOPPED
        self._jobs = [job for job in self._jobs if not job.ended]

    def _serve(self) -> None:
        """Body of the thread."""
        while True:
            with self._lock:
                self._drop_ended()
                if not self._jobs:
                    self._thread = None
                    return
                job = self._jobs[0]
                job.state = State.RUNNING
            job.run()
