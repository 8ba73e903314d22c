"""Metrics, compared with values calculated by hand."""

import numpy as np
import pytest

from fmnist_fast.nn.metrics import cross_entropy, evaluate


def test_evaluate_matches_hand_calculation():
    p_nk = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0]])
    evaluation = evaluate(p_nk, np.array([0, 1, 1, 1]))
    assert evaluation.confusion_kk.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert evaluation.accuracy == 0.75
    assert evaluation.precision_k.tolist()[:2] == [0.5, 1.0]
    assert evaluation.recall_k.tolist()[:2] == [1.0, 2 / 3]
    np.testing.assert_allclose(evaluation.f1_k[:2], [2 / 3, 0.8])
    for column in (evaluation.precision_k, evaluation.recall_k, evaluation.f1_k):
        assert np.isnan(column[2])  # the third class never occurs
    np.testing.assert_allclose(evaluation.loss, -np.log([0.9, 0.4, 0.8, 0.7]).mean())
    # Four bins of one row each: |1 - 0.9|, |0 - 0.6|, |1 - 0.8|, |1 - 0.7|, each a quarter.
    np.testing.assert_allclose(evaluation.calibration_error, (0.1 + 0.6 + 0.2 + 0.3) / 4)


def test_calibration_error_averages_within_a_bin():
    p_nk = np.array([[0.75, 0.25]] * 4)
    assert evaluate(p_nk, np.array([0, 0, 0, 1])).calibration_error == pytest.approx(0)
    assert evaluate(p_nk, np.array([0, 0, 1, 1])).calibration_error == pytest.approx(0.25)


def test_calibration_error_probability_one_is_in_last_bin():
    assert evaluate(np.array([[1.0, 0.0]]), np.array([1])).calibration_error == 1


def test_cross_entropy_clips_probability_zero_to_tiny():
    loss = cross_entropy(np.array([[1.0, 0.0]], np.float32), np.array([1]))
    assert loss == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_evaluate_and_cross_entropy_propagate_nan():
    assert np.isnan(evaluate(np.array([[np.nan, 0.5]]), np.array([0])).calibration_error)
    assert np.isnan(cross_entropy(np.array([[np.nan, np.nan]]), np.array([0])))
