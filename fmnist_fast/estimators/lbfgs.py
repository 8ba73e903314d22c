"""L-BFGS, by SciPy, on the loss and gradient of the kernels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.interface import Floats, NetworkSpec, Params, TrainData
from ..nn.network import Network

__all__ = ["loss_and_gradient", "minimize_lbfgs"]

# Rows of a block of the gradient over the whole data set.
BLOCK_ROWS = 4096


def loss_and_gradient(network: Network, data: TrainData, alpha: float) -> tuple[float, Params]:
    """Return the loss of all rows, penalty included, and its gradient.

    Source: `reference.batch_loss` with l2 = alpha / sum of weights; blocks of rows are added in
    order, each with its fraction of the weights.
    """
    backend, spec = network.backend, network.spec
    total, rows = float(data.weights_n.sum()) or 1.0, data.x_ni.shape[0]
    loss, gradient = 0.0, _zeros(spec)
    order_n = np.arange(rows, dtype=np.int32)
    for first in range(0, rows, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, rows)
        x_bi, weights_b = _rows(network, data, order_n, first, last), data.weights_n[first:last]
        layers = tuple(np.empty((last - first, o), spec.dtype) for _, o in spec.shapes)
        loss_b, grad_logits_bk = np.empty(last - first, spec.dtype), np.empty_like(layers[-1])
        part = _zeros(spec)
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


def _rows(network: Network, data: TrainData, order_n: NDArray, first: int, last: int) -> Floats:
    """Return rows first..last-1, scaled, in the network's dtype."""
    if network.spec.input_format == "csr":
        sparse: Floats = (data.x_ni[first:last] * data.scale).astype(network.spec.dtype)
        return sparse
    x_bi = np.empty((last - first, network.spec.sizes[0]), network.spec.dtype)
    network.backend.gather_batch(data.x_ni, order_n, first, last, data.scale, x_bi)
    return x_bi


def _zeros(spec: NetworkSpec) -> Params:
    return Params(
        tuple(np.zeros((i, o), spec.dtype) for i, o in spec.shapes),
        tuple(np.zeros(o, spec.dtype) for _, o in spec.shapes),
    )


def minimize_lbfgs(
    network: Network,
    data: TrainData,
    alpha: float,
    tol: float,
    max_iter: int,
    max_fun: int,
    on_iteration: Callable[[float], bool],
) -> Any:
    """Minimize over all parameters, in place; return SciPy's OptimizeResult.

    on_iteration : called with the loss after every iteration; true stops.
    Source: Liu & Nocedal (1989), by SciPy.
    """
    from scipy.optimize import minimize

    arrays = [*network.params.weights, *network.params.biases]

    def unpack(flat: NDArray[np.float64]) -> None:
        first = 0
        for array in arrays:
            array[...] = flat[first : first + array.size].reshape(array.shape)
            first += array.size

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        unpack(flat)
        loss, gradient = loss_and_gradient(network, data, alpha)
        pieces = [g.ravel() for g in (*gradient.weights, *gradient.biases)]
        return loss, np.concatenate(pieces).astype(np.float64)

    def stop(intermediate_result: Any) -> None:
        if on_iteration(float(intermediate_result.fun)):
            raise StopIteration

    start = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    options = {"maxfun": max_fun, "maxiter": max_iter, "gtol": tol}
    result = minimize(objective, start, method="L-BFGS-B", jac=True, options=options, callback=stop)
    unpack(result.x)
    return result
