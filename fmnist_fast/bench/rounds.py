"""Interleaved rounds: what is compared is measured in turn, once a round.

Machines are shared and noisy, and the same code varies by a half and more. Interleaved, other load
slows all contenders equally; ratios are taken within a round, and their median counts.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from statistics import median
from time import sleep
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import NetworkSpec
from ..nn.backend import get_backend, unavailable_reason
from ..nn.random_streams import epoch_order

# Threads that spin on after a matrix product have gone to sleep by then.
SETTLE_SECONDS = 0.3

# Measurements are in doubt if the load average before the run was above MAX_LOAD, or if a median is
# above MAX_SPREAD times the minimum.
MAX_LOAD, MAX_SPREAD = 0.7, 1.2

# Steps after which the weights of all contenders are compared, before anything is timed.
CHECKED_STEPS = 20

Value = TypeVar("Value")
Progress = Callable[[str, int, int], None]


def measure_rounds(
    measurements: Mapping[str, Callable[[int], Value]],
    rounds: int,
    progress: Progress = lambda *_: None,
) -> dict[str, list[Value]]:
    """Call every measurement with the number of the round, in turn; return their values by name.

    progress : called with a description, the measurements done, and their total.
    """
    values: dict[str, list[Value]] = {name: [] for name in measurements}
    turns = list(product(range(1, rounds + 1), measurements.items()))
    for done, (number, (name, measure)) in enumerate(turns):
        progress(f"round {number} of {rounds}: {name}", done, len(turns))
        sleep(SETTLE_SECONDS)
        values[name].append(measure(number))
    return values


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float | None:
    """Return the median of the rounds' ratios; None before the first round."""
    ratios = [s / f for s, f in zip(slow, fast)]
    return median(ratios) if ratios else None


def checked_rows(rows_n: NDArray[np.int32], batch_size: int, seed: int = 0) -> NDArray[np.int32]:
    """Return the rows of the steps that are checked: full batches, and less than an epoch, which
    scikit-learn would shuffle."""
    steps = min(CHECKED_STEPS, max(1, (len(rows_n) - 1) // batch_size))
    return epoch_order(rows_n, seed, 1)[: steps * batch_size]


def multiply_adds(spec: NetworkSpec) -> int:
    """Return the multiply-adds of one sample, forward and backward.

    A layer has three products, of which the first layer needs two: its inputs have no gradient.
    """
    products = [i * o for i, o in spec.shapes]
    return 2 * sum(products) + sum(products[1:])


def fma_peak_gflops(threads: int) -> float | None:
    """Measure the peak of fused multiply-adds in float32; None without the cython backend."""
    if unavailable_reason("cython"):
        return None
    peak: float = cast(Any, get_backend("cython")).multiply_add_peak(threads)
    return peak
