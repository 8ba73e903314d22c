"""The specification itself: numbers worked by hand, gradients by differences, Adam step by step."""

from itertools import pairwise

import numpy as np
import pytest

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import (
    DropoutState,
    NetworkSpec,
    Params,
    StepHyperparams,
    StepSchedule,
    TrainData,
    TrainState,
)
from fmnist_fast.nn.optimizers import Adam

EPS64 = np.finfo(np.float64).eps


def random_layers(spec: NetworkSpec, seed: int = 0) -> Params:
    rng = np.random.default_rng(seed)
    return Params(
        tuple(rng.normal(0, np.sqrt(2 / i), (i, o)).astype(spec.dtype) for i, o in spec.shapes),
        tuple(rng.normal(0, 0.3, o).astype(spec.dtype) for _, o in spec.shapes),
    )


def zeros_like(layers: Params) -> Params:
    return Params(*(tuple(np.zeros_like(a) for a in arrays) for arrays in layers))


def fresh_state(spec: NetworkSpec, seed: int = 0) -> TrainState:
    params = random_layers(spec, seed)
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


def constant_steps(count: int, batch_size: int, lr: float = 1e-3, l2: float = 0.0) -> StepSchedule:
    return Adam().steps(np.full(count, lr), 0, batch_size, l2)


def flat(layers: Params) -> np.ndarray:
    return np.concatenate([a.ravel() for arrays in layers for a in arrays])


def drop_of(rows: int) -> DropoutState:
    return DropoutState(np.arange(rows, dtype=np.int32), 7)


def factors(spec: NetworkSpec, rows: int) -> list:
    """What dropout multiplies every output of every hidden layer by: (b, o) each."""
    ends = np.cumsum((0, *spec.sizes[1:-1]))
    out = []
    for first, last in pairwise(ends):
        bits_bo = reference.random_bits(drop_of(rows), np.arange(first, last, dtype=np.uint32))
        out.append((bits_bo / 2**32 >= spec.dropout) / (1 - spec.dropout))
    return out


ACTIVATE = {
    "relu": lambda z: np.where(z > 0, z, 0.0),
    "tanh": np.tanh,
    "logistic": lambda z: 1 / (1 + np.exp(-z)),
    "identity": lambda z: z,
}


def batch_loss(params: Params, x_bi, y_b, w_b, spec: NetworkSpec, l2: float) -> float:
    """The loss of a batch, written a second time and the slow way."""
    total = 0.0
    kept = factors(spec, len(x_bi))
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
        wanted = a[y] if np.ndim(y) == 0 else np.dot(y, a)
        total += w * (np.log(np.sum(np.exp(a - a.max()))) + a.max() - wanted)
    return total / sum(w_b) + l2 / 2 * sum((w_io**2).sum() for w_io in params.weights)


def gradients(params: Params, x_bi, y_b, w_b, spec: NetworkSpec) -> tuple[Params, tuple]:
    _, layers, loss_b, grad_logits_bk, grads = reference.workspace(spec, len(x_bi))
    for array in (*layers, *grads.weights, *grads.biases, loss_b, grad_logits_bk):
        array.fill(np.nan)
    reference.forward(params, x_bi, spec, layers, drop_of(len(x_bi)))
    reference.loss_and_grad(layers[-1], y_b, w_b, spec, loss_b, grad_logits_bk)
    reference.backward(params, x_bi, layers, grad_logits_bk, spec, grads, drop_of(len(x_bi)))
    return grads, layers


def test_gather_picks_and_scales_rows():
    x_ni = np.arange(12, dtype=np.uint8).reshape(4, 3)
    out_bi = np.full((2, 3), np.nan, np.float32)
    reference.gather_batch(x_ni, np.array([3, 0, 2, 1], np.int32), 1, 3, 0.5, out_bi)
    assert out_bi.tolist() == [[0, 0.5, 1], [3, 3.5, 4]]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_gather_reads_every_input_dtype(dtype):
    x_ni = np.array([[0, 1], [128, 255]], dtype)
    out_bi = np.empty((2, 2), np.float32)
    reference.gather_batch(x_ni, np.array([0, 1], np.int32), 0, 2, 1 / 255, out_bi)
    np.testing.assert_allclose(out_bi, np.array([[0, 1], [128, 255]]) / 255, rtol=1e-7)


