"""The steps of training and prediction in compiled Python, shared by a team of threads.

A thread computes whole sums: those of its own rows of the batch, or of its own inputs' weights. So
every sum has one order, and the bits of a result do not depend on the number of threads.
"""

import math
import time
from collections import namedtuple

import numpy as np
from numba import carray, types

from ..interface import PHASES, SUPPORTS
from . import layers
from .intrinsics import atomic_add, on_stack, pointer
from .layers import BLOCK, RELU, SIGMOID, block_at, compiled, fill, inlined

ADAM, SGD, NESTEROV = range(len(SUPPORTS["optimizer"]))

# Parts of a step: bits of Call.parts.
COPY, FORWARD, PREDICT, LOSS, BACKWARD, GRADIENT, UPDATE = (1 << bit for bit in range(7))
TRAIN = COPY | FORWARD | LOSS | BACKWARD | GRADIENT | UPDATE

# Columns of coefs_t, the coefficients of every step.
STEP_SIZE, EPSILON, L2, DECAY_FACTOR, BETA1, ONE_MINUS_BETA1, BETA2, ONE_MINUS_BETA2 = range(8)
# Columns of seconds_tp, the phases of a step.
GATHER, FIRST_LAYER, HIDDEN_BACKWARD, UPDATE_PHASE, BARRIER = range(len(PHASES))

# A thread at the barrier spins, then yields, then sleeps: threads of a balanced step wait for
# microseconds; waiting for a preempted one must not occupy a core.
MAX_SPINS, MAX_YIELDS = 2000, 100
ARRIVED, ABORTED = 8, 16  # words of a barrier, each in its own cache line

CLOCK = getattr(time, "CLOCK_MONOTONIC", None)  # None on Windows, where phases are not timed
YIELD = "sched_yield" if CLOCK is not None else "SwitchToThread"
clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
thread_yield = types.ExternalFunction(YIELD, types.int32())
SLEEP, DURATION = ("Sleep", 1) if CLOCK is None else ("usleep", 50)  # milli- or microseconds
thread_sleep = types.ExternalFunction(SLEEP, types.int32(types.uint32))

# A matrix: entry (row, column) is
# floats[start + row * stride + column // 64 * block + column % 64].
# Inputs of the network are stored block by block, so that the same 64 pixels of all images are next
# to each other; all else is stored row by row.
MATRIX = np.dtype([("start", np.int64), ("stride", np.int64), ("block", np.int64)])

# A layer: its sizes; the index of its first output among those of all hidden layers; whether g has
# a row for every row of w, or, in training, 64 rows for every thread; and its matrices:
# x, z          inputs and sums; z becomes the x of the next layer
# grad          gradient with respect to z
# w, m, v, g    weights, a row for each input, then a row of biases; moments; gradients
# w_t           transposed weights, for the backward pass; not in the first layer
# zeros         one row of zeros, the gradient before the first term is added
LAYER = np.dtype(
    [(name, np.int64) for name in ("inputs", "outputs", "first_unit", "whole_g")]
    + [(name, MATRIX) for name in ("x", "z", "grad", "w", "m", "v", "g", "w_t", "zeros")]
)

# Memory of a network and the options of its spec:
# floats, layers                entries of the matrices; a LAYER for each layer
# activation, loss, optimizer   RELU, SOFTMAX, ADAM, ...
# dropped       units whose 32 random bits are below this are dropped; 0: no dropout
# keep_prob     1 - rate; 1 without dropout
# max_loss      bound of the loss of a class, when it is reported
Network = namedtuple(
    "Network", "floats layers activation loss optimizer dropped keep_prob max_loss"
)

# Rows of a data set: uint8 pixels (n, i), floats (n, i) or CSR; the arrays of the others are empty.
# scale : factor of pixels and floats. skip_zeros : see TrainData. Of labels (n,) and soft_targets
# (n, k) one is empty.
Rows = namedtuple(
    "Rows", "pixels floats indptr indices values scale skip_zeros labels soft_targets"
)

