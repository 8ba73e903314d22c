"""Results of a sweep."""

import pytest
from optuna.distributions import FloatDistribution
from sweeps import make_config, open_store, run

from fmnist_fast.distributed.sweep.results import importances
from fmnist_fast.distributed.sweep.space import Space


def test_importances_rank_influential_field_first(small_dataset, pool, tmp_path):
    space = Space(
        {"lr": FloatDistribution(1e-7, 1e-2, log=True), "l2": FloatDistribution(0.0, 1e-9)},
        {"epochs": 3, "hidden": (16,)},
    )
    config = make_config(small_dataset, space, trials=20)
    with open_store(config, tmp_path / "s") as store:
        run(config, store, pool)
        fractions = importances(store)
    assert list(fractions) == ["lr", "l2"]
    assert sum(fractions.values()) == pytest.approx(1)
