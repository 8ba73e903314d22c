"""Rows of which only the entries are stored: every backend that takes them computes what the
reference specifies, whatever a CSR array may hold. See equivalence.py."""

import numpy as np
import pytest
from backend_variants import variants
from equivalence import (
    Case,
    as_given,
    check_backward,
    check_bits,
    check_epochs_at_once,
    check_forward,
    check_predict,
    check_train_steps,
    epoch_of,
    flat,
)
from scipy import sparse
from test_equivalence import DTYPES, MIXED, OTHER_SIZES_AND_ROWS, name_of

from fmnist_fast.kernels import reference
from fmnist_fast.kernels.interface import TrainData

pytestmark = pytest.mark.parametrize(
    "backend",
    [param for param in variants() if param.values[0][0] != "numba"],
    indirect=True,
)

SIZES_AND_ROWS = [((1, 1), 1), ((7, 3), 2), ((100, 130, 5), 7), *OTHER_SIZES_AND_ROWS]


def case_of(sizes, rows, dense=False, dropout=0.0, **choices):
    return Case(sizes, rows, dense, dropout, input_format="csr", **choices)


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(backend, sizes, rows, dense, dtype):
    check_forward(backend, case_of(sizes, rows, dense, dtype=dtype))
    check_forward(backend, case_of(sizes, rows, dense, 0.4, dtype=dtype), drop=True)


