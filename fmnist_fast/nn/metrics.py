"""What probabilities are worth, measured against the true labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats

__all__ = [
    "ReliabilityBin",
    "Evaluation",
    "SelectiveAccuracy",
    "cross_entropy",
    "evaluate",
    "reliability",
    "selective_accuracy",
]

# Bins of the calibration error. Guo et al. (2017) use 15.
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on one set. Arrays have one entry per class.

    confusion_kk : confusion[t, p] counts the rows of class t that were taken for class p.
    precision_k : of the rows taken for a class, the share that is. recall_k : of the rows of a
        class, the share found, which is the accuracy per class. f1_k : their harmonic mean.
        NaN where there is nothing to divide by.
    calibration_error : see `calibration_error`.
    """

    accuracy: float
    loss: float
    calibration_error: float
    confusion_kk: NDArray[np.int64]
    precision_k: NDArray[np.float64]
    recall_k: NDArray[np.float64]
    f1_k: NDArray[np.float64]


def evaluate(probability_nk: Floats, labels_n: NDArray[np.integer]) -> Evaluation:
    """All figures at once. probability_nk : (n, k); labels_n : (n,), each in 0..k-1; n >= 1."""
    classes = probability_nk.shape[1]
    guess_n = probability_nk.argmax(axis=1)
    pairs_n = labels_n.astype(np.int64) * classes + guess_n
    confusion_kk = np.bincount(pairs_n, minlength=classes**2).reshape(classes, classes)
    hits_k, truth_k, guesses_k = confusion_kk.diagonal(), confusion_kk.sum(1), confusion_kk.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: nothing to say about that class
        return Evaluation(
            accuracy=float(hits_k.sum() / len(labels_n)),
            loss=cross_entropy(probability_nk, labels_n),
            calibration_error=calibration_error(probability_nk, guess_n == labels_n),
            confusion_kk=confusion_kk,
            precision_k=hits_k / guesses_k,
            recall_k=hits_k / truth_k,
            f1_k=2 * hits_k / (truth_k + guesses_k),
        )


@dataclass(frozen=True)
class SelectiveAccuracy:
    """What a threshold on the top probability does. coverage : share of the rows that are answered
    surely; accuracy : the share of those answers that is right, NaN if there are none.
    """

    threshold: float
    coverage: float
    accuracy: float


def selective_accuracy(
    probability_nk: Floats, labels_n: NDArray[np.integer], threshold: float
) -> SelectiveAccuracy:
    """How often the answers at least as probable as the threshold come, and are right."""
    sure_n = probability_nk.max(axis=1) >= threshold
    hit_n = probability_nk.argmax(axis=1) == labels_n
    accuracy = float(hit_n[sure_n].mean()) if sure_n.any() else float("nan")
    return SelectiveAccuracy(threshold, float(sure_n.mean()), accuracy)


def cross_entropy(probability_nk: Floats, labels_n: NDArray[np.integer]) -> float:
    """Mean of -log p[label], in nats per row.

    A probability that underflowed to 0 counts as the smallest float32 (88 nats), so that one hard
    row cannot make the mean infinite.
    """
    p_n = probability_nk[np.arange(len(labels_n)), labels_n].astype(np.float64)
    floor = float(np.finfo(np.float32).tiny)
    return float(-np.log(np.where(p_n < floor, floor, p_n)).mean())


@dataclass(frozen=True)
class ReliabilityBin:
    """The rows whose top class has a probability of about `confidence`, their mean; accuracy :
    share of them that is right.
    """

    rows: int
    confidence: float
    accuracy: float


def reliability(probability_nk: Floats, hit_n: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """How often answers of a confidence are right: the bins that hold any rows, least sure first.

    hit_n : whether the top class of each row is right. No bins if there is a NaN.
    """
    confidence_n = probability_nk.max(axis=1).astype(np.float64)
    if np.isnan(confidence_n).any():
        return []
    bin_n = np.minimum((confidence_n * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows, confidence, hits = (
        np.bincount(bin_n, weights=what_n, minlength=CALIBRATION_BINS)
        for what_n in (np.ones(len(hit_n)), confidence_n, hit_n)
    )
    return [
        ReliabilityBin(int(n), float(c / n), float(h / n))
        for n, c, h in zip(rows, confidence, hits)
        if n
    ]


def calibration_error(probability_nk: Floats, hit_n: NDArray[np.bool_]) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over rows.

    Rows are binned by the probability of their top class; each bin counts |accuracy - mean
    confidence| times its share of the rows.
    Source: Guo, Pleiss, Sun, Weinberger (2017), equation 3.
    """
    bins = reliability(probability_nk, hit_n)
    if not bins:
        return float("nan")
    return sum(b.rows * abs(b.accuracy - b.confidence) for b in bins) / len(hit_n)
