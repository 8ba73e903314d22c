"""Learning rates and what Adam makes of them."""

import numpy as np
import pytest

from fmnist_fast.errors import ArgumentError
from fmnist_fast.nn.schedules import SCHEDULES, Adam, learning_rates


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1001])
def test_every_schedule_has_a_rate_for_every_step(schedule, steps):
    rates = learning_rates(schedule, 0.01, steps)
    assert rates.shape == (steps,)
    assert rates.dtype == np.float64
    assert (rates > 0).all()
    assert rates.max() <= 0.01


def test_onecycle_rises_for_a_quarter_and_falls_to_nearly_nothing():
    rates = learning_rates("onecycle", 1.0, 1000)
    assert rates[0] == pytest.approx(1 / 25)
    assert rates.argmax() == 250
    assert rates[250] == pytest.approx(1.0)
    assert (np.diff(rates[:251]) > 0).all()
    assert (np.diff(rates[250:]) < 0).all()
    assert rates[-1] < 1e-4


def test_cosine_falls_from_the_peak():
    rates = learning_rates("cosine", 1.0, 100)
    assert rates[0] == 1
    assert rates[50] == pytest.approx(0.5)
    assert (np.diff(rates) < 0).all()


def test_constant_is_constant():
    assert set(learning_rates("constant", 0.3, 5)) == {0.3}


def test_an_unknown_schedule_is_told_the_known_ones():
    with pytest.raises(ArgumentError, match="choose from onecycle, cosine, constant"):
        learning_rates("linear", 1.0, 5)


def test_steps_of_two_epochs_are_the_steps_of_one_long_one():
    lr_t = np.linspace(0.1, 0.2, 10)
    whole = Adam().steps(lr_t, 0, 64, 1e-4)
    second = Adam().steps(lr_t[6:], 6, 64, 1e-4)
    for name in ("step_size_t", "epsilon_t", "l2_t", "decay_t"):
        assert np.array_equal(getattr(second, name), getattr(whole, name)[6:])


def test_bias_correction_by_hand():
    steps = Adam().steps(np.array([0.1, 0.1]), 0, 64, 0.5, decay=0.25)
    # t = 1: lr sqrt(0.001) / 0.1; t = 2: lr sqrt(1 - 0.998001) / 0.19
    np.testing.assert_allclose(
        steps.step_size_t, [0.1 * np.sqrt(0.001) / 0.1, 0.1 * np.sqrt(0.001999) / 0.19], rtol=1e-12
    )
    np.testing.assert_allclose(steps.epsilon_t, 1e-8 * np.sqrt([0.001, 0.001999]), rtol=1e-12)
    assert steps.at(1)[2:] == (0.5, 0.25, 0.9, 0.999)
