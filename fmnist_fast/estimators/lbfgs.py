"""L-BFGS, by SciPy, on the loss and gradient of the kernels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.optimize import _check_optimize_result

from ..kernels.interface import Floats, Params, TrainData
from ..nn.backend import backend_name
from ..nn.network import Network, zeros
from ..training.budget import Clock
from .callbacks import FitCallbacks
from .networks import build_network
from .targets import LabeledRows

# Rows of a block of the gradient over the whole data set.
BLOCK_ROWS = 4096


def loss_and_gradient(network: Network, data: TrainData, alpha: float) -> tuple[float, Params]:
    """Return the loss of all rows, penalty included, and its gradient.

    Source: `reference.batch_loss` with l2 = alpha / sum of weights; blocks of rows are added in
    order, each with its fraction of the weights.
    """
    backend, spec = network.backend, network.spec
    total, rows = float(data.weights_n.sum()) or 1.0, data.x_ni.shape[0]
    loss, gradient = 0.0, zeros(spec)
    for first in range(0, rows, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, rows)
        x_bi, weights_b = _rows(network, data, first, last), data.weights_n[first:last]
        layers = tuple(np.empty((last - first, o), spec.dtype) for _, o in spec.shapes)
        loss_b, grad_logits_bk = np.empty(last - first, spec.dtype), np.empty_like(layers[-1])
        part = zeros(spec)
        backend.forward(network.params, x_bi, spec, layers)
        weights = weights_b.astype(spec.dtype)
        backend.loss_and_grad(
            layers[-1], data.targets_n[first:last], weights, spec, loss_b, grad_logits_bk
        )
        backend.backward(network.params, x_bi, layers, grad_logits_bk, spec, part)
        fraction = float(weights_b.sum()) / total
        loss += float(np.dot(weights_b, loss_b)) / total
        for sums, arrays in zip(gradient, part):
            for total_io, block_io in zip(sums, arrays):
                total_io += fraction * block_io
    l2 = alpha / total
    for w_io, g_io in zip(network.params.weights, gradient.weights):
        loss += l2 / 2 * float(np.vdot(w_io, w_io))
        g_io += l2 * w_io
    return loss, gradient


def _rows(network: Network, data: TrainData, first: int, last: int) -> Floats:
    """Return rows first..last-1, scaled, in the network's dtype."""
    if network.spec.input_format == "csr":
        sparse: Floats = (data.x_ni[first:last] * data.scale).astype(network.spec.dtype)
        return sparse
    order_b = np.arange(first, last, dtype=np.int32)
    x_bi = np.empty((last - first, network.spec.sizes[0]), network.spec.dtype)
    network.backend.gather_batch(data.x_ni, order_b, 0, last - first, data.scale, x_bi)
    return x_bi


def fit_lbfgs(estimator: Any, rows: LabeledRows, callbacks: FitCallbacks) -> None:
    """Minimize the loss over all rows by L-BFGS.

    In float64, as in scikit-learn for any dtype of the rows: the line search needs it.
    Source: Liu & Nocedal (1989), by SciPy.
    """
    from scipy.optimize import minimize

    dtype = estimator.coefs_[0].dtype
    network = build_network(estimator, rows.x_ni, dtype=np.float64)
    targets_n = rows.targets_n
    if targets_n.ndim == 2:
        targets_n = targets_n.astype(np.float64)
    data = TrainData(rows.x_ni, 1.0, targets_n, rows.weights())
    estimator.backend_ = backend_name(network.backend)
    estimator.coefs_, estimator.intercepts_ = map(list, network.params)
    arrays = [*network.params.weights, *network.params.biases]
    ends = np.cumsum([array.size for array in arrays])
    clock = Clock()

    def unpack(flat: NDArray[np.float64]) -> None:
        for array, values in zip(arrays, np.split(flat, ends[:-1])):
            array[...] = values.reshape(array.shape)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        unpack(flat)
        loss, gradient = loss_and_gradient(network, data, estimator.alpha)
        return loss, _flatten(gradient)

    def stop(intermediate_result: Any) -> None:
        if estimator.verbose:
            print(f"loss = {intermediate_result.fun:.8f}")
        out_of_time = estimator.time_budget is not None and clock() > estimator.time_budget
        if out_of_time or callbacks.end_epoch():
            raise StopIteration

    result = minimize(
        objective,
        _flatten(network.params),
        method="L-BFGS-B",
        jac=True,
        options={"maxfun": estimator.max_fun, "maxiter": estimator.max_iter, "gtol": estimator.tol},
        callback=stop,
    )
    unpack(result.x)
    estimator.n_iter_ = _check_optimize_result("lbfgs", result, estimator.max_iter)
    estimator.loss_ = float(result.fun)
    estimator.coefs_ = [w_io.astype(dtype, copy=False) for w_io in network.params.weights]
    estimator.intercepts_ = [b_o.astype(dtype, copy=False) for b_o in network.params.biases]


def _flatten(params: Params) -> NDArray[np.float64]:
    return np.concatenate([array.ravel() for arrays in params for array in arrays])
