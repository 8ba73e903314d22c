"""Backend benchmark of the app: the backends train the same network, an epoch each in turn.

Independent of Streamlit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fmnist_fast.bench.machine import load_average
from fmnist_fast.bench.measurement import Entry
from fmnist_fast.bench.peers import FmnistFast, TrainingTask
from fmnist_fast.bench.rounds import checked_rows, fma_peak_gflops, measure_rounds, multiply_adds
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.nn.backend import BACKEND_NAMES, instruction_set_of, unavailable_reason
from fmnist_fast.training.loop import StopRequested
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config

# The backend that the others are compared with.
REFERENCE = "numpy"


@dataclass
class RaceEntry(Entry, Progress):
    """One backend in the race; receives the events of its training.

    epochs_done : with the fraction of the running one. first_steps_difference, difference :
    maximum absolute difference of its parameters from REFERENCE's, after CHECKED_STEPS steps and at
    the end. accuracy : on the test set, at the end.
    """

    epochs_done: float = 0.0
    first_steps_difference: float = 0.0
    difference: float = 0.0
    accuracy: float = 0.0

    def steps(self, epoch: int, done: int, total: int) -> None:
        self.epochs_done = epoch - 1 + done / total


class BackendRace:
    """A job that measures the backends. Any thread may read its attributes.

    rows, gflop : of an epoch. entries : by backend. peak_gflops : of fused multiply-adds, maximum
    of the rounds; None without the cython backend, which measures it. load : of the machine before
    the race; None if unknown. phase : description of the current step; "" before the first.
    """

    def __init__(self, dataset: Dataset, epochs: int, threads: int, seed: int = 0) -> None:
        self.dataset, self.epochs, self.threads = dataset, epochs, threads
        self.config = replace(PRESETS["fast"], epochs=epochs, validation=0, seed=seed)
        self.rows = len(dataset.x_train)
        sizes = (dataset.x_train[0].size, *self.config.hidden, len(dataset.class_names))
        self.gflop = 2e-9 * multiply_adds(NetworkSpec(sizes)) * self.rows
        self.entries = {
            name: RaceEntry(name, ours=True, missing=unavailable_reason(name))
            for name in BACKEND_NAMES
        }
        self.peak_gflops: float | None = None
        self.load: float | None = None
        self.phase = ""

    def __call__(self, should_stop: Callable[[], bool]) -> None:
        """Run the race. Raises: UserError; KeyboardInterrupt if it was stopped."""
        config = resolve_config(self.config, self.dataset)
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
            entry = self.entries[name]
            entry.difference = max_difference(run.params, runs[REFERENCE].params)
            entry.accuracy = float((labels_n == self.dataset.y_test).mean())

    @property
    def available(self) -> list[RaceEntry]:
        """Entries of the backends that take part."""
        return [entry for entry in self.entries.values() if entry.missing is None]

    @property
    def done(self) -> float:
        """Fraction of the epochs of all backends."""
        epochs = self.epochs * len(self.available)
        return sum(entry.epochs_done for entry in self.available) / epochs

    @property
    def roofline(self) -> float | None:
        """Samples a second of a dense network if every multiply-add ran at the peak."""
        return self.rows * self.peak_gflops / self.gflop if self.peak_gflops else None

    def summarize(self) -> None:
        """Compute what follows from the seconds of the entries."""
        numpy_seconds = self.entries[REFERENCE].seconds
        for entry in self.available:
            entry.summarize(self.rows, self.gflop, self.peak_gflops, numpy_seconds)

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
            rows_n = run.train_set.rows_n
            trainer.train(checked_rows(rows_n, run.config.batch_size, run.config.seed))
            params[name] = trainer.state.params
            self.entries[name].instruction_set = instruction_set_of(run.network.backend)
        for name, found in params.items():
            self.entries[name].first_steps_difference = max_difference(found, params[REFERENCE])

    def _train_epoch(
        self, name: str, run: TrainingRun, should_stop: Callable[[], bool], number: int
    ) -> None:
        """Train one backend to the end of that epoch."""
        self.phase = f"epoch {number} of {self.epochs}: {name}"
        try:
            run.train(self.entries[name], lambda: should_stop() or run.loop.epoch > number)
        except StopRequested:
            if run.loop.epoch <= number:
                raise
        self.entries[name].seconds = [record.seconds for record in run.history]
        self.summarize()

    def _measure_peak(self, number: int) -> None:
        """Measure the peak; `number` of the round is not used."""
        peak = fma_peak_gflops(self.threads)
        if peak is not None:
            self.peak_gflops = max(peak, self.peak_gflops or 0.0)
            self.summarize()


def max_difference(params: Params, others: Params) -> float:
    """Return the maximum absolute difference of the weights and biases of two networks."""
    pairs = zip((*params.weights, *params.biases), (*others.weights, *others.biases))
    return max(float(np.abs(a - b).max()) for a, b in pairs)
