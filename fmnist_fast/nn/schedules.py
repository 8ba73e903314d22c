"""Learning-rate schedules: onecycle, cosine, constant."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

# One-cycle, as fractions of the steps and of the peak: a quarter of the steps warms up from
# peak/25, the others anneal to peak/100,000 (Smith & Topin 2018; cosine in both parts).
WARM_UP = 0.25
START = 1 / 25
END = 1e-5


def _half_cosine(begin: float, end: float, part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half a period of the cosine, from begin (part 0) to end (part 1)."""
    return end + (begin - end) * (1 + np.cos(np.pi * part)) / 2


def _onecycle(done: NDArray[np.float64]) -> NDArray[np.float64]:
    up = _half_cosine(START, 1.0, done / WARM_UP)
    down = _half_cosine(1.0, END, (done - WARM_UP) / (1 - WARM_UP))
    return np.where(done < WARM_UP, up, down)


SCHEDULES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "onecycle": _onecycle,
    "cosine": partial(_half_cosine, 1.0, 0.0),
    "constant": np.ones_like,
}


def lr_at(schedule: str, peak: float, done: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the learning rates at these fractions of the training.

    Parameters
    ----------
    schedule : str
        One of `SCHEDULES`.
    peak : float
        The largest learning rate.
    done : ndarray of float64
        Fractions of the training that are done, each in [0, 1).

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ArgumentError
        If the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise ArgumentError(f"unknown schedule {schedule!r}: choose from {', '.join(SCHEDULES)}")
    return peak * SCHEDULES[schedule](done)


def learning_rates(schedule: str, peak: float, steps: int) -> NDArray[np.float64]:
    """Return the learning rate of every step of a training, float64 (steps,)."""
    return lr_at(schedule, peak, np.arange(steps) / steps)
