"""Every other backend computes what the reference specifies: see equivalence.py."""

from dataclasses import replace
from itertools import product
from time import perf_counter

import numpy as np
import pytest
from equivalence import (
    Case,
    check_activation,
    check_backward,
    check_bits,
    check_epochs_at_once,
    check_forward,
    check_gather,
    check_loss_delta,
    check_predict,
    check_train_steps,
    check_update,
    epoch_of,
    flat,
    kept_units,
    training_data,
)

from fmnist_fast.kernels.interface import PHASES, StepSchedule
from fmnist_fast.nn.optimizers import Adam

SIZES = [
    (1, 1),
    (7, 10),
    (63, 65, 7),
    (64, 64, 10),
    (65, 129, 63, 10),
    (100, 16, 1, 5),
    (30, 70, 100),
]
ROWS = [1, 2, 63, 64, 65, 200]
SIZES_AND_ROWS = [*product(SIZES, ROWS), ((65, 129, 10), 4096)]

# Everything but ReLU, softmax, Adam and float32, which the tests without choices have.
DTYPES = ["float32", "float64"]
ACTIVATIONS = [
    (activation, dtype)
    for dtype, activation in product(DTYPES, ("relu", "tanh", "logistic", "identity"))
    if (activation, dtype) != ("relu", "float32")
]
OTHER_SIZES_AND_ROWS = [((63, 65, 7), 65), ((65, 129, 63, 10), 64), ((100, 16, 1, 5), 200)]
MIXED = [
    {"activation": "tanh"},
    {"activation": "logistic", "optimizer": "sgd"},
    {"activation": "identity", "loss": "sigmoid", "optimizer": "nesterov"},
    {"loss": "sigmoid"},
    {"optimizer": "sgd"},
    {"optimizer": "nesterov"},
    {"dtype": "float64"},
    {"activation": "tanh", "loss": "sigmoid", "dtype": "float64"},
    {"activation": "logistic", "optimizer": "nesterov", "dtype": "float64"},
    {"activation": "identity", "optimizer": "sgd", "dtype": "float64"},
]


def case_of(backend, sizes, rows, dense=False, dropout=0.0, **choices):
    """A case of a spec that the backend has to have."""
    for option, value in choices.items():
        assert value in backend.SUPPORTS[option]
    return Case(sizes, rows, dense, dropout, **choices)


def name_of(choices):
    return "-".join(choices.values())


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
def test_forward(backend, sizes, rows, dense):
    check_forward(backend, Case(sizes, rows, dense))


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_forward_with_dropout(backend, sizes, rows, dropout):
    check_forward(backend, Case(sizes, rows, dropout=dropout), drop=True)
    check_forward(backend, Case(sizes, rows, dropout=dropout))  # prediction leaves nothing out


@pytest.mark.parametrize("dropout", [1e-12, 0.999, 1 - 1e-12])
def test_extreme_shares_of_dropout(backend, dropout):
    check_forward(backend, Case((65, 129, 63, 10), 64, dropout=dropout), drop=True)


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_key_of_dropout(backend, key):
    case = Case((65, 129, 63, 10), 64, dropout=0.3)
    case.drop = case.drop._replace(key=key)
    check_forward(backend, case, drop=True)


def test_dropout_of_nan_is_nan_where_it_is_kept(backend):
    case = Case((7, 129, 10), 64, dropout=0.5)
    x_bi, layers = np.full_like(case.x_bi, np.nan), case.layers()
    backend.forward(case.params, x_bi, case.spec, layers, case.drop)
    assert np.array_equal(np.isnan(layers[0]), kept_units(case)[0])


def test_dropout_of_the_next_unit_or_row_is_caught(backend):
    class Wrong:
        @staticmethod
        def forward(params, x_bi, spec, out_layers, drop):
            backend.forward(params, x_bi, spec, out_layers, drop._replace(rows_b=drop.rows_b + 1))

    with pytest.raises(AssertionError):
        check_forward(Wrong, Case((65, 129, 63, 10), 64, dropout=0.1), drop=True)


