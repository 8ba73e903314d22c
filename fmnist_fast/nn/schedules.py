"""Learning rates over a run, and the numbers of Adam's steps that follow from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError
from ..kernels.interface import StepSchedule

__all__ = ["SCHEDULES", "Adam", "learning_rates", "lr_at"]

# One-cycle, as fractions of the run and of the peak: a quarter of the steps to warm up from
# peak/25, then down to peak/100,000 (the shape of Smith & Topin 2018, cosine in both parts).
WARM_UP = 0.25
START = 1 / 25
END = 1e-5


def _half_cosine(begin: float, end: float, part: NDArray[np.float64]) -> NDArray[np.float64]:
    """From begin at part 0 to end at part 1 along half a period of the cosine."""
    return end + (begin - end) * (1 + np.cos(np.pi * part)) / 2


def _onecycle(done: NDArray[np.float64]) -> NDArray[np.float64]:
    up = _half_cosine(START, 1.0, done / WARM_UP)
    down = _half_cosine(1.0, END, (done - WARM_UP) / (1 - WARM_UP))
    return np.where(done < WARM_UP, up, down)


def _cosine(done: NDArray[np.float64]) -> NDArray[np.float64]:
    return _half_cosine(1.0, 0.0, done)


def _constant(done: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ones_like(done)


SCHEDULES = {"onecycle": _onecycle, "cosine": _cosine, "constant": _constant}


def lr_at(schedule: str, peak: float, done: NDArray[np.float64]) -> NDArray[np.float64]:
    """Learning rates where these shares of a run, 0 <= done < 1, are done; the largest is `peak`.

    Raises: ArgumentError for an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"unknown schedule {schedule!r}: choose from {', '.join(SCHEDULES)}")
    return peak * SCHEDULES[schedule](done)


def learning_rates(schedule: str, peak: float, steps: int) -> NDArray[np.float64]:
    """The learning rate of every step of a run, float64 (steps,)."""
    return lr_at(schedule, peak, np.arange(steps) / steps)


@dataclass(frozen=True)
class Adam:
    """Turns learning rates into the numbers that the kernels take.

    Source: Kingma & Ba (2015), Algorithm 1, in the form that corrects the bias in the step size.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def steps(
        self,
        lr_t: NDArray[np.float64],
        first: int,
        batch_size: int,
        l2: float,
        decay: float | NDArray[np.float64] = 0.0,
    ) -> StepSchedule:
        """The steps of one epoch whose learning rates are lr_t, after `first` earlier steps.

        decay : the share of the weights that every step takes away, or one for each step.
        """
        t = np.arange(first + 1, first + 1 + len(lr_t), dtype=np.float64)
        root_t = np.sqrt(1 - self.beta2**t)
        return StepSchedule(
            batch_size,
            step_size_t=lr_t * root_t / (1 - self.beta1**t),
            epsilon_t=self.epsilon * root_t,
            l2_t=np.full(len(lr_t), l2, np.float64),
            decay_t=np.broadcast_to(decay, len(lr_t)).astype(np.float64),
            beta1=self.beta1,
            beta2=self.beta2,
        )
