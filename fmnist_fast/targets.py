"""What the network is asked to say: distributions over the classes, made from labels."""

import numpy as np
from numpy.typing import NDArray

from .kernels import Floats

__all__ = ["blended", "smoothed"]


def smoothed(labels_n: NDArray[np.int32], classes: int, smoothing: float, dtype: str) -> Floats:
    """(n, k): 1 - smoothing for the label, and `smoothing` shared by all classes alike.

    Source: Szegedy et al. (2016), section 7.
    """
    soft_nk: Floats = np.full((len(labels_n), classes), smoothing / classes, dtype)
    soft_nk[np.arange(len(labels_n)), labels_n] += 1 - smoothing
    return soft_nk


def blended(taught_nk: Floats, asked_nk: Floats, share: float) -> Floats:
    """share * what teachers say + (1 - share) * what the labels say, in the dtype of the latter."""
    return (share * taught_nk + (1 - share) * asked_nk).astype(asked_nk.dtype)