def test_a_wrong_kernel_is_caught(backend):
    """The bound is tight enough to see one product of the smallest layer left out."""

    class Wrong:
        @staticmethod
        def forward(params, x_bi, spec, out_layers):
            backend.forward(params, x_bi, spec, out_layers)
            s, k = np.argwhere(x_bi * (out_layers[0][:, :1] > 0))[0]
            out_layers[0][s, 0] -= x_bi[s, k] * params.weights[0][k, 0]

    case = Case((65, 129, 63, 10), 64)
    check_forward(backend, case)
    with pytest.raises(AssertionError):
        check_forward(Wrong, case)


@pytest.mark.parametrize(("sizes", "rows"), OTHER_SIZES_AND_ROWS)
@pytest.mark.parametrize(("activation", "dtype"), ACTIVATIONS)
def test_forward_of_other_specs(backend, sizes, rows, activation, dtype):
    choices = {"activation": activation, "dtype": dtype}
    check_forward(backend, case_of(backend, sizes, rows, **choices))
    check_forward(backend, case_of(backend, sizes, rows, dense=True, **choices))
    dropping = case_of(backend, sizes, rows, dropout=0.4, **choices)
    check_forward(backend, dropping)
    check_forward(backend, dropping, drop=True)


@pytest.mark.parametrize(("activation", "dtype"), [("relu", "float32"), *ACTIVATIONS])
def test_an_activation_is_right_to_the_last_digits_everywhere(backend, activation, dtype):
    """From the smallest normal numbers to where tanh is 1 and e^z is infinite; and NaN."""
    size = np.concatenate([np.logspace(-37, 3.5, 3000), np.linspace(0, 100, 3000), [np.inf]])
    z_b = np.concatenate([size, -size, [np.nan]])
    case = case_of(backend, (1, 17, 2), len(z_b), activation=activation, dtype=dtype)
    check_activation(backend, case, z_b)


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_activation_that_is_a_little_off_is_caught(backend, activation, dtype):
    class Wrong:
        @staticmethod
        def forward(params, x_bi, spec, out_layers):
            backend.forward(params, x_bi, spec, out_layers)
            out_layers[0][:] *= 1 + 20 * np.finfo(dtype).eps

    case = case_of(backend, (1, 17, 2), 3, activation=activation, dtype=dtype)
    with pytest.raises(AssertionError):
        check_activation(Wrong, case, np.array([1e-9, 0.3, -3]))


@pytest.mark.parametrize("classes", [1, 2, 7, 10, 16, 17, 64, 65, 100])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_delta(backend, classes, spread, soft):
    check_loss_delta(backend, Case((3, classes), 9), spread, soft)


@pytest.mark.parametrize("classes", [1, 10, 65])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_delta_of_other_specs(backend, classes, spread, dtype):
    check_loss_delta(
        backend, case_of(backend, (3, classes), 9, loss="sigmoid", dtype=dtype), spread
    )
    for soft in (False, True):
        check_loss_delta(backend, case_of(backend, (3, classes), 9, dtype=dtype), spread, soft)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_loss_of_nan_is_nan_in_its_answer(backend, dtype):
    case = case_of(backend, (3, 4), 2, loss="sigmoid", dtype=dtype)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], dtype)
    loss_b, grad_logits_bk = np.zeros(2, dtype), np.zeros((2, 4), dtype)
    backend.loss_and_grad(
        logits_bk, case.targets(), case.weights_b, case.spec, loss_b, grad_logits_bk
    )
    assert np.array_equal(np.isnan(loss_b), [True, False])
    assert np.array_equal(np.isnan(grad_logits_bk), np.isnan(logits_bk))


