"""The networks of kernels that compute for an estimator."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy import sparse

from ..kernels.interface import Floats, NetworkSpec, Params
from ..nn.network import Network

__all__ = ["build_network", "predict_outputs", "with_both_classes"]


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
        Of the very arrays in coefs_ and intercepts_, or, where their dtype or layout is another,
        or they are to be trained and read-only, of copies.

    Raises
    ------
    ValueError
        If the shapes of coefs_, intercepts_ and x_ni do not fit together.
    """
    coefs, intercepts = list(estimator.coefs_), list(estimator.intercepts_)
    dtype = np.dtype(dtype or coefs[0].dtype)
    requirements: Any = "CW" if optimizer else "C"
    coefs = [np.require(w_io, dtype, requirements) for w_io in coefs]
    intercepts = [np.require(b_o, dtype, requirements) for b_o in intercepts]
    sizes = _layer_sizes(coefs, intercepts)
    if x_ni is not None and x_ni.shape[1] != sizes[0]:
        raise ValueError(f"coefs_[0] has {sizes[0]} rows, and X has {x_ni.shape[1]} columns.")
    if sizes[-1] != estimator.n_outputs_:
        raise ValueError(
            f"coefs_[-1] has {sizes[-1]} columns, and there are {estimator.n_outputs_} outputs."
        )
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


def _layer_sizes(coefs: list, intercepts: list) -> tuple[int, ...]:
    """Return the widths of all layers. Raises ValueError if shapes do not fit together."""
    if not coefs or len(coefs) != len(intercepts) or any(w_io.ndim != 2 for w_io in coefs):
        raise ValueError("coefs_ and intercepts_ need a matrix and a vector for every layer.")
    for layer, (w_io, b_o) in enumerate(zip(coefs, intercepts)):
        if b_o.shape != (w_io.shape[1],):
            raise ValueError(
                f"intercepts_[{layer}] has the shape {b_o.shape}, and coefs_[{layer}] "
                f"{w_io.shape}: they do not fit."
            )
        if layer and coefs[layer - 1].shape[1] != len(w_io):
            raise ValueError(
                f"coefs_[{layer}] has the shape {w_io.shape}, and coefs_[{layer - 1}] "
                f"{coefs[layer - 1].shape}: they do not fit."
            )
    return (*(len(w_io) for w_io in coefs), coefs[-1].shape[1])


def predict_outputs(network: Network, x_ni: Any) -> Floats:
    """Return the outputs of the network for checked rows, (n, n_outputs), probabilities."""
    out_nk = np.empty((x_ni.shape[0], network.spec.sizes[-1]), network.spec.dtype)
    network.backend.predict(
        network.params, x_ni, network.scale, network.spec, network.threads, out_nk
    )
    return out_nk


def with_both_classes(params: Params, spec: NetworkSpec) -> tuple[Params, NetworkSpec]:
    """Return the equivalent network with an output for each of two classes.

    sigmoid(z) = softmax((0, z))[1]
    """
    *weights, last_i1 = params.weights
    *biases, last_1 = params.biases
    both_i2 = np.ascontiguousarray(np.hstack([np.zeros_like(last_i1), last_i1]))
    both_2 = np.concatenate([np.zeros_like(last_1), last_1])
    return (
        Params((*weights, both_i2), (*biases, both_2)),
        replace(spec, sizes=(*spec.sizes[:-1], 2), loss="softmax"),
    )
