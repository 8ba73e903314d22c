"""Keeps the workers of a fleet busy with the trials of a sweep, and the ledger true."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from time import monotonic
from typing import Any

from distributed import Client

from ...data.datasets import Dataset
from ...errors import SweepError
from ...kernels.interface import NetworkSpec
from ...nn.backend import backend_name, get_backend, instruction_set_of
from ...training.config import TrainingConfig
from ..tasks import Ended, Lost, Tasks
from ..worker import DataKey, arrays_of, has_data, receive
from ..worker_pool import Fleet, Prepare
from .sampler import distributions, make_pruner, make_sampler
from .space import Space
from .study_store import RESULT, Asked, Counts, Ledger
from .trial import METRICS, Result, Task
from .worker import Failure, work

__all__ = ["Ending", "Plan", "Status", "View", "data_to_workers", "run_sweep"]

# Seconds between two looks at signals and the clock.
TICK = 0.2

# So many trials in a row that fail of anything but divergence are no matter of their settings.
HOPELESS = 5


@dataclass(frozen=True)
class Plan:
    """What a sweep is to try. base : the recipe that the space changes. trials : how many in all.
    seeds, folds : networks of a trial, as for Task. seed : of the choices and the first network.
    """

    dataset: Dataset
    base: TrainingConfig
    space: Space
    trials: int
    sampler: str = "tpe"
    pruner: str = "hyperband"
    seed: int = 0
    seeds: int = 1
    folds: int = 0
    metric: str = "validation_accuracy"
    backend: str = "auto"

    def checked(self) -> "Plan":
        """The same with the backend chosen. Raises: UserError if any trial could not be run."""
        rows, classes = len(self.dataset.x_train), len(self.dataset.class_names)
        self.space.check(self.base, rows, classes)
        if self.folds == 1 or self.folds > rows:
            raise SweepError(f"folds is {self.folds}: give 2 or more, at most {rows}, or 0")
        if not self.folds and not self.base.n_validation(rows):
            raise SweepError(
                f"of {rows} rows none is held back to judge trials on: give --folds 2 or more"
            )
        sizes = (prod(self.dataset.x_train.shape[1:]), *self.base.hidden, classes)
        backend = get_backend(self.backend, NetworkSpec(sizes, dtype=self.base.dtype))
        return replace(self, backend=backend_name(backend))

    def identity(self) -> dict[str, Any]:
        """What must not change when the sweep goes on, plain JSON."""
        from ... import __version__

        base = self.base.to_dict()
        del base["seed"]
        return {
            "dataset": {"name": self.dataset.name, "checksum": self.dataset.checksum},
            "config": base,
            "space": self.space.to_dict(),
            **{
                name: getattr(self, name)
                for name in ("sampler", "pruner", "seed", "seeds", "folds", "metric", "backend")
            },
            "instruction_set": instruction_set_of(get_backend(self.backend)),
            "fmnist_fast": __version__,
        }

    def workers_identity(self) -> dict[str, Any]:
        """What workers must be."""
        whole = self.identity()
        return {name: whole[name] for name in ("fmnist_fast", "backend", "instruction_set")}

    def task(self, asked: Asked) -> Task:
        """What a worker does of a trial."""
        config = replace(self.base, **self.space.settings(asked.params))
        seeds = tuple(range(self.seed, self.seed + self.seeds))
        return Task(asked.number, config, seeds, self.folds, self.metric, self.backend)


class Ending(Enum):
    """Why a sweep came to its end."""

    DONE = "all trials are done"
    TIME = "its time is over"
    STOPPED = "it was stopped"


@dataclass
class Status:
    """How a sweep is going. ended_here : trials that ended since this process began, in `seconds`.

    until_deadline : seconds that it may go on, at most.
    """

    trials: int
    counts: Counts
    running: int = 0
    workers: int = 0
    slots: int = 0
    ended_here: int = 0
    seconds: float = 0.0
    best: tuple[int, dict[str, Any], Result] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    until_deadline: float = float("inf")

    @property
    def per_minute(self) -> float | None:
        """Trials a minute, of this process."""
        return 60 * self.ended_here / self.seconds if self.ended_here and self.seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Until all trials are done, at the speed so far, or the time is over."""
        left, speed = self.trials - self.counts.ended, self.per_minute
        seconds = min(60 * left / speed if speed else float("inf"), self.until_deadline)
        return seconds if seconds < float("inf") else None

    @property
    def share(self) -> float:
        """How much of it is done, 0..1: of the trials or of the time, whichever ends it."""
        in_time = self.seconds / max(self.seconds + self.until_deadline, 1e-9)
        return max(self.counts.ended / self.trials, in_time)


class View:
    """Told how a sweep goes. Override what is of interest; nothing is shown by default."""

    def update(self, status: Status) -> None:
        """Some five times a second."""

    def note(self, message: str) -> None:
        """Something that people should know."""


def data_to_workers(dataset: Dataset) -> Prepare:
    """What gives workers the data set that lack it: one of every machine first, since the others
    find it there.
    """
    key = DataKey.of(dataset)

    def prepare(client: Client, workers: Sequence[str]) -> Mapping[str, str]:
        lacking = _lacking(client, key, workers)
        while lacking:
            first_of_hosts = {_host(address): address for address in lacking}
            client.run(receive, key, arrays_of(dataset), workers=list(first_of_hosts.values()))
            lacking = _lacking(client, key, lacking)
        return {}

    return prepare


