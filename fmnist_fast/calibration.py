"""Confidence that means something: one temperature, and a probability below which to say so."""

import numpy as np
from numpy.typing import NDArray

from .kernels import Floats

__all__ = ["SURE", "fit_temperature", "sure_threshold", "tempered"]

# Share of the answers called sure that must be right.
SURE = 0.97

# Standard normal deviate that 95 % of draws stay below.
ONE_SIDED_95 = 1.645

# Temperatures between which the best one lies for any network worth calibrating.
COLDEST, HOTTEST = 1 / 16, 16.0


def tempered(probability_nk: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), from probability = softmax(logits).

    A probability that underflowed to 0 counts as the smallest float32.
    """
    log_nk = _log(probability_nk) / temperature
    p_nk: NDArray[np.float64] = np.exp(log_nk - log_nk.max(axis=1, keepdims=True))
    p_nk /= p_nk.sum(axis=1, keepdims=True)
    return p_nk


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


def sure_threshold(
    confidence_n: NDArray[np.floating], hit_n: NDArray[np.bool_], sure: float = SURE
) -> float | None:
    """The least top probability from which answers are right at least `sure` of the time.

    confidence_n : probability of each row's top class, from rows that were not trained on; hit_n :
    whether it is right. The lower end of the share's 95 % interval counts, not the share, since
    other rows will be a little worse. None: there is no such threshold.
    Source of the interval: Wilson (1927).
    """
    order_n = np.argsort(-confidence_n, kind="stable")
    confidence_n = confidence_n[order_n].astype(np.float64)
    count_n = np.arange(1, len(order_n) + 1)
    share_n = np.cumsum(hit_n[order_n]) / count_n
    z2 = ONE_SIDED_95**2
    spread_n = ONE_SIDED_95 * np.sqrt(share_n * (1 - share_n) / count_n + z2 / (4 * count_n**2))
    lower_n = (share_n + z2 / (2 * count_n) - spread_n) / (1 + z2 / count_n)
    # Rows of equal confidence are sure or unsure together.
    last_of_equals_n = np.append(confidence_n[1:] < confidence_n[:-1], True)
    good_n = np.flatnonzero((lower_n >= sure) & last_of_equals_n)
    return float(confidence_n[good_n[-1]]) if len(good_n) else None