@pytest.mark.parametrize(("loss", "classes"), [("softmax", 70), ("sigmoid", 1), ("sigmoid", 70)])
def test_no_answer_costs_more_than_the_most_and_the_gradient_does_not_know(backend, loss, classes):
    case = Case((3, classes), 9, loss=loss)
    logits_bk = (np.random.default_rng(1).normal(size=(9, classes)) * 50).astype(np.float32)
    logits_bk[0] = np.nan
    targets = np.eye(classes, dtype=np.float32)[case.targets_b]
    targets = targets if loss == "sigmoid" else case.targets_b
    results = []
    for most in (np.inf, 3.0):
        loss_b, grad_logits_bk = np.full(9, np.nan, np.float32), np.full_like(logits_bk, np.nan)
        spec = replace(case.spec, max_loss=most)
        backend.loss_and_grad(logits_bk, targets, case.weights_b, spec, loss_b, grad_logits_bk)
        results.append((loss_b, grad_logits_bk))
    (whole_b, grad_logits_bk), (capped_b, same_bk) = results
    assert np.array_equal(grad_logits_bk, same_bk, equal_nan=True)
    assert np.isnan(capped_b[0])
    assert (whole_b[1:] > 3).any()
    if classes == 1 or loss == "softmax":
        assert np.array_equal(capped_b[1:], np.minimum(whole_b, np.float32(3))[1:])
    else:
        z_bk = logits_bk[1:].astype(np.float64)
        each_bk = np.minimum(np.logaddexp(0, z_bk) - targets[1:] * z_bk, 3)
        # Each is off by a few eps of itself, and so is their sum of `classes` terms.
        bound_b = (classes + 8) * np.finfo(np.float32).eps * each_bk.sum(axis=1) + 1e-6
        assert (np.abs(capped_b[1:] - each_bk.sum(axis=1)) <= bound_b).all()


def test_loss_delta_of_nan_is_nan(backend):
    case = Case((3, 4), 2)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], np.float32)
    loss_b, grad_logits_bk = np.zeros(2, np.float32), np.zeros((2, 4), np.float32)
    backend.loss_and_grad(
        logits_bk, case.targets_b, case.weights_b, case.spec, loss_b, grad_logits_bk
    )
    assert np.isnan(loss_b[0])
    assert np.isfinite(loss_b[1])
    assert np.isnan(grad_logits_bk[0]).any()


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backward(backend, sizes, rows, dense, dropout):
    check_backward(backend, Case(sizes, rows, dense, dropout))


@pytest.mark.parametrize(("sizes", "rows"), OTHER_SIZES_AND_ROWS)
@pytest.mark.parametrize(("activation", "dtype"), ACTIVATIONS)
def test_backward_of_other_specs(backend, sizes, rows, activation, dtype):
    choices = {"activation": activation, "dtype": dtype}
    for dropout in (0.0, 0.3):
        check_backward(backend, case_of(backend, sizes, rows, dropout=dropout, **choices))


@pytest.mark.parametrize("sizes", SIZES)
def test_update(backend, sizes):
    check_update(backend, Case(sizes, 3))


@pytest.mark.parametrize("sizes", [(1, 1), (65, 129, 63, 10)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_update_by_other_rules(backend, sizes, optimizer, dtype):
    check_update(backend, case_of(backend, sizes, 3, optimizer=optimizer, dtype=dtype))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 1000])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_train_steps_is_the_operations_one_by_one(backend, sizes, batch_size, soft, dropout):
    check_train_steps(backend, Case(sizes, 75, dropout=dropout), batch_size, soft)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "dropout"),
    [
        ((7, 10), 10, 0.0),
        ((63, 65, 7), 75, 0.0),
        ((200, 129, 63, 10), 75, 0.0),
        ((200, 129, 63, 10), 64, 0.4),
    ],
)
@pytest.mark.parametrize("choices", MIXED, ids=name_of)
def test_train_steps_of_other_specs_is_the_operations(backend, sizes, batch_size, dropout, choices):
    case = case_of(backend, sizes, 75, dropout=dropout, **choices)
    dtype = np.uint8 if batch_size == 10 else case.dtype
    check_train_steps(backend, case, batch_size, soft=batch_size == 75, dtype=dtype)


