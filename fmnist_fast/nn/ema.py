"""Running average of the weights over epochs (stochastic weight averaging; then an EMA)."""

import numpy as np

from ..kernels.interface import Params


def copy_params(params: Params) -> Params:
    """Return a deep copy."""
    return Params(*(tuple(array.copy() for array in arrays) for arrays in params))


def update_average(mean: Params, params: Params, epoch: int, over: int) -> None:
    """Update the mean of the weights after an epoch, in place.

    epoch : at least 2; the mean after the first is its weights. Up to `over` epochs it is the mean
    of all; then an exponential moving average with weight 1/over, so that one copy suffices.
    Source: Izmailov et al. (2018), equation 1, for the mean of all.
    """
    weight = np.float64(1 / min(epoch, over))
    for means, arrays in zip(mean, params):
        for mean_io, now_io in zip(means, arrays):
            mean_io += (weight * (now_io - mean_io)).astype(mean_io.dtype)
