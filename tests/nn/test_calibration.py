"""Calibration: temperature scaling and the confidence threshold of selective prediction."""

import numpy as np
import pytest

from fmnist_fast.nn.calibration import (
    TARGET_PRECISION,
    apply_temperature,
    confidence_threshold,
    fit_temperature,
)
from fmnist_fast.nn.metrics import calibration_error, selective_accuracy


def softmax(logits_nk):
    e_nk = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
    return e_nk / e_nk.sum(axis=1, keepdims=True)


def draw_predictions(rows, temperature, seed=0, size=3):
    """Return overconfident probabilities (logits times `temperature`) and labels."""
    stream = np.random.default_rng(seed)
    logits_nk = stream.normal(size=(rows, 10)) * size
    p_nk = softmax(logits_nk)
    labels_n = (p_nk.cumsum(axis=1) < stream.random((rows, 1))).sum(axis=1)
    return softmax(logits_nk * temperature), np.minimum(labels_n, 9)


def test_apply_temperature_is_softmax_of_divided_logits():
    logits_nk = np.random.default_rng(1).normal(size=(50, 7)) * 4
    for temperature in (0.3, 1.0, 2.5):
        np.testing.assert_allclose(
            apply_temperature(softmax(logits_nk), temperature),
            softmax(logits_nk / temperature),
            rtol=1e-12,
            atol=1e-15,
        )


def test_apply_temperature_accepts_probability_zero():
    p_nk = apply_temperature(np.array([[1.0, 0.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(p_nk).all()
    assert p_nk.sum() == pytest.approx(1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_fit_temperature_recovers_known_temperature(temperature):
    p_nk, labels_n = draw_predictions(20_000, temperature)
    assert fit_temperature(p_nk, labels_n) == pytest.approx(temperature, rel=0.05)


def test_fit_temperature_calibrates_unseen_rows():
    p_nk, labels_n = draw_predictions(20_000, 2.0)
    temperature = fit_temperature(p_nk, labels_n)
    other_nk, other_n = draw_predictions(20_000, 2.0, seed=1)
    before, after = (
        calibration_error(q_nk, q_nk.argmax(axis=1) == other_n)
        for q_nk in (other_nk, apply_temperature(other_nk, temperature))
    )
    assert before > 0.05
    assert after < 0.015


@pytest.mark.parametrize("seed", range(10))
def test_confidence_threshold_keeps_precision_on_unseen_rows(seed):
    p_nk, labels_n = draw_predictions(5000, 1.0, seed, size=8)
    threshold = confidence_threshold(p_nk.max(axis=1), p_nk.argmax(axis=1) == labels_n)
    other_nk, other_n = draw_predictions(50_000, 1.0, seed + 100, size=8)
    other = selective_accuracy(other_nk, other_n, threshold)
    assert other.accuracy >= TARGET_PRECISION
    assert other.coverage > 0.2


def test_confidence_threshold_of_degenerate_samples():
    confidence_n = np.linspace(0, 1, 1000)
    assert confidence_threshold(confidence_n, np.zeros(1000, bool)) is None
    assert confidence_threshold(confidence_n, np.ones(1000, bool)) == 0
    assert confidence_threshold(confidence_n[:3], np.ones(3, bool)) is None  # too few rows
    equal_n = np.full(1000, 0.5)
    assert confidence_threshold(equal_n, np.ones(1000, bool)) == 0.5
    assert confidence_threshold(equal_n, np.arange(1000) % 10 > 0) is None


def test_selective_accuracy_includes_rows_at_threshold():
    p_nk = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.5, 0.5]])
    found = selective_accuracy(p_nk, np.array([0, 1, 1, 0]), 0.8)
    assert (found.coverage, found.accuracy) == (0.5, 1.0)
    found = selective_accuracy(p_nk, np.array([0, 1, 1, 0]), 0.6)
    assert (found.coverage, found.accuracy) == (0.75, pytest.approx(2 / 3))
    assert np.isnan(selective_accuracy(p_nk, np.array([0, 1, 1, 0]), 0.95).accuracy)
