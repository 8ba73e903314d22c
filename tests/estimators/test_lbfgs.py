"""L-BFGS: its gradient, options and time budget."""

import time

import numpy as np
import pytest
from messages import raises_containing

from fmnist_fast import MLPClassifier
from fmnist_fast.estimators.lbfgs import loss_and_gradient
from fmnist_fast.estimators.networks import build_network

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("option", ["dropout", "schedule", "X_val"])
def test_lbfgs_rejects_stochastic_options(option, digits):
    settings = {"dropout": 0.5, "schedule": "cosine"}
    model = MLPClassifier((4,), solver="lbfgs")
    validation = {}
    if option in settings:
        model.set_params(**{option: settings[option]})
    else:
        validation = {"X_val": digits[0], "y_val": digits[1]}
    with raises_containing(ValueError, option, "needs a stochastic solver", "adam", "sgd"):
        model.fit(*digits, **validation)


@pytest.mark.alone
def test_lbfgs_keeps_time_budget(digits):
    start = time.perf_counter()
    MLPClassifier((100,), solver="lbfgs", time_budget=0.2, max_iter=100_000, tol=0).fit(*digits)
    assert time.perf_counter() - start < 1.0


def test_lbfgs_loss_and_gradient_of_blocks_equals_whole(digits, monkeypatch):
    x_ni, y_n = digits
    model = MLPClassifier((9,), max_iter=1, random_state=0, backend="numpy").fit(x_ni, y_n)
    network = build_network(model)
    data = network.data(x_ni, y_n.astype(np.int32), np.random.default_rng(0).random(600))
    whole = loss_and_gradient(network, data, 0.1)
    monkeypatch.setattr("fmnist_fast.estimators.lbfgs.BLOCK_ROWS", 77)
    parts = loss_and_gradient(network, data, 0.1)
    # Sums of 600 products of numbers below 1, in another order.
    bound = 600 * np.finfo(np.float64).eps
    assert whole[0] == pytest.approx(parts[0], rel=bound)
    for a, b in zip((*whole[1].weights, *whole[1].biases), (*parts[1].weights, *parts[1].biases)):
        assert np.abs(a - b).max() <= bound