def test_forward_by_hand():
    spec = NetworkSpec((2, 2, 1), dtype="float64")
    params = Params(
        (np.array([[1.0, -1.0], [2.0, 1.0]]), np.array([[3.0], [4.0]])),
        (np.array([0.5, -0.5]), np.array([-1.0])),
    )
    layers = (np.full((1, 2), np.nan), np.full((1, 1), np.nan))
    reference.forward(params, np.array([[1.0, 0.25]]), spec, layers)
    # z = (1 + 0.5 + 0.5, -1 + 0.25 - 0.5) = (2, -1.25); ReLU (2, 0); logit 3 * 2 + 0 - 1
    assert layers[0].tolist() == [[2.0, 0.0]]
    assert layers[1].tolist() == [[5.0]]


def dropped_units(share: float, rows_b, key: int, units: int = 500) -> np.ndarray:
    spec = NetworkSpec((1, units, 1), dtype="float64", dropout=share)
    a_bo = np.ones((len(rows_b), units))
    reference.apply_dropout(a_bo, spec, DropoutState(np.asarray(rows_b, np.int32), key), 0)
    assert set(np.unique(a_bo)) <= {0, 1 / (1 - share)}
    return a_bo == 0


def test_dropout_leaves_out_its_share_of_every_row_and_every_unit():
    share, rows, units = 0.3, 2000, 500
    out_bo = dropped_units(share, np.arange(rows), 99, units)
    # Six standard deviations of a count: of 2,500 such counts one in 200,000 runs is beyond.
    for axis, draws in ((0, rows), (1, units), (None, rows * units)):
        off = np.abs(out_bo.mean(axis=axis) - share)
        assert (off <= 6 * np.sqrt(share * (1 - share) / draws)).all()


def test_dropout_of_one_row_unit_or_epoch_says_nothing_of_another():
    share, rows, units = 0.5, 2000, 500
    out_bo = dropped_units(share, np.arange(rows), 99, units)
    other_bo = dropped_units(share, np.arange(rows), 100, units)
    far_bo = dropped_units(share, np.arange(rows) + 60_000, 99, units)
    for a_bo, b_bo in (
        (out_bo[1:], out_bo[:-1]),
        (out_bo[:, 1:], out_bo[:, :-1]),
        (out_bo, other_bo),
        (out_bo, far_bo),
    ):
        agree = np.mean(a_bo == b_bo)
        assert abs(agree - 0.5) <= 6 * np.sqrt(0.25 / a_bo.size)


def test_dropout_is_of_the_row_and_not_of_its_place_in_the_batch():
    rows_b = np.array([5, 700, 3, 59_999])
    out_bo = dropped_units(0.4, rows_b, 12)
    assert np.array_equal(dropped_units(0.4, rows_b[::-1], 12), out_bo[::-1])


def test_the_second_hidden_layer_has_units_of_its_own():
    spec = NetworkSpec((1, 40, 40, 1), dtype="float64", dropout=0.5)
    ones = Params(
        tuple(np.zeros(shape) for shape in spec.shapes), tuple(np.ones(o) for _, o in spec.shapes)
    )
    layers = tuple(np.empty((9, o)) for _, o in spec.shapes)
    reference.forward(ones, np.zeros((9, 1)), spec, layers, drop_of(9))
    assert not np.array_equal(layers[0], layers[1])
    assert (layers[2] == 1).all()  # nothing of the logits is left out


def test_relu_lets_nan_through():
    spec = NetworkSpec((1, 1, 1), dtype="float64")
    params = Params((np.ones((1, 1)), np.ones((1, 1))), (np.zeros(1), np.zeros(1)))
    layers = (np.empty((1, 1)), np.empty((1, 1)))
    reference.forward(params, np.array([[np.nan]]), spec, layers)
    assert np.isnan(layers[-1]).all()


