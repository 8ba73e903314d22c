"""What the network is asked to say: distributions over the classes, made from labels."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats

__all__ = ["mix_targets", "unique_labels", "encode_labels", "smooth_labels"]

# Labels in so small a range are counted in a table, which is ten times as fast as sorting them.
TABLE = 1 << 16


def smooth_labels(
    labels_n: NDArray[np.int32], classes: int, smoothing: float, dtype: str
) -> Floats:
    """(n, k): 1 - smoothing for the label, and `smoothing` shared by all classes alike.

    Source: Szegedy et al. (2016), section 7.
    """
    soft_nk: Floats = np.full((len(labels_n), classes), smoothing / classes, dtype)
    soft_nk[np.arange(len(labels_n)), labels_n] += 1 - smoothing
    return soft_nk


def mix_targets(taught_nk: Floats, asked_nk: Floats, share: float) -> Floats:
    """share * what teachers say + (1 - share) * what the labels say, in the dtype of the latter."""
    return (share * taught_nk + (1 - share) * asked_nk).astype(asked_nk.dtype)


def unique_labels(labels_n: NDArray) -> NDArray:
    """The labels that there are, ascending, each once: np.unique, faster where they are numbers."""
    places = _places(labels_n)
    if places is None:
        return np.unique(labels_n)
    place_n, low = places
    found: NDArray = (np.flatnonzero(np.bincount(place_n)) + low).astype(labels_n.dtype)
    return found


def encode_labels(labels_n: NDArray, classes_k: NDArray) -> NDArray[np.int32]:
    """(n,): where each label is among the classes, which are ascending and have all of them."""
    if labels_n.dtype.kind in "iu" and classes_k.dtype.kind in "iu":
        labels_n = labels_n.astype(classes_k.dtype, copy=False)
    places = _places(labels_n)
    if places is None:
        return np.searchsorted(classes_k, labels_n).astype(np.int32)
    place_n, low = places
    labels = np.arange(place_n.max() + 1) + low  # not to the one above, which may not exist
    # Of signed and unsigned ones NumPy compares what is left of them in float64.
    labels = labels.astype(labels_n.dtype)
    numbers: NDArray[np.int32] = np.searchsorted(classes_k, labels).astype(np.int32)[place_n]
    return numbers


def _places(labels_n: NDArray) -> tuple[NDArray[np.int64], int] | None:
    """How far each is above the lowest, and the lowest, if they fit into a table."""
    if labels_n.ndim != 1 or labels_n.dtype.kind not in "iu" or not len(labels_n):
        return None
    low, high = int(labels_n.min()), int(labels_n.max())
    if high - low >= min(TABLE, len(labels_n)) or high > np.iinfo(np.int64).max:
        return None
    return labels_n.astype(np.int64) - low, low