@pytest.mark.parametrize("choices", MIXED, ids=name_of)
def test_plain_steps_leave_alone_what_they_do_not_use(backend, choices):
    case = case_of(backend, (65, 129, 10), 75, **choices)
    data, order_n, steps, count = epoch_of(case, 32)
    state = case.state()
    backend.train_steps(state, data, order_n, steps, case.spec, 0, count, 2)
    for got, before in zip((state.v, state.m), (case.state().v, case.state().m)):
        same = np.array_equal(flat([got]), flat([before]))
        assert same == (got is state.v and case.spec.optimizer != "adam")


@pytest.mark.parametrize("sizes", SIZES)
def test_gather(backend, sizes):
    check_gather(backend, Case(sizes, 75))


@pytest.mark.parametrize("sizes", [(7, 3), (129, 3)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
def test_gather_rounds_once(backend, sizes, dtype, rows_dtype):
    check_gather(backend, case_of(backend, sizes, 75, dtype=dtype), rows_dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_bits_do_not_depend_on_threads_or_on_cuts(backend, dtype, dense, soft, dropout):
    case = Case((100, 129, 65, 10), 300, dense, dropout)
    steps = Adam().steps(np.full(5, 1e-2), 0, 64, 1e-3)
    check_threads_and_cuts(backend, case, training_data(case, dtype, soft), steps)


@pytest.mark.parametrize("choices", MIXED, ids=name_of)
@pytest.mark.parametrize(("batch_size", "dropout"), [(64, 0.4), (200, 0.0)])
def test_bits_of_other_specs_do_not_depend_on_threads_or_on_cuts(
    backend, choices, batch_size, dropout
):
    case = case_of(backend, (100, 129, 65, 10), 5 * batch_size - 20, dropout=dropout, **choices)
    data, _, steps, _ = epoch_of(case, batch_size)
    check_threads_and_cuts(backend, case, data, steps)


def check_threads_and_cuts(backend, case, data, steps: StepSchedule):
    """Five steps."""
    order_n = np.random.default_rng(0).permutation(case.rows).astype(np.int32)
    steps = steps._replace(dropout_key=case.drop.key)
    check_bits(
        backend,
        case,
        data,
        order_n,
        steps,
        (1, (0, 5)),
        (2, (0, 5)),
        (3, (0, 1, 5)),
        (4, (0, 5)),
        (7, (0, 2, 3, 5)),
        (8, (0, 5)),
    )


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 75])
def test_skipping_zeros_or_not_gives_the_same_numbers(backend, sizes, batch_size):
    case = Case(sizes, 75)
    data, order_n, steps, count = epoch_of(case, batch_size)
    skipping, dense = case.state(), case.state()
    backend.train_steps(skipping, data, order_n, steps, case.spec, 0, count, 2)
    backend.train_steps(
        dense, data._replace(skip_zeros=False), order_n, steps, case.spec, 0, count, 2
    )
    assert np.array_equal(flat(skipping), flat(dense))  # x + 0 * w is x: not even rounding differs


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_predict_is_the_same_for_every_row_whatever_is_beside_it(backend, sizes, dtype):
    case = Case(sizes, 200)
    data = training_data(case, dtype)
    results = []
    for threads in (1, 3, 8):
        out_nk = np.full((200, sizes[-1]), np.nan, np.float32)
        backend.predict(case.params, data.x_ni, data.scale, case.spec, threads, out_nk)
        results.append(out_nk)
    one_by_one = np.full_like(results[0], np.nan)
    for n in range(200):
        backend.predict(
            case.params, data.x_ni[n : n + 1], data.scale, case.spec, 1, one_by_one[n : n + 1]
        )
    for result in (*results[1:], one_by_one):
        assert np.array_equal(result, results[0])
    check_predict(backend, case, data, results[0])


@pytest.mark.parametrize(
    ("sizes", "rows_dtype"), [((63, 65, 1), np.uint8), ((200, 129, 63, 10), np.float64)]
)
@pytest.mark.parametrize("choices", MIXED, ids=name_of)
def test_predict_of_other_specs(backend, sizes, rows_dtype, choices):
    case = case_of(backend, sizes, 200, **choices)
    data = training_data(case, rows_dtype)
    results = [np.full((200, sizes[-1]), np.nan, case.dtype) for _ in range(3)]
    for threads, out_nk in zip((1, 2), results):
        backend.predict(case.params, data.x_ni, data.scale, case.spec, threads, out_nk)
    for first, last in ((0, 3), (3, 150), (150, 200)):
        rows = data.x_ni[first:last]
        backend.predict(case.params, rows, data.scale, case.spec, 1, results[2][first:last])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    check_predict(backend, case, data, results[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rows_need_not_be_aligned(backend, dtype):
    case = Case((65, 129, 10), 75)
    data = training_data(case, dtype)
    memory = bytearray(data.x_ni.nbytes + 1)
    x_ni = np.frombuffer(memory, dtype, offset=1).reshape(data.x_ni.shape)
    x_ni[:] = data.x_ni
    steps = Adam().steps(np.full(2, 1e-2), 0, 64, 1e-2)
    order_n = np.arange(75, dtype=np.int32)
    states, outputs = [], []
    for rows in (data.x_ni, x_ni):
        states.append(case.state())
        backend.train_steps(
            states[-1], data._replace(x_ni=rows), order_n, steps, case.spec, 0, 2, 2
        )
        outputs.append(np.full((75, 10), np.nan, np.float32))
        backend.predict(case.params, rows, data.scale, case.spec, 2, outputs[-1])
    assert np.array_equal(flat(states[0]), flat(states[1]))
    assert np.array_equal(*outputs)


@pytest.mark.parametrize("choices", [{}, *MIXED], ids=name_of)
@pytest.mark.parametrize(("batch_size", "dropout"), [(1000, 0.0), (32, 0.4), (70, 0.0)])
def test_epochs_of_one_call_are_those_of_several(backend, batch_size, dropout, choices):
    check_epochs_at_once(
        backend, case_of(backend, (65, 20, 10), 75, dropout=dropout, **choices), batch_size
    )


def test_nothing_to_do(backend):
    case = Case((7, 3), 5)
    state = case.state()
    before = flat(state)
    steps = Adam().steps(np.full(1, 1e-2), 0, 5, 0.0)
    order_n = np.arange(5, dtype=np.int32)
    assert (
        len(backend.train_steps(state, training_data(case), order_n, steps, case.spec, 0, 0, 2))
        == 0
    )
    assert np.array_equal(flat(state), before)
    backend.predict(
        case.params, np.empty((0, 7), np.uint8), 1.0, case.spec, 2, np.empty((0, 3), np.float32)
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_phases_are_timed_where_somebody_asks_and_change_no_bit(backend, threads):
    case = Case((784, 128, 64, 10), 640)
    data, order_n, steps, count = epoch_of(case, 64)
    plain, timed = case.state(), case.state()
    backend.train_steps(plain, data, order_n, steps, case.spec, 0, count, threads)
    seconds_tp = np.zeros((threads, len(PHASES)))
    start = perf_counter()
    for first, last in ((0, 4), (4, count)):  # it is added to
        arguments = (timed, data, order_n, steps, case.spec, first, last, threads)
        backend.train_steps(*arguments, seconds_tp)
    wall = perf_counter() - start
    assert np.array_equal(flat(plain), flat(timed))
    assert (seconds_tp[:, :4] > 0).all()
    assert (seconds_tp.sum(axis=1) <= wall).all()
    assert seconds_tp.sum(axis=1).max() > 0.1 * wall  # the rest is copying into panels
