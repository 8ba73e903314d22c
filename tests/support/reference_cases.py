"""Random networks and data sets for the tests of the reference, and its loss a second time."""

from itertools import pairwise

import numpy as np

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import (
    DropoutState,
    NetworkSpec,
    Params,
    StepSchedule,
    TrainData,
    TrainState,
)
from fmnist_fast.nn.optimizers import Adam

EPS64 = np.finfo(np.float64).eps


def random_params(spec: NetworkSpec, seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return Params(
        tuple(rng.normal(0, np.sqrt(2 / i), (i, o)).astype(spec.dtype) for i, o in spec.shapes),
        tuple(rng.normal(0, 0.3, o).astype(spec.dtype) for _, o in spec.shapes),
    )


def zeros_like(params: Params) -> Params:
    return Params(*(tuple(np.zeros_like(a) for a in arrays) for arrays in params))


def fresh_state(spec: NetworkSpec, seed: int = 0) -> TrainState:
    params = random_params(spec, seed)
    return TrainState(params, zeros_like(params), zeros_like(params))


def random_data(spec: NetworkSpec, rows: int, seed: int = 1, weights=None) -> TrainData:
    rng = np.random.default_rng(seed)
    x_ni = rng.integers(0, 256, (rows, spec.sizes[0]), dtype=np.uint8)
    x_ni[rng.random(x_ni.shape) < 0.5] = 0
    y_n = rng.integers(0, spec.sizes[-1], rows).astype(np.int32)
    data = TrainData(x_ni, 1 / 255, y_n, np.ones(rows) if weights is None else weights)
    for array in (data.x_ni, data.targets_n, data.weights_n):
        array.setflags(write=False)
    return data


def constant_schedule(
    count: int, batch_size: int, lr: float = 1e-3, l2: float = 0.0
) -> StepSchedule:
    return Adam().steps(np.full(count, lr), 0, batch_size, l2)


def flat(params: Params) -> np.ndarray:
    return np.concatenate([a.ravel() for arrays in params for a in arrays])


def dropout_state_of(rows: int) -> DropoutState:
    return DropoutState(np.arange(rows, dtype=np.int32), 7)


def dropout_factors(spec: NetworkSpec, rows: int) -> list:
    """Return the factors (b, o) of every hidden layer's outputs in dropout."""
    ends = np.cumsum((0, *spec.sizes[1:-1]))
    out = []
    for first, last in pairwise(ends):
        bits_bo = reference.random_bits(
            dropout_state_of(rows), np.arange(first, last, dtype=np.uint32)
        )
        out.append((bits_bo / 2**32 >= spec.dropout) / (1 - spec.dropout))
    return out


ACTIVATE = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "tanh": np.tanh,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
    "identity": lambda z: z,
}


def batch_loss(params: Params, x_bi, y_b, w_b, spec: NetworkSpec, l2: float) -> float:
    """Return the loss of a batch, computed row by row."""
    total = 0.0
    kept = dropout_factors(spec, len(x_bi))
    for b, (x_i, y, w) in enumerate(zip(x_bi, y_b, w_b)):
        a = x_i
        for depth, (w_io, b_o) in enumerate(zip(*params)):
            a = a @ w_io + b_o
            if depth < len(params.weights) - 1:
                a = ACTIVATE[spec.activation](a) * kept[depth][b]
        if spec.loss == "sigmoid":
            p = 1 / (1 + np.exp(-a))
            total -= w * (y * np.log(p) + (1 - y) * np.log(1 - p)).sum()
            continue
        target_logit = a[y] if np.ndim(y) == 0 else np.dot(y, a)
        total += w * (np.log(np.sum(np.exp(a - a.max()))) + a.max() - target_logit)
    return total / sum(w_b) + l2 / 2 * sum((w_io**2).sum() for w_io in params.weights)


def gradients(params: Params, x_bi, y_b, w_b, spec: NetworkSpec) -> tuple[Params, tuple]:
    _, activations, loss_b, grad_logits_bk, grads = reference.workspace(spec, len(x_bi))
    for array in (*activations, *grads.weights, *grads.biases, loss_b, grad_logits_bk):
        array.fill(np.nan)
    reference.forward(params, x_bi, spec, activations, dropout_state_of(len(x_bi)))
    reference.loss_and_grad(activations[-1], y_b, w_b, spec, loss_b, grad_logits_bk)
    reference.backward(
        params, x_bi, activations, grad_logits_bk, spec, grads, dropout_state_of(len(x_bi))
    )
    return grads, activations
