"""Reference: results by hand, statistics of dropout, gradients by differences."""

import numpy as np
import pytest
from reference_cases import (
    EPS64,
    batch_loss,
    dropout_factors,
    dropout_state_of,
    flat,
    gradients,
    random_params,
)

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import DropoutState, NetworkSpec, Params


def test_gather_batch_selects_and_scales_rows():
    x_ni = np.arange(12, dtype=np.uint8).reshape(4, 3)
    out_bi = np.full((2, 3), np.nan, np.float32)
    reference.gather_batch(x_ni, np.array([3, 0, 2, 1], np.int32), 1, 3, 0.5, out_bi)
    assert out_bi.tolist() == [[0, 0.5, 1], [3, 3.5, 4]]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_gather_batch_reads_every_input_dtype(dtype):
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
    activations = (np.full((1, 2), np.nan), np.full((1, 1), np.nan))
    reference.forward(params, np.array([[1.0, 0.25]]), spec, activations)
    # z = (1 + 0.5 + 0.5, -1 + 0.25 - 0.5) = (2, -1.25); ReLU (2, 0); logit 3 * 2 + 0 - 1
    assert activations[0].tolist() == [[2.0, 0.0]]
    assert activations[1].tolist() == [[5.0]]


def dropped(rate: float, rows_b, key: int, units: int = 500) -> np.ndarray:
    spec = NetworkSpec((1, units, 1), dtype="float64", dropout=rate)
    a_bo = np.ones((len(rows_b), units))
    reference.apply_dropout(a_bo, spec, DropoutState(np.asarray(rows_b, np.int32), key), 0)
    assert set(np.unique(a_bo)) <= {0, 1 / (1 - rate)}
    return a_bo == 0


def test_dropout_rate_holds_for_every_row_and_unit():
    rate, rows, units = 0.3, 2000, 500
    out_bo = dropped(rate, np.arange(rows), 99, units)
    # Six standard deviations of a count: of 2,500 such counts one in 200,000 runs is beyond.
    for axis, draws in ((0, rows), (1, units), (None, rows * units)):
        off = np.abs(out_bo.mean(axis=axis) - rate)
        assert (off <= 6 * np.sqrt(rate * (1 - rate) / draws)).all()


def test_dropout_masks_are_independent():
    rate, rows, units = 0.5, 2000, 500
    out_bo = dropped(rate, np.arange(rows), 99, units)
    other_bo = dropped(rate, np.arange(rows), 100, units)
    far_bo = dropped(rate, np.arange(rows) + 60_000, 99, units)
    for a_bo, b_bo in (
        (out_bo[1:], out_bo[:-1]),
        (out_bo[:, 1:], out_bo[:, :-1]),
        (out_bo, other_bo),
        (out_bo, far_bo),
    ):
        agree = np.mean(a_bo == b_bo)
        assert abs(agree - 0.5) <= 6 * np.sqrt(0.25 / a_bo.size)


def test_dropout_depends_on_row_not_on_batch_position():
    rows_b = np.array([5, 700, 3, 59_999])
    out_bo = dropped(0.4, rows_b, 12)
    assert np.array_equal(dropped(0.4, rows_b[::-1], 12), out_bo[::-1])


def test_dropout_masks_differ_between_layers():
    spec = NetworkSpec((1, 40, 40, 1), dtype="float64", dropout=0.5)
    ones = Params(
        tuple(np.zeros(shape) for shape in spec.shapes), tuple(np.ones(o) for _, o in spec.shapes)
    )
    activations = tuple(np.empty((9, o)) for _, o in spec.shapes)
    reference.forward(ones, np.zeros((9, 1)), spec, activations, dropout_state_of(9))
    assert not np.array_equal(activations[0], activations[1])
    assert (activations[2] == 1).all()  # no dropout of the logits


