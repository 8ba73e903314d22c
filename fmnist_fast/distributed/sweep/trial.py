"""One trial of a sweep: the same settings, trained for every seed and fold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import mean, stdev
from time import perf_counter
from typing import Any

from ...data.datasets import Dataset
from ...training.config import TrainingConfig
from ...training.progress import Epoch, EpochState, Progress
from ...training.run import TrainingRun
from ...training.train_data import resolve_config

# Metrics to optimize, and whether they are maximized.
METRICS = {"validation_accuracy": True, "validation_loss": False}

# Trials are compared at fractions of their own training, since they may have different numbers of
# epochs, and schedules that end with the last.
RUNGS = 10


@dataclass(frozen=True)
class Task:
    """What a trial trains: a network for each of `seeds`, `folds` times each, validated on another
    fold of the rows each time; folds=0: once, on the config's own validation rows.
    """

    number: int
    config: TrainingConfig
    seeds: tuple[int, ...]
    folds: int
    metric: str
    backend: str


@dataclass(frozen=True)
class Result:
    """Validation results of a trial, one entry a network. seconds : of the whole trial, on one
    thread.
    """

    values: tuple[float, ...]
    accuracies: tuple[float, ...]
    losses: tuple[float, ...]
    best_epochs: tuple[int, ...]
    seconds: float

    @property
    def value(self) -> float:
        """Mean of the metric."""
        return mean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the metric; None for a single network."""
        return stdev(self.values) if len(self.values) > 1 else None

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> "Result":
        """Invert dataclasses.asdict(), after JSON has made lists of tuples."""
        lists: dict[str, Any] = {
            name: tuple(v) for name, v in entries.items() if isinstance(v, list)
        }
        return cls(**{**entries, **lists})


def run_trial(
    task: Task,
    dataset: Dataset,
    should_stop: Callable[[], bool],
    report: Callable[[int, float], object],
) -> Result:
    """Train all networks of a trial, one after the other, on one thread.

    should_stop : polled some ten times a second. report : called with (rung, metric) of the first
    network, rungs 1..RUNGS; without the last if no network follows, since pruning saves nothing.
    Raises: TrainingDiverged; UserError if there can be no such network; StopRequested.
    """
    start = perf_counter()
    epochs: list[Epoch] = []
    folds = max(task.folds, 1)
    last_rung = RUNGS if len(task.seeds) * folds > 1 else RUNGS - 1

    def report_rung(state: EpochState) -> None:
        """Report the metric at the first epoch of a rung."""
        epoch, count = state.record.epoch, state.config.epochs
        rung = RUNGS * epoch // count
        if RUNGS * (epoch - 1) // count < rung <= last_rung:
            report(rung, getattr(state.record, task.metric))

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
            run.train(Progress(), should_stop, [] if epochs else [report_rung])
            assert run.loop.best
            epochs.append(run.history[run.loop.best.epoch - 1])

    def metric(name: str) -> tuple[float, ...]:
        return tuple(getattr(epoch, name) for epoch in epochs)

    return Result(
        values=metric(task.metric),
        accuracies=metric("validation_accuracy"),
        losses=metric("validation_loss"),
        best_epochs=tuple(epoch.epoch for epoch in epochs),
        seconds=perf_counter() - start,
    )
