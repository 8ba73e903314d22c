"""Scheduling loop of a sweep: dispatches trials to Dask workers, and stores their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Any

from distributed import Client
from optuna.trial import Trial

from ...data.datasets import Dataset
from ...errors import SweepError
from ..tasks import Finished, TaskFailure, Tasks
from ..worker import DataKey, arrays_of, has_data, receive
from ..worker_pool import Prepare, WorkerPool
from .config import SweepConfig
from .results import Ranked, best_trials
from .study_store import Counts, StudyStore
from .trial import Result
from .worker import Divergence, work

# Between two looks at signals and the clock.
POLL_SECONDS = 0.2

# Consecutive failures, other than divergence, that end the sweep.
MAX_CONSECUTIVE_FAILURES = 5


class StopReason(Enum):
    """Why a sweep has stopped."""

    DONE = "all trials are done"
    TIME = "its time is over"
    STOPPED = "it was stopped"


@dataclass
class Status:
    """Progress of a sweep. ended_here : trials that ended since this process began, in `seconds`.
    until_deadline : seconds left at most.
    """

    trials: int
    counts: Counts
    running: int = 0
    workers: int = 0
    slots: int = 0
    ended_here: int = 0
    seconds: float = 0.0
    best: Ranked | None = None
    rejected: Mapping[str, str] = field(default_factory=dict)
    until_deadline: float = float("inf")

    @property
    def per_minute(self) -> float | None:
        """Trials a minute of this process."""
        return 60 * self.ended_here / self.seconds if self.ended_here and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated time until all trials are done or the deadline is reached."""
        left, speed = self.trials - self.counts.ended, self.per_minute
        seconds = min(60 * left / speed if speed else float("inf"), self.until_deadline)
        return seconds if seconds < float("inf") else None

    @property
    def fraction(self) -> float:
        """Completed fraction of the trials or of the time, whichever is more."""
        of_time = self.seconds / max(self.seconds + self.until_deadline, 1e-9)
        return max(self.counts.ended / self.trials, of_time)


class SweepObserver:
    """Receives the events of a sweep; override the methods you need. The default does nothing."""

    def update(self, status: Status) -> None:
        """Called some five times a second."""

    def note(self, message: str) -> None:
        """Called with warnings, such as rejected workers."""


def data_to_workers(dataset: Dataset) -> Prepare:
    """Return a function that sends the data set to workers that lack it: to one of each machine
    first, since its cache serves the others.
    """
    key = DataKey.from_dataset(dataset)

    def prepare(client: Client, workers: Sequence[str]) -> Mapping[str, str]:
        while True:
            found = client.run(has_data, key, workers=list(workers), on_error="return")
            workers = [address for address, has in found.items() if has is False]
            if not workers:
                return {}
            one_a_host = {address.rpartition(":")[0]: address for address in workers}
            client.run(receive, key, arrays_of(dataset), workers=list(one_a_host.values()))

    return prepare


def run_sweep(
    config: SweepConfig,
    store: StudyStore,
    pool: WorkerPool,
    observer: SweepObserver,
    should_stop: Callable[[], bool],
    deadline: float = float("inf"),
) -> StopReason:
    """Run trials until config.trials have ended, should_stop() returns True, or time.monotonic()
    reaches the deadline. Trials that run then are run again when the sweep is resumed.

    Raises: ClusterError if the scheduler is gone or all workers are rejected; SweepError if trials
    fail one after the other; OSError if the study cannot be written.
    """
    loop = _SchedulingLoop(config, store, pool)
    try:
        while loop.counts.ended < config.trials:
            if should_stop():
                return StopReason.STOPPED
            if monotonic() >= deadline:
                return StopReason.TIME
            pool.refresh()
            for message in pool.poll_messages():
                observer.note(message)
            loop.step()
            observer.update(loop.status(deadline))
        loop.record_failures()
        return StopReason.DONE
    finally:
        loop.close()


class _SchedulingLoop:
    def __init__(self, config: SweepConfig, store: StudyStore, pool: WorkerPool) -> None:
        self.config, self.store, self.pool = config, store, pool
        self.key = DataKey.from_dataset(config.dataset)
        self.tasks = Tasks(pool, "trial")
        self.trials: dict[int, Trial] = {}  # running
        self.unexplained_failures: dict[int, str] = {}  # in a row, other than divergence
        self.counts, self.start = store.counts(), monotonic()
        self.start_ended = self.counts.ended
        store.configure(config)
        self.best = next(iter(best_trials(store, config, 1)), None)
        self.topic = None if config.pruner == "none" else f"{pool.resource}-rungs"
        if self.topic:
            pool.client.subscribe_topic(self.topic, self._receive)

    async def _receive(self, event: tuple[float, Any]) -> None:
        self.tasks.emit(event[1])

    def step(self) -> None:
        """Dispatch trials, and handle events for POLL_SECONDS or until there is one."""
        # One trial a slot; and one in advance if the sampler does not learn from results.
        most = self.pool.slots * (1 if self.config.sampler == "tpe" else 2)
        while len(self.tasks) < min(most, self.config.trials - self.counts.ended):
            trial = self.store.ask()
            self.trials[trial.number] = trial
            task = self.config.task(trial.number, trial.params)
            self.tasks.submit(trial.number, work, task, self.key, self.topic)
        for event in self.tasks.poll(POLL_SECONDS):
            if isinstance(event, Finished):
                self._finish(event.number, event.result)
            else:
                self._report(*event)

    def _report(self, number: int, rung: int, value: float) -> None:
        if number in self.tasks and self.store.report(self.trials[number], rung, value):
            self.tasks.cancel(number)
            self.store.prune(self.trials.pop(number))
            self.counts.pruned += 1

    def _finish(self, number: int, outcome: Result | TaskFailure) -> None:
        if isinstance(outcome, TaskFailure) and not isinstance(outcome, Divergence):
            self.unexplained_failures[number] = outcome.error
            self.counts.failed += 1
            if len(self.unexplained_failures) >= MAX_CONSECUTIVE_FAILURES:
                raise SweepError(  # resuming runs them again
                    f"{len(self.unexplained_failures)} trials in a row failed, the last: "
                    f"{outcome.error}"
                )
            return
        self.record_failures()
        trial = self.trials.pop(number)
        if isinstance(outcome, Divergence):
            self.store.fail(trial, outcome.error)
            self.counts.failed += 1
            return
        self.store.complete(trial, outcome)
        self.counts.complete += 1
        self.best = best_trials(self.store, self.config, 1)[0]

    def record_failures(self) -> None:
        """Store unexplained failures: since others succeed, or none is left, they are final."""
        for number, error in self.unexplained_failures.items():
            self.store.fail(self.trials.pop(number), error)
        self.unexplained_failures.clear()

    def status(self, deadline: float) -> Status:
        now = monotonic()
        return Status(
            trials=self.config.trials,
            counts=self.counts,
            running=len(self.tasks),
            workers=len(self.pool.threads),
            slots=self.pool.slots,
            ended_here=self.counts.ended - self.start_ended,
            seconds=now - self.start,
            best=self.best,
            rejected=self.pool.rejected,
            until_deadline=max(0.0, deadline - now),
        )

    def close(self) -> None:
        """Cancel what is running, and have it run again when the sweep is resumed."""
        self.tasks.close()
        if self.topic and self.pool.client.status == "running":
            self.pool.client.unsubscribe_topic(self.topic)
        self.store.requeue(self.trials.values())
