"""CSR rows: every backend that takes them computes what the reference specifies.

A CSR array may hold its entries in any order, duplicates and zeros. `equivalence.py` has the
bounds.
"""

import numpy as np
import pytest
from backend_variants import variants
from equivalence import (
    check_backward,
    check_bits,
    check_epochs_in_one_call,
    check_forward,
    check_predict,
    check_train_steps,
)
from kernel_cases import (
    DTYPES,
    FEW_SIZES_AND_ROWS,
    MIXED_OPTIONS,
    Case,
    flat,
    in_input_format,
    one_epoch,
    options_id,
)
from scipy import sparse

from fmnist_fast.kernels import reference

pytestmark = pytest.mark.parametrize("backend", [*variants()], indirect=True)

SIZES_AND_ROWS = [((1, 1), 1), ((7, 3), 2), ((100, 130, 5), 7), *FEW_SIZES_AND_ROWS]


def csr_case(sizes, rows, dense=False, dropout=0.0, **options):
    return Case(sizes, rows, dense, dropout, input_format="csr", **options)


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_csr(backend, sizes, rows, dense, dtype):
    check_forward(backend, csr_case(sizes, rows, dense, dtype=dtype))
    check_forward(backend, csr_case(sizes, rows, dense, 0.4, dtype=dtype), dropout=True)


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_csr(backend, sizes, rows, dropout, dtype):
    check_backward(backend, csr_case(sizes, rows, dropout=dropout, dtype=dtype))


@pytest.mark.parametrize("wrong", ["forward", "backward"])
def test_check_of_csr_operations_catches_missing_entry(backend, wrong):
    class MissingEntry:
        forward, backward = backend.forward, backend.backward

    def without_one(params, x_bi, *arguments):
        fewer = x_bi.copy()
        fewer.data[np.argmax(fewer.data)] = 0
        getattr(backend, wrong)(params, fewer, *arguments)

    setattr(MissingEntry, wrong, staticmethod(without_one))
    check = {"forward": check_forward, "backward": check_backward}[wrong]
    case = csr_case((65, 129, 63, 10), 64, activation="tanh")  # a ReLU could hide it
    check(backend, case)
    with pytest.raises(AssertionError):
        check(MissingEntry, case)


# In a batch of 1 most inputs have no entry; runs of those are updated at once.
@pytest.mark.parametrize("sizes", [(1, 1), (7, 10), (63, 65, 7), (200, 129, 63, 10)])
@pytest.mark.parametrize(("batch_size", "dropout"), [(1, 0.0), (2, 0.4), (10, 0.0), (75, 0.4)])
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_train_steps_csr_equals_single_operations(
    backend, sizes, batch_size, dropout, rows_dtype, dtype
):
    case = csr_case(sizes, 75, dropout=dropout, dtype=dtype)
    check_train_steps(backend, case, batch_size, soft=batch_size == 10, dtype=rows_dtype)


@pytest.mark.parametrize(("batch_size", "dropout"), [(2, 0.0), (10, 0.4)])
@pytest.mark.parametrize("options", MIXED_OPTIONS, ids=options_id)
def test_train_steps_csr_of_options_equals_operations(backend, batch_size, dropout, options):
    case = csr_case((200, 129, 63, 10), 75, dropout=dropout, **options)
    check_train_steps(backend, case, batch_size)


@pytest.mark.parametrize("batch_size", [1000, 32])
def test_train_steps_csr_epochs_in_one_call(backend, batch_size):
    check_epochs_in_one_call(backend, csr_case((200, 20, 10), 75), batch_size)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_train_steps_csr_leaves_unused_moments_alone(backend, optimizer):
    case = csr_case((65, 129, 10), 75, optimizer=optimizer)
    data, order_n, schedule, count = one_epoch(case, 32)
    state = case.state()
    backend.train_steps(state, data, order_n, schedule, case.spec, 0, count, 2)
    assert np.array_equal(flat([state.v]), flat([case.state().v]))
    assert not np.array_equal(flat([state.m]), flat([case.state().m]))


def rows_of_few_entries(case, each, dtype="float32"):
    """Return rows of a few entries: most inputs are nonzero in few batches, if any."""
    rng = np.random.default_rng(0)
    shape = (case.rows, case.spec.sizes[0])
    x_ni = np.zeros(shape, dtype)
    x_ni[np.arange(case.rows)[:, None], rng.integers(0, shape[1], (shape[0], each))] = 0.7
    return in_input_format(x_ni, case.spec)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("options", [{}, *MIXED_OPTIONS], ids=options_id)
