"""Operations on one batch: every backend computes what the reference specifies.

`equivalence.py` has the bounds.
"""

from dataclasses import replace

import numpy as np
import pytest
from equivalence import (
    check_activation,
    check_backward,
    check_forward,
    check_gather_batch,
    check_loss_and_grad,
    check_update,
    dropout_masks,
)
from kernel_cases import (
    ACTIVATIONS,
    DTYPES,
    FEW_SIZES_AND_ROWS,
    SIZES,
    SIZES_AND_ROWS,
    Case,
    supported_case,
)


@pytest.mark.parametrize("sizes", SIZES)
def test_gather_batch(backend, sizes):
    check_gather_batch(backend, Case(sizes, 75))


@pytest.mark.parametrize("sizes", [(7, 3), (129, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
def test_gather_batch_rounds_once(backend, sizes, dtype, rows_dtype):
    check_gather_batch(backend, supported_case(backend, sizes, 75, dtype=dtype), rows_dtype)


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
def test_forward(backend, sizes, rows, dense):
    check_forward(backend, Case(sizes, rows, dense))


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_forward_with_dropout(backend, sizes, rows, dropout):
    check_forward(backend, Case(sizes, rows, dropout=dropout), dropout=True)
    check_forward(backend, Case(sizes, rows, dropout=dropout))  # prediction: no dropout


@pytest.mark.parametrize("dropout", [1e-12, 0.999, 1 - 1e-12])
def test_forward_with_extreme_dropout_rates(backend, dropout):
    check_forward(backend, Case((65, 129, 63, 10), 64, dropout=dropout), dropout=True)


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_forward_with_extreme_dropout_keys(backend, key):
    case = Case((65, 129, 63, 10), 64, dropout=0.3)
    case.dropout_state = case.dropout_state._replace(key=key)
    check_forward(backend, case, dropout=True)


def test_forward_dropout_keeps_nan(backend):
    case = Case((7, 129, 10), 64, dropout=0.5)
    x_bi, activations = np.full_like(case.x_bi, np.nan), case.activations()
    backend.forward(case.params, x_bi, case.spec, activations, case.dropout_state)
    assert np.array_equal(np.isnan(activations[0]), dropout_masks(case)[0])


def test_check_forward_catches_wrong_dropout_mask(backend):
    class OtherRows:
        @staticmethod
        def forward(params, x_bi, spec, out_activations, dropout_state):
            other = dropout_state._replace(rows_b=dropout_state.rows_b + 1)
            backend.forward(params, x_bi, spec, out_activations, other)

    with pytest.raises(AssertionError):
        check_forward(OtherRows, Case((65, 129, 63, 10), 64, dropout=0.1), dropout=True)


def test_check_forward_catches_one_missing_product(backend):
    class MissingProduct:
        @staticmethod
        def forward(params, x_bi, spec, out_activations):
            backend.forward(params, x_bi, spec, out_activations)
            s, k = np.argwhere(x_bi * (out_activations[0][:, :1] > 0))[0]
            out_activations[0][s, 0] -= x_bi[s, k] * params.weights[0][k, 0]

    case = Case((65, 129, 63, 10), 64)
    check_forward(backend, case)
    with pytest.raises(AssertionError):
        check_forward(MissingProduct, case)


@pytest.mark.parametrize(("sizes", "rows"), FEW_SIZES_AND_ROWS)
@pytest.mark.parametrize(("activation", "dtype"), ACTIVATIONS)
def test_forward_of_activation(backend, sizes, rows, activation, dtype):
    options = {"activation": activation, "dtype": dtype}
    check_forward(backend, supported_case(backend, sizes, rows, **options))
    check_forward(backend, supported_case(backend, sizes, rows, dense=True, **options))
    with_dropout = supported_case(backend, sizes, rows, dropout=0.4, **options)
    check_forward(backend, with_dropout)
    check_forward(backend, with_dropout, dropout=True)


@pytest.mark.parametrize(("activation", "dtype"), [("relu", "float32"), *ACTIVATIONS])
def test_forward_activation_is_accurate_over_full_range(backend, activation, dtype):
    """From the smallest normal numbers to where tanh is 1 and e^z is infinite; and NaN."""
    size = np.concatenate([np.logspace(-37, 3.5, 3000), np.linspace(0, 100, 3000), [np.inf]])
    z_b = np.concatenate([size, -size, [np.nan]])
    case = supported_case(backend, (1, 17, 2), len(z_b), activation=activation, dtype=dtype)
    check_activation(backend, case, z_b)


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_check_activation_catches_small_error(backend, activation, dtype):
    class SlightlyOff:
        @staticmethod
        def forward(params, x_bi, spec, out_activations):
            backend.forward(params, x_bi, spec, out_activations)
            out_activations[0][:] *= 1 + 20 * np.finfo(dtype).eps

    case = supported_case(backend, (1, 17, 2), 3, activation=activation, dtype=dtype)
    with pytest.raises(AssertionError):
        check_activation(SlightlyOff, case, np.array([1e-9, 0.3, -3]))


@pytest.mark.parametrize("classes", [1, 2, 7, 10, 16, 17, 64, 65, 100])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_and_grad(backend, classes, spread, soft):
    check_loss_and_grad(backend, Case((3, classes), 9), spread, soft)


@pytest.mark.parametrize("classes", [1, 10, 65])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_grad_of_options(backend, classes, spread, dtype):
    sigmoid = supported_case(backend, (3, classes), 9, loss="sigmoid", dtype=dtype)
    check_loss_and_grad(backend, sigmoid, spread)
    for soft in (False, True):
        case = supported_case(backend, (3, classes), 9, dtype=dtype)
        check_loss_and_grad(backend, case, spread, soft)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_grad_sigmoid_keeps_nan_in_its_class(backend, dtype):
    case = supported_case(backend, (3, 4), 2, loss="sigmoid", dtype=dtype)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], dtype)
    loss_b, grad_logits_bk = np.zeros(2, dtype), np.zeros((2, 4), dtype)
    backend.loss_and_grad(
        logits_bk, case.targets(), case.weights_b, case.spec, loss_b, grad_logits_bk
    )
    assert np.array_equal(np.isnan(loss_b), [True, False])
    assert np.array_equal(np.isnan(grad_logits_bk), np.isnan(logits_bk))


def test_loss_and_grad_softmax_keeps_nan_in_its_row(backend):
    case = Case((3, 4), 2)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], np.float32)
    loss_b, grad_logits_bk = np.zeros(2, np.float32), np.zeros((2, 4), np.float32)
    backend.loss_and_grad(
        logits_bk, case.labels_b, case.weights_b, case.spec, loss_b, grad_logits_bk
    )
    assert np.isnan(loss_b[0])
    assert np.isfinite(loss_b[1])
    assert np.isnan(grad_logits_bk[0]).any()