@pytest.mark.parametrize(("sizes", "rows"), SIZES_AND_ROWS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward(backend, sizes, rows, dropout, dtype):
    check_backward(backend, case_of(sizes, rows, dropout=dropout, dtype=dtype))


@pytest.mark.parametrize("leaves_out", ["forward", "backward"])
def test_an_entry_left_out_is_caught(backend, leaves_out):
    class Wrong:
        forward, backward = backend.forward, backend.backward

    def without_one(params, x_bi, *arguments):
        fewer = x_bi.copy()
        fewer.data[np.argmax(fewer.data)] = 0
        getattr(backend, leaves_out)(params, fewer, *arguments)

    setattr(Wrong, leaves_out, staticmethod(without_one))
    check = {"forward": check_forward, "backward": check_backward}[leaves_out]
    case = case_of((65, 129, 63, 10), 64, activation="tanh")  # a ReLU may be where nothing passes
    check(backend, case)
    with pytest.raises(AssertionError):
        check(Wrong, case)


# In a batch of 1 most inputs have no entry, and neighbours are moved at once.
@pytest.mark.parametrize("sizes", [(1, 1), (7, 10), (63, 65, 7), (200, 129, 63, 10)])
@pytest.mark.parametrize(("batch_size", "dropout"), [(1, 0.0), (2, 0.4), (10, 0.0), (75, 0.4)])
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_train_steps_is_the_operations_one_by_one(
    backend, sizes, batch_size, dropout, rows_dtype, dtype
):
    case = case_of(sizes, 75, dropout=dropout, dtype=dtype)
    check_train_steps(backend, case, batch_size, soft=batch_size == 10, dtype=rows_dtype)


@pytest.mark.parametrize(("batch_size", "dropout"), [(2, 0.0), (10, 0.4)])
@pytest.mark.parametrize("choices", MIXED, ids=name_of)
def test_train_steps_of_other_specs_is_the_operations(backend, batch_size, dropout, choices):
    case = case_of((200, 129, 63, 10), 75, dropout=dropout, **choices)
    check_train_steps(backend, case, batch_size)


@pytest.mark.parametrize("batch_size", [1000, 32])
def test_epochs_of_one_call_are_those_of_several(backend, batch_size):
    check_epochs_at_once(backend, case_of((200, 20, 10), 75), batch_size)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_plain_steps_leave_alone_what_they_do_not_use(backend, optimizer):
    case = case_of((65, 129, 10), 75, optimizer=optimizer)
    data, order_n, steps, count = epoch_of(case, 32)
    state = case.state()
    backend.train_steps(state, data, order_n, steps, case.spec, 0, count, 2)
    assert np.array_equal(flat([state.v]), flat([case.state().v]))
    assert not np.array_equal(flat([state.m]), flat([case.state().m]))


def rare(case, each, dtype="float32"):
    """Rows of a few entries each: most inputs are in few batches, if any."""
    rng = np.random.default_rng(0)
    shape = (case.rows, case.spec.sizes[0])
    x_ni = np.zeros(shape, dtype)
    x_ni[np.arange(case.rows)[:, None], rng.integers(0, shape[1], (shape[0], each))] = 0.7
    return as_given(x_ni, case.spec)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("choices", [{}, *MIXED], ids=name_of)
def test_bits_do_not_depend_on_threads_or_on_cuts(backend, dropout, choices):
    case = case_of((500, 129, 65, 10), 200, dropout=dropout, **choices)
    data, order_n, steps, count = epoch_of(case, 5)
    check_bits(
        backend,
        case,
        data._replace(x_ni=rare(case, 3), scale=1.0),
        order_n,
        steps,
        (1, (0, count)),
        (2, (0, count)),
        (2, (0, 1, 17, 33, count)),
        (3, (0, 16, count)),
        (7, (0, 2, 3, count)),
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov"])
def test_many_steps_end_where_the_reference_ends(backend, optimizer):
    """In float64, where 40 steps do not make much of a rounding."""
    case = case_of((500, 30, 4), 200, dtype="float64", activation="tanh", optimizer=optimizer)
    data, order_n, steps, count = epoch_of(case, 5)
    data, ends = data._replace(x_ni=rare(case, 3), scale=1.0), []
    for kernels in (reference, backend):
        state = case.state(1e-6)
        losses = kernels.train_steps(state, data, order_n, steps, case.spec, 0, count, 2)
        ends.append(np.concatenate([flat(state), losses]))
    assert np.abs(ends[0] - ends[1]).max() <= 1e-10


@pytest.mark.parametrize("sizes", [(1, 1), (63, 65, 7), (200, 129, 63, 10)])
@pytest.mark.parametrize("rows_dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("choices", [{}, *MIXED], ids=name_of)
def test_predict_is_the_same_for_every_row_whatever_is_beside_it(
    backend, sizes, rows_dtype, choices
):
    case = case_of(sizes, 200, **choices)
    data, *_ = epoch_of(case, 64, rows_dtype)
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
    data, order_n, steps, count = epoch_of(case, 10)
    state, data = case.state(1e-6), data._replace(x_ni=x_ni, scale=1.0)
    losses = backend.train_steps(state, data, order_n, steps, case.spec, 0, count, 2)
    out_nk = np.full((x_ni.shape[0], case.spec.sizes[-1]), np.nan, case.dtype)
    backend.predict(case.params, x_ni, 1.0, case.spec, 2, out_nk)
    return np.concatenate([flat(state), losses, out_nk.ravel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_indices_and_values_change_no_bit(backend, dtype):
    case = case_of((65, 129, 10), 75, dtype=dtype)
    x_ni = as_given(case.x_bi.astype(np.float32), case.spec)
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


def test_rows_without_any_entry(backend):
    """The biases are all there is; the penalty moves the weights."""
    case = case_of((65, 129, 10), 75, dtype="float64")
    x_ni = sparse.csr_array((75, 65), dtype="float64")
    got = trained_and_predicted(backend, case, x_ni)
    assert np.abs(got - trained_and_predicted(reference, case, x_ni)).max() <= 1e-10
    grads, layers = case.grads(), case.layers()
    backend.forward(case.params, x_ni, case.spec, layers)
    backend.backward(case.params, x_ni, layers, layers[-1], case.spec, grads)
    assert not grads.weights[0].any()
    assert np.array_equal(layers[0][0], np.maximum(case.params.biases[0], 0))


def test_nothing_to_do(backend):
    case = case_of((7, 3), 5)
    data, order_n, steps, _ = epoch_of(case, 5)
    state = case.state()
    assert len(backend.train_steps(state, data, order_n, steps, case.spec, 0, 0, 2)) == 0
    assert np.array_equal(flat(state), flat(case.state()))
    empty = TrainData(data.x_ni[:0], 1.0, data.targets_n[:0], data.weights_n[:0])
    backend.predict(case.params, empty.x_ni, 1.0, case.spec, 2, np.empty((0, 3), np.float32))
