"""The hyperparameters of the steps of Adam and SGD."""

import numpy as np
import pytest

from fmnist_fast.nn.optimizers import SGD, Adam


def test_adam_steps_are_independent_of_ranges():
    lr_t = np.linspace(0.1, 0.2, 10)
    whole = Adam().steps(lr_t, 0, 64, 1e-4)
    second = Adam().steps(lr_t[6:], 6, 64, 1e-4)
    for name in ("step_size_t", "epsilon_t", "l2_t", "decay_t"):
        assert np.array_equal(getattr(second, name), getattr(whole, name)[6:])


def test_adam_bias_correction_by_hand():
    steps = Adam().steps(np.array([0.1, 0.1]), 0, 64, 0.5, decay=0.25)
    # t = 1: lr sqrt(0.001) / 0.1; t = 2: lr sqrt(1 - 0.998001) / 0.19
    np.testing.assert_allclose(
        steps.step_size_t, [0.1 * np.sqrt(0.001) / 0.1, 0.1 * np.sqrt(0.001999) / 0.19], rtol=1e-12
    )
    np.testing.assert_allclose(steps.epsilon_t, 1e-8 * np.sqrt([0.001, 0.001999]), rtol=1e-12)
    assert steps.at(1)[2:] == (0.5, 0.25, 0.9, 0.999)


def test_adam_uncorrected_epsilon_is_constant():
    lr_t = np.array([0.1, 0.2])
    steps = Adam(epsilon=1e-3, corrected_epsilon=False).steps(lr_t, 4, 64, 0.0)
    np.testing.assert_array_equal(steps.epsilon_t, [1e-3, 1e-3])
    np.testing.assert_allclose(
        steps.step_size_t, Adam(epsilon=1e-3).steps(lr_t, 4, 64, 0.0).step_size_t, rtol=1e-15
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_step_size_is_learning_rate(nesterov):
    optimizer = SGD(0.8, nesterov)
    steps = optimizer.steps(np.array([0.1, 0.2]), 3, 64, np.array([0.5, 0.25]))
    assert optimizer.name == ("nesterov" if nesterov else "sgd")
    assert steps.at(1) == (0.2, 0.0, 0.25, 0.0, 0.8, 0.0)
