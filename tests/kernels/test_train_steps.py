"""`train_steps` of every backend: the bits of the single operations, for any threads and cuts."""

from time import perf_counter

import numpy as np
import pytest
from equivalence import check_bits, check_epochs_in_one_call, check_train_steps
from kernel_cases import (
    MIXED_OPTIONS,
    SIZES,
    Case,
    flat,
    one_epoch,
    options_id,
    supported_case,
    training_data,
)

from fmnist_fast.kernels.interface import PHASES
from fmnist_fast.nn.optimizers import Adam

# Threads, and where five steps are cut into ranges.
RUNS = [
    (1, (0, 5)),
    (2, (0, 5)),
    (3, (0, 1, 5)),
    (4, (0, 5)),
    (7, (0, 2, 3, 5)),
    (8, (0, 5)),
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 1000])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_train_steps_equals_single_operations(backend, sizes, batch_size, soft, dropout):
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
@pytest.mark.parametrize("options", MIXED_OPTIONS, ids=options_id)
def test_train_steps_of_options_equals_single_operations(
    backend, sizes, batch_size, dropout, options
):
    case = supported_case(backend, sizes, 75, dropout=dropout, **options)
    dtype = np.uint8 if batch_size == 10 else case.dtype
    check_train_steps(backend, case, batch_size, soft=batch_size == 75, dtype=dtype)


@pytest.mark.parametrize("options", MIXED_OPTIONS, ids=options_id)
def test_train_steps_leaves_unused_moments_alone(backend, options):
    case = supported_case(backend, (65, 129, 10), 75, **options)
    data, order_n, schedule, count = one_epoch(case, 32)
    state = case.state()
    backend.train_steps(state, data, order_n, schedule, case.spec, 0, count, 2)
    for got, before in zip((state.v, state.m), (case.state().v, case.state().m)):
        same = np.array_equal(flat([got]), flat([before]))
        assert same == (got is state.v and case.spec.optimizer != "adam")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("soft", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.4)])
def test_train_steps_bits_independent_of_threads_and_cuts(backend, dtype, dense, soft, dropout):
    case = Case((100, 129, 65, 10), 300, dense, dropout)
    _, order_n, _, _ = one_epoch(case, 64)
    schedule = Adam().steps(np.full(5, 1e-2), 0, 64, 1e-3)
    schedule = schedule._replace(dropout_key=case.dropout_state.key)
    check_bits(backend, case, training_data(case, dtype, soft), order_n, schedule, RUNS)


@pytest.mark.parametrize("options", MIXED_OPTIONS, ids=options_id)
@pytest.mark.parametrize(("batch_size", "dropout"), [(64, 0.4), (200, 0.0)])
def test_train_steps_bits_of_options_independent_of_threads(backend, options, batch_size, dropout):
    rows = 5 * batch_size - 20
    case = supported_case(backend, (100, 129, 65, 10), rows, dropout=dropout, **options)
    data, order_n, schedule, _ = one_epoch(case, batch_size)
    check_bits(backend, case, data, order_n, schedule, RUNS)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 10, 64, 75])
def test_train_steps_skip_zeros_changes_no_bit(backend, sizes, batch_size):
    """x + 0 * w is x: not even rounding differs."""
    case = Case(sizes, 75)
    data, order_n, schedule, count = one_epoch(case, batch_size)
    skipping, dense = case.state(), case.state()
    backend.train_steps(skipping, data, order_n, schedule, case.spec, 0, count, 2)
    data = data._replace(skip_zeros=False)
    backend.train_steps(dense, data, order_n, schedule, case.spec, 0, count, 2)
    assert np.array_equal(flat(skipping), flat(dense))


@pytest.mark.parametrize("options", [{}, *MIXED_OPTIONS], ids=options_id)
@pytest.mark.parametrize(("batch_size", "dropout"), [(1000, 0.0), (32, 0.4), (70, 0.0)])
def test_train_steps_epochs_in_one_call(backend, batch_size, dropout, options):
    case = supported_case(backend, (65, 20, 10), 75, dropout=dropout, **options)
    check_epochs_in_one_call(backend, case, batch_size)


def test_train_steps_of_empty_range(backend):
    case = Case((7, 3), 5)
    data, order_n, schedule, _ = one_epoch(case, 5)
    state = case.state()
    losses_t = backend.train_steps(state, data, order_n, schedule, case.spec, 0, 0, 2)
    assert len(losses_t) == 0
    assert np.array_equal(flat(state), flat(case.state()))


@pytest.mark.parametrize("threads", [1, 3])
def test_train_steps_times_phases_and_changes_no_bit(backend, threads):
    case = Case((784, 128, 64, 10), 640)
    data, order_n, schedule, count = one_epoch(case, 64)
    plain, timed = case.state(), case.state()
    backend.train_steps(plain, data, order_n, schedule, case.spec, 0, count, threads)
    seconds_tp = np.zeros((threads, len(PHASES)))
    start = perf_counter()
    for first, last in ((0, 4), (4, count)):  # seconds are added up over calls
        backend.train_steps(
            timed, data, order_n, schedule, case.spec, first, last, threads, seconds_tp
        )
    wall = perf_counter() - start
    assert np.array_equal(flat(plain), flat(timed))
    assert (seconds_tp[:, :4] > 0).all()
    assert (seconds_tp.sum(axis=1) <= wall).all()
    assert seconds_tp.sum(axis=1).max() > 0.1 * wall  # the rest is copying into panels
