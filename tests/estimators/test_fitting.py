"""Training: validation, early stopping, schedules, budgets, verbose output."""

import time
import warnings

import numpy as np
import pytest
from messages import raises_containing
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning

from fmnist_fast import MLPClassifier
from fmnist_fast.estimators.solvers import Solver
from fmnist_fast.kernels import reference
from fmnist_fast.nn.backend import BACKEND_NAMES
from fmnist_fast.nn.network import Network
from fmnist_fast.training.budget import TimeBudget

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_fit_does_not_copy_uint8_rows_to_floats(digits, monkeypatch):
    dtypes = []

    def spy(self, network):
        dtypes.append(network.spec.dtype)
        return original(self, network)

    original = Solver.state
    monkeypatch.setattr(Solver, "state", spy)
    x_ni = np.ascontiguousarray((digits[0] * 16).astype(np.uint8))
    trained = []
    train_steps = reference.train_steps
    monkeypatch.setattr(
        reference, "train_steps", lambda *a: trained.append(a[1].x_ni) or train_steps(*a)
    )
    MLPClassifier((8,), max_iter=1, backend="numpy").fit(x_ni, digits[1])
    assert dtypes == ["float32"]
    assert np.shares_memory(trained[0], x_ni)


def test_fit_and_predict_keep_sparse_rows_sparse(digits, monkeypatch):
    for kind in (sparse.csr_array, sparse.csr_matrix):
        for method in ("toarray", "todense"):
            monkeypatch.setattr(kind, method, lambda *a, **k: pytest.fail("it became dense"))
    x_ni = sparse.csr_array(digits[0])
    model = MLPClassifier((8,), max_iter=5, random_state=0).fit(x_ni, digits[1])
    dense = MLPClassifier((8,), max_iter=5, random_state=0).fit(*digits)
    assert_allclose(model.predict_proba(x_ni), dense.predict_proba(digits[0]), atol=1e-6)
    early = MLPClassifier((8,), max_iter=5, early_stopping=True, solver="adam")
    early.fit(sparse.csc_array(digits[0]), digits[1])
    MLPClassifier((8,), max_iter=5, solver="lbfgs").fit(x_ni, digits[1])


def test_fit_uses_given_validation_rows(digits):
    x_ni, y_n = digits
    model = MLPClassifier((30,), max_iter=30, random_state=0, learning_rate_init=0.01)
    model.fit(x_ni[:400], y_n[:400], X_val=x_ni[400:], y_val=y_n[400:])
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.validation_scores_[-1] == model.score(x_ni[400:], y_n[400:])
    log_p_nk = model.predict_log_proba(x_ni[400:])
    expected = -log_p_nk[np.arange(200), y_n[400:]].mean()
    assert model.validation_loss_curve_[-1] == pytest.approx(expected)
    model.set_params(early_stopping=True, n_iter_no_change=3, max_iter=200)
    model.fit(x_ni[:400], y_n[:400], X_val=x_ni[400:], y_val=y_n[400:])
    assert model.n_iter_ < 200
    assert model.score(x_ni[400:], y_n[400:]) == model.best_validation_score_
    with raises_containing(ValueError, "X_val and y_val belong together"):
        model.fit(x_ni, y_n, X_val=x_ni)
    with raises_containing(ValueError, "y_val", "classes", "[99]"):
        model.fit(x_ni, y_n, X_val=x_ni[:2], y_val=[1, 99])


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize(
    "parameters",
    [
        {"tol": 3e-2, "n_iter_no_change": 3},
        {"tol": 3e-2, "n_iter_no_change": 3, "solver": "sgd", "learning_rate": "adaptive"},
        {"solver": "sgd", "learning_rate": "invscaling", "max_iter": 30},
        {"n_iter_no_change": np.inf, "max_iter": 30, "batch_size": 77},
    ],
)
def test_fit_epochs_in_one_call_equal_single_epochs(backend, parameters, digits, monkeypatch):
    """Validation rows limit a call to one epoch; without them a call trains several."""
    calls, train_steps = [], Network.train_steps

    def counted(*arguments):
        calls.append(arguments)
        return train_steps(*arguments)

    monkeypatch.setattr(Network, "train_steps", counted)
    several, single = (
        MLPClassifier((20,), random_state=0, backend=backend, **parameters) for _ in range(2)
    )
    several.fit(*digits)
    calls_of_several = len(calls)
    single.fit(*digits, X_val=digits[0][:50], y_val=digits[1][:50])
    assert calls_of_several < single.n_iter_ == len(calls) - calls_of_several
    assert several.loss_curve_ == single.loss_curve_
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(several, name), getattr(single, name), strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_fit_with_schedule_does_not_stop_early(schedule, digits):
    model = MLPClassifier(
        (16,), max_iter=25, random_state=0, schedule=schedule, tol=10.0, n_iter_no_change=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(*digits)
    assert model.n_iter_ == 25


@pytest.mark.alone
def test_fit_ends_within_time_budget(digits, slowness):
    budget = 0.5 * slowness
    model = MLPClassifier((16,), random_state=0, time_budget=budget, schedule="onecycle")
    start = time.perf_counter()
    model.fit(*digits)
    assert 0.5 * budget < time.perf_counter() - start < 1.4 * budget
    assert model.score(*digits) > 0.9


def test_fit_ends_when_budget_is_spent_within_epoch(digits, monkeypatch):
    steps = iter([1, 1, 1, 1])
    monkeypatch.setattr(TimeBudget, "rates", lambda *_: np.ones(next(steps, 0)))
    model = MLPClassifier((8,), batch_size=200, schedule="cosine", time_budget=9.0).fit(*digits)
    assert model.n_iter_ == len(model.loss_curve_) == 2  # of three batches and of one


def test_fit_dropout_and_smoothing_are_reproducible(digits):
    def fitted(**parameters):
        return MLPClassifier((64,), max_iter=30, random_state=0, **parameters).fit(*digits)

    plain = fitted()
    for parameters in ({"dropout": 0.3}, {"label_smoothing": 0.1}):
        first, second = fitted(**parameters), fitted(**parameters)
        assert_array_equal(first.coefs_[0], second.coefs_[0])
        assert not np.array_equal(first.coefs_[0], plain.coefs_[0])
        assert first.score(*digits) > 0.5
    assert len({tuple(fitted(dropout=0.3).loss_curve_), tuple(plain.loss_curve_)}) == 2


@pytest.mark.parametrize(
    ("parameters", "last"),
    [
        ({"max_iter": 3, "early_stopping": True}, "Validation score"),
        ({"tol": 1.0, "n_iter_no_change": 2}, "Stopping."),
        (
            {
                "solver": "sgd",
                "learning_rate": "adaptive",
                "learning_rate_init": 2e-6,
                "tol": 1.0,
                "n_iter_no_change": 1,
            },
            "Learning rate too small. Stopping.",
        ),
    ],
)
def test_fit_verbose_output_equals_scikit_learn(parameters, last, digits, capsys):
    printed = []
    for model in (neural_network.MLPClassifier, MLPClassifier):
        model((4,), random_state=0, verbose=True, **parameters).fit(*digits)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert last in printed[1].splitlines()[-1]
