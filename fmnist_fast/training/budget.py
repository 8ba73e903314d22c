"""How far a run goes and how its learning rate falls: by steps, or by the clock."""

from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..nn.schedules import learning_rates, lr_at

__all__ = ["Clock", "Budget", "StepBudget", "TimeBudget"]

# How much of the speed known so far a new range of steps may change.
SPEED_EMA_WEIGHT = 0.5


class Clock:
    """Seconds that a run has taken, the ones before it was resumed included."""

    def __init__(self, spent: float = 0.0) -> None:
        self._start = perf_counter() - spent

    def __call__(self) -> float:
        return perf_counter() - self._start

    def advance_to(self, spent: float) -> None:
        """At least so many seconds had been spent when the run was interrupted."""
        self._start -= max(0.0, spent - self())


class Budget(Protocol):
    """Says at which learning rates to go on."""

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        """Of the next steps, at most so many, after `done` of them; none when the run is over."""

    def observe(self, steps: int, seconds: float) -> None:
        """So many steps were trained in so many seconds."""


class StepBudget:
    """A run of so many steps, known beforehand."""

    def __init__(self, schedule: str, peak: float, steps: int) -> None:
        self._lr_t = learning_rates(schedule, peak, steps)

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        return self._lr_t[done : done + at_most]

    def observe(self, steps: int, seconds: float) -> None:
        """The clock decides nothing."""


class TimeBudget:
    """A run from one reading of the clock to another.

    The learning rate follows the clock, so that a machine that slows down makes fewer steps but not
    another schedule; the last steps anneal to the schedule's end.
    """

    def __init__(self, schedule: str, peak: float, begin: float, end: float, clock: Clock) -> None:
        self._schedule, self._peak = schedule, peak
        self._begin, self._end, self._clock = begin, end, clock
        self._ranges = 0
        self._step_seconds: float | None = None

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        now, whole = self._clock(), max(self._end - self._begin, 1e-9)
        left = self._end - now
        if self._step_seconds is None:  # one step at least, whatever the time
            share = np.array([min(max((now - self._begin) / whole, 0.0), 1 - 1e-9)])
            return lr_at(self._schedule, self._peak, share)
        steps_left = int(left / self._step_seconds)
        if steps_left < 1:
            return np.empty(0)
        count = min(at_most, steps_left)
        share = 1 - left / whole * (1 - np.arange(count) / steps_left)
        return lr_at(self._schedule, self._peak, share)

    def observe(self, steps: int, seconds: float) -> None:
        self._ranges += 1
        if self._ranges == 1:  # kernels were loaded, memory touched: it says nothing of the next
            return
        new = seconds / steps
        known = self._step_seconds
        self._step_seconds = new if known is None else known + SPEED_EMA_WEIGHT * (new - known)
