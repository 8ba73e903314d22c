"""The network, in NumPy: how a multilayer perceptron is trained, on one page.

This is the specification: the faster backends compute the same and are tested against this
module in float64. It is written to be read, top to bottom:

    gather      pick the rows of a batch and scale them
    forward     rows -> logits, layer by layer; in training, dropout leaves some outputs out
    loss_and_grad  how wrong the logits are, and in which direction they should move
    backward    the same question for every weight: the chain rule, from the last layer to the first
    update      move every weight against its gradient (Adam, or plain steps with momentum)
    train_steps the five above, batch after batch
    predict     forward alone, and softmax or sigmoid

Shape letters and the types of the arguments: `kernels/__init__.py`.

The bits of a result depend on the BLAS that NumPy uses and on its number of threads: for one
BLAS and one number of threads they are always the same. The compiled backends promise more.
"""

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .interface import (
    SUPPORTS,
    DropoutState,
    Floats,
    NetworkSpec,
    Params,
    StepHyperparams,
    StepSchedule,
    TrainData,
    TrainState,
)

__all__ = [
    "SUPPORTS",
    "backward",
    "forward",
    "gather_batch",
    "loss_and_grad",
    "predict",
    "train_steps",
    "update",
]

# Rows that predict() scales at a time: 1024 x 784 float32 are 3 MB, which stay in the cache.
BLOCK = 1024


def gather_batch(
    x_ni: NDArray, order_n: NDArray[np.int32], first: int, last: int, scale: float, out_bi: Floats
) -> None:
    """out[b] = scale * x[order[first + b]] for b in 0..last-first-1."""
    np.multiply(x_ni[order_n[first:last]], scale, out=out_bi, dtype=out_bi.dtype)


def rows_of(
    x_ni: NDArray,
    order_n: NDArray[np.int32],
    first: int,
    last: int,
    scale: float,
    spec: NetworkSpec,
    room_bi: Floats,
) -> Floats:
    """The rows of a batch as the other operations take them: in room_bi, or sparse ones anew."""
    if spec.input_format == "csr":
        return (x_ni[order_n[first:last]] * scale).astype(spec.dtype)
    gather_batch(x_ni, order_n, first, last, scale, room_bi)
    return room_bi


def forward(
    params: Params,
    x_bi: Floats,
    spec: NetworkSpec,
    out_activations: tuple[Floats, ...],
    dropout_state: DropoutState | None = None,
) -> None:
    """What every layer makes of the batch; the last entry of out_activations holds the logits.

    A layer computes  z[b, o] = bias[o] + sum_i a[b, i] w[i, o].
    Hidden layers pass on  a = max(0, z)  (ReLU; NaN stays NaN) or another activation of z, the last
    passes on z itself.
    """
    a_bi, first_unit = x_bi, 0
    for w_io, b_o, a_bo in zip(params.weights, params.biases, out_activations, strict=True):
        product(a_bi, w_io, a_bo)
        a_bo += b_o
        if a_bo is not out_activations[-1]:
            activate(a_bo, spec)
            if dropout_state and spec.dropout:
                dropout(a_bo, spec, dropout_state, first_unit)
                first_unit += len(b_o)
        a_bi = a_bo


def product(a: Floats, b: Floats, out: Floats) -> None:
    """out = a b, where a may be sparse."""
    if isinstance(a, np.ndarray):
        np.matmul(a, b, out=out)
    else:
        out[:] = a @ b


def activate(z_bo: Floats, spec: NetworkSpec) -> None:
    """What a hidden layer makes of its sums, in place.

    relu      max(0, z)
    tanh      (e^z - e^-z) / (e^z + e^-z)
    logistic  1 / (1 + e^-z)
    identity  z
    """
    if spec.activation == "relu":
        np.maximum(z_bo, 0, out=z_bo)
    elif spec.activation == "tanh":
        np.tanh(z_bo, out=z_bo)
    elif spec.activation == "logistic":
        sigmoid(z_bo, z_bo)


def slope(a_bo: Floats, spec: NetworkSpec) -> Floats:
    """The derivative of the activation, where its output is a: no need to have kept z.

    relu      1 where a > 0, else 0
    tanh      1 - a^2
    logistic  a (1 - a)
    identity  1
    """
    if spec.activation == "relu":
        return (a_bo > 0).astype(a_bo.dtype)
    if spec.activation == "tanh":
        return 1 - a_bo * a_bo
    if spec.activation == "logistic":
        return a_bo * (1 - a_bo)
    return np.ones_like(a_bo)


