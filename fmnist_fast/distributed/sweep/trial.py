"""One trial of a sweep, wherever it runs: the same settings, trained for every seed and fold."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from time import perf_counter
from typing import Any

from ...data.datasets import Dataset
from ...training.config import TrainingConfig
from ...training.progress import Epoch, EpochState, Progress
from ...training.run import TrainingRun
from ...training.train_data import resolve_config

__all__ = ["METRICS", "RUNGS", "Result", "Task", "run_trial"]

# What a trial can be judged by, and whether more of it is better.
METRICS = {"validation_accuracy": True, "validation_loss": False}

# Trials are compared where so many equal parts of their own training are done, since they may have
# different numbers of epochs, and schedules that end with the last.
RUNGS = 10


@dataclass(frozen=True)
class Task:
    """What a trial trains. recipe : of all its networks, whose seeds are `seeds`.
    folds : each seed is trained so many times, and judged on another part of the rows each time;
    0: once, with the recipe's own validation rows. metric : one of METRICS.
    """

    number: int
    config: TrainingConfig
    seeds: tuple[int, ...]
    folds: int
    metric: str
    backend: str


@dataclass(frozen=True)
class Result:
    """What a trial reached, one entry a network. best_epochs : the epochs that were judged.
    seconds : of the whole trial, on one thread.
    """

    values: tuple[float, ...]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    best_epochs: tuple[int, ...]
    seconds: float

    @property
    def value(self) -> float:
        """What the trial is judged by."""
        return mean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation of one network's value; None of a single one."""
        return stdev(self.values) if len(self.values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "Result":
        """What to_dict() made the entries of."""
        lists = {name: tuple(value) for name, value in entries.items() if name != "seconds"}
        return cls(**lists, seconds=entries["seconds"])


def run_trial(
    task: Task,
    dataset: Dataset,
    should_stop: Callable[[], bool],
    report: Callable[[int, float], object],
) -> Result:
    """Train all networks of a trial, one after the other, on one thread.

    should_stop : asked some ten times a second. report : told (rung, metric) of the first network,
    rungs 1..RUNGS; not the last of them if no network follows, since nothing would be saved.
    Raises: Diverged; UserError if such a network cannot be; StopRequested.
    """
    start = perf_counter()
    judged: list[Epoch] = []
    folds = max(task.folds, 1)
    rungs = _Rungs(task, report, RUNGS if len(task.seeds) * folds > 1 else RUNGS - 1)
    for seed in task.seeds:
        for fold in range(folds):
            config = replace(task.config, seed=seed)
            if task.folds:
                config = replace(config, validation=len(dataset.x_train) // task.folds)
            run = TrainingRun(
                dataset,
                resolve_config(config, dataset),
                task.backend,
                threads=1,
                fold=(fold, task.folds) if task.folds else None,
            )
            callbacks = [] if judged else [rungs]
            run.train(Progress(), should_stop, callbacks)
            assert run.best
            judged.append(run.history[run.best.epoch - 1])
    return Result(
        tuple(_metric(record, task.metric) for record in judged),
        tuple(_metric(record, "validation_accuracy") for record in judged),
        tuple(_metric(record, "validation_loss") for record in judged),
        tuple(record.epoch for record in judged),
        perf_counter() - start,
    )


class _Rungs:
    """Reports the metric at the first epoch of every rung up to the last that is asked for."""

    def __init__(self, task: Task, report: Callable[[int, float], object], last: int) -> None:
        self._task, self._report, self._last = task, report, last
        self._rung = 0

    def __call__(self, state: EpochState) -> None:
        rung = RUNGS * state.record.epoch // state.config.epochs
        if self._rung < rung <= self._last:
            self._rung = rung
            self._report(rung, _metric(state.record, self._task.metric))


def _metric(record: Epoch, name: str) -> float:
    value: float = getattr(record, name)
    return value
