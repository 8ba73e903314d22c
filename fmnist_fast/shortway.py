"""Few rows, fast: what a call of predict_proba can skip since an earlier one has checked it."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import numpy as np

from .kernels import Floats
from .network import Network

__all__ = ["ShortWay"]

# More rows than this are worth a full check, and threads.
MOST = 64


class ShortWay:
    """From rows straight to the kernel, where the network is still that of an earlier call.

    That takes a C-contiguous array of the network's own dtype. Copies and pickles begin anew.
    """

    def __init__(self) -> None:
        self._settings: tuple = ()
        self._arrays: tuple = ()
        self._predict: Callable[..., None] | None = None

    def __reduce__(self) -> tuple:
        return ShortWay, ()

    def remember(self, network: Network, settings: tuple) -> None:
        """The next calls may go to this network. settings : what it follows from, apart from its
        arrays."""
        self._settings = settings
        self._arrays = (*network.params.weights, *network.params.biases)
        self._params, self._spec = network.params, network.spec
        self._dtype = self._arrays[0].dtype
        self._inputs, self._outputs = network.spec.sizes[0], network.spec.sizes[-1]
        self._predict = network.backend.predict

    def probabilities(self, x: Any, arrays: Sequence[Floats], settings: tuple) -> Floats | None:
        """(n, outputs); None if these rows have to go the long way, which says what is wrong.

        arrays : the estimator's weights and biases as they are now.
        """
        if (
            self._predict is None
            or type(x) is not np.ndarray
            or x.dtype is not self._dtype
            or x.ndim != 2
            or x.shape[1] != self._inputs
            or not 0 < x.shape[0] <= MOST
            or not x.flags.c_contiguous
            or settings != self._settings
            or not all(map(is_, arrays, self._arrays))
            or not np.isfinite(x).all()
        ):
            return None
        out_nk: Floats = np.empty((x.shape[0], self._outputs), self._dtype)
        self._predict(self._params, x, 1.0, self._spec, 1, out_nk)
        return out_nk
