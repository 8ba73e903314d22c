"""Class labels: encoding, and target distributions."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats

# Range of integer labels up to which a counting table is used: ten times as fast as sorting.
MAX_TABLE = 1 << 16


def smooth_labels(
    labels_n: NDArray[np.int32], classes: int, smoothing: float, dtype: str
) -> Floats:
    """Return targets (n, k): (1 - smoothing) * one-hot + smoothing / k.

    Source: Szegedy et al. (2016), section 7.
    """
    soft_nk: Floats = np.full((len(labels_n), classes), smoothing / classes, dtype)
    soft_nk[np.arange(len(labels_n)), labels_n] += 1 - smoothing
    return soft_nk


def mix_targets(teacher_nk: Floats, label_nk: Floats, alpha: float) -> Floats:
    """Return alpha * teacher_nk + (1 - alpha) * label_nk, in the dtype of the latter."""
    return (alpha * teacher_nk + (1 - alpha) * label_nk).astype(label_nk.dtype)


def unique_labels(labels_n: NDArray) -> NDArray:
    """Return the sorted unique labels, as np.unique does, faster for integers."""
    table = _table_offsets(labels_n)
    if table is None:
        return np.unique(labels_n)
    offset_n, low = table
    found: NDArray = (np.flatnonzero(np.bincount(offset_n)) + low).astype(labels_n.dtype)
    return found


def encode_labels(labels_n: NDArray, classes_k: NDArray) -> NDArray[np.int32]:
    """Return the index of each label (n,) in the classes, which are sorted and complete."""
    if labels_n.dtype.kind in "iu" and classes_k.dtype.kind in "iu":
        labels_n = labels_n.astype(classes_k.dtype, copy=False)
    table = _table_offsets(labels_n)
    if table is None:
        return np.searchsorted(classes_k, labels_n).astype(np.int32)
    offset_n, low = table
    # The highest label + 1 may overflow, so arange starts at 0. Cast, because NumPy compares int64
    # with uint64 in float64, which is inexact.
    labels = (np.arange(offset_n.max() + 1) + low).astype(labels_n.dtype)
    encoded: NDArray[np.int32] = np.searchsorted(classes_k, labels).astype(np.int32)[offset_n]
    return encoded


def _table_offsets(labels_n: NDArray) -> tuple[NDArray[np.int64], int] | None:
    """Return offsets from the lowest label, and that label; None if the range is too large."""
    if labels_n.ndim != 1 or labels_n.dtype.kind not in "iu" or not len(labels_n):
        return None
    low, high = int(labels_n.min()), int(labels_n.max())
    if high - low >= min(MAX_TABLE, len(labels_n)) or high > np.iinfo(np.int64).max:
        return None
    return labels_n.astype(np.int64) - low, low
