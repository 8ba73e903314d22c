"""MLPClassifier against scikit-learn's: same weights, losses and predictions."""

import numpy as np
import pytest
from estimator_parity import assert_agrees, fit_both
from numpy.testing import assert_allclose
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_wine

from fmnist_fast import MLPClassifier
from fmnist_fast.nn.backend import BACKEND_NAMES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("kind", ["multiclass", "binary", "strings", "multilabel"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"activation": "tanh", "batch_size": 7},
        {"activation": "logistic", "early_stopping": True},
        {"activation": "identity", "shuffle": False, "alpha": 1.0},
        {"solver": "sgd"},
        {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
        {"solver": "sgd", "momentum": 0.0, "early_stopping": True},
        {"solver": "lbfgs"},
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "learning_rate_init": 0.01},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_fit_agrees_with_scikit_learn(kind, parameters, backend, digits):
    assert_agrees(*fit_both(kind, digits, backend=backend, **parameters), digits[0])


@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_fit_agrees_with_sample_weights(parameters, digits):
    weights = np.random.default_rng(0).integers(0, 3, 600) / 2 + 0.01
    assert_agrees(*fit_both("multiclass", digits, weights, **parameters), digits[0])


def test_fit_agrees_when_training_stops_early(digits):
    parameters = {"tol": 0.5, "n_iter_no_change": 2, "max_iter": 50}
    theirs, ours = fit_both("multiclass", digits, **parameters)
    assert ours.n_iter_ < 50
    assert_agrees(theirs, ours, digits[0])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"activation": "tanh", "batch_size": 7},
        {"solver": "sgd", "early_stopping": True},
        {"solver": "sgd", "nesterovs_momentum": False, "alpha": 1.0},
        {"solver": "lbfgs"},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_fit_agrees_on_sparse_rows(kind, parameters, backend, digits):
    x_ni, y_n = sparse.csr_array(digits[0]), digits[1]
    assert_agrees(*fit_both(kind, (x_ni, y_n), backend=backend, **parameters), x_ni)


def test_warm_start_and_partial_fit_agree(digits):
    x_ni, y_n = digits
    theirs = neural_network.MLPClassifier((20,), random_state=1, warm_start=True, max_iter=3)
    ours = MLPClassifier((20,), random_state=1, warm_start=True, max_iter=3, backend="numpy")
    for model in (theirs, ours):
        model.fit(x_ni, y_n).fit(x_ni, y_n)
    assert_agrees(theirs, ours, x_ni)
    assert len(ours.loss_curve_) == 6
    for model in (theirs, ours):
        model.set_params(warm_start=False)
        for first in range(0, 600, 100):
            model.partial_fit(x_ni[first : first + 100], y_n[first : first + 100])
    assert_agrees(theirs, ours, x_ni)


def test_fit_draws_from_random_state_as_scikit_learn(digits):
    states = [np.random.RandomState(5), np.random.RandomState(5)]
    models = (neural_network.MLPClassifier, MLPClassifier)
    theirs, ours = (
        model((5,), max_iter=4, random_state=state).fit(*digits)
        for model, state in zip(models, states)
    )
    assert states[0].randint(2**31) == states[1].randint(2**31)
    assert_allclose(theirs.loss_curve_, ours.loss_curve_, atol=1e-6)


def test_assert_agrees_detects_another_penalty(digits):
    x_ni, y_n = digits
    theirs, _ = fit_both("multiclass", digits)
    other = MLPClassifier((20, 10), alpha=1e-3, max_iter=20, random_state=3, backend="numpy")
    with pytest.raises(AssertionError):
        assert_agrees(theirs, other.fit(x_ni, y_n), x_ni)


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_fit_agrees_on_unscaled_rows_with_clipped_loss(kind, solver, backend):
    """scikit-learn clips the loss of a row at -log(eps), and stops by the clipped loss."""
    x_ni, y_n = load_wine(return_X_y=True)
    y_n = {"multiclass": y_n, "binary": y_n > 0, "multilabel": np.eye(3, dtype=int)[y_n]}[kind]
    for seed in range(3):
        theirs, ours = (
            model.fit(x_ni, y_n)
            for model in (
                neural_network.MLPClassifier((20,), solver=solver, random_state=seed, max_iter=30),
                MLPClassifier(
                    (20,), solver=solver, random_state=seed, max_iter=30, backend=backend
                ),
            )
        )
        if solver == "adam":
            # scikit-learn's log(1 - p) loses digits where p rounds to nearly 1.
            assert_agrees(theirs, ours, x_ni, loss_bound=1e-3 if kind == "multilabel" else 1e-6)
        else:  # rounding in the line search decides where it ends
            assert theirs.loss_ == pytest.approx(ours.loss_, rel=0.1)
