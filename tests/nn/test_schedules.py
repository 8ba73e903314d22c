"""Learning-rate schedules."""

import numpy as np
import pytest

from fmnist_fast.errors import ArgumentError
from fmnist_fast.nn.schedules import SCHEDULES, learning_rates


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1001])
def test_learning_rates_has_a_rate_for_every_step(schedule, steps):
    rates = learning_rates(schedule, 0.01, steps)
    assert rates.shape == (steps,)
    assert rates.dtype == np.float64
    assert (rates > 0).all()
    assert rates.max() <= 0.01


def test_learning_rates_onecycle_warms_up_then_anneals():
    rates = learning_rates("onecycle", 1.0, 1000)
    assert rates[0] == pytest.approx(1 / 25)
    assert rates.argmax() == 250
    assert rates[250] == pytest.approx(1.0)
    assert (np.diff(rates[:251]) > 0).all()
    assert (np.diff(rates[250:]) < 0).all()
    assert rates[-1] < 1e-4


def test_learning_rates_cosine_decreases_from_peak():
    rates = learning_rates("cosine", 1.0, 100)
    assert rates[0] == 1
    assert rates[50] == pytest.approx(0.5)
    assert (np.diff(rates) < 0).all()


def test_learning_rates_constant_returns_equal_rates():
    assert set(learning_rates("constant", 0.3, 5)) == {0.3}


def test_learning_rates_unknown_schedule_lists_known():
    with pytest.raises(ArgumentError, match="choose from onecycle, cosine, constant"):
        learning_rates("linear", 1.0, 5)
