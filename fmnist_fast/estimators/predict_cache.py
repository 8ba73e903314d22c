"""Few rows, fast: what a call of predict_proba can skip since an earlier one has checked it."""

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from ..kernels.interface import Floats, NetworkSpec, Params
from ..nn.network import Network

__all__ = ["PredictCache"]

# More rows than this are worth a full check, and threads.
MOST = 64


class _Known(NamedTuple):
    """A network that was checked. settings : what it follows from, apart from its arrays."""

    settings: tuple
    arrays: tuple[Floats, ...]
    params: Params
    spec: NetworkSpec
    dtype: np.dtype
    predict: Callable[..., None]


class PredictCache:
    """From rows straight to the kernel, where the network is still that of an earlier call.

    That takes a C-contiguous array of the network's own dtype. Copies and pickles begin anew.
    """

    def __init__(self) -> None:
        self._known: _Known | None = None

    def __reduce__(self) -> tuple:
        return PredictCache, ()

    def remember(self, network: Network, settings: tuple) -> None:
        """The next calls may go to this network."""
        params = network.params
        arrays = (*params.weights, *params.biases)
        self._known = _Known(
            settings, arrays, params, network.spec, arrays[0].dtype, network.backend.predict
        )

    def probabilities(self, x: Any, arrays: Sequence[Floats], settings: tuple) -> Floats | None:
        """(n, outputs); None if these rows have to go the long way, which says what is wrong.

        arrays : the estimator's weights and biases as they are now.
        """
        known = self._known  # read once: another thread may replace it
        if (
            known is None
            or type(x) is not np.ndarray
            or x.dtype is not known.dtype
            or x.ndim != 2
            or x.shape[1] != known.spec.sizes[0]
            or not 0 < x.shape[0] <= MOST
            or not x.flags.c_contiguous
            or settings != known.settings
            or len(arrays) != len(known.arrays)
            or not all(map(is_, arrays, known.arrays))
            or not np.isfinite(x).all()
        ):
            return None
        out_nk: Floats = np.empty((x.shape[0], known.spec.sizes[-1]), known.dtype)
        known.predict(known.params, x, 1.0, known.spec, 1, out_nk)
        return out_nk
