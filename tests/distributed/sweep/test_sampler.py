"""Samplers: draws cover the distributions, and depend on seed and number only."""

import numpy as np
import pytest
from optuna.trial import create_trial

from fmnist_fast.distributed.sweep.sampler import make_sampler, value_at
from fmnist_fast.distributed.sweep.space import read_space


def space_of(text, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path)


def test_value_at_reaches_every_value_and_no_other(tmp_path):
    space = space_of(
        """
        lr = { low = 1e-4, high = 1e-1, log = true }
        l2 = { low = 0.1, high = 0.3, step = 0.1 }
        dropout = { low = 0.25, high = 0.5 }
        epochs = { low = 3, high = 20 }
        ema_epochs = { low = 1, high = 50, log = true }
        batch_size = { choices = [32, 64, 128] }
        """,
        tmp_path,
    )
    points = (np.arange(10_000) + 0.5) / 10_000
    drawn = {
        name: np.array([value_at(distribution, u) for u in points])
        for name, distribution in space.searched.items()
    }
    assert set(drawn["epochs"]) == set(range(3, 21))
    assert set(np.bincount(drawn["epochs"])[3:]) <= {555, 556}
    assert set(drawn["ema_epochs"]) == set(range(1, 51))
    assert set(drawn["batch_size"]) == {32, 64, 128}
    assert np.allclose(np.unique(drawn["l2"].round(9)), [0.1, 0.2, 0.3])
    assert ((drawn["lr"] < 1e-3).mean(), (drawn["lr"] < 1e-2).mean()) == (
        pytest.approx(1 / 3, abs=1e-4),
        pytest.approx(2 / 3, abs=1e-4),
    )
    assert drawn["dropout"].min() >= 0.25
    assert drawn["dropout"].max() <= 0.5
    for name, distribution in space.searched.items():
        for value in drawn[name]:  # of which Optuna accepts each
            trial = create_trial(params={name: value}, distributions={name: distribution}, value=0)
            assert trial.params[name] == value


class Numbered:
    """Trial with the attributes that a sampler uses."""

    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_sampler_draws_are_function_of_seed_and_number(name):
    def draws(seed, numbers):
        sampler = make_sampler(name, read_space(), seed, trials=0)
        space = sampler.infer_relative_search_space(None, None)
        return [sampler.sample_relative(None, Numbered(n), space) for n in numbers]

    forwards = draws(3, range(6))
    assert draws(3, reversed(range(6)))[::-1] == forwards
    assert draws(3, [2000]) == draws(3, [2000])
    assert len({str(draw) for draw in [*forwards, *draws(3, [1500]), *draws(4, range(6))]}) == 13


def test_sampler_qmc_points_are_evenly_spread():
    """Of 2^n Sobol points, each half of every range has exactly half."""
    sampler = make_sampler("qmc", read_space(), 0, trials=0)
    space = {"dropout": read_space().searched["dropout"]}
    drawn = [
        sampler.sample_relative(None, Numbered(n), space)["dropout"] for n in range(1024, 1280)
    ]
    assert sum(value < 0.15 for value in drawn) == 128