# Arguments of run_steps.
# parts : of each step. threads : of the team. spins, barrier : see barrier_wait.
# order : rows of the data set, of all steps. starts : where each step starts in order; len(order).
# weights_n : like order; their sum in a batch is 1 or 0.
# dropout_rows, dropout_key : see DropoutState; like order. coefs_t : (t, 8), of every step.
# squares_ln : sum of squares of the weights of every block of 64 inputs of every layer.
# Results: losses_n, in the order; out_nk, probabilities; squares_t, the sum of squares of all
# weights; seconds_tp (threads, phases); if it is empty, nothing is timed.
Call = namedtuple(
    "Call",
    "parts threads spins net rows order starts weights_n dropout_rows dropout_key "
    "coefs_t squares_ln losses_n out_nk squares_t seconds_tp barrier",
)


@inlined
def chunk(count, part, parts):
    """Return the bounds of one of `parts` nearly equal chunks of a range."""
    return count * part // parts, count * (part + 1) // parts


@inlined
def matrix_at(net, matrix, first, rows):
    """Return rows of a matrix, from `first` on, with their padding."""
    return carray(pointer(net.floats, matrix.start + first * matrix.stride), (rows, matrix.stride))


@compiled
def scale_row(row, scale, out, start, distance):
    """Compute out[start + n * distance + k] = scale * row[64 * n + k] for all n and k < 64."""
    for first in range(0, len(row), BLOCK):
        block = carray(pointer(out, start + first // BLOCK * distance), BLOCK)
        values = carray(pointer(row, first), BLOCK)
        for k in range(BLOCK if len(row) - first >= BLOCK else len(row) - first):
            block[k] = scale * out.dtype.type(values[k])


@inlined
def gather(call, order, first, last):
    """Copy rows first..last-1 of a batch from the data set, scaled."""
    rows, floats, x = call.rows, call.net.floats, call.net.layers[0].x
    for s in range(first, last):
        start = x.start + s * x.stride
        if len(rows.pixels):
            scale_row(rows.pixels[order[s]], rows.scale, floats, start, x.block)
        else:
            scale_row(rows.floats[order[s]], rows.scale, floats, start, x.block)


@inlined
def apply_dropout(call, step, depth, x, first):
    """Apply dropout, if there is any, to x: outputs of layer depth - 1, or their gradients.

    For rows `first`, first + 1, ... of the batch. See `reference.random_bits` for the hash
    functions.
    """
    net, below = call.net, call.net.layers[depth - 1]
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for s in range(len(x) if net.dropped else 0):
        row = np.uint64(call.dropout_rows[call.starts[step] + first + s])
        bits = np.uint64(call.dropout_key) + row * np.uint64(0x9E3779B97F4A7C15)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
        low, high = np.uint32(bits), np.uint32(bits >> np.uint64(32))
        for o in range(below.outputs):
            unit = np.uint32(np.uint32(below.first_unit + o) * np.uint32(0x9E3779B9) + low)
            unit = np.uint32((unit ^ (unit >> np.uint32(16))) * np.uint32(0x7FEB352D)) ^ high
            unit = np.uint32((unit ^ (unit >> np.uint32(15))) * np.uint32(0x846CA68B))
            unit ^= unit >> np.uint32(16)
            x[s, o] = zero if unit < net.dropped else x[s, o] * (one / net.keep_prob)


@inlined
def forward_layer(call, order, step, depth, first, last, masks):
    """Compute z of a layer for rows first..last-1 of a batch.

    First apply activation and dropout, in place, to its inputs, which are the z of the layer below:
    so the logits, the last z, stay as they are.
    """
    net, rows, layer, count = call.net, call.rows, call.net.layers[depth], last - first
    x, z = matrix_at(net, layer.x, first, count), matrix_at(net, layer.z, first, count)
    w = matrix_at(net, layer.w, 0, layer.inputs + 1)
    biases = matrix_at(net, layer.w, layer.inputs, 1)
    if depth:
        layers.activate(net.activation, x, layer.inputs)
        apply_dropout(call, step, depth, x, first)
    if depth == 0 and len(rows.indptr):
        for s in range(count):
            for o in range(layer.z.stride):
                z[s, o] = biases[0, o]
            for e in range(rows.indptr[order[first + s]], rows.indptr[order[first + s] + 1]):
                layers.add_row(rows.values[e], w, rows.indices[e], layer.outputs, z, s)
    else:
        skip_zeros = net.activation == RELU if depth else rows.skip_zeros
        distance, inputs, outputs = layer.x.block, layer.inputs, layer.outputs
        layers.multiply(x, distance, masks, skip_zeros, w, inputs, outputs, biases, z)


@inlined
def loss_and_grad(call, order, step, first, last):
    """Compute loss and gradient of the logits for rows first..last-1 of a batch."""
    net, rows, start = call.net, call.rows, call.starts[step]
    layer = net.layers[len(net.layers) - 1]
    z_bk, grad_bk = matrix_at(net, layer.z, 0, last), matrix_at(net, layer.grad, 0, last)
    for s in range(first, last):
        row, z, grad = order[s], z_bk[s], grad_bk[s]
        cost = layers.probabilities(net.loss, z, grad, layer.outputs)
        for c in range(layer.outputs):
            soft = rows.soft_targets[row, c] if len(rows.soft_targets) else 0.0
            target = np.float64(rows.labels[row] == c) if len(rows.labels) else soft
            grad[c] = (grad[c] - target) * call.weights_n[start + s]
            term = -target * z[c] if target else 0.0
            if net.loss == SIGMOID:
                term += math.log1p(math.exp(-abs(np.float64(z[c])))) + (z[c] if z[c] > 0 else 0.0)
                term = net.max_loss if term > net.max_loss else term  # NaN stays NaN
            cost += term
        cost = net.max_loss if len(rows.labels) and cost > net.max_loss else cost
        call.losses_n[start + s] = cost


@inlined
def backward_layer(call, step, depth, first, last, masks):
    """Compute the gradient of the layer below for rows first..last-1 of a batch."""
    net, count = call.net, last - first
    layer, below = net.layers[depth], net.layers[depth - 1]
    x, grad = matrix_at(net, layer.x, first, count), matrix_at(net, layer.grad, first, count)
    out = matrix_at(net, below.grad, first, count)
    w_t = matrix_at(net, layer.w_t, 0, layer.outputs)
    zeros = matrix_at(net, below.zeros, 0, 1)
    skip_zeros, inputs, outputs = net.activation == RELU, layer.inputs, layer.outputs
    layers.multiply(grad, BLOCK, masks, skip_zeros, w_t, outputs, inputs, zeros, out)
    apply_dropout(call, step, depth, out, first)
    layers.multiply_by_derivative(net.activation, out, x, net.keep_prob)


@compiled
def optimizer_step(optimizer, w, m, v, g, coefs, l2, decay_factor):
    """Update rows of parameters: see `reference.update`.

    Denormal moments are stored as zero, and Adam takes a gradient or a moment as zero whose square
    or step would be denormal: arithmetic with denormal numbers is slow.
    """
    size, zero, tiny = w.size, w.dtype.type(0), w.dtype.type(np.finfo(w.dtype).tiny)
    w, m = carray(pointer(w, 0), size), carray(pointer(m, 0), size)
    v, g = carray(pointer(v, 0), size), carray(pointer(g, 0), size)
    step_size, epsilon = coefs[STEP_SIZE], coefs[EPSILON]
    beta1, one_minus_beta1 = coefs[BETA1], coefs[ONE_MINUS_BETA1]
    beta2, one_minus_beta2 = coefs[BETA2], coefs[ONE_MINUS_BETA2]
    least_m, least_grad = tiny / step_size, np.sqrt(tiny / one_minus_beta2)
    if optimizer == ADAM:
        for n in range(size):
            grad = l2 * w[n] + g[n]
            m_n = beta1 * m[n] + one_minus_beta1 * grad
            grad = zero if abs(grad) < least_grad else grad
            v_n = beta2 * v[n] + one_minus_beta2 * grad * grad
            m[n] = zero if abs(m_n) < tiny else m_n
            v[n] = zero if v_n < tiny else v_n
            m_n = zero if abs(m_n) < least_m else m_n
            w[n] = decay_factor * w[n] - step_size * m_n / (np.sqrt(v_n) + epsilon)
    else:
        for n in range(size):
            step = step_size * (l2 * w[n] + g[n])
            m_n = beta1 * m[n] - step
            m[n] = zero if abs(m_n) < tiny else m_n
            w[n] = decay_factor * w[n] + (beta1 * m_n - step if optimizer == NESTEROV else m_n)


@compiled
def sum_squares(w, columns):
    """Return the sum of squares of rows of weights, whose padding is zero, by 64 sums."""
    total, result = carray(on_stack(w, BLOCK), BLOCK), 0.0
    fill(total, 0)
    for i in range(len(w)):
        for column in range(0, columns, BLOCK):
            row = block_at(w, i, column)
            for o in range(BLOCK):
                total[o] += row[o] * row[o]
    for o in range(BLOCK):
        result += total[o]
    return result


@inlined
def update_layer(call, order, thread, depth, coefs, masks):
    """Compute this thread's part of a layer's gradients, and apply the optimizer to it."""
    net, rows, layer = call.net, call.rows, call.net.layers[depth]
    inputs, outputs = layer.inputs, layer.outputs
    x, grad = matrix_at(net, layer.x, 0, len(order)), matrix_at(net, layer.grad, 0, len(order))
    w_t, zeros = matrix_at(net, layer.w_t, 0, outputs), matrix_at(net, layer.zeros, 0, 1)
    # The last chunks may have a block more. From the second layer on they go to the first threads,
    # so that the work of all layers is nearly equal.
    part = call.threads - 1 - thread if depth else thread
    first_block, last_block = chunk((inputs + BLOCK - 1) // BLOCK, part, call.threads)
    zero, one = net.floats.dtype.type(0), net.floats.dtype.type(1)
    sparse = depth == 0 and len(rows.indptr) > 0
    # CSR: add the entries of the batch that are in this thread's inputs.
    if sparse and call.parts & GRADIENT:
        first, last = first_block * BLOCK, min(last_block * BLOCK, inputs)
        g = matrix_at(net, layer.g, first, last - first)
        fill(g, zero)
        for s in range(len(order)):
            for e in range(rows.indptr[order[s]], rows.indptr[order[s] + 1]):
                i = rows.indices[e]
                if first <= i < last:
                    layers.add_row(rows.values[e], grad, s, outputs, g, i - first)
    # Blocks of 64 inputs; the biases follow the last input and belong to one thread.
    for n in range(first_block, last_block + (depth % call.threads == thread)):
        is_bias = n == last_block
        first = inputs if is_bias else n * BLOCK
        count = min(BLOCK, inputs + is_bias - first)
        g = matrix_at(net, layer.g, first if layer.whole_g else thread * BLOCK, count)
        if call.parts & GRADIENT and is_bias:
            fill(g, zero)
            for s in range(len(order)):
                layers.add_row(one, grad, s, outputs, g, 0)
        elif call.parts & GRADIENT and not sparse:
            block, distance = carray(pointer(x, n * layer.x.block), x.shape), BLOCK * x.shape[1]
            layers.fill_column_masks(block, masks)
            layers.multiply_transposed(
                block, distance, masks, True, grad, len(order), outputs, zeros, g
            )
        if call.parts & UPDATE:
            w, m = matrix_at(net, layer.w, first, count), matrix_at(net, layer.m, first, count)
            v = matrix_at(net, layer.v, first, count)
            l2, decay_factor = (zero, one) if is_bias else (coefs[L2], coefs[DECAY_FACTOR])
            if not is_bias:
                call.squares_ln[depth, n] = sum_squares(w, outputs)
            optimizer_step(net.optimizer, w, m, v, g, coefs, l2, decay_factor)
            for i in range(0 if is_bias or depth == 0 else count):
                for o in range(outputs):
                    w_t[o, first + i] = w[i, o]


@compiled
def barrier_wait(call):
    """Wait until all threads have arrived. Return False if the team was aborted.

    The counter of arrivals only grows: the n-th wait ends at n * threads.
    """
    arrived, polls = pointer(call.barrier, ARRIVED), 0
    all_arrived = (atomic_add(arrived, 1) // call.threads + 1) * call.threads
    while atomic_add(arrived, 0) < all_arrived:
        polls += 1
        if polls > call.spins + MAX_YIELDS:
            if atomic_add(pointer(call.barrier, ABORTED), 0):
                return False
            thread_sleep(np.uint32(DURATION))
        elif polls > call.spins:
            thread_yield()
    return True


@compiled
def lap(seconds_tp, thread, phase, clock):
    """Add the time since the previous call to seconds_tp[thread, phase], if phases are timed.

    clock : a struct timespec, then the time of the last call in nanoseconds.
    """
    if len(seconds_tp) and CLOCK is not None:
        clock_gettime(np.int32(CLOCK), clock.ctypes.data)
        now = clock[0] * 1000000000 + clock[1]
        seconds_tp[thread, phase] += 1e-9 * (now - clock[2]) if clock[2] else 0.0
        clock[2] = now


def run_steps(call, thread):
    """Run parts of all steps as one thread of the team."""
    net, parts, seconds_tp, depths = call.net, call.parts, call.seconds_tp, len(call.net.layers)
    clock = np.zeros(3, np.int64)
    # Enough for a batch of all rows; memory that is not touched costs nothing.
    masks = np.empty((len(call.order) // BLOCK + 1, BLOCK), np.int64)
    lap(seconds_tp, thread, GATHER, clock)
    for step in range(len(call.starts) - 1):
        order = call.order[call.starts[step] : call.starts[step + 1]]
        first, last = chunk(len(order), thread, call.threads)
        if parts & COPY and not len(call.rows.indptr):
            gather(call, order, first, last)
        lap(seconds_tp, thread, GATHER, clock)
        for depth in range(depths if parts & FORWARD else 0):
            forward_layer(call, order, step, depth, first, last, masks)
            lap(seconds_tp, thread, HIDDEN_BACKWARD if depth else FIRST_LAYER, clock)
        for s in range(first, last if parts & PREDICT else first):
            z = matrix_at(net, net.layers[depths - 1].z, s, 1)
            layers.probabilities(net.loss, z[0], call.out_nk[order[s]], call.out_nk.shape[1])
        if parts & LOSS:
            loss_and_grad(call, order, step, first, last)
        for depth in range(depths - 1 if parts & BACKWARD else 0, 0, -1):
            backward_layer(call, step, depth, first, last, masks)
        lap(seconds_tp, thread, HIDDEN_BACKWARD, clock)
        # Weights are divided by inputs, and their gradients need those of all rows.
        if not barrier_wait(call):
            break
        lap(seconds_tp, thread, BARRIER, clock)
        for depth in range(depths if parts & (GRADIENT | UPDATE) else 0):
            update_layer(call, order, thread, depth, call.coefs_t[step], masks)
        lap(seconds_tp, thread, UPDATE_PHASE, clock)
        # The next forward pass needs all weights.
        if not barrier_wait(call):
            break
        lap(seconds_tp, thread, BARRIER, clock)
        if thread == 0 and parts & UPDATE:  # before it arrives at the next barrier, none changes
            call.squares_t[step] = call.squares_ln.sum()


def predict_one(weights, biases, x, scale, activation, loss, out):
    """Predict one row with the weights where they are: copying them takes longer."""
    a = np.empty((1, x.shape[1]), out.dtype)
    scale_row(x[0], scale, a, 0, BLOCK)
    for depth in range(len(weights)):
        w, outputs = weights[depth], weights[depth].shape[1]
        z = np.zeros((1, (outputs + BLOCK - 1) // BLOCK * BLOCK), out.dtype)
        for o in range(outputs):
            z[0, o] = biases[depth][o]
        for k in range(len(w)):
            a_k, w_k = a[0, k], carray(pointer(w, k * outputs), outputs)
            for o in range(outputs if a_k != 0 else 0):
                z[0, o] += a_k * w_k[o]
        if depth < len(weights) - 1:
            layers.activate(activation, z, outputs)
        a = z
    layers.probabilities(loss, a[0], out[0], out.shape[1])
