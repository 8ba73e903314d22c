"""Budgets: how long a training takes and how its learning rate falls, by steps or by the clock."""

from math import inf
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ..nn.schedules import learning_rates, lr_at

# Weight of a new measurement in the moving average of the speed.
SPEED_EMA_WEIGHT = 0.5

# The clock is read at least so many times in a training with a time budget.
MIN_CLOCK_CHECKS = 50


class Clock:
    """Seconds of a training, those before it was resumed included."""

    def __init__(self, spent: float = 0.0) -> None:
        self._start = perf_counter() - spent

    def __call__(self) -> float:
        return perf_counter() - self._start

    def advance_to(self, spent: float) -> None:
        """At least so many seconds had been spent when the training was interrupted."""
        self._start -= max(0.0, spent - self())


class Budget:
    """Decides how many steps are trained, and at which learning rates: here 1, without end.

    max_range_seconds : longest range of steps, in seconds, between two calls of `rates`.
    """

    max_range_seconds = inf

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        """Return the learning rates of the next steps, after `done` of them; none at the end."""
        return np.ones(at_most)

    def observe(self, steps: int, seconds: float) -> None:
        """So many steps were trained in so many seconds."""


class StepBudget(Budget):
    """A number of steps that is known beforehand."""

    def __init__(self, schedule: str, peak: float, steps: int) -> None:
        self._lr_t = learning_rates(schedule, peak, steps)

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        return self._lr_t[done : done + at_most]


class TimeBudget(Budget):
    """A training from one reading of the clock to another.

    The learning rate follows the clock, so that a machine that slows down makes fewer steps but not
    another schedule; the last steps anneal to the schedule's end.
    """

    def __init__(self, schedule: str, peak: float, begin: float, end: float, clock: Clock) -> None:
        self._schedule, self._peak = schedule, peak
        self._begin, self._end, self._clock = begin, end, clock
        self._ranges = 0
        self._step_seconds: float | None = None
        self.max_range_seconds = (end - begin) / MIN_CLOCK_CHECKS

    def rates(self, done: int, at_most: int) -> NDArray[np.float64]:
        now, total = self._clock(), max(self._end - self._begin, 1e-9)
        left = self._end - now
        if self._step_seconds is None:  # one step at least, whatever the time
            fraction = np.array([min(max((now - self._begin) / total, 0.0), 1 - 1e-9)])
            return lr_at(self._schedule, self._peak, fraction)
        steps_left = int(left / self._step_seconds)
        if steps_left < 1:
            return np.empty(0)
        count = min(at_most, steps_left)
        fraction = 1 - left / total * (1 - np.arange(count) / steps_left)
        return lr_at(self._schedule, self._peak, fraction)

    def observe(self, steps: int, seconds: float) -> None:
        self._ranges += 1
        if self._ranges == 1:  # it loaded the kernels and touched memory: not typical
            return
        new, known = seconds / steps, self._step_seconds
        self._step_seconds = new if known is None else known + SPEED_EMA_WEIGHT * (new - known)
