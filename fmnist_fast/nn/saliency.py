"""Saliency: the contribution of each input to a logit."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Params


def grad_times_input(params: Params, x_i: NDArray[np.floating], label: int) -> NDArray[np.float64]:
    """Compute the gradient of a logit with respect to the input, times the input.

    For a network of ReLU layers. The sum over the inputs and the contribution of the biases add up
    to the logit, since ReLU is linear where it is not 0.
    Source: Shrikumar, Greenside, Shcherbina, Kundaje (2016), section 2.
    """
    weights, biases = params
    active, h = [], x_i.astype(np.float64)
    for w_io, b_o in zip(weights[:-1], biases[:-1]):
        h = np.maximum(h @ w_io + b_o, 0)
        active.append(h > 0)
    gradient = weights[-1][:, label].astype(np.float64)
    for w_io, active_o in zip(reversed(weights[:-1]), reversed(active)):
        gradient = w_io @ (gradient * active_o)
    contribution_i: NDArray[np.float64] = gradient * x_i
    return contribution_i
