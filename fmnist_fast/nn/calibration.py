"""Confidence that means something: one temperature, and a probability below which to say so."""

from math import ceil, log2, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats, Params

__all__ = [
    "TARGET_PRECISION",
    "scale_logits",
    "fit_temperature",
    "confidence_threshold",
    "apply_temperature",
]

# Share of the answers called sure that must be right.
TARGET_PRECISION = 0.97

# Probability with which that may fail on other rows of the same kind.
DOUBT = 0.001

# Temperatures between which the best one lies for any network worth calibrating.
COLDEST, HOTTEST = 1 / 16, 16.0


def apply_temperature(probability_nk: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), from probability = softmax(logits).

    A probability that underflowed to 0 counts as the smallest float32.
    """
    log_nk = _log(probability_nk) / temperature
    p_nk: NDArray[np.float64] = np.exp(log_nk - log_nk.max(axis=1, keepdims=True))
    p_nk /= p_nk.sum(axis=1, keepdims=True)
    return p_nk


def scale_logits(params: Params, temperature: float) -> Params:
    """Parameters whose logits are those of params / temperature: the last layer divided by it."""
    if temperature == 1:
        return params
    weights, biases = params
    return Params(
        (*weights[:-1], (weights[-1] / temperature).astype(weights[-1].dtype)),
        (*biases[:-1], (biases[-1] / temperature).astype(biases[-1].dtype)),
    )


def _log(probability_nk: Floats) -> NDArray[np.float64]:
    floor = float(np.finfo(np.float32).tiny)
    log_nk: NDArray[np.float64] = np.log(np.maximum(probability_nk.astype(np.float64), floor))
    return log_nk


def fit_temperature(probability_nk: Floats, labels_n: NDArray[np.integer]) -> float:
    """The temperature with the least cross-entropy on rows that were not trained on.

    Golden-section search over log temperature, where the cross-entropy has one valley.
    Source: Guo, Pleiss, Sun, Weinberger (2017), section 4.2.
    """
    log_nk = _log(probability_nk)
    log_nk -= log_nk.max(axis=1, keepdims=True)
    label_n = log_nk[np.arange(len(labels_n)), labels_n]

    def loss(log_temperature: float) -> float:
        cold = np.exp(-log_temperature)
        return float(np.log(np.exp(log_nk * cold).sum(axis=1)).mean() - label_n.mean() * cold)

    golden = (np.sqrt(5) - 1) / 2
    low, high = np.log(COLDEST), np.log(HOTTEST)
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
    """The lowest threshold on the top probability with the target precision above it.

    confidence_n : probability of each row's top class, from rows that were not trained on; hit_n :
    whether it is right. Bisection, where not the share of right answers counts but what it is at
    least, all but certainly, at all thresholds that were looked at: rows to come should keep the
    promise too. None: there is no such threshold.
    Source: Geifman & El-Yaniv (2017), algorithm 1; the interval is Wilson's (1927).
    """
    order_n = np.argsort(-confidence_n, kind="stable")
    confidence_n, hits_n = confidence_n[order_n], np.cumsum(hit_n[order_n])
    looks = max(1, ceil(log2(len(order_n))))
    deviate = NormalDist().inv_cdf(1 - DOUBT / looks)

    found, low, high = None, 0, len(order_n) - 1
    while low <= high:
        middle = (low + high) // 2
        last = int(np.flatnonzero(confidence_n == confidence_n[middle])[-1])  # equals stay together
        if _at_least(int(hits_n[last]), last + 1, deviate) >= target_precision:
            found, low = float(confidence_n[middle]), last + 1
        else:
            high = middle - 1
    return found


def _at_least(hits: int, rows: int, deviate: float) -> float:
    """Lower end of Wilson's interval for a share of which hits / rows was seen."""
    share, z2 = hits / rows, deviate**2
    spread = deviate * sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return (share + z2 / (2 * rows) - spread) / (1 + z2 / rows)