def test_relu_keeps_nan():
    spec = NetworkSpec((1, 1, 1), dtype="float64")
    params = Params((np.ones((1, 1)), np.ones((1, 1))), (np.zeros(1), np.zeros(1)))
    activations = (np.empty((1, 1)), np.empty((1, 1)))
    reference.forward(params, np.array([[np.nan]]), spec, activations)
    assert np.isnan(activations[-1]).all()


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


def test_loss_and_grad_of_huge_logits_are_finite():
    spec = NetworkSpec((1, 2), dtype="float32")
    logits_bk = np.array([[1000, -1000], [-1000, 1000]], np.float32)
    loss_b, grad_logits_bk = np.full(2, np.nan, np.float32), np.full((2, 2), np.nan, np.float32)
    reference.loss_and_grad(
        logits_bk, np.array([0, 0], np.int32), np.ones(2, np.float32), spec, loss_b, grad_logits_bk
    )
    assert loss_b.tolist() == [0.0, 2000.0]
    assert grad_logits_bk.tolist() == [[0.0, 0.0], [-0.5, 0.5]]


def test_loss_and_grad_by_hand():
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


def test_loss_and_grad_of_soft_targets_by_hand():
    spec = NetworkSpec((1, 2), dtype="float64")
    logits_bk = np.log(np.array([[1.0, 3.0], [1.0, 1.0]]))
    loss_b, grad_logits_bk = np.empty(2), np.empty((2, 2))
    soft_bk = np.array([[0.25, 0.75], [1.0, 0.0]])
    reference.loss_and_grad(logits_bk, soft_bk, np.array([1.0, 3.0]), spec, loss_b, grad_logits_bk)
    np.testing.assert_allclose(loss_b, [np.log(4) - 0.75 * np.log(3), np.log(2)], rtol=4 * EPS64)
    np.testing.assert_allclose(
        grad_logits_bk, [[0, 0], [-0.5 * 3 / 4, 0.5 * 3 / 4]], atol=4 * EPS64
    )


