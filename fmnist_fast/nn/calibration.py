"""Calibration: temperature scaling, and a confidence threshold for selective prediction."""

from math import ceil, log2, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats, Params

# Fraction of the confident predictions that must be correct.
TARGET_PRECISION = 0.97

# Probability that the precision on new rows is lower.
FAILURE_PROBABILITY = 0.001

# Search interval of the temperature.
MIN_TEMPERATURE, MAX_TEMPERATURE = 1 / 16, 16.0


def apply_temperature(probability_nk: Floats, temperature: float) -> NDArray[np.float64]:
    """Return softmax(logits / temperature), given probability = softmax(logits).

    Probabilities are clipped to the smallest normal float32.
    """
    log_nk = clipped_log(probability_nk) / temperature
    p_nk: NDArray[np.float64] = np.exp(log_nk - log_nk.max(axis=1, keepdims=True))
    p_nk /= p_nk.sum(axis=1, keepdims=True)
    return p_nk


def scale_logits(params: Params, temperature: float) -> Params:
    """Return parameters whose logits are divided by the temperature, in the last layer."""
    if temperature == 1:
        return params
    return Params(
        *((*arrays[:-1], (arrays[-1] / temperature).astype(arrays[-1].dtype)) for arrays in params)
    )


def clipped_log(probability_nk: Floats) -> NDArray[np.float64]:
    """Return the logarithm of probabilities, clipped to the smallest normal float32 (-88)."""
    floor = float(np.finfo(np.float32).tiny)
    log_nk: NDArray[np.float64] = np.log(np.maximum(probability_nk.astype(np.float64), floor))
    return log_nk


def fit_temperature(probability_nk: Floats, labels_n: NDArray[np.integer]) -> float:
    """Return the temperature that minimizes the cross-entropy on held-out rows.

    Golden-section search over log temperature, in which the cross-entropy is unimodal.
    Source: Guo, Pleiss, Sun, Weinberger (2017), section 4.2.
    """
    log_nk = clipped_log(probability_nk)
    log_nk -= log_nk.max(axis=1, keepdims=True)
    label_n = log_nk[np.arange(len(labels_n)), labels_n]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.log(np.exp(log_nk * inverse).sum(axis=1)).mean() - label_n.mean() * inverse)

    golden = (np.sqrt(5) - 1) / 2
    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    inner, outer = high - golden * (high - low), low + golden * (high - low)
    at_inner, at_outer = loss(inner), loss(outer)
    while high - low > 1e-4:
        if at_inner <= at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - golden * (high - low)
            at_inner = loss(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + golden * (high - low)
            at_outer = loss(outer)
    return float(np.exp((low + high) / 2))


def confidence_threshold(
    confidence_n: NDArray[np.floating],
    hit_n: NDArray[np.bool_],
    target_precision: float = TARGET_PRECISION,
) -> float | None:
    """Return the lowest threshold on the top probability that reaches the target precision.

    confidence_n : probability of each row's top class, on held-out rows; hit_n : whether it is
    correct. Bisection on a lower confidence bound of the precision, corrected for the number of
    thresholds that are tested, so that the target holds on new rows, too. None: no threshold does.
    Source: Geifman & El-Yaniv (2017), algorithm 1; the interval is Wilson's (1927).
    """
    order_n = np.argsort(-confidence_n, kind="stable")
    confidence_n, hits_n = confidence_n[order_n], np.cumsum(hit_n[order_n])
    n_tests = max(1, ceil(log2(len(order_n))))
    deviate = NormalDist().inv_cdf(1 - FAILURE_PROBABILITY / n_tests)

    found, low, high = None, 0, len(order_n) - 1
    while low <= high:
        middle = (low + high) // 2
        last = int(np.flatnonzero(confidence_n == confidence_n[middle])[-1])  # ties
        if _lower_bound(int(hits_n[last]), last + 1, deviate) >= target_precision:
            found, low = float(confidence_n[middle]), last + 1
        else:
            high = middle - 1
    return found


def _lower_bound(hits: int, rows: int, deviate: float) -> float:
    """Return the lower end of Wilson's interval for a proportion estimated as hits / rows."""
    proportion, z2 = hits / rows, deviate**2
    spread = deviate * sqrt(proportion * (1 - proportion) / rows + z2 / (4 * rows**2))
    return (proportion + z2 / (2 * rows) - spread) / (1 + z2 / rows)
