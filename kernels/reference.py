"""The network in NumPy: how a multilayer perceptron is trained, on one page.

This is the executable specification: the faster backends compute the same and are tested against
this module in float64. Read it from top to bottom:

    gather_batch   select the rows of a batch and scale them
    forward        compute all layers, from the rows to the logits; apply dropout in training
    loss_and_grad  compute the cross-entropy and its gradient with respect to the logits
    backward       compute the gradients of all weights and biases by the chain rule
    update         apply one optimizer step: Adam, or gradient descent with momentum
    train_steps    run the five operations above on one batch after another
    predict        run the forward pass, then softmax or sigmoid

`interface.py` has the shape letters, the types and the parameters of these operations.

The bits of a result depend on NumPy's BLAS and its number of threads. With both fixed they are
reproducible; the compiled backends promise more.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .interface import SUPPORTS as SUPPORTS
from .interface import (
    DropoutState,
    Floats,
    NetworkSpec,
    Params,
    StepHyperparams,
    StepSchedule,
    TrainData,
    TrainState,
)

# Rows that predict() computes at a time: 1024 x 784 float32 are 3 MB, which stay in the cache.
PREDICT_ROWS = 1024


def gather_batch(
    x_ni: NDArray, order_n: NDArray[np.int32], first: int, last: int, scale: float, out_bi: Floats
) -> None:
    """Gather and scale a batch: see `Backend.gather_batch`.

    out[b, i] = scale * x[order[first + b], i]
    """
    np.multiply(x_ni[order_n[first:last]], scale, out=out_bi, dtype=out_bi.dtype)


def batch_rows(
    x_ni: NDArray, rows_b: NDArray[np.int32], scale: float, spec: NetworkSpec, buffer_bi: Floats
) -> Floats:
    """Return the scaled rows of a batch: dense ones in the buffer, CSR ones in a new array."""
    if spec.input_format == "csr":
        return (x_ni[rows_b] * scale).astype(spec.dtype)
    gather_batch(x_ni, rows_b, 0, len(rows_b), scale, buffer_bi)
    return buffer_bi


def forward(
    params: Params,
    x_bi: Floats,
    spec: NetworkSpec,
    out_activations: tuple[Floats, ...],
    dropout_state: DropoutState | None = None,
) -> None:
    """Compute the outputs of all layers: see `Backend.forward`.

    z[b, o] = bias[o] + sum_i a[b, i] w[i, o]
    a[b, o] = activation(z[b, o]) in hidden layers, then dropout; the last layer outputs z itself.
    """
    a_bi, first_unit = x_bi, 0
    for w_io, b_o, a_bo in zip(params.weights, params.biases, out_activations, strict=True):
        matmul(a_bi, w_io, a_bo)
        a_bo += b_o
        if a_bo is not out_activations[-1]:
            activate(a_bo, spec)
            if dropout_state and spec.dropout:
                apply_dropout(a_bo, spec, dropout_state, first_unit)
                first_unit += len(b_o)
        a_bi = a_bo


def matmul(a: Floats, b: Floats, out: Floats) -> None:
    """Compute out = a b, where a may be sparse."""
    if isinstance(a, np.ndarray):
        np.matmul(a, b, out=out)
    else:
        out[:] = a @ b


def activate(z_bo: Floats, spec: NetworkSpec) -> None:
    """Apply the activation of the hidden layers, in place. NaN stays NaN.

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


