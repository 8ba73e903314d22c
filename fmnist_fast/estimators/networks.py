"""The networks of kernels that compute for an estimator."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from ..kernels.interface import NetworkSpec, Params
from ..nn.network import Network


def draw_params(
    sizes: tuple[int, ...], activation: str, random_state: np.random.RandomState, dtype: str
) -> tuple[list[NDArray], list[NDArray]]:
    """Draw initial weights and biases as scikit-learn does.

    References
    ----------
    Glorot & Bengio (2010), equation 16; for the logistic function a third of its variance.
    """
    coefs, intercepts = [], []
    for i, o in pairwise(sizes):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (i + o))
        coefs.append(random_state.uniform(-bound, bound, (i, o)).astype(dtype, copy=False))
        intercepts.append(random_state.uniform(-bound, bound, o).astype(dtype, copy=False))
    return coefs, intercepts


def build_network(
    estimator: Any,
    x_ni: Any = None,
    *,
    batch_size: int | None = None,
    epochs: int = 1,
    optimizer: str | None = None,
    dtype: DTypeLike | None = None,
) -> Network:
    """Build the network of an estimator's current coefs_ and intercepts_.

    Parameters
    ----------
    estimator : MLPClassifier
        Fitted, or with its first weights.
    x_ni : array or CSR array of shape (n, features), optional
        Rows that it will be called with; None: one dense row.
    batch_size : int, optional
        Rows of a batch; None: all.
    epochs : int
        Times that one call goes over the rows.
    optimizer : {"adam", "sgd", "nesterov"}, optional
        To train with, in place; None: the network only predicts, without dropout.
    dtype : dtype, optional
        To compute in; None: that of the weights.

    Returns
    -------
    Network
        Shares the arrays of coefs_ and intercepts_; copies those of another dtype or layout, and
        read-only ones if they are trained.

    Raises
    ------
    ValueError
        If the shapes of coefs_, intercepts_ and x_ni do not fit together.
    """
    dtype = np.dtype(dtype or estimator.coefs_[0].dtype)
    requirements: Any = "CW" if optimizer else "C"
    coefs = [np.require(w_io, dtype, requirements) for w_io in estimator.coefs_]
    intercepts = [np.require(b_o, dtype, requirements) for b_o in estimator.intercepts_]
    sizes = (*(len(w_io) for w_io in coefs), estimator.n_outputs_)
    shapes = [array.shape for array in (*coefs, *intercepts)]
    if shapes != [*pairwise(sizes), *((o,) for o in sizes[1:])]:
        raise ValueError(
            f"coefs_ and intercepts_ have the shapes {shapes}: they do not fit together, or not "
            f"{estimator.n_outputs_} outputs."
        )
    if x_ni is not None and x_ni.shape[1] != sizes[0]:
        raise ValueError(f"coefs_[0] has {sizes[0]} rows, and X has {x_ni.shape[1]} columns.")
    spec = NetworkSpec(
        sizes,
        estimator.activation,
        loss="softmax" if estimator.out_activation_ == "softmax" else "sigmoid",
        optimizer=optimizer or "adam",
        dtype=dtype.name,
        dropout=estimator.dropout if optimizer else 0.0,
        input_format="csr" if sparse.issparse(x_ni) else "dense",
        max_loss=float(-np.log(np.finfo(dtype).eps)),  # where scikit-learn clips
    )
    rows = 1 if x_ni is None else x_ni.shape[0]
    return Network.from_params(
        spec,
        Params(tuple(coefs), tuple(intercepts)),
        scale=1.0,
        backend=estimator.backend,
        threads=estimator.n_threads,
        batch_size=batch_size or rows,
        rows=rows * epochs,
    )


def with_both_classes(params: Params, spec: NetworkSpec) -> tuple[Params, NetworkSpec]:
    """Return the equivalent network with an output for each of two classes.

    sigmoid(z) = softmax((0, z))[1]
    """
    *weights, last_i1 = params.weights
    *biases, last_1 = params.biases
    both_i2 = np.ascontiguousarray(np.hstack([np.zeros_like(last_i1), last_i1]))
    both_2 = np.concatenate([np.zeros_like(last_1), last_1])
    params = Params((*weights, both_i2), (*biases, both_2))
    return params, replace(spec, sizes=(*spec.sizes[:-1], 2), loss="softmax")
