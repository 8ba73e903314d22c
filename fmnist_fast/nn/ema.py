"""The mean of the weights over epochs: it lies in the middle of what training wanders around in."""

import numpy as np

from ..kernels.interface import Params

__all__ = ["copy_params", "update_average"]


def copy_params(params: Params) -> Params:
    """The same numbers in arrays of their own."""
    weights, biases = params
    return Params(tuple(w.copy() for w in weights), tuple(b.copy() for b in biases))


def update_average(mean: Params, params: Params, epoch: int, over: int) -> None:
    """Take the weights after an epoch into the mean of those before, in place.

    epoch : at least 2; the mean after the first is its weights. Up to `over` epochs it is the mean
    of all; then the latest count most, each epoch before by 1 - 1/over less, so that one copy of
    the weights is all that is kept.
    Source: Izmailov et al. (2018), equation 1, for the mean of all.
    """
    share = np.float64(1 / min(epoch, over))
    for means, arrays in zip(mean, params):
        for mean_io, now_io in zip(means, arrays):
            mean_io += (share * (now_io - mean_io)).astype(mean_io.dtype)