def activation_grad(a_bo: Floats, spec: NetworkSpec) -> Floats:
    """Return the derivative of the activation as a function of its output a.

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


def apply_dropout(
    a_bo: Floats, spec: NetworkSpec, dropout_state: DropoutState, first_unit: int
) -> None:
    """Apply inverted dropout to the outputs of a hidden layer, in place.

        a[b, o] = mask[b, o] * a[b, o] / (1 - rate)
    The division keeps the expected input of the next layer the same as without dropout.
    Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov (2014).
    """
    a_bo *= 1 / (1 - spec.dropout)
    a_bo[~dropout_mask(a_bo.shape[1], spec, dropout_state, first_unit)] = 0


def dropout_mask(
    units: int, spec: NetworkSpec, dropout_state: DropoutState, first_unit: int
) -> NDArray[np.bool_]:
    """Return which outputs (b, o) of a hidden layer dropout keeps.

        mask[b, o] = bits[b, o] >= rate * 2^32
    first_unit : index of the layer's first unit among the units of all hidden layers.
    """
    units_o = np.arange(first_unit, first_unit + units, dtype=np.uint32)
    return random_bits(dropout_state, units_o) >= np.uint32(spec.dropout * 2**32)


def random_bits(dropout_state: DropoutState, units_o: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return 32 random bits for every row and unit, (b, o).

    They are a hash of the epoch's key, the row's index in the data set and the unit's index. There
    is no generator state, so all backends draw the same bits in any order on any number of threads.

    Sources of the hash functions: SplitMix64 (Steele, Lea, Flood 2014), seeded with the key, for
    the 64 bits of a row; constants found by search (Wellons 2018) for the 32 bits of a unit.
    """
    key, rows_b = np.uint64(dropout_state.key), dropout_state.rows_b.astype(np.uint64)
    row_b = key + rows_b * np.uint64(0x9E3779B97F4A7C15)
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
    """Compute the softmax of every row; return log sum_k exp(z[b, k]), (b, 1).

        p[b, k] = exp(z[b, k]) / sum_j exp(z[b, j])
    Subtracting the row's maximum from z changes neither, and prevents overflow.
    Source: Goodfellow, Bengio, Courville (2016), section 4.1.
    """
    max_b1 = logits_bk.max(axis=1, keepdims=True)
    np.exp(logits_bk - max_b1, out=out_bk)
    sum_b1 = out_bk.sum(axis=1, keepdims=True)
    out_bk /= sum_b1
    log_sum_b1: Floats = max_b1 + np.log(sum_b1)
    return log_sum_b1


def sigmoid(z_bk: Floats, out_bk: Floats) -> Floats:
    """Compute p = 1 / (1 + e^-z); return log(1 + e^z). Only e^-|z| is used, which cannot overflow.

    p            = (1 if z >= 0 else e^-|z|) / (1 + e^-|z|)
    log(1 + e^z) = max(0, z) + log(1 + e^-|z|)
    """
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
    """Compute the cross-entropy of every row and its gradient: see `Backend.loss_and_grad`.

    Softmax with class labels:
        loss[b] = log sum_k exp(z[b, k]) - z[b, target[b]] = -log softmax(z)[b, target[b]]
    The loss of the batch is the weighted mean  sum_b w[b] loss[b] / sum_b w[b].  Its gradient is
        grad[b, k] = (softmax(z)[b, k] - [k == target[b]]) * w[b] / sum_b w[b]

    Softmax with soft targets (b, k), each row a distribution over the classes:
        loss[b] = log sum_k exp(z[b, k]) - sum_k target[b, k] z[b, k]
    and target[b, k] replaces [k == target[b]].

    Sigmoid, k binary cross-entropies:
        loss[b] = sum_k log(1 + exp(z[b, k])) - target[b, k] z[b, k]
    and sigmoid(z) replaces softmax(z).

    Every term of one class is clipped to max_loss in the loss, not in the gradient. Loss and
    gradient of a batch are zero if all its weights are.
    """
    rows_b = np.arange(len(targets_b))
    if spec.loss == "sigmoid":
        loss_bk = sigmoid(logits_bk, out_grad_logits_bk) - targets_b * logits_bk
        out_loss_b[:] = np.minimum(loss_bk, spec.max_loss).sum(axis=1)
        out_grad_logits_bk -= targets_b
    else:
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
    """Compute the gradients of all parameters by the chain rule: see `Backend.backward`.

    With grad_z[b, o], the gradient with respect to a layer's z, and a[b, i], the layer's input:
        grad_w[i, o]  = sum_b a[b, i] grad_z[b, o]
        grad_bias[o]  = sum_b grad_z[b, o]
    and for the layer below, whose output is a:
        grad_z[b, i]  = sum_o grad_z[b, o] w[i, o] * activation'(z)[b, i]
    Dropout multiplies that by mask[b, i] / (1 - rate) and, before the activation's derivative is
    taken, undoes the division of its output.
    """
    grad_z_bo, first_unit = grad_logits_bk, sum(spec.sizes[1:-1])
    for depth in reversed(range(len(params.weights))):
        a_bi = activations[depth - 1] if depth else x_bi
        matmul(a_bi.T, grad_z_bo, out_grads.weights[depth])
        np.sum(grad_z_bo, axis=0, out=out_grads.biases[depth])
        if depth:
            grad_z_bo = grad_z_bo @ params.weights[depth].T
            if dropout_state and spec.dropout:
                units, keep_prob = a_bi.shape[1], 1 - spec.dropout
                first_unit -= units
                mask_bi = dropout_mask(units, spec, dropout_state, first_unit)
                grad_z_bo *= activation_grad(a_bi * keep_prob, spec) * mask_bi
                grad_z_bo *= 1 / keep_prob
            else:
                grad_z_bo *= activation_grad(a_bi, spec)