def dropout(a_bo: Floats, spec: NetworkSpec, drop: DropoutState, first_unit: int) -> None:
    """Leave out a share of a hidden layer's outputs, in place: others for every row and epoch.

        a[b, o] = a[b, o] / (1 - share)  where it is kept, else 0
    The division keeps the sums of the next layer, on average, what they are without dropout.
    Which outputs it is depends on nothing but the epoch's key, the row of the data set and the
    unit's number, which counts through all hidden layers from first_unit on.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov (2014).
    """
    a_bo *= 1 / (1 - spec.dropout)
    a_bo[~kept(a_bo.shape[1], spec, drop, first_unit)] = 0


def kept(units: int, spec: NetworkSpec, drop: DropoutState, first_unit: int) -> NDArray[np.bool_]:
    """Which outputs of a hidden layer dropout keeps, (b, o):  bits[b, o] >= share * 2^32."""
    units_o = np.arange(first_unit, first_unit + units, dtype=np.uint32)
    return random_bits(drop, units_o) >= np.uint32(spec.dropout * 2**32)


def random_bits(drop: DropoutState, units_o: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """32 random bits for every row and unit, (b, o): no state, so that any order and any number of
    threads sees the same, in every backend.

    Sources of the mixing: a row's 64 bits by SplitMix64 (Steele, Lea, Flood 2014), seeded with the
    key; a unit's 32 bits by the constants that Wellons (2018) found by search.
    """
    row_b = np.uint64(drop.key) + drop.rows_b.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    row_b = (row_b ^ row_b >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    row_b = (row_b ^ row_b >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    row_b ^= row_b >> np.uint64(31)
    low_b1, high_b1 = row_b[:, None].astype(np.uint32), (row_b[:, None] >> 32).astype(np.uint32)

    bits_bo = units_o * np.uint32(0x9E3779B9) + low_b1
    bits_bo = (bits_bo ^ bits_bo >> np.uint32(16)) * np.uint32(0x7FEB352D)
    bits_bo ^= high_b1
    bits_bo = (bits_bo ^ bits_bo >> np.uint32(15)) * np.uint32(0x846CA68B)
    return bits_bo ^ bits_bo >> np.uint32(16)


def softmax(logits_bk: Floats, out_bk: Floats) -> Floats:
    """p[k] = exp(z[k]) / sum_j exp(z[j]), and log sum_j exp(z[j]) (b, 1), which is returned.

    Subtracting the largest logit of the row first changes neither, and exp cannot overflow.
    Source: Goodfellow, Bengio, Courville (2016), section 4.1.
    """
    peak_b1 = logits_bk.max(axis=1, keepdims=True)
    np.exp(logits_bk - peak_b1, out=out_bk)
    total_b1 = out_bk.sum(axis=1, keepdims=True)
    out_bk /= total_b1
    log_total_b1: Floats = peak_b1 + np.log(total_b1)
    return log_total_b1


def sigmoid(z_bk: Floats, out_bk: Floats) -> Floats:
    """p = 1 / (1 + e^-z), and log(1 + e^z), which is returned; exp is taken of -|z| only."""
    e_bk = np.exp(-np.abs(z_bk))
    log_bk: Floats = np.maximum(z_bk, 0) + np.log1p(e_bk)
    np.divide(np.where(z_bk < 0, e_bk, 1), 1 + e_bk, out=out_bk)
    return log_bk


def loss_and_grad(
    logits_bk: Floats,
    targets_b: NDArray,
    weights_b: Floats,
    spec: NetworkSpec,
    out_loss_b: Floats,
    out_grad_logits_bk: Floats,
) -> None:
    """Cross-entropy of every row, and the gradient of the batch's loss at the logits.

    loss[b] = log sum_k exp(z[b, k]) - z[b, target[b]], which is -log softmax(z)[target].
    The batch's loss is the mean, weighted:  sum_b w[b] loss[b] / sum_b w[b].  Its gradient is
        delta[b, k] = (softmax(z)[b, k] - [k is the target]) * w[b] / sum_b w[b].
    A batch whose weights are all zero has loss 0 and gradient 0.

    Targets may be soft, (b, k), a distribution over the classes in every row: then
        loss[b] = log sum_k exp(z[b, k]) - sum_k target[b, k] z[b, k]
    and target[b, k] stands in place of [k is the target].

    With the loss sigmoid the k answers have nothing to do with each other:
        loss[b] = sum_k log(1 + exp(z[b, k])) - target[b, k] z[b, k]
    and sigmoid(z) stands in place of softmax(z).

    No loss of a class, nor of one of k answers, is said to be more than the spec's max_loss.
    Source: Goodfellow, Bengio, Courville (2016), sections 6.2.2.2 and 6.2.2.3.
    """
    rows_b = np.arange(len(targets_b))
    if spec.loss == "sigmoid":
        loss_bk = sigmoid(logits_bk, out_grad_logits_bk) - targets_b * logits_bk
        out_loss_b[:] = np.minimum(loss_bk, spec.max_loss).sum(axis=1)
        out_grad_logits_bk -= targets_b
        out_grad_logits_bk *= (weights_b / (weights_b.sum() or 1))[:, None]
        return
    log_sum_b1 = softmax(logits_bk, out_grad_logits_bk)
    if targets_b.ndim == 1:
        loss_b = log_sum_b1[:, 0] - logits_bk[rows_b, targets_b]
        out_loss_b[:] = np.minimum(loss_b, spec.max_loss)
        out_grad_logits_bk[rows_b, targets_b] -= 1
    else:
        out_loss_b[:] = log_sum_b1[:, 0] - (targets_b * logits_bk).sum(axis=1)
        out_grad_logits_bk -= targets_b
    out_grad_logits_bk *= (weights_b / (weights_b.sum() or 1))[:, None]


def backward(
    params: Params,
    x_bi: Floats,
    activations: tuple[Floats, ...],
    grad_logits_bk: Floats,
    spec: NetworkSpec,
    out_grads: Params,
    dropout_state: DropoutState | None = None,
) -> None:
    """The gradient of the batch's loss for every weight and bias: the chain rule, backwards.

    With delta[b, o], the gradient at a layer's z, and a[b, i], what came into the layer:
        gradient of w[i, o] = sum_b a[b, i] delta[b, o]
        gradient of bias[o] = sum_b delta[b, o]
    and one layer further down, times the slope of the activation there:
        delta[b, i] = sum_o delta[b, o] w[i, o] * slope[b, i].
    ReLU lets pass what was positive and stops the rest.
    What dropout left out stops, too; what it kept is divided by (1 - share) here as in forward.
    dropout_state : what forward was given.
    Source: Rumelhart, Hinton, Williams (1986).
    """
    delta_bo, first_unit = grad_logits_bk, sum(spec.sizes[1:-1])
    for depth in reversed(range(len(params.weights))):
        a_bi = activations[depth - 1] if depth else x_bi
        product(a_bi.T, delta_bo, out_grads.weights[depth])
        np.sum(delta_bo, axis=0, out=out_grads.biases[depth])
        if depth:
            delta_bo = delta_bo @ params.weights[depth].T
            if dropout_state and spec.dropout:
                units, share = a_bi.shape[1], spec.dropout
                first_unit -= units
                delta_bo *= slope(a_bi * (1 - share), spec) * kept(
                    units, spec, dropout_state, first_unit
                )
                delta_bo *= 1 / (1 - share)
            else:
                delta_bo *= slope(a_bi, spec)


def update(
    state: TrainState, grads: Params, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """One step on every parameter p with gradient g, in place; the gradients are used up.

        g = g + l2 p                          from the penalty l2/2 sum p^2; weights only

    and then, by Adam,
        m = beta1 m + (1 - beta1) g           running mean of the gradient
        v = beta2 v + (1 - beta2) g^2         running mean of its square
        p = (1 - decay) p - step_size m / (sqrt(v) + epsilon)

    With step_size = lr sqrt(1 - beta2^t) / (1 - beta1^t) and epsilon = eps sqrt(1 - beta2^t)
    this is Algorithm 1 of Kingma & Ba (2015). decay is decoupled weight decay (Loshchilov &
    Hutter 2019) and, like the penalty, spares the biases.

    Or, by sgd, a step whose velocity m has momentum beta1 (Polyak 1964),
        m = beta1 m - step_size g
        p = (1 - decay) p + m
    and with nesterov, which looks one step ahead (Sutskever, Martens, Dahl, Hinton 2013),
        p = (1 - decay) p + beta1 m - step_size g.
    """
    step = adam if spec.optimizer == "adam" else momentum
    params, means, squares = state
    for w, m, v, g in zip(params.weights, means.weights, squares.weights, grads.weights):
        g += hyperparams.l2 * w
        if hyperparams.decay:
            w *= 1 - hyperparams.decay
        step(w, m, v, g, hyperparams, spec)
    for b, m, v, g in zip(params.biases, means.biases, squares.biases, grads.biases):
        step(b, m, v, g, hyperparams, spec)


def adam(
    p: Floats, m: Floats, v: Floats, g: Floats, numbers: StepHyperparams, spec: NetworkSpec
) -> None:
    """The last three lines of Adam for one array, without the decay. g is used up.

    In place, since a large array that is allocated anew for every term costs more than the term.
    """
    m *= numbers.beta1
    m += (1 - numbers.beta1) * g
    np.square(g, out=g)
    g *= 1 - numbers.beta2
    v *= numbers.beta2
    v += g
    step = np.sqrt(v, out=g)
    step += numbers.epsilon
    np.divide(m, step, out=step)
    step *= numbers.step_size
    p -= step


def momentum(
    p: Floats, m: Floats, v: Floats, g: Floats, numbers: StepHyperparams, spec: NetworkSpec
) -> None:
    """The last two lines of sgd or nesterov for one array, without the decay. g is used up."""
    g *= numbers.step_size
    m *= numbers.beta1
    m -= g
    if spec.optimizer == "nesterov":
        p += numbers.beta1 * m
        p -= g
    else:
        p += m


def train_steps(
    state: TrainState,
    data: TrainData,
    order_n: NDArray[np.int32],
    schedule: StepSchedule,
    spec: NetworkSpec,
    first: int,
    last: int,
    threads: int,
) -> NDArray[np.float64]:
    """Train on steps first..last-1; state changes in place. Returns each step's loss.

    The loss of a step is the one before its update, penalty included:
        sum_b w[b] loss[b] / sum_b w[b]  +  l2/2 sum of all squared weights.
    Cutting the steps into other ranges changes no bit. threads : how many of them BLAS may use.
    """
    losses_t = np.empty(last - first)
    starts = schedule.starts(len(order_n))
    room_bi, loss_b, activations, grads = workspace(spec, min(schedule.batch_size, len(order_n)))
    grad_logits_bk = np.empty_like(activations[-1])
    with limit_blas(threads):
        for step in range(first, last):
            start, stop = starts[step : step + 2]
            rows_b = order_n[start:stop]
            weights_b = data.weights_n[rows_b].astype(spec.dtype)
            targets_b = data.targets_n[rows_b]
            dropout_state = DropoutState(rows_b, schedule.dropout_key)
            hyperparams = schedule.at(step)
            used = slice(len(rows_b))  # of the room, which the last batch of an epoch may not fill
            activations_bo = tuple(a_bo[used] for a_bo in activations)

            x_bi = rows_of(data.x_ni, order_n, start, stop, data.scale, spec, room_bi[used])
            forward(state.params, x_bi, spec, activations_bo, dropout_state)
            loss_and_grad(
                activations_bo[-1], targets_b, weights_b, spec, loss_b[used], grad_logits_bk[used]
            )
            backward(
                state.params, x_bi, activations_bo, grad_logits_bk[used], spec, grads, dropout_state
            )
            losses_t[step - first] = batch_loss(
                loss_b[used], weights_b, state.params, hyperparams.l2
            )
            update(state, grads, hyperparams, spec)
    return losses_t


def batch_loss(loss_b: Floats, weights_b: Floats, params: Params, l2: float) -> float:
    """Weighted mean of the rows' losses, plus l2/2 times the sum of all squared weights."""
    mean = np.dot(weights_b, loss_b) / (weights_b.sum() or 1)
    return float(mean) + l2 / 2 * sum(float(np.vdot(w_io, w_io)) for w_io in params.weights)


def workspace(spec: NetworkSpec, rows: int) -> tuple[Floats, Floats, tuple[Floats, ...], Params]:
    """Room for one batch: inputs (b, i), losses (b,), each layer's output (b, o), all gradients."""
    return (
        np.empty((rows, spec.sizes[0] if spec.input_format == "dense" else 0), spec.dtype),
        np.empty(rows, spec.dtype),
        tuple(np.empty((rows, o), spec.dtype) for _, o in spec.shapes),
        Params(
            tuple(np.empty((i, o), spec.dtype) for i, o in spec.shapes),
            tuple(np.empty(o, spec.dtype) for _, o in spec.shapes),
        ),
    )


def predict(
    params: Params, x_ni: NDArray, scale: float, spec: NetworkSpec, threads: int, out_nk: Floats
) -> None:
    """out[n, k] = probability of class k for row n: softmax or sigmoid of the logits.

    x_ni : uint8, float32 or float64; it is multiplied by scale.
    """
    count = x_ni.shape[0]
    order_n = np.arange(count, dtype=np.int32)
    with limit_blas(threads):
        for first in range(0, count, BLOCK):
            last = min(first + BLOCK, count)
            room_bi, _, layers, _ = workspace(spec, last - first)
            x_bi = rows_of(x_ni, order_n, first, last, scale, spec, room_bi)
            forward(params, x_bi, spec, layers)
            (sigmoid if spec.loss == "sigmoid" else softmax)(layers[-1], out_nk[first:last])


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def limit_blas(threads: int) -> AbstractContextManager[object]:
    """While it is open, BLAS uses at most this many threads (a setting of the whole process)."""
    limiter: AbstractContextManager[object] = _blas().limit(limits=threads, user_api="blas")
    return limiter