def test_train_steps_csr_bits_independent_of_threads(backend, dropout, options):
    case = csr_case((500, 129, 65, 10), 200, dropout=dropout, **options)
    data, order_n, schedule, count = one_epoch(case, 5)
    check_bits(
        backend,
        case,
        data._replace(x_ni=rows_of_few_entries(case, 3), scale=1.0),
        order_n,
        schedule,
        [
            (1, (0, count)),
            (2, (0, count)),
            (2, (0, 1, 17, 33, count)),
            (3, (0, 16, count)),
            (7, (0, 2, 3, count)),
        ],
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov"])
def test_train_steps_csr_many_steps_match_reference(backend, optimizer):
    """In float64, where 40 steps do not amplify rounding much."""
    case = csr_case((500, 30, 4), 200, dtype="float64", activation="tanh", optimizer=optimizer)
    data, order_n, schedule, count = one_epoch(case, 5)
    data, ends = data._replace(x_ni=rows_of_few_entries(case, 3), scale=1.0), []
    for kernels in (reference, backend):
        state = case.state(1e-6)
        losses = kernels.train_steps(state, data, order_n, schedule, case.spec, 0, count, 2)
        ends.append(np.concatenate([flat(state), losses]))
    assert np.abs(ends[0] - ends[1]).max() <= 1e-10


@pytest.mark.parametrize("sizes", [(1, 1), (63, 65, 7), (200, 129, 63, 10)])
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, *MIXED_OPTIONS], ids=options_id)
def test_predict_csr_row_independent_of_other_rows(backend, sizes, rows_dtype, options):
    case = csr_case(sizes, 200, **options)
    data, *_ = one_epoch(case, 64, rows_dtype)
    results = [np.full((200, sizes[-1]), np.nan, case.dtype) for _ in range(3)]
    for threads, out_nk in zip((1, 3), results):
        backend.predict(case.params, data.x_ni, data.scale, case.spec, threads, out_nk)
    for first, last in ((0, 3), (3, 150), (150, 200)):
        rows = data.x_ni[first:last]
        backend.predict(case.params, rows, data.scale, case.spec, 1, results[2][first:last])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    check_predict(backend, case, data, results[0])


def trained_and_predicted(backend, case, x_ni):
    data, order_n, schedule, count = one_epoch(case, 10)
    state, data = case.state(1e-6), data._replace(x_ni=x_ni, scale=1.0)
    losses = backend.train_steps(state, data, order_n, schedule, case.spec, 0, count, 2)
    out_nk = np.full((x_ni.shape[0], case.spec.sizes[-1]), np.nan, case.dtype)
    backend.predict(case.params, x_ni, 1.0, case.spec, 2, out_nk)
    return np.concatenate([flat(state), losses, out_nk.ravel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_csr_index_and_value_dtypes_change_no_bit(backend, dtype):
    case = csr_case((65, 129, 10), 75, dtype=dtype)
    x_ni = in_input_format(case.x_bi.astype(np.float32), case.spec)
    expected = trained_and_predicted(backend, case, x_ni)
    for values, columns, start in (
        (np.float64, np.int32, np.int32),
        (np.float32, np.int64, np.int64),
        (np.float64, np.int32, np.int64),
    ):
        other = x_ni.copy()
        other.data = other.data.astype(values)  # the array's own astype would sort its entries
        other.indices, other.indptr = other.indices.astype(columns), other.indptr.astype(start)
        assert np.array_equal(trained_and_predicted(backend, case, other), expected)
    assert np.array_equal(trained_and_predicted(backend, case, sparse.csr_matrix(x_ni)), expected)


def test_csr_rows_without_entries(backend):
    """Only the biases matter; only the penalty changes the weights of the first layer."""
    case = csr_case((65, 129, 10), 75, dtype="float64")
    x_ni = sparse.csr_array((75, 65), dtype="float64")
    got = trained_and_predicted(backend, case, x_ni)
    assert np.abs(got - trained_and_predicted(reference, case, x_ni)).max() <= 1e-10
    grads, activations = case.grads(), case.activations()
    backend.forward(case.params, x_ni, case.spec, activations)
    backend.backward(case.params, x_ni, activations, activations[-1], case.spec, grads)
    assert not grads.weights[0].any()
    assert np.array_equal(activations[0][0], np.maximum(case.params.biases[0], 0))


def test_train_steps_csr_of_empty_range(backend):
    case = csr_case((7, 3), 5)
    data, order_n, schedule, _ = one_epoch(case, 5)
    state = case.state()
    assert len(backend.train_steps(state, data, order_n, schedule, case.spec, 0, 0, 2)) == 0
    assert np.array_equal(flat(state), flat(case.state()))


def test_predict_csr_of_no_rows(backend):
    case = csr_case((7, 3), 5)
    data, *_ = one_epoch(case, 5)
    empty_ni = data.x_ni[:0]
    backend.predict(case.params, empty_ni, 1.0, case.spec, 2, np.empty((0, 3), np.float32))