def test_softmax_of_huge_logits():
    logits_bk = np.array([[1000.0, -1000.0, 999.0], [-1000.0, -1000.0, -1000.0]])
    out_bk = np.full_like(logits_bk, np.nan)
    log_sum_b1 = reference.softmax(logits_bk, out_bk)
    e = np.exp(-1)
    expected = [[1 / (1 + e), 0, e / (1 + e)], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(out_bk, expected, rtol=4 * EPS64)
    np.testing.assert_allclose(
        log_sum_b1[:, 0], [1000 + np.log(1 + e), -1000 + np.log(3)], rtol=4 * EPS64
    )


def test_loss_and_delta_of_huge_logits_are_finite():
    spec = NetworkSpec((1, 2), dtype="float32")
    logits_bk = np.array([[1000, -1000], [-1000, 1000]], np.float32)
    loss_b, grad_logits_bk = np.full(2, np.nan, np.float32), np.full((2, 2), np.nan, np.float32)
    reference.loss_and_grad(
        logits_bk, np.array([0, 0], np.int32), np.ones(2, np.float32), spec, loss_b, grad_logits_bk
    )
    assert loss_b.tolist() == [0.0, 2000.0]
    assert grad_logits_bk.tolist() == [[0.0, 0.0], [-0.5, 0.5]]


def test_loss_and_delta_by_hand():
    spec = NetworkSpec((1, 2), dtype="float64")
    logits_bk = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))  # softmax (1/4, 3/4), (1/2, 1/2)
    loss_b, grad_logits_bk = np.empty(2), np.empty((2, 2))
    reference.loss_and_grad(
        logits_bk, np.array([0, 1], np.int32), np.array([1.0, 3.0]), spec, loss_b, grad_logits_bk
    )
    np.testing.assert_allclose(loss_b, [np.log(4), np.log(2)], rtol=4 * EPS64)
    np.testing.assert_allclose(
        grad_logits_bk, [[-0.75 / 4, 0.75 / 4], [0.5 * 3 / 4, -0.5 * 3 / 4]], rtol=8 * EPS64
    )


def test_loss_and_delta_of_soft_targets_by_hand():
    spec = NetworkSpec((1, 2), dtype="float64")
    logits_bk = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))
    loss_b, grad_logits_bk = np.empty(2), np.empty((2, 2))
    soft_bk = np.array([[0.25, 0.75], [1.0, 0.0]])
    reference.loss_and_grad(logits_bk, soft_bk, np.array([1.0, 3.0]), spec, loss_b, grad_logits_bk)
    np.testing.assert_allclose(loss_b, [np.log(4) - 0.75 * np.log(3), np.log(2)], rtol=4 * EPS64)
    np.testing.assert_allclose(
        grad_logits_bk, [[0, 0], [-0.5 * 3 / 4, 0.5 * 3 / 4]], atol=4 * EPS64
    )


def test_rows_of_weight_zero_teach_nothing():
    spec = NetworkSpec((5, 4, 3), dtype="float64")
    params = random_layers(spec)
    rng = np.random.default_rng(3)
    x_bi, y_b = rng.random((6, 5)), rng.integers(0, 3, 6).astype(np.int32)
    w_b = np.array([1.0, 0, 2, 0, 0, 0.5])
    some, _ = gradients(params, x_bi, y_b, w_b, spec)
    kept = w_b > 0
    only, _ = gradients(params, x_bi[kept], y_b[kept], w_b[kept], spec)
    np.testing.assert_allclose(flat(some), flat(only), rtol=1e-12, atol=1e-15)


def test_a_batch_of_weight_zero_changes_only_what_the_penalty_asks():
    spec = NetworkSpec((5, 4, 3), dtype="float64")
    data = random_data(spec, 4, weights=np.zeros(4))
    state = fresh_state(spec)
    before = flat(state.params).copy()
    losses = reference.train_steps(
        state, data, np.arange(4, dtype=np.int32), constant_steps(1, 4), spec, 0, 1, 1
    )
    assert losses.tolist() == [0.0]
    assert np.array_equal(flat(state.params), before)


@pytest.mark.parametrize("sizes", [(7, 3), (6, 5, 4), (8, 7, 6, 5), (5, 9, 1, 6, 2)])
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_gradients_against_central_differences(sizes, rows, soft, dropout, activation):
    check_gradients(NetworkSpec(sizes, activation, dtype="float64", dropout=dropout), rows, soft)