def _lacking(client: Client, key: DataKey, workers: Sequence[str]) -> list[str]:
    said = client.run(has_data, key, workers=list(workers), on_error="return")
    return [address for address, has in said.items() if has is False]


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def run_sweep(
    plan: Plan,
    ledger: Ledger,
    fleet: Fleet,
    view: View,
    should_stop: Callable[[], bool],
    deadline: float = float("inf"),
) -> Ending:
    """Run trials until there are plan.trials that ended, or should_stop() says so, or the clock
    (time.monotonic) says so. What runs then is begun again the next time.

    Raises: ClusterError if the scheduler is gone or no worker is fit; SweepError if nothing works;
    OSError if the study cannot be written.
    """
    driver = _Driver(plan, ledger, fleet, view)
    try:
        return driver.run(should_stop, deadline)
    finally:
        driver.close()


class _Driver:
    def __init__(self, plan: Plan, ledger: Ledger, fleet: Fleet, view: View) -> None:
        self.plan, self.ledger, self.fleet, self.view = plan, ledger, fleet, view
        self.key = DataKey.of(plan.dataset)
        self.tasks = Tasks(fleet, "trial")
        self.asked: dict[int, Asked] = {}
        self.luckless: dict[int, str] = {}  # failed of anything but divergence, in a row
        self.counts = ledger.counts()
        ledger.choose_with(
            make_sampler(
                plan.sampler, plan.space, plan.seed, self.counts.ended + self.counts.unfinished
            ),
            make_pruner(plan.pruner),
            distributions(plan.space),
        )
        self.topic = None if plan.pruner == "none" else f"{fleet.resource}-rungs"
        if self.topic:
            fleet.client.subscribe_topic(self.topic, self._hear)
        self.begin, self.ended_here = monotonic(), 0
        self.best = self._best_so_far()

    async def _hear(self, event: tuple[float, Any]) -> None:
        number, rung, value = event[1]
        self.tasks.post((number, rung, value))

    def _best_so_far(self) -> tuple[int, dict[str, Any], Result] | None:
        for trial in self.ledger.completed()[:1]:
            settings = self.plan.space.settings(trial.params)
            return trial.number, settings, Result.from_dict(trial.user_attrs[RESULT])
        return None

    def run(self, should_stop: Callable[[], bool], deadline: float) -> Ending:
        while self.counts.ended < self.plan.trials:
            if should_stop():
                return Ending.STOPPED
            if monotonic() >= deadline:
                return Ending.TIME
            self.fleet.look()
            for message in self.fleet.news():
                self.view.note(message)
            self._fill()
            for event in self.tasks.taken(TICK):
                if isinstance(event, Ended):
                    self._done(event.number, event.result)
                else:
                    self._at_rung(*event)
            self.view.update(self._status(deadline))
        self._blame_settings()
        return Ending.DONE

    def close(self) -> None:
        """Let go of what is running."""
        self.tasks.close()
        if self.topic and self.fleet.client.status == "running":
            self.fleet.client.unsubscribe_topic(self.topic)
        self.ledger.put_back()

    def _fill(self) -> None:
        """Give the workers trials: one each, and if choices need no results, one to come."""
        at_a_time = self.fleet.slots * (1 if self.plan.sampler == "tpe" else 2)
        while (
            len(self.tasks) < at_a_time and self.counts.ended + len(self.tasks) < self.plan.trials
        ):
            asked = self.ledger.ask()
            self.asked[asked.number] = asked
            self.tasks.submit(asked.number, work, self.plan.task(asked), self.key, self.topic)

    def _at_rung(self, number: int, rung: int, value: float) -> None:
        if number in self.tasks and self.ledger.report(number, rung, value):
            self.tasks.drop(number)
            self.ledger.prune(number)
            self._count(pruned=1)

    def _done(self, number: int, outcome: Result | Failure | Lost) -> None:
        if isinstance(outcome, Lost):
            outcome = Failure(outcome.why, diverged=False)
        if isinstance(outcome, Failure) and not outcome.diverged:
            self.luckless[number] = outcome.why
            self._count(failed=1)
            if len(self.luckless) >= HOPELESS:  # they are begun again when it goes on
                raise SweepError(
                    f"{len(self.luckless)} trials in a row failed, the last: {outcome.why}"
                )
            return
        self._blame_settings()
        if isinstance(outcome, Failure):
            self.ledger.fail(number, outcome.why)
            self._count(failed=1)
            return
        self.ledger.complete(number, outcome.value, outcome.to_dict())
        self._count(complete=1)
        sign = 1 if METRICS[self.plan.metric] else -1
        if not self.best or sign * outcome.value > sign * self.best[2].value:
            self.best = number, self.plan.space.settings(self.asked[number].params), outcome

    def _blame_settings(self) -> None:
        """Others come to their end, or there are none: what failed would fail again."""
        for number, why in self.luckless.items():
            self.ledger.fail(number, why)
        self.luckless.clear()

    def _count(self, **more: int) -> None:
        self.ended_here += 1
        changed = {name: getattr(self.counts, name) + n for name, n in more.items()}
        self.counts = replace(self.counts, **changed)

    def _status(self, deadline: float) -> Status:
        now = monotonic()
        return Status(
            self.plan.trials,
            self.counts,
            len(self.tasks),
            len(self.fleet.threads),
            self.fleet.slots,
            self.ended_here,
            now - self.begin,
            self.best,
            self.fleet.refused,
            max(0.0, deadline - now),
        )
