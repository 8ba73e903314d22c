"""The backends side by side, operation by operation, each checked before it is timed.

pytest benchmarks/ --benchmark-only
"""

import equivalence
import numpy as np
import pytest
from suite.cases import BACKENDS, OPERATIONS, SPEC, Batch

from fmnist_fast.nn.backend import get_backend, unavailable_reason

ROWS = 64


def check(kernels, operation):
    """It computes what the reference specifies, within the bounds of tests/equivalence.py."""
    case = equivalence.Case(SPEC.sizes, ROWS)
    if operation == "train_steps":
        equivalence.check_train_steps(kernels, case, ROWS)
    elif operation == "predict":
        data, got_nk = equivalence.training_data(case), np.full((ROWS, 10), np.nan, np.float32)
        kernels.predict(case.params, data.x_ni, data.scale, case.spec, 2, got_nk)
        equivalence.check_predict(kernels, case, data, got_nk)
    else:
        getattr(equivalence, f"check_{operation}")(kernels, case)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_operation(benchmark, operation, backend):
    if unavailable_reason(backend):
        pytest.skip(f"{backend} {unavailable_reason(backend)}")
    benchmark.group = f"{operation}, {ROWS} rows"
    check(get_backend(backend), operation)
    benchmark(getattr(Batch(backend, ROWS), operation))