def test_gradients_ignore_rows_of_weight_zero():
    spec = NetworkSpec((5, 4, 3), dtype="float64")
    params = random_params(spec)
    rng = np.random.default_rng(3)
    x_bi, y_b = rng.random((6, 5)), rng.integers(0, 3, 6).astype(np.int32)
    w_b = np.array([1.0, 0, 2, 0, 0, 0.5])
    some, _ = gradients(params, x_bi, y_b, w_b, spec)
    kept = w_b > 0
    only, _ = gradients(params, x_bi[kept], y_b[kept], w_b[kept], spec)
    np.testing.assert_allclose(flat(some), flat(only), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("sizes", [(7, 3), (6, 5, 4), (8, 7, 6, 5), (5, 9, 1, 6, 2)])
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_gradients_match_central_differences(sizes, rows, soft, dropout, activation):
    check_gradients(NetworkSpec(sizes, activation, dtype="float64", dropout=dropout), rows, soft)


@pytest.mark.parametrize("sizes", [(7, 1), (6, 5, 4), (8, 7, 6, 1)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_of_sigmoid_match_central_differences(sizes, activation, dropout):
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
        params = random_params(spec, seed=draw)
        grads, activations = gradients(params, x_bi, y_b, w_b, spec)
        # A hidden unit near the kink of ReLU has no derivative to compare with.
        reach = 100 * step * (1 + max(np.abs(a).max() for a in (x_bi, *activations)))
        pre = pre_activations(params, x_bi, spec)
        if spec.activation == "relu" and any(np.abs(z).min() < reach for z in pre):
            continue
        direction = random_params(spec, seed=1000 + draw)
        up, down = (
            Params(
                *(
                    tuple(p + sign * step * d for p, d in zip(ps, ds))
                    for ps, ds in zip(params, direction)
                )
            )
            for sign in (1, -1)
        )
        difference = (
            batch_loss(up, x_bi, y_b, w_b, spec, 0.0) - batch_loss(down, x_bi, y_b, w_b, spec, 0.0)
        ) / (2 * step)
        expected = flat(grads) @ flat(direction)
        # Truncation is step^2 times a third derivative of order |d|^3; rounding is eps / step.
        size = np.abs(flat(direction)).sum()
        assert abs(difference - expected) <= step**2 * size**3 + 100 * EPS64 / step
        assert expected != 0
        return
    pytest.fail("every draw was near a kink")


def pre_activations(params: Params, x_bi, spec: NetworkSpec) -> list:
    """Return z of every hidden layer."""
    out, a_bi = [], x_bi
    for w_io, b_o, kept_bo in zip(
        *params, dropout_factors(spec, len(x_bi))
    ):  # the last layer has no ReLU
        out.append(a_bi @ w_io + b_o)
        a_bi = np.maximum(out[-1], 0) * kept_bo
    return out


def test_backward_zero_output_is_not_a_dropped_output():
    """tanh(0) = 0, where its derivative is 1: only a dropped output stops the gradient."""
    spec = NetworkSpec((1, 50, 1), "tanh", "sigmoid", dtype="float64", dropout=0.5)
    params = random_params(spec)._replace(biases=(np.zeros(50), np.zeros(1)))
    y_b = np.ones((1, 1))
    grads, _ = gradients(params, np.zeros((1, 1)), y_b, np.ones(1), spec)
    (kept_o,) = dropout_factors(spec, 1)[0]
    np.testing.assert_allclose(grads.biases[0], -0.5 * params.weights[1][:, 0] * kept_o)
    assert 0 < (kept_o > 0).sum() < 50


def test_sigmoid_of_huge_logits():
    out_bk = np.full((1, 4), np.nan)
    log_bk = reference.sigmoid(np.array([[-1000.0, -40.0, 0.0, 1000.0]]), out_bk)
    np.testing.assert_allclose(out_bk, [[0, np.exp(-40), 0.5, 1]], rtol=4 * EPS64)
    np.testing.assert_allclose(log_bk, [[0, np.exp(-40), np.log(2), 1000]], rtol=4 * EPS64)


def test_loss_and_grad_of_sigmoid_by_hand():
    spec = NetworkSpec((1, 2), loss="sigmoid", dtype="float64")
    logits_bk = np.log(np.array([[1.0, 3.0]]))  # sigmoid 1/2 and 3/4
    loss_b, grad_logits_bk = np.empty(1), np.empty((1, 2))
    reference.loss_and_grad(
        logits_bk, np.array([[1.0, 0.0]]), np.ones(1), spec, loss_b, grad_logits_bk
    )
    np.testing.assert_allclose(loss_b, [np.log(2) + np.log(4)], rtol=4 * EPS64)
    np.testing.assert_allclose(grad_logits_bk, [[-0.5, 0.75]], rtol=4 * EPS64)


def test_forward_float32_within_rounding_bound():
    """|fl(x w + b) - (x w + b)| <= (i + 2) eps (|x| |w| + |b|), layer by layer (Higham, 3.1)."""
    spec32, spec64 = NetworkSpec((65, 33, 10)), NetworkSpec((65, 33, 10), dtype="float64")
    p32 = random_params(spec32)
    p64 = Params(*(tuple(a.astype(np.float64) for a in arrays) for arrays in p32))
    x32 = np.random.default_rng(0).random((17, 65)).astype(np.float32)
    activations32 = reference.workspace(spec32, 17).activations
    reference.forward(p32, x32, spec32, activations32)
    a_bi = x32.astype(np.float64)
    for depth, (w_io, b_o) in enumerate(zip(*p64)):
        exact = a_bi @ w_io + b_o
        bound = (
            (len(w_io) + 2) * np.finfo(np.float32).eps * (np.abs(a_bi) @ np.abs(w_io) + abs(b_o))
        )
        if depth == 0:
            exact = np.maximum(exact, 0)
        assert (np.abs(activations32[depth] - exact) <= bound).all()
        a_bi = activations32[depth].astype(
            np.float64
        )  # the next layer starts from what it was given
    assert spec64.shapes == spec32.shapes
