"""How long does each operation take on each backend, once its result has been checked?

pytest benchmarks/ --benchmark-only
"""

import equivalence
import numpy as np
import pytest
from kernel_cases import Case, training_data
from suite.cases import BACKENDS, OPERATIONS, SPEC, Batch

from fmnist_fast.nn.backend import get_backend, unavailable_reason

ROWS = 64


def check(kernels, operation):
    """Compare the operation with the reference, within derived bounds."""
    case = Case(SPEC.sizes, ROWS)
    if operation == "train_steps":
        equivalence.check_train_steps(kernels, case, ROWS)
    elif operation == "predict":
        data, got_nk = training_data(case), np.full((ROWS, 10), np.nan, np.float32)
        kernels.predict(case.params, data.x_ni, data.scale, case.spec, 2, got_nk)
        equivalence.check_predict(kernels, case, data, got_nk)
    else:
        getattr(equivalence, f"check_{operation}")(kernels, case)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_operation_time(benchmark, operation, backend):
    if unavailable_reason(backend):
        pytest.skip(f"{backend} {unavailable_reason(backend)}")
    benchmark.group = f"{operation}, {ROWS} rows"
    check(get_backend(backend), operation)
    benchmark(getattr(Batch(backend, ROWS), operation))