def update(
    state: TrainState, grads: Params, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """Apply one optimizer step to every parameter p with gradient g: see `Backend.update`.

    L2 penalty l2/2 sum p^2, for weights only:
        g = g + l2 p
    Adam:
        m = beta1 m + (1 - beta1) g           moving average of the gradient
        v = beta2 v + (1 - beta2) g^2         moving average of its square
        p = (1 - decay) p - step_size m / (sqrt(v) + epsilon)
    With step_size = lr sqrt(1 - beta2^t) / (1 - beta1^t) and epsilon = eps sqrt(1 - beta2^t) this
    is Algorithm 1 of Kingma & Ba (2015). decay is decoupled weight decay (Loshchilov & Hutter
    2019), for weights only.

    Momentum, with the velocity m and the momentum beta1:
        m = beta1 m - step_size g
        p = (1 - decay) p + m                            sgd (Polyak 1964)
        p = (1 - decay) p + beta1 m - step_size g        nesterov (Sutskever et al. 2013)

    The gradients are overwritten.
    """
    step = adam_step if spec.optimizer == "adam" else momentum_step
    for w, m, v, g in zip(state.params.weights, state.m.weights, state.v.weights, grads.weights):
        g += hyperparams.l2 * w
        if hyperparams.decay:
            w *= 1 - hyperparams.decay
        step(w, m, v, g, hyperparams, spec)
    for b, m, v, g in zip(state.params.biases, state.m.biases, state.v.biases, grads.biases):
        step(b, m, v, g, hyperparams, spec)


def adam_step(
    p: Floats, m: Floats, v: Floats, g: Floats, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """Apply Adam to one array, without penalty and decay. Overwrites g.

    In place, because allocating a large array for every term costs more than computing it.
    """
    m *= hyperparams.beta1
    m += (1 - hyperparams.beta1) * g
    np.square(g, out=g)
    g *= 1 - hyperparams.beta2
    v *= hyperparams.beta2
    v += g
    step = np.sqrt(v, out=g)
    step += hyperparams.epsilon
    np.divide(m, step, out=step)
    step *= hyperparams.step_size
    p -= step


def momentum_step(
    p: Floats, m: Floats, v: Floats, g: Floats, hyperparams: StepHyperparams, spec: NetworkSpec
) -> None:
    """Apply sgd or nesterov to one array, without penalty and decay. Overwrites g."""
    g *= hyperparams.step_size
    m *= hyperparams.beta1
    m -= g
    if spec.optimizer == "nesterov":
        p += hyperparams.beta1 * m
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
    """Train on the batches of steps first..last-1: see `Backend.train_steps`.

    threads : BLAS threads.
    """
    losses_t = np.empty(last - first)
    starts = schedule.starts(len(order_n))
    buffers = workspace(spec, 0)
    with thread_pools().limit(limits=threads, user_api="blas"):
        for step in range(first, last):
            start, stop = starts[step : step + 2]
            rows_b = order_n[start:stop]
            weights_b = data.weights_n[rows_b].astype(spec.dtype)
            targets_b = data.targets_n[rows_b]
            dropout_state = DropoutState(rows_b, schedule.dropout_key)
            hyperparams = schedule.at(step)
            if len(rows_b) != len(buffers.loss_b):  # the last batch of an epoch is smaller
                buffers = workspace(spec, len(rows_b))
            buffer_bi, activations, loss_b, grad_logits_bk, grads = buffers

            x_bi = batch_rows(data.x_ni, rows_b, data.scale, spec, buffer_bi)
            forward(state.params, x_bi, spec, activations, dropout_state)
            loss_and_grad(activations[-1], targets_b, weights_b, spec, loss_b, grad_logits_bk)
            backward(state.params, x_bi, activations, grad_logits_bk, spec, grads, dropout_state)
            losses_t[step - first] = batch_loss(loss_b, weights_b, state.params, hyperparams.l2)
            update(state, grads, hyperparams, spec)
    return losses_t


def batch_loss(loss_b: Floats, weights_b: Floats, params: Params, l2: float) -> float:
    """Return the loss of a batch, with penalty.

    sum_b w[b] loss[b] / sum_b w[b]  +  l2/2 * sum of all squared weights
    """
    mean = np.dot(weights_b, loss_b) / (weights_b.sum() or 1)
    return float(mean) + l2 / 2 * sum(float(np.vdot(w_io, w_io)) for w_io in params.weights)


class Workspace(NamedTuple):
    """Buffers of the operations for one batch."""

    x_bi: Floats
    activations: tuple[Floats, ...]
    loss_b: Floats
    grad_logits_bk: Floats
    grads: Params


def workspace(spec: NetworkSpec, rows: int) -> Workspace:
    """Allocate the buffers of a batch of so many rows. CSR inputs need no buffer."""
    return Workspace(
        x_bi=np.empty((rows, spec.sizes[0] if spec.input_format == "dense" else 0), spec.dtype),
        activations=tuple(np.empty((rows, o), spec.dtype) for _, o in spec.shapes),
        loss_b=np.empty(rows, spec.dtype),
        grad_logits_bk=np.empty((rows, spec.sizes[-1]), spec.dtype),
        grads=Params(
            weights=tuple(np.empty((i, o), spec.dtype) for i, o in spec.shapes),
            biases=tuple(np.empty(o, spec.dtype) for _, o in spec.shapes),
        ),
    )


def predict(
    params: Params, x_ni: NDArray, scale: float, spec: NetworkSpec, threads: int, out_nk: Floats
) -> None:
    """Compute class probabilities, softmax or sigmoid of the logits: see `Backend.predict`."""
    count = x_ni.shape[0]
    probabilities = sigmoid if spec.loss == "sigmoid" else softmax
    with thread_pools().limit(limits=threads, user_api="blas"):
        for first in range(0, count, PREDICT_ROWS):
            rows_b = np.arange(first, min(first + PREDICT_ROWS, count), dtype=np.int32)
            buffers = workspace(spec, len(rows_b))
            x_bi = batch_rows(x_ni, rows_b, scale, spec, buffers.x_bi)
            forward(params, x_bi, spec, buffers.activations)
            probabilities(buffers.activations[-1], out_nk[first : first + PREDICT_ROWS])


@cache
def thread_pools() -> ThreadpoolController:
    """Return the thread pools of the process; limits on them hold in all its threads."""
    return ThreadpoolController()
