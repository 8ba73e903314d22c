"""`predict` of every backend: softmax or sigmoid of `forward`, row by row the same bits."""

import numpy as np
import pytest
from equivalence import check_predict
from kernel_cases import (
    MIXED_OPTIONS,
    SIZES,
    Case,
    flat,
    options_id,
    supported_case,
    training_data,
)

from fmnist_fast.nn.optimizers import Adam


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_predict_row_independent_of_other_rows(backend, sizes, dtype):
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
@pytest.mark.parametrize("options", MIXED_OPTIONS, ids=options_id)
def test_predict_of_options(backend, sizes, rows_dtype, options):
    case = supported_case(backend, sizes, 200, **options)
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
def test_predict_and_train_steps_take_unaligned_rows(backend, dtype):
    case = Case((65, 129, 10), 75)
    data = training_data(case, dtype)
    memory = bytearray(data.x_ni.nbytes + 1)
    x_ni = np.frombuffer(memory, dtype, offset=1).reshape(data.x_ni.shape)
    x_ni[:] = data.x_ni
    schedule = Adam().steps(np.full(2, 1e-2), 0, 64, 1e-2)
    order_n = np.arange(75, dtype=np.int32)
    states, outputs = [], []
    for rows in (data.x_ni, x_ni):
        states.append(case.state())
        row_data = data._replace(x_ni=rows)
        backend.train_steps(states[-1], row_data, order_n, schedule, case.spec, 0, 2, 2)
        outputs.append(np.full((75, 10), np.nan, np.float32))
        backend.predict(case.params, rows, data.scale, case.spec, 2, outputs[-1])
    assert np.array_equal(flat(states[0]), flat(states[1]))
    assert np.array_equal(*outputs)


def test_predict_of_no_rows(backend):
    case = Case((7, 3), 5)
    out_nk = np.empty((0, 3), np.float32)
    backend.predict(case.params, np.empty((0, 7), np.uint8), 1.0, case.spec, 2, out_nk)
