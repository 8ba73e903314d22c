"""Plots of misclassified images, and the learning-rate finder with its plot."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import train
from fmnist_fast.cli.plots import plot_learning_rates, plot_misclassified
from fmnist_fast.training.lr_finder import MAX_RATE, MIN_RATE, find_learning_rate
from fmnist_fast.training.presets import PRESETS


@pytest.mark.parametrize("wrong", [0, 1, 7, 40])
def test_plot_misclassified_size_fits_number_of_images(tmp_path, wrong):
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    labels_n = np.zeros(50, int)
    probability_nk = np.full((50, 2), 0.5)
    probability_nk[:wrong] = 0.2, 0.8
    path = tmp_path / "mistakes.png"
    plot_misclassified(images, probability_nk, labels_n, ("a $x", "Ankle boot"), path)
    with Image.open(path) as picture:
        assert picture.size[0] > 1000
        rows = max(1, -(-min(wrong, 30) // 6))
        assert picture.size[1] == pytest.approx(130 * (2.15 * rows + 0.6), abs=2)


def test_find_learning_rate_stops_at_divergence(small_dataset, tmp_path):
    found = find_learning_rate(small_dataset, PRESETS["fast"], "auto", 1)
    assert len(found.lr_t) == len(found.loss_t) == len(found.smooth_t)
    assert found.lr_t[0] == pytest.approx(MIN_RATE)
    assert found.lr_t[-1] <= MAX_RATE
    assert 3e-4 < found.advised < 3e-2
    assert found.smooth_t.min() < 0.7 * found.smooth_t[0]
    again = find_learning_rate(small_dataset, PRESETS["fast"], "auto", 2)
    np.testing.assert_array_equal(again.loss_t, found.loss_t)
    plot_learning_rates(found, tmp_path / "lr.png")
    assert (tmp_path / "lr.png").stat().st_size > 10_000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_find_learning_rate_advice_beats_distant_rates(small_dataset, seed):
    """Compared with a tenth and with a hundred times the advised rate, for several seeds."""
    config = replace(PRESETS["fast"], seed=seed)
    advised = find_learning_rate(small_dataset, config, "auto", 1).advised
    options = {"preset": "fast", "epochs": 8, "threads": 1, "seed": seed}
    losses = [
        train(small_dataset, lr=lr, **options).history[-1].train_loss
        for lr in (advised / 10, advised, advised * 100)
    ]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_find_learning_rate_advice_is_best_on_fashion_mnist(real_dataset, seed):
    """Compared with a tenth, ten times and thirty times the advised rate; 550 synthetic images are
    too few to distinguish them.
    """
    advised = find_learning_rate(
        real_dataset, replace(PRESETS["fast"], seed=seed), "auto", 1
    ).advised
    options = {"preset": "fast", "epochs": 2, "threads": 1, "seed": seed}
    losses = [
        train(real_dataset, lr=lr, **options).history[-1].train_loss
        for lr in (advised, advised / 10, advised * 10, advised * 30)
    ]
    assert losses[0] == min(losses)
