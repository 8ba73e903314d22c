"""The three backends train the same network, in turn. Knows nothing of pages.

They take turns, an epoch each: whatever else the machine does meanwhile slows all of them alike, so
the ratio of two epochs of one round means something where two seconds would not.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from time import sleep
from typing import Any, cast

import numpy as np

from fmnist_fast.bench.measurement import multiply_adds
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.kernels.interface import Floats, NetworkSpec, Params
from fmnist_fast.nn.backend import (
    BACKEND_NAMES,
    backend_name,
    get_backend,
    instruction_set_of,
    unavailable_reason,
)
from fmnist_fast.nn.network import Network
from fmnist_fast.nn.optimizers import Adam
from fmnist_fast.nn.random_streams import epoch_order
from fmnist_fast.training.loop import Progress, Run, StopRequested, resolve_config
from fmnist_fast.training.presets import PRESETS

__all__ = ["CHECKED_STEPS", "MEASURE", "Contest", "Racer", "difference"]

# The backend that the others are compared with.
MEASURE = "numpy"

CHECKED_STEPS = 20

# Seconds until threads that spin on after a matrix product have gone to sleep, as the command bench
# waits: another backend's epoch would pay for them.
SETTLE = 0.3


@dataclass(frozen=True)
class Racer:
    """One backend in the race, at one moment.

    seconds : of each epoch so far. done : share of its epochs, 0..1. missing : why it is not in the
    race, else None. early, late : largest absolute difference of a weight or bias from MEASURE's,
    after CHECKED_STEPS steps and after the last round. accuracy : on the test set, at the end.
    """

    name: str
    instruction_set: str | None = None
    missing: str | None = None
    seconds: tuple[float, ...] = ()
    done: float = 0.0
    early: float | None = None
    late: float | None = None
    accuracy: float | None = None


@dataclass
class Contest:
    """A race; `racers` is replaced as it goes on, and never changed, so any thread may read it.

    rows : of an epoch. peak : GFLOP/s of fused multiply-adds on these threads, the best of all
    rounds; None without the cython backend, which measures it. load : of the machine before the
    race, as processes that want to run; None where that is not known. phase : what is being done.
    """

    dataset: Dataset
    epochs: int
    threads: int
    seed: int = 0
    racers: tuple[Racer, ...] = ()
    peak: float | None = None
    load: float | None = None
    phase: str = ""
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.dataset.x_train)
        self.racers = tuple(Racer(name, missing=unavailable_reason(name)) for name in BACKEND_NAMES)

    def __call__(self, should_stop: Callable[[], bool]) -> "Contest":
        """Race. Raises: UserError; KeyboardInterrupt if it was stopped."""
        config = replace(PRESETS["fast"], epochs=self.epochs, validation=0, seed=self.seed)
        config = resolve_config(config, self.dataset)
        runs = {
            racer.name: Run(self.dataset, config, racer.name, self.threads, None)
            for racer in self.racers
            if racer.missing is None
        }
        self.load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._check(runs, should_stop)
        for number in range(1, self.epochs + 1):
            for name, run in runs.items():
                self.phase = f"epoch {number} of {self.epochs}: {name}"
                self._turn(name, run, number, should_stop)
                sleep(SETTLE)
            self._measure_peak()
            truth = runs[MEASURE].state.params
            for name, run in runs.items():
                self._set(name, late=difference(run.state.params, truth))
        for name, run in runs.items():
            guess_n = run.network.predict_proba(self.dataset.x_test).argmax(axis=1)
            self._set(name, accuracy=float((guess_n == self.dataset.y_test).mean()))
        self.phase = ""
        return self

    def samples_per_second(self, racer: Racer) -> float | None:
        """Rows that it trains on in a second, the median of its epochs."""
        return self.rows / median(racer.seconds) if racer.seconds else None

    def speedup(self, racer: Racer) -> float | None:
        """How many times as fast as MEASURE: the median of the ratios within a round."""
        (measure,) = (other for other in self.racers if other.name == MEASURE)
        ratios = [m / s for m, s in zip(measure.seconds, racer.seconds)]
        return median(ratios) if ratios else None

    @property
    def roofline(self) -> float | None:
        """Rows a second if every multiply-add of a dense network were done at the peak."""
        if self.peak is None:
            return None
        ends = self.dataset.x_train[0].size, len(self.dataset.class_names)
        spec = NetworkSpec((ends[0], *PRESETS["fast"].hidden, ends[1]))
        return self.peak * 1e9 / (2 * multiply_adds(spec))

    def _check(self, runs: dict[str, Run], should_stop: Callable[[], bool]) -> None:
        """Before anything is timed: the first steps, which also compile what must be compiled."""
        params = {}
        for name, run in runs.items():
            if should_stop():
                raise StopRequested
            self.phase = f"warming up {name}"
            params[name] = first_steps(run)
            self._set(name, instruction_set=instruction_set_of(run.network.backend))
        for name, found in params.items():
            self._set(name, early=difference(found, params[MEASURE]))

    def _turn(self, name: str, run: Run, number: int, should_stop: Callable[[], bool]) -> None:
        """Train one backend to the end of that epoch."""
        progress = _Share(lambda done: self._set(name, done=(number - 1 + done) / self.epochs))
        try:
            run.train(progress, lambda: should_stop() or run.number > number)
        except StopRequested:
            if run.number <= number:
                raise
        self._set(name, seconds=tuple(record.seconds for record in run.history))

    def _measure_peak(self) -> None:
        if unavailable_reason("cython") is None:
            peak = cast(Any, get_backend("cython")).multiply_add_peak(self.threads)
            self.peak = max(peak, self.peak or 0.0)

    def _set(self, name: str, **changes: Any) -> None:
        self.racers = tuple(
            replace(racer, **changes) if racer.name == name else racer for racer in self.racers
        )


class _Share(Progress):
    """Tells how much of an epoch is done."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell

    def steps(self, epoch: int, done: int, total: int) -> None:
        self._tell(done / total)


def first_steps(run: Run) -> Params:
    """The parameters after CHECKED_STEPS steps of a run, which itself has not begun."""
    config, old = run.config, run.network
    backend = backend_name(old.backend)
    network = Network.random(old.spec, config.seed, old.scale, backend, old.threads)
    state = network.fresh_state()
    count = min(CHECKED_STEPS, run.batches)
    steps = Adam().steps(np.full(run.batches, config.lr), 0, config.batch_size, config.l2)
    order_n = epoch_order(run.train_rows, config.seed, 1)
    network.train_steps(state, run.data, order_n, steps, 0, count)
    return state.params


def difference(params: Params, others: Params) -> float:
    """The largest absolute difference of two networks' weights and biases."""

    def arrays(layers: Params) -> list[Floats]:
        return [*layers.weights, *layers.biases]

    return max(float(np.abs(a - b).max()) for a, b in zip(arrays(params), arrays(others)))