@pytest.mark.parametrize("sizes", [(7, 1), (6, 5, 4), (8, 7, 6, 1)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_of_independent_answers(sizes, activation, dropout):
    spec = NetworkSpec(sizes, activation, "sigmoid", dtype="float64", dropout=dropout)
    check_gradients(spec, 9, soft=False)


def check_gradients(spec, rows, soft):
    sizes = spec.sizes
    rng = np.random.default_rng([*sizes, rows])
    x_bi = rng.random((rows, sizes[0]))
    y_b = rng.integers(0, sizes[-1], rows).astype(np.int32)
    w_b = rng.random(rows) + 0.1
    if soft:
        y_b = rng.dirichlet(np.ones(sizes[-1]), rows)
    if spec.loss == "sigmoid":
        y_b = rng.random((rows, sizes[-1]))
    step = 1e-5
    for draw in range(20):
        params = random_layers(spec, seed=draw)
        grads, layers = gradients(params, x_bi, y_b, w_b, spec)
        # A hidden unit within reach of the kink of ReLU has no derivative to compare with.
        reach = 100 * step * (1 + max(np.abs(a).max() for a in (x_bi, *layers)))
        pre = pre_activations(params, x_bi, spec)
        if spec.activation == "relu" and any(np.abs(z).min() < reach for z in pre):
            continue
        direction = random_layers(spec, seed=1000 + draw)
        up, down = (
            Params(
                *(
                    tuple(p + sign * step * d for p, d in zip(ps, ds))
                    for ps, ds in zip(params, direction)
                )
            )
            for sign in (1, -1)
        )
        slope = (
            batch_loss(up, x_bi, y_b, w_b, spec, 0.0) - batch_loss(down, x_bi, y_b, w_b, spec, 0.0)
        ) / (2 * step)
        expected = flat(grads) @ flat(direction)
        # Truncation is step^2 times a third derivative of order |d|^3; rounding is eps / step.
        size = np.abs(flat(direction)).sum()
        assert abs(slope - expected) <= step**2 * size**3 + 100 * EPS64 / step
        assert expected != 0
        return
    pytest.fail("every draw was near a kink")


def pre_activations(params: Params, x_bi, spec: NetworkSpec) -> list:
    """What ReLU sees, in every hidden layer."""
    out, a_bi = [], x_bi
    for w_io, b_o, kept_bo in zip(*params, factors(spec, len(x_bi))):  # the last layer has no ReLU
        out.append(a_bi @ w_io + b_o)
        a_bi = np.maximum(out[-1], 0) * kept_bo
    return out


def test_a_unit_whose_output_is_zero_is_not_taken_for_one_left_out():
    """tanh(0) = 0, where its slope is 1: only what dropout left out may stop the gradient."""
    spec = NetworkSpec((1, 50, 1), "tanh", "sigmoid", dtype="float64", dropout=0.5)
    params = random_layers(spec)._replace(biases=(np.zeros(50), np.zeros(1)))
    y_b = np.ones((1, 1))
    grads, _ = gradients(params, np.zeros((1, 1)), y_b, np.ones(1), spec)
    (kept_o,) = factors(spec, 1)[0]
    np.testing.assert_allclose(grads.biases[0], -0.5 * params.weights[1][:, 0] * kept_o)
    assert 0 < (kept_o > 0).sum() < 50


def test_sigmoid_of_huge_logits():
    out_bk = np.full((1, 4), np.nan)
    log_bk = reference.sigmoid(np.array([[-1000.0, -40.0, 0.0, 1000.0]]), out_bk)
    np.testing.assert_allclose(out_bk, [[0, np.exp(-40), 0.5, 1]], rtol=4 * EPS64)
    np.testing.assert_allclose(log_bk, [[0, np.exp(-40), np.log(2), 1000]], rtol=4 * EPS64)


def test_loss_of_independent_answers_by_hand():
    spec = NetworkSpec((1, 2), loss="sigmoid", dtype="float64")
    logits_bk = np.log(np.array([[1.0, 3.0]]))  # sigmoid 1/2 and 3/4
    loss_b, grad_logits_bk = np.empty(1), np.empty((1, 2))
    reference.loss_and_grad(
        logits_bk, np.array([[1.0, 0.0]]), np.ones(1), spec, loss_b, grad_logits_bk
    )
    np.testing.assert_allclose(loss_b, [np.log(2) + np.log(4)], rtol=4 * EPS64)
    np.testing.assert_allclose(grad_logits_bk, [[-0.5, 0.75]], rtol=4 * EPS64)


@pytest.mark.parametrize(
    ("optimizer", "places"),
    # Gradients 2, then -1, rate 0.1, momentum 0.5. Velocities -0.2, then -0.1 + 0.1 = 0.
    # nesterov: 0.5 * -0.2 - 0.2, then 0 + 0.1.
    [("sgd", (0.8, 0.8)), ("nesterov", (0.7, 0.8))],
)
def test_momentum_by_hand(optimizer, places):
    spec = NetworkSpec((1, 1), optimizer=optimizer, dtype="float64")
    one = Params((np.array([[1.0]]),), (np.array([1.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    for gradient, place, velocity in zip((2.0, -1.0), places, (-0.2, 0.0)):
        grads = Params((np.array([[gradient]]),), (np.array([gradient]),))
        reference.update(state, grads, StepHyperparams(0.1, 0, 0, 0, 0.5, 0), spec)
        np.testing.assert_allclose(state.params.weights[0], [[place]], rtol=1e-15)
        np.testing.assert_allclose(state.params.biases[0], [place], rtol=1e-15)
        np.testing.assert_allclose(state.m.biases[0], [velocity], atol=1e-16)


def test_momentum_has_the_penalty_and_the_decay_of_weights_only():
    spec = NetworkSpec((1, 1), optimizer="sgd", dtype="float64")
    one = Params((np.array([[2.0]]),), (np.array([2.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    reference.update(state, zeros_like(one), StepHyperparams(0.1, 0, 0.5, 0.25, 0.9, 0), spec)
    np.testing.assert_allclose(state.params.weights[0], [[0.75 * 2 - 0.1 * 0.5 * 2]], rtol=1e-15)
    assert state.params.biases[0].tolist() == [2.0]


def test_loss_of_a_step_has_the_weighted_mean_and_the_penalty():
    spec = NetworkSpec((6, 5, 4), dtype="float64")
    weights_n = np.array([1.0, 2, 0, 0.5, 1])
    data = random_data(spec, 5, weights=weights_n)
    state = fresh_state(spec)
    expected = batch_loss(state.params, data.x_ni / 255, data.targets_n, weights_n, spec, 0.01)
    losses = reference.train_steps(
        state, data, np.arange(5, dtype=np.int32), constant_steps(1, 5, l2=0.01), spec, 0, 1, 1
    )
    np.testing.assert_allclose(losses, [expected], rtol=1e-13)


def test_penalty_pulls_weights_and_spares_biases():
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


def test_decay_shrinks_weights_and_spares_biases():
    spec = NetworkSpec((2, 2), dtype="float64")
    state = fresh_state(spec)
    before = flat(state.params).copy()
    reference.update(
        state, zeros_like(state.params), StepHyperparams(0.1, 1e-8, 0, 0.25, 0.9, 0.999), spec
    )
    np.testing.assert_allclose(state.params.weights[0].ravel(), 0.75 * before[:4], rtol=2 * EPS64)
    assert np.array_equal(state.params.biases[0], before[4:])


def test_adam_by_hand():
    """p = 1, g = 2 then -1, lr 0.1: Algorithm 1 of Kingma & Ba with their defaults.

    Step 1: m = 0.2, v = 0.004; corrected 2 and 4; p = 1 - 0.1 * 2 / (2 + 1e-8).
    Step 2: m = 0.08, v = 0.004996; corrected 0.08 / 0.19 and 0.004996 / 0.001999.
    """
    spec = NetworkSpec((1, 1), dtype="float64")
    one = Params((np.array([[1.0]]),), (np.array([1.0]),))
    state = TrainState(one, zeros_like(one), zeros_like(one))
    steps = Adam().steps(np.full(2, 0.1), 0, 1, 0.0)
    expected = 1.0
    for step, gradient, m, v in ((0, 2.0, 2.0, 4.0), (1, -1.0, 0.08 / 0.19, 0.004996 / 0.001999)):
        grads = Params((np.array([[gradient]]),), (np.array([gradient]),))
        reference.update(state, grads, steps.at(step), spec)
        expected -= 0.1 * m / (np.sqrt(v) + 1e-8)
        np.testing.assert_allclose(state.params.weights[0], [[expected]], rtol=1e-13)
        np.testing.assert_allclose(state.params.biases[0], [expected], rtol=1e-13)
    np.testing.assert_allclose(state.m.biases[0], [0.08], rtol=1e-13)
    np.testing.assert_allclose(state.v.biases[0], [0.004996], rtol=1e-13)


def test_adam_over_many_steps_against_algorithm_1():
    spec = NetworkSpec((3, 2), dtype="float64")
    state = fresh_state(spec)
    count, rng = 500, np.random.default_rng(5)
    lr_t = 0.01 * rng.random(count)
    steps = Adam().steps(lr_t, 0, 1, 0.0)
    theta, m, v = flat(state.params).copy(), np.zeros(8), np.zeros(8)
    for t in range(1, count + 1):
        g = rng.normal(size=8) * 10 ** rng.uniform(-6, 2)
        grads = Params((g[:6].reshape(3, 2).copy(),), (g[6:].copy(),))
        reference.update(state, grads, steps.at(t - 1), spec)
        m = 0.9 * m + (1 - 0.9) * g
        v = 0.999 * v + (1 - 0.999) * g * g
        theta = theta - lr_t[t - 1] * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    # Each step rounds a few times; the step itself is a sum over steps of at most lr * sqrt(10).
    bound = count * 16 * EPS64 * (1 + np.abs(theta).max() + 0.01 * np.sqrt(10))
    assert np.abs(flat(state.params) - theta).max() <= bound
    np.testing.assert_allclose(flat(state.m), m, rtol=1e-12, atol=count * 16 * EPS64)
    np.testing.assert_allclose(flat(state.v), v, rtol=count * 16 * EPS64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_train_steps_is_the_operations_one_by_one(dtype):
    spec = NetworkSpec((20, 9, 7, 4), dtype=dtype)
    data = random_data(spec, 23, weights=np.random.default_rng(0).random(23))
    order_n = np.random.default_rng(1).permutation(23).astype(np.int32)
    steps = constant_steps(3, 10, l2=0.01)  # batches of 10, 10 and 3
    whole, parts = fresh_state(spec), fresh_state(spec)
    losses = reference.train_steps(whole, data, order_n, steps, spec, 0, 3, 1)
    for step, (first, last) in enumerate(((0, 10), (10, 20), (20, 23))):
        rows_b = order_n[first:last]
        x_bi = np.empty((last - first, 20), dtype)
        reference.gather_batch(data.x_ni, order_n, first, last, data.scale, x_bi)
        w_b = data.weights_n[rows_b].astype(dtype)
        grads, layers = gradients(parts.params, x_bi, data.targets_n[rows_b], w_b, spec)
        loss_b, grad_logits_bk = np.empty(last - first, dtype), np.empty_like(layers[-1])
        reference.loss_and_grad(
            layers[-1], data.targets_n[rows_b], w_b, spec, loss_b, grad_logits_bk
        )
        assert losses[step] == reference.batch_loss(loss_b, w_b, parts.params, 0.01)
        reference.update(parts, grads, steps.at(step), spec)
    for one, other in zip(whole, parts):
        assert np.array_equal(flat(one), flat(other))


@pytest.mark.parametrize("cuts", [(0, 7), (0, 1, 7), (0, 3, 4, 6, 7), tuple(range(8))])
def test_cutting_an_epoch_changes_no_bit(cuts):
    spec = NetworkSpec((30, 8, 5))
    data = random_data(spec, 65)
    order_n = np.random.default_rng(2).permutation(65).astype(np.int32)
    steps = constant_steps(7, 10, l2=1e-3)
    whole, cut = fresh_state(spec), fresh_state(spec)
    expected = reference.train_steps(whole, data, order_n, steps, spec, 0, 7, 1)
    losses = [
        reference.train_steps(cut, data, order_n, steps, spec, first, last, 1)
        for first, last in pairwise(cuts)
    ]
    assert np.array_equal(np.concatenate(losses), expected)
    for one, other in zip(whole, cut):
        assert np.array_equal(flat(one), flat(other))


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_any_batch_size(batch_size):
    spec = NetworkSpec((6, 5, 3))
    data = random_data(spec, 10)
    count = -(-10 // batch_size)
    losses = reference.train_steps(
        fresh_state(spec),
        data,
        np.arange(10, dtype=np.int32),
        constant_steps(count, batch_size),
        spec,
        0,
        count,
        1,
    )
    assert losses.shape == (count,)
    assert np.isfinite(losses).all()


def test_a_network_of_zeros_learns_its_biases():
    """All weights zero: hidden units are dead, so only the last layer's biases can move."""
    spec = NetworkSpec((4, 3, 2), dtype="float64")
    zero = zeros_like(random_layers(spec))
    state = TrainState(zero, zeros_like(zero), zeros_like(zero))
    data = TrainData(np.ones((8, 4), np.uint8), 1.0, np.zeros(8, np.int32), np.ones(8))
    losses = reference.train_steps(
        state, data, np.arange(8, dtype=np.int32), constant_steps(1, 8, 0.1), spec, 0, 1, 1
    )
    np.testing.assert_allclose(losses, [np.log(2)])
    np.testing.assert_allclose(state.params.biases[1], [0.1, -0.1], rtol=1e-6)
    assert not any(w_io.any() for w_io in state.params.weights)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_learns_a_tiny_set_to_zero_error(dtype):
    spec = NetworkSpec((16, 32, 10), dtype=dtype)
    data = random_data(spec, 40)
    state = fresh_state(spec)
    for epoch in range(300):
        steps = Adam().steps(np.full(5, 5e-3), 5 * epoch, 8, 0.0)
        order_n = np.random.default_rng(epoch).permutation(40).astype(np.int32)
        losses = reference.train_steps(state, data, order_n, steps, spec, 0, 5, 1)
    out_nk = np.empty((40, 10), dtype)
    reference.predict(state.params, data.x_ni, data.scale, spec, 1, out_nk)
    assert (out_nk.argmax(axis=1) == data.targets_n).all()
    assert losses.mean() < 0.05


@pytest.mark.parametrize(
    "rows", [0, 1, reference.PREDICT_ROWS - 1, reference.PREDICT_ROWS, reference.PREDICT_ROWS + 1]
)
def test_predict_is_softmax_of_forward_for_every_row(rows):
    spec = NetworkSpec((12, 6, 4), dtype="float64")
    params, data = random_layers(spec), random_data(spec, rows)
    out_nk = np.full((rows, 4), np.nan)
    reference.predict(params, data.x_ni, data.scale, spec, 1, out_nk)
    logits = np.maximum(data.x_ni / 255 @ params.weights[0] + params.biases[0], 0)
    logits = logits @ params.weights[1] + params.biases[1]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out_nk, expected, rtol=1e-12)


def test_float32_stays_within_the_rounding_bound_of_float64():
    """|fl(x w + b) - (x w + b)| <= (i + 2) eps (|x| |w| + |b|), layer by layer (Higham, 3.1)."""
    spec32, spec64 = NetworkSpec((65, 33, 10)), NetworkSpec((65, 33, 10), dtype="float64")
    p32 = random_layers(spec32)
    p64 = Params(*(tuple(a.astype(np.float64) for a in arrays) for arrays in p32))
    x32 = np.random.default_rng(0).random((17, 65)).astype(np.float32)
    layers32 = reference.workspace(spec32, 17).activations
    reference.forward(p32, x32, spec32, layers32)
    a_bi = x32.astype(np.float64)
    for depth, (w_io, b_o) in enumerate(zip(*p64)):
        exact = a_bi @ w_io + b_o
        bound = (
            (len(w_io) + 2) * np.finfo(np.float32).eps * (np.abs(a_bi) @ np.abs(w_io) + abs(b_o))
        )
        if depth == 0:
            exact = np.maximum(exact, 0)
        assert (np.abs(layers32[depth] - exact) <= bound).all()
        a_bi = layers32[depth].astype(np.float64)  # the next layer starts from what it was given
    assert spec64.shapes == spec32.shapes
