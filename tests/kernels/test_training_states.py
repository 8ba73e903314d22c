"""One training step from each of 20 states of a run: every backend against float64.

Rounding errors grow chaotically over many steps, so a bound on whole runs would have to be tuned.
For one step the bound is derived; the states are those of a real training.
"""

import numpy as np
import pytest

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import NetworkSpec, Params, TrainData, TrainState
from fmnist_fast.nn.network import PIXEL_SCALE, Network
from fmnist_fast.nn.optimizers import Adam
from fmnist_fast.nn.random_streams import epoch_order
from fmnist_fast.nn.schedules import learning_rates

STATES, STRIDE, BATCH, L2 = 20, 150, 64, 1e-4
EPS = float(np.finfo(np.float32).eps) / 2  # of one rounding
TINY = np.finfo(np.float32).tiny  # what a kernel may flush to zero


def copy_of(state, dtype):
    return TrainState(
        *(Params(*(tuple(a.astype(dtype) for a in arrays) for arrays in part)) for part in state)
    )


@pytest.fixture(scope="module")
def run():
    """Return data, order, steps and 20 states of a run of 3,000 steps, about three epochs."""
    from real_data import REAL_FOLDER

    from fmnist_fast.data.datasets import load_dataset

    dataset = load_dataset(*(("fashion-mnist", REAL_FOLDER) if REAL_FOLDER else ("synthetic",)))
    count = len(dataset.x_train)
    network = Network.random(NetworkSpec((784, 128, 64, 10)), 0, PIXEL_SCALE)
    x_ni = np.ascontiguousarray(dataset.x_train).reshape(count, -1)
    data = TrainData(x_ni, PIXEL_SCALE, dataset.y_train.astype(np.int32), np.ones(count))
    rows, total = np.arange(count, dtype=np.int32), STATES * STRIDE
    order_n = np.concatenate([epoch_order(rows, 0, e) for e in range(-(-total * BATCH // count))])
    steps = Adam().steps(learning_rates("onecycle", 2e-3, total), 0, BATCH, L2)
    state, states = network.fresh_state(), []
    for number in range(STATES):
        states.append(copy_of(state, np.float32))
        first = number * STRIDE
        network.train_steps(state, data, order_n, steps, first, first + STRIDE)
    return network.spec, data, order_n, steps, states


def bounds_of_gradients(params, x_bi, targets_b):
    """Return the gradients in float64, and bounds of the error of a float32 backend.

    `off` bounds the error of an array, propagated through the operations: a sum of n products
    rounds each at most n + 2 times, plus the propagated errors of the factors.
    """
    weights, biases = params
    a, off_a = [x_bi], [np.zeros_like(x_bi)]
    gates = []
    for depth, (w, b) in enumerate(zip(weights, biases)):
        z = a[-1] @ w + b
        size = np.abs(a[-1]) @ np.abs(w) + np.abs(b)
        terms = (a[-1] + off_a[-1] > 0).sum(axis=1, keepdims=True)  # adding 0 does not round
        off = off_a[-1] @ np.abs(w) + (terms + 3) * EPS * (size + off_a[-1] @ np.abs(w))
        if depth == len(weights) - 1:
            break
        gates.append((z, off))
        a.append(np.maximum(z, 0))
        off_a.append(off)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    gap = np.abs(z - z.max(axis=1, keepdims=True)) + off.max(axis=1, keepdims=True)
    relative = np.expm1(2 * off.max(axis=1, keepdims=True) + (2 * gap + z.shape[1] + 16) * EPS)
    delta = (p - np.eye(p.shape[1])[targets_b]) / len(x_bi)
    off_delta = (p * relative + 4 * EPS * (p + 1)) / len(x_bi)
    grads = []
    for depth in reversed(range(len(weights))):
        size, size_a = np.abs(delta) + off_delta, np.abs(a[depth])
        rounding = (len(x_bi) + 3) * EPS
        off_w = size_a.T @ off_delta + off_a[depth].T @ size
        off_w += rounding * ((size_a + off_a[depth]).T @ size)
        off_b = off_delta.sum(axis=0) + rounding * size.sum(axis=0)
        grads.append((a[depth].T @ delta, off_w, delta.sum(axis=0), off_b))
        if depth:
            w, (z, off_z) = weights[depth], gates[depth - 1]
            wide_delta = delta @ w.T
            off = off_delta @ np.abs(w).T + (w.shape[1] + 3) * EPS * (size @ np.abs(w).T)
            open_, undecided = z > 0, np.abs(z) <= off_z  # z may round to either side of 0
            delta = wide_delta * open_
            off_delta = np.where(undecided, np.abs(wide_delta) + off, off * open_)
    return grads[::-1]


def step_and_bound(m, off_m, v, off_v, hyperparameters):
    """Return the step, and a bound of its error: it is monotonic in m and in v, so the extremes are
    at the corners of their intervals.
    """
    step = hyperparameters.step_size * m / (np.sqrt(v) + hyperparameters.epsilon)
    worst = np.zeros_like(step)
    for mean in (m - off_m, m + off_m):
        for square in (np.maximum(v - off_v, 0), v + off_v):
            corner = hyperparameters.step_size * mean / (np.sqrt(square) + hyperparameters.epsilon)
            worst = np.maximum(worst, np.abs(corner - step) + 8 * EPS * np.abs(corner))
    flushed = TINY / (np.sqrt(np.maximum(v - off_v, 0)) + hyperparameters.epsilon)  # step_size * m
    return step, worst + flushed + TINY


def check_step(kernels, run, number, trained_on=None):
    """Check one step of these kernels, on the rows in `trained_on` or those of the run."""
    spec, data, order_n, steps, states = run
    step = number * STRIDE
    hyperparameters = steps.at(step)
    got = copy_of(states[number], np.float32)
    visited_n = order_n if trained_on is None else trained_on
    kernels.train_steps(got, data, visited_n, steps, spec, step, step + 1, 2)

    params, m, v = copy_of(states[number], np.float64)
    rows_b = order_n[step * BATCH : (step + 1) * BATCH]
    # Pixels rounded to float32: one more rounding of the first layer.
    x_bi = (data.x_ni[rows_b] * np.float32(PIXEL_SCALE)).astype(np.float64)
    for depth, (g_w, off_w, g_b, off_b) in enumerate(
        bounds_of_gradients(params, x_bi, data.targets_n[rows_b])
    ):
        for kind, g, off, l2 in ((0, g_w, off_w, L2), (1, g_b, off_b, 0)):
            w, old_m, old_v = (part[kind][depth] for part in (params, m, v))
            g = g + l2 * w
            off = off + 4 * EPS * (np.abs(g) + l2 * np.abs(w)) + TINY
            true_m = 0.9 * old_m + 0.1 * g
            off_m = 0.1 * off + 4 * EPS * (0.9 * np.abs(old_m) + 0.1 * (np.abs(g) + off)) + TINY
            true_v = 0.999 * old_v + 0.001 * g**2
            off_v = 0.001 * (2 * np.abs(g) * off + off**2) + TINY
            off_v += 4 * EPS * (0.999 * old_v + 0.001 * (np.abs(g) + off) ** 2)
            true_step, off_step = step_and_bound(true_m, off_m, true_v, off_v, hyperparameters)
            off_p = off_step + 4 * EPS * (np.abs(w) + np.abs(true_step))
            new_p, new_m, new_v = (part[kind][depth] for part in got)
            assert (np.abs(new_m - true_m) <= off_m).all()
            assert (np.abs(new_v - true_v) <= off_v).all()
            assert (np.abs(new_p - (w - true_step)) <= off_p).all()


@pytest.mark.parametrize("number", range(STATES))
def test_train_steps_one_step_within_rounding_bounds(backend, run, number):
    check_step(backend, run, number)


@pytest.mark.parametrize("number", [0, 1, 10, 19])
def test_check_step_catches_one_wrong_row_of_a_batch(run, number):
    order_n = run[2].copy()
    order_n[number * STRIDE * BATCH] = order_n[-1]
    with pytest.raises(AssertionError):
        check_step(reference, run, number, order_n)