@pytest.mark.parametrize(("loss", "classes"), [("softmax", 70), ("sigmoid", 1), ("sigmoid", 70)])
def test_max_loss_clips_loss_not_gradient(backend, loss, classes):
    case = Case((3, classes), 9, loss=loss)
    logits_bk = (np.random.default_rng(1).normal(size=(9, classes)) * 50).astype(np.float32)
    logits_bk[0] = np.nan
    targets = np.eye(classes, dtype=np.float32)[case.labels_b]
    targets = targets if loss == "sigmoid" else case.labels_b
    results = []
    for max_loss in (np.inf, 3.0):
        loss_b, grad_logits_bk = np.full(9, np.nan, np.float32), np.full_like(logits_bk, np.nan)
        spec = replace(case.spec, max_loss=max_loss)
        backend.loss_and_grad(logits_bk, targets, case.weights_b, spec, loss_b, grad_logits_bk)
        results.append((loss_b, grad_logits_bk))
    (loss_b, grad_logits_bk), (clipped_b, same_bk) = results
    assert np.array_equal(grad_logits_bk, same_bk, equal_nan=True)
    assert np.isnan(clipped_b[0])
    assert (loss_b[1:] > 3).any()
    if classes == 1 or loss == "softmax":
        assert np.array_equal(clipped_b[1:], np.minimum(loss_b, np.float32(3))[1:])
    else:
        z_bk = logits_bk[1:].astype(np.float64)
        terms_bk = np.minimum(np.logaddexp(0, z_bk) - targets[1:] * z_bk, 3)
        # Each term has an error of a few eps of itself, and so has their sum.
        bound_b = (classes + 8) * np.finfo(np.float32).eps * terms_bk.sum(axis=1) + 1e-6
        assert (np.abs(clipped_b[1:] - terms_bk.sum(axis=1)) <= bound_b).all()


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backward(backend, sizes, rows, dense, dropout):
    check_backward(backend, Case(sizes, rows, dense, dropout))


@pytest.mark.parametrize(("sizes", "rows"), FEW_SIZES_AND_ROWS)
@pytest.mark.parametrize(("activation", "dtype"), ACTIVATIONS)
def test_backward_of_activation(backend, sizes, rows, activation, dtype):
    options = {"activation": activation, "dtype": dtype}
    for dropout in (0.0, 0.3):
        check_backward(backend, supported_case(backend, sizes, rows, dropout=dropout, **options))


@pytest.mark.parametrize("sizes", SIZES)
def test_update(backend, sizes):
    check_update(backend, Case(sizes, 3))


@pytest.mark.parametrize("sizes", [(1, 1), (65, 129, 63, 10)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_update_of_optimizer(backend, sizes, optimizer, dtype):
    check_update(backend, supported_case(backend, sizes, 3, optimizer=optimizer, dtype=dtype))
