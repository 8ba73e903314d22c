"""Whole runs on the real data set: what users get must not depend on the backend."""

import pytest

from fmnist_fast import train
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason

SEEDS = range(5)
NEARNESS = 0.003  # of the mean test accuracy of five runs; one run's spread over seeds is as large


@pytest.mark.slow
def test_the_backends_reach_the_same_accuracy(real_dataset, capsys):
    built = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
    means = {}
    for name in built:
        accuracies = [
            train(real_dataset, backend=name, epochs=15, seed=seed).test_accuracy for seed in SEEDS
        ]
        means[name] = sum(accuracies) / len(accuracies)
    with capsys.disabled():
        print(f"\nmean test accuracy, 15 epochs, {len(SEEDS)} seeds: {means}")
    assert max(means.values()) - min(means.values()) < NEARNESS
    assert min(means.values()) > 0.885
