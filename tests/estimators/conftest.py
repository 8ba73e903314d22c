"""Rows and labels for all tests of estimators."""

import pytest
from sklearn.datasets import load_digits

from fmnist_fast.nn.backend import unavailable_reason


@pytest.fixture(scope="session")
def digits():
    x_ni, y_n = load_digits(return_X_y=True)
    return x_ni[:600] / 16, y_n[:600]


@pytest.fixture(autouse=True)
def skip_missing_backend(request):
    """Skip tests of a backend that is not built; see pytest_sessionstart in tests/conftest.py."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    reason = unavailable_reason(params["backend"]) if "backend" in params else None
    if reason:
        pytest.skip(reason)
