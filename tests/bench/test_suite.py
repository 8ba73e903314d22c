"""The asv suite: coverage of the operations of a backend."""

import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest

from fmnist_fast.nn.backend import BACKEND_NAMES, Backend, unavailable_reason

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def suite(monkeypatch):
    """Imports a module of the suite, as asv does, on synthetic data."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in [name for name in sys.modules if name.split(".")[0] == "suite"]:
        monkeypatch.delitem(sys.modules, name)
    return lambda name: importlib.import_module(f"suite.{name}")


def operations():
    return [
        name
        for name, entry in vars(Backend).items()
        if inspect.isfunction(entry) and not name.startswith("_")
    ]


def test_suite_covers_operations_of_protocol(suite):
    timed = {
        name.removeprefix("time_")
        for _, kind in inspect.getmembers(suite("operations"), inspect.isclass)
        for name in vars(kind)
        if name.startswith("time_")
    }
    assert timed == set(operations())
    assert set(suite("cases").OPERATIONS) == set(operations())


@pytest.mark.parametrize(
    "backend", [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
)
def test_suite_batch_runs_every_operation(suite, backend):
    batch = suite("cases").Batch(backend, 64)
    for operation in operations():
        getattr(batch, operation)()
    assert np.isfinite(batch.loss_b).all()
    assert np.allclose(batch.out_nk.sum(axis=1), 1, atol=1e-5)
    assert not np.array_equal(batch.updated.params.weights[0], batch.params.weights[0])


def test_suite_batch_skips_missing_backend(suite, monkeypatch):
    cases = suite("cases")
    monkeypatch.setattr(cases, "unavailable_reason", lambda name: "was not built")
    with pytest.raises(NotImplementedError, match="cython was not built"):
        cases.Batch("cython", 1)
