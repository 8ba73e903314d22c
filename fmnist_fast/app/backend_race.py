"""Backend benchmark of the app: the backends train the same network, an epoch each in turn.

Independent of Streamlit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from fmnist_fast.bench.machine import load_average
from fmnist_fast.bench.measurement import Entry
from fmnist_fast.bench.peers import FmnistFast, TrainingTask
from fmnist_fast.bench.rounds import (
    checked_rows,
    fma_peak_gflops,
    measure_rounds,
    multiply_adds,
)
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.nn.backend import BACKEND_NAMES, instruction_set_of, unavailable_reason
from fmnist_fast.training.loop import StopRequested
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config

__all__ = ["REFERENCE", "BackendRace", "RaceEntry", "max_difference"]

# The backend that the others are compared with.
REFERENCE = "numpy"


@dataclass
class RaceEntry(Entry):
    """One backend at one moment of the race.

    done : fraction of its epochs. first_steps_difference, difference : maximum absolute difference
    of its parameters from REFERENCE's, after CHECKED_STEPS steps and at the end. accuracy : on the
    test set, at the end.
    """

    done: float = 0.0
    first_steps_difference: float | None = None
    difference: float | None = None
    accuracy: float | None = None


@dataclass
class BackendRace:
    """A job that measures the backends. `entries` is replaced as the race proceeds, never changed,
    so that any thread may read it.

    rows : of an epoch. peak_gflops : of fused multiply-adds, maximum of the rounds; None without
    the cython backend, which measures it. load : of the machine before the race; None if unknown.
    phase : description of the current step.
    """

    dataset: Dataset
    epochs: int
    threads: int
    seed: int = 0
    peak_gflops: float | None = None
    load: float | None = None
    phase: str = ""
    rows: int = field(init=False)
    entries: tuple[RaceEntry, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.dataset.x_train)
        self.entries = tuple(
            RaceEntry(name, ours=True, missing=unavailable_reason(name)) for name in BACKEND_NAMES
        )

    def __call__(self, should_stop: Callable[[], bool]) -> "BackendRace":
        """Run the race. Raises: UserError; KeyboardInterrupt if it was stopped."""
        config = replace(PRESETS["fast"], epochs=self.epochs, validation=0, seed=self.seed)
        config = resolve_config(config, self.dataset)
        runs = {
            entry.name: TrainingRun(self.dataset, config, entry.name, self.threads)
            for entry in self.available
        }
        self.load = load_average()
        self._check_first_steps(runs, should_stop)
        measurements: dict[str, Callable[[int], None]] = {
            name: partial(self._train_epoch, name, run, should_stop) for name, run in runs.items()
        }
        measure_rounds({**measurements, "peak": self._measure_peak}, self.epochs)
        for name, run in runs.items():
            labels_n = run.network.predict_proba(self.dataset.x_test).argmax(axis=1)
            self.update(
                name,
                difference=max_difference(run.params, runs[REFERENCE].params),
                accuracy=float((labels_n == self.dataset.y_test).mean()),
            )
        self.phase = ""
        return self

    @property
    def available(self) -> list[RaceEntry]:
        """Entries of the backends that take part."""
        return [entry for entry in self.entries if entry.missing is None]

    @property
    def roofline(self) -> float | None:
        """Samples a second of a dense network if every multiply-add ran at the peak."""
        if self.peak_gflops is None:
            return None
        return self.rows * self.peak_gflops / self._gflop_per_epoch()

    def update(self, name: str, **changes: Any) -> None:
        """Replace the entry of a backend by one with these changes."""
        entry = replace(self.entry(name), **changes)
        numpy_seconds = entry.seconds if name == REFERENCE else self.entry(REFERENCE).seconds
        entry.summarize(self.rows, self._gflop_per_epoch(), self.peak_gflops, numpy_seconds)
        self.entries = tuple(entry if other.name == name else other for other in self.entries)

    def entry(self, name: str) -> RaceEntry:
        """Return the entry of a backend."""
        return next(entry for entry in self.entries if entry.name == name)

    def _gflop_per_epoch(self) -> float:
        inputs, classes = self.dataset.x_train[0].size, len(self.dataset.class_names)
        spec = NetworkSpec((inputs, *PRESETS["fast"].hidden, classes))
        return 2e-9 * multiply_adds(spec) * self.rows

    def _check_first_steps(
        self, runs: dict[str, TrainingRun], should_stop: Callable[[], bool]
    ) -> None:
        """Compare the parameters after a few steps, which also compile what must be compiled."""
        params = {}
        for name, run in runs.items():
            if should_stop():
                raise StopRequested
            self.phase = f"warming up {name}"
            task = TrainingTask(run.network.spec, run.train_set.data, run.config.batch_size)
            trainer = FmnistFast(task, self.threads, name)
            trainer.train(checked_rows(run.train_set.rows_n, run.config.batch_size, self.seed))
            params[name] = trainer.state.params
            self.update(name, instruction_set=instruction_set_of(run.network.backend))
        for name, found in params.items():
            self.update(name, first_steps_difference=max_difference(found, params[REFERENCE]))

    def _train_epoch(
        self, name: str, run: TrainingRun, should_stop: Callable[[], bool], number: int
    ) -> None:
        """Train one backend to the end of that epoch."""
        self.phase = f"epoch {number} of {self.epochs}: {name}"
        progress = _EpochFraction(
            lambda done: self.update(name, done=(number - 1 + done) / self.epochs)
        )
        try:
            run.train(progress, lambda: should_stop() or run.loop.epoch > number)
        except StopRequested:
            if run.loop.epoch <= number:
                raise
        self.update(name, seconds=[record.seconds for record in run.history])

    def _measure_peak(self, number: int) -> None:
        """Measure the peak; `number` of the round is not used."""
        peak = fma_peak_gflops(self.threads)
        if peak is not None:
            self.peak_gflops = max(peak, self.peak_gflops or 0.0)


class _EpochFraction(Progress):
    """Reports the fraction of an epoch that is done."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report

    def steps(self, epoch: int, done: int, total: int) -> None:
        self._report(done / total)


def max_difference(params: Params, others: Params) -> float:
    """Return the maximum absolute difference of the weights and biases of two networks."""
    pairs = zip((*params.weights, *params.biases), (*others.weights, *others.biases))
    return max(float(np.abs(a - b).max()) for a, b in pairs)
