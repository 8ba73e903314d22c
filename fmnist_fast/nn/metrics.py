"""Metrics of predicted probabilities: accuracy, cross-entropy, calibration error, coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats
from .calibration import clipped_log

# Bins of the calibration error. Guo et al. (2017) use 15.
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one model on one data set. Arrays have one entry per class.

    confusion_kk : confusion[t, p] counts the rows of class t that were predicted as class p.
    precision_k, recall_k, f1_k : NaN where the denominator is 0. calibration_error : see
    `calibration_error`.
    """

    accuracy: float
    loss: float
    calibration_error: float
    confusion_kk: NDArray[np.int64]
    precision_k: NDArray[np.float64]
    recall_k: NDArray[np.float64]
    f1_k: NDArray[np.float64]


def evaluate(probability_nk: Floats, labels_n: NDArray[np.integer]) -> Evaluation:
    """Compute all metrics. probability_nk : (n, k); labels_n : (n,), each in 0..k-1; n >= 1."""
    classes = probability_nk.shape[1]
    predicted_n = probability_nk.argmax(axis=1)
    pairs_n = labels_n.astype(np.int64) * classes + predicted_n
    confusion_kk = np.bincount(pairs_n, minlength=classes**2).reshape(classes, classes)
    hits_k = confusion_kk.diagonal()
    truth_k, predictions_k = confusion_kk.sum(1), confusion_kk.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return Evaluation(
            accuracy=float(hits_k.sum() / len(labels_n)),
            loss=cross_entropy(probability_nk, labels_n),
            calibration_error=calibration_error(probability_nk, predicted_n == labels_n),
            confusion_kk=confusion_kk,
            precision_k=hits_k / predictions_k,
            recall_k=hits_k / truth_k,
            f1_k=2 * hits_k / (truth_k + predictions_k),
        )


@dataclass(frozen=True)
class SelectiveAccuracy:
    """Coverage and accuracy of selective classification by a threshold on the top probability.

    coverage : fraction of the rows with a confident prediction. accuracy : fraction of those that
    are correct, NaN if there are none.
    """

    threshold: float
    coverage: float
    accuracy: float


def selective_accuracy(
    probability_nk: Floats, labels_n: NDArray[np.integer], threshold: float
) -> SelectiveAccuracy:
    """Measure predictions whose probability is at least the threshold."""
    confident_n = probability_nk.max(axis=1) >= threshold
    hit_n = probability_nk.argmax(axis=1) == labels_n
    accuracy = float(hit_n[confident_n].mean()) if confident_n.any() else float("nan")
    return SelectiveAccuracy(threshold, float(confident_n.mean()), accuracy)


def cross_entropy(probability_nk: Floats, labels_n: NDArray[np.integer]) -> float:
    """Return the mean of -log p[label], in nats per row.

    Probabilities are clipped to the smallest normal float32 (88 nats), so that underflow in one row
    does not make the mean infinite.
    """
    return float(-clipped_log(probability_nk[np.arange(len(labels_n)), labels_n]).mean())


@dataclass(frozen=True)
class ReliabilityBin:
    """Bin of a reliability diagram: rows by the probability of their top class.

    confidence : mean of that probability. accuracy : fraction of the rows that are correct.
    """

    rows: int
    confidence: float
    accuracy: float


def reliability(probability_nk: Floats, hit_n: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Return the non-empty bins of a reliability diagram, in order of confidence.

    hit_n : whether the top class of each row is correct. No bins if there is a NaN.
    """
    confidence_n = probability_nk.max(axis=1).astype(np.float64)
    if np.isnan(confidence_n).any():
        return []
    bin_n = np.minimum((confidence_n * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    rows, confidence, hits = (
        np.bincount(bin_n, weights=weight_n, minlength=CALIBRATION_BINS)
        for weight_n in (np.ones(len(hit_n)), confidence_n, hit_n)
    )
    return [
        ReliabilityBin(int(n), float(c / n), float(h / n))
        for n, c, h in zip(rows, confidence, hits)
        if n
    ]


def calibration_error(probability_nk: Floats, hit_n: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: mean of |accuracy - confidence| over bins.

    Rows are binned by the probability of their top class; bins are weighted by their rows.
    Source: Guo, Pleiss, Sun, Weinberger (2017), equation 3.
    """
    bins = reliability(probability_nk, hit_n)
    if not bins:
        return float("nan")
    return sum(b.rows * abs(b.accuracy - b.confidence) for b in bins) / len(hit_n)
