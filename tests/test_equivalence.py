"""Every other backend computes what the reference specifies: see equivalence.py."""

from itertools import pairwise, product
from time import perf_counter

import numpy as np
import pytest
from equivalence import (
    Case,
    check_backward,
    check_forward,
    check_gather,
    check_loss_delta,
    check_predict,
    check_train_steps,
    check_update,
    epoch_of,
    flat,
    kept_units,
    soft_targets,
    training_data,
)

from fmnist_fast.kernels import PHASES
from fmnist_fast.schedule import Adam

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


@pytest.mark.parametrize("classes", [1, 2, 7, 10, 16, 17, 64, 65, 100])
@pytest.mark.parametrize("spread", [0.1, 5, 1000])
@pytest.mark.parametrize("soft", [False, True])
def test_loss_delta(backend, classes, spread, soft):
    check_loss_delta(backend, Case((3, classes), 9), spread, soft)


def test_loss_delta_of_nan_is_nan(backend):
    case = Case((3, 4), 2)
    logits_bk = np.array([[0, np.nan, 1, 2], [0, 1, 2, 3]], np.float32)
    loss_b, delta_bk = np.zeros(2, np.float32), np.zeros((2, 4), np.float32)
    backend.loss_delta(logits_bk, case.targets_b, case.weights_b, case.spec, loss_b, delta_bk)
    assert np.isnan(loss_b[0])
    assert np.isfinite(loss_b[1])
    assert np.isnan(delta_bk[0]).any()


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backward(backend, sizes, rows, dense, dropout):
    check_backward(backend, Case(sizes, rows, dense, dropout))


@pytest.mark.parametrize("sizes", SIZES)
def test_update(backend, sizes):
    check_update(backend, Case(sizes, 3))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 1000])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_train_steps_is_the_operations_one_by_one(backend, sizes, batch_size, soft, dropout):
    check_train_steps(backend, Case(sizes, 75, dropout=dropout), batch_size, soft)


@pytest.mark.parametrize("sizes", SIZES)
def test_gather(backend, sizes):
    check_gather(backend, Case(sizes, 75))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_bits_do_not_depend_on_threads_or_on_cuts(backend, dtype, dense, soft, dropout):
    case = Case((100, 129, 65, 10), 300, dense, dropout)
    data = training_data(case, dtype)
    if soft:
        data = data._replace(targets_n=soft_targets(case))
    order_n = np.random.default_rng(0).permutation(300).astype(np.int32)
    steps = Adam().steps(np.full(5, 1e-2), 0, 64, 1e-3)._replace(dropout_key=case.drop.key)
    expected = None
    for threads, cuts in (
        (1, (0, 5)),
        (2, (0, 5)),
        (3, (0, 1, 5)),
        (4, (0, 5)),
        (7, (0, 2, 3, 5)),
        (8, (0, 5)),
    ):
        state = case.state()
        losses = [
            backend.train_steps(state, data, order_n, steps, case.spec, first, last, threads)
            for first, last in pairwise(cuts)
        ]
        got = np.concatenate([flat(state).astype(np.float64), *losses])
        expected = got if expected is None else expected
        assert np.array_equal(got, expected)
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 75])
def test_skipping_zeros_or_not_gives_the_same_numbers(backend, sizes, batch_size):
    case = Case(sizes, 75)
    data, order_n, steps, count = epoch_of(case, batch_size)
    skipping, dense = case.state(), case.state()
    backend.train_steps(skipping, data, order_n, steps, case.spec, 0, count, 2)
    backend.train_steps(dense, data._replace(dense=True), order_n, steps, case.spec, 0, count, 2)
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
