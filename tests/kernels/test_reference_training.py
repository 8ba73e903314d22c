"""Reference: optimizers by hand and step by step, training, prediction."""

from itertools import pairwise

import numpy as np
import pytest
from reference_cases import (
    EPS64,
    batch_loss,
    constant_schedule,
    flat,
    fresh_state,
    gradients,
    random_data,
    random_params,
    zeros_like,
)

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import (
    NetworkSpec,
    Params,
    StepHyperparams,
    TrainData,
    TrainState,
)
from fmnist_fast.nn.optimizers import Adam


def test_train_steps_batch_of_weight_zero_changes_nothing():
    spec = NetworkSpec((5, 4, 3), dtype="float64")
    data = random_data(spec, 4, weights=np.zeros(4))
    state = fresh_state(spec)
    before = flat(state.params).copy()
    losses = reference.train_steps(
        state, data, np.arange(4, dtype=np.int32), constant_schedule(1, 4), spec, 0, 1, 1
    )
    assert losses.tolist() == [0.0]
    assert np.array_equal(flat(state.params), before)


@pytest.mark.parametrize(
    ("optimizer", "places"),
    # Gradients 2, then -1, rate 0.1, momentum 0.5. Velocities -0.2, then -0.1 + 0.1 = 0.
    # nesterov: 0.5 * -0.2 - 0.2, then 0 + 0.1.
    [("sgd", (0.8, 0.8)), ("nesterov", (0.7, 0.8))],
)
def test_update_momentum_by_hand(optimizer, places):
    spec = NetworkSpec((1, 1), optimizer=optimizer, dtype="float64")
    one = Params((np.array([[1.0]]),), (np.array([1.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    for gradient, place, velocity in zip((2.0, -1.0), places, (-0.2, 0.0)):
        grads = Params((np.array([[gradient]]),), (np.array([gradient]),))
        reference.update(state, grads, StepHyperparams(0.1, 0, 0, 0, 0.5, 0), spec)
        np.testing.assert_allclose(state.params.weights[0], [[place]], rtol=1e-15)
        np.testing.assert_allclose(state.params.biases[0], [place], rtol=1e-15)
        np.testing.assert_allclose(state.m.biases[0], [velocity], atol=1e-16)


def test_update_momentum_penalizes_weights_only():
    spec = NetworkSpec((1, 1), optimizer="sgd", dtype="float64")
    one = Params((np.array([[2.0]]),), (np.array([2.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    reference.update(state, zeros_like(one), StepHyperparams(0.1, 0, 0.5, 0.25, 0.9, 0), spec)
    np.testing.assert_allclose(state.params.weights[0], [[0.75 * 2 - 0.1 * 0.5 * 2]], rtol=1e-15)
    assert state.params.biases[0].tolist() == [2.0]


def test_train_steps_loss_is_weighted_mean_plus_penalty():
    spec = NetworkSpec((6, 5, 4), dtype="float64")
    weights_n = np.array([1.0, 2, 0, 0.5, 1])
    data = random_data(spec, 5, weights=weights_n)
    state = fresh_state(spec)
    expected = batch_loss(state.params, data.x_ni / 255, data.targets_n, weights_n, spec, 0.01)
    losses = reference.train_steps(
        state, data, np.arange(5, dtype=np.int32), constant_schedule(1, 5, l2=0.01), spec, 0, 1, 1
    )
    np.testing.assert_allclose(losses, [expected], rtol=1e-13)


def test_update_l2_applies_to_weights_only():
    spec = NetworkSpec((2, 2), dtype="float64")
    state = fresh_state(spec)
    grads = zeros_like(state.params)
    sign = np.sign(state.params.weights[0])
    before = flat(state.params).copy()
    reference.update(state, grads, StepHyperparams(0.1, 1e-12, 0.5, 0, 0.9, 0.999), spec)
    moved = state.params.weights[0] - before[:4].reshape(2, 2)
    # m / sqrt(v) = 0.1 g / (sqrt(0.001) |g|) = sign(g) sqrt(10)
    np.testing.assert_allclose(moved, -0.1 * np.sqrt(10) * sign, rtol=1e-9)
    assert np.array_equal(state.params.biases[0], before[4:])


def test_update_decay_applies_to_weights_only():
    spec = NetworkSpec((2, 2), dtype="float64")
    state = fresh_state(spec)
    before = flat(state.params).copy()
    reference.update(
        state, zeros_like(state.params), StepHyperparams(0.1, 1e-8, 0, 0.25, 0.9, 0.999), spec
    )
    np.testing.assert_allclose(state.params.weights[0].ravel(), 0.75 * before[:4], rtol=2 * EPS64)
    assert np.array_equal(state.params.biases[0], before[4:])


def test_update_adam_by_hand():
    """p = 1, g = 2 then -1, lr 0.1: Algorithm 1 of Kingma & Ba with their defaults.

    Step 1: m = 0.2, v = 0.004; corrected 2 and 4; p = 1 - 0.1 * 2 / (2 + 1e-8).
    Step 2: m = 0.08, v = 0.004996; corrected 0.08 / 0.19 and 0.004996 / 0.001999.
    """
    spec = NetworkSpec((1, 1), dtype="float64")
    one = Params((np.array([[1.0]]),), (np.array([1.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    schedule = Adam().steps(np.full(2, 0.1), 0, 1, 0.0)
    expected = 1.0
    for step, gradient, m, v in ((0, 2.0, 2.0, 4.0), (1, -1.0, 0.08 / 0.19, 0.004996 / 0.001999)):
        grads = Params((np.array([[gradient]]),), (np.array([gradient]),))
        reference.update(state, grads, schedule.at(step), spec)
        expected -= 0.1 * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(state.params.weights[0], [[expected]], rtol=1e-13)
        np.testing.assert_allclose(state.params.biases[0], [expected], rtol=1e-13)
    np.testing.assert_allclose(state.m.biases[0], [0.08], rtol=1e-13)
    np.testing.assert_allclose(state.v.biases[0], [0.004996], rtol=1e-13)


def test_update_adam_many_steps_match_algorithm_1():
    spec = NetworkSpec((3, 2), dtype="float64")
    state = fresh_state(spec)
    count, rng = 500, np.random.default_rng(5)
    lr_t = 0.01 * rng.random(count)
    schedule = Adam().steps(lr_t, 0, 1, 0.0)
    theta, m, v = flat(state.params).copy(), np.zeros(8), np.zeros(8)
    for t in range(1, count + 1):
        g = rng.normal(size=8) * 10 ** rng.uniform(-6, 2)
        grads = Params((g[:6].reshape(3, 2).copy(),), (g[6:].copy(),))
        reference.update(state, grads, schedule.at(t - 1), spec)
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g * g
        theta = theta - lr_t[t - 1] * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    # Each step rounds a few times; the step itself is a sum over steps of at most lr * sqrt(10).
    bound = count * 16 * EPS64 * (1 + np.abs(theta).max() + 0.01 * np.sqrt(10))
    assert np.abs(flat(state.params) - theta).max() <= bound
    np.testing.assert_allclose(flat(state.m), m, rtol=1e-12, atol=count * 16 * EPS64)
    np.testing.assert_allclose(flat(state.v), v, rtol=count * 16 * EPS64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_train_steps_equals_single_operations(dtype):
    spec = NetworkSpec((20, 9, 7, 4), dtype=dtype)
    data = random_data(spec, 23, weights=np.random.default_rng(0).random(23))
    order_n = np.random.default_rng(1).permutation(23).astype(np.int32)
    schedule = constant_schedule(3, 10, l2=0.01)  # batches of 10, 10 and 3
    whole, parts = fresh_state(spec), fresh_state(spec)
    losses = reference.train_steps(whole, data, order_n, schedule, spec, 0, 3, 1)
    for step, (first, last) in enumerate(((0, 10), (10, 20), (20, 23))):
        rows_b = order_n[first:last]
        x_bi = np.empty((last - first, 20), dtype)
        reference.gather_batch(data.x_ni, order_n, first, last, data.scale, x_bi)
        w_b = data.weights_n[rows_b].astype(dtype)
        grads, activations = gradients(parts.params, x_bi, data.targets_n[rows_b], w_b, spec)
        loss_b, grad_logits_bk = np.empty(last - first, dtype), np.empty_like(activations[-1])
        reference.loss_and_grad(
            activations[-1], data.targets_n[rows_b], w_b, spec, loss_b, grad_logits_bk
        )
        assert losses[step] == reference.batch_loss(loss_b, w_b, parts.params, 0.01)
        reference.update(parts, grads, schedule.at(step), spec)
    for one, other in zip(whole, parts):
        assert np.array_equal(flat(one), flat(other))


@pytest.mark.parametrize("cuts", [(0, 7), (0, 1, 7), (0, 3, 4, 6, 7), tuple(range(8))])
def test_train_steps_cut_into_ranges_changes_no_bit(cuts):
    spec = NetworkSpec((30, 8, 5))
    data = random_data(spec, 65)
    order_n = np.random.default_rng(2).permutation(65).astype(np.int32)
    schedule = constant_schedule(7, 10, l2=1e-3)
    whole, cut = fresh_state(spec), fresh_state(spec)
    expected = reference.train_steps(whole, data, order_n, schedule, spec, 0, 7, 1)
    losses = [
        reference.train_steps(cut, data, order_n, schedule, spec, first, last, 1)
        for first, last in pairwise(cuts)
    ]
    assert np.array_equal(np.concatenate(losses), expected)
    for one, other in zip(whole, cut):
        assert np.array_equal(flat(one), flat(other))


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_train_steps_with_any_batch_size(batch_size):
    spec = NetworkSpec((6, 5, 3))
    data = random_data(spec, 10)
    count = -(-10 // batch_size)
    losses = reference.train_steps(
        fresh_state(spec),
        data,
        np.arange(10, dtype=np.int32),
        constant_schedule(count, batch_size),
        spec,
        0,
        count,
        1,
    )
    assert losses.shape == (count,)
    assert np.isfinite(losses).all()


def test_train_steps_from_zeros_learns_biases():
    """All weights zero: hidden units are dead, so only the last layer's biases can move."""
    spec = NetworkSpec((4, 3, 2), dtype="float64")
    zero = zeros_like(random_params(spec))
    state = TrainState(zero, zeros_like(zero), zeros_like(zero))
    data = TrainData(np.ones((8, 4), np.uint8), 1.0, np.zeros(8, np.int32), np.ones(8))
    losses = reference.train_steps(
        state, data, np.arange(8, dtype=np.int32), constant_schedule(1, 8, 0.1), spec, 0, 1, 1
    )
    np.testing.assert_allclose(losses, [np.log(2)])
    np.testing.assert_allclose(state.params.biases[1], [0.1, -0.1], rtol=1e-6)
    assert not any(w_io.any() for w_io in state.params.weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_train_steps_fits_tiny_data_set(dtype):
    spec = NetworkSpec((16, 32, 10), dtype=dtype)
    data = random_data(spec, 40)
    state = fresh_state(spec)
    for epoch in range(300):
        schedule = Adam().steps(np.full(5, 5e-3), 5 * epoch, 8, 0.0)
        order_n = np.random.default_rng(epoch).permutation(40).astype(np.int32)
        losses = reference.train_steps(state, data, order_n, schedule, spec, 0, 5, 1)
    out_nk = np.empty((40, 10), dtype)
    reference.predict(state.params, data.x_ni, data.scale, spec, 1, out_nk)
    assert (out_nk.argmax(axis=1) == data.targets_n).all()
    assert losses.mean() < 0.05


@pytest.mark.parametrize(
    "rows", [0, 1, reference.PREDICT_ROWS - 1, reference.PREDICT_ROWS, reference.PREDICT_ROWS + 1]
)
def test_predict_is_softmax_of_forward(rows):
    spec = NetworkSpec((12, 6, 4), dtype="float64")
    params, data = random_params(spec), random_data(spec, rows)
    out_nk = np.full((rows, 4), np.nan)
    reference.predict(params, data.x_ni, data.scale, spec, 1, out_nk)
    logits = np.maximum(data.x_ni / 255 @ params.weights[0] + params.biases[0], 0)
    logits = logits @ params.weights[1] + params.biases[1]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out_nk, expected, rtol=1e-12)
