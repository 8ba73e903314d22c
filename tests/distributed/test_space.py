"""What a sweep may choose from: all of it is checked before anything runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from fmnist_fast.distributed.sweep.space import BUILT_IN, Choices, Range, read_space
from fmnist_fast.errors import ArgumentError, UserError
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.presets import preset

pytest.importorskip("optuna", reason="Optuna is not installed")

from fmnist_fast.distributed.sweep.sampler import _at, distributions, make_sampler


def space_of(text, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path)


def test_the_built_in_space_covers_what_matters_and_fits_every_preset():
    space = read_space()
    assert space.searched.keys() >= {
        *("lr", "l2", "batch_size", "schedule", "hidden", "label_smoothing", "dropout", "epochs")
    }
    for name in ("fast", "standard", "photos"):
        space.check(preset(name), 60_000, 10)


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path):
    text = "lr = { low = 1e-4, high = 1 }\r\n"
    assert space_of("\ufeff" + text, tmp_path) == space_of(text, tmp_path)


def test_ranges_choices_and_fixed_values(tmp_path):
    space = space_of(
        """
        lr = { low = 1e-4, high = 1, log = true }
        epochs = { low = 2, high = 9, step = 3 }
        hidden = { choices = [[128, 64], []] }
        hflip = false
        l2 = 0
        """,
        tmp_path,
    )
    assert space.fixed == {"hflip": False, "l2": 0.0}
    assert space.searched == {
        "epochs": Range(2, 8, False, 3),
        "hidden": Choices(((128, 64), ())),
        "lr": Range(1e-4, 1.0, True, None),
    }
    assert space.settings({"epochs": 5, "hidden": "none", "lr": 0.1}) == {
        **{"hflip": False, "l2": 0.0, "epochs": 5, "hidden": (), "lr": 0.1}
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = { low = 1, high = 0.1 }", "lr: low is 1.0 and high is 0.1"),
        ("lr = { low = 0, high = 0.1, log = true }", "lr: low is 0.0: on a logarithm's scale"),
        ("lr = { low = 0.1 }", "lr: give {low = .., high = ..}"),
        ("lr = { low = 0.1, high = 1, base = 2 }", "lr: give {low = .., high = ..}"),
        ("lr = { low = 0.1, high = 1, log = 1 }", "lr: log is true or false"),
        ("lr = { low = 0.1, high = 1, step = 0 }", "lr: step is 0.0"),
        ("lr = { low = 0.1, high = 1, step = 0.1, log = true }", "lr: give log or step"),
        ("lr = { low = 0.1, high = 1, step = 2 }", "lr: step is 2.0: give at most"),
        ("lr = { low = 'a', high = 1 }", "lr: 'a' is not a number"),
        ("lr = { low = nan, high = 1 }", "lr: nan is not a number"),
        ("lr = true\nl2 = {low = 0, high = 1}", "lr: True is not a number"),
        ("lr = [0.001, 0.01]", "lr: give {low = .., high = ..}"),
        ("epochs = { low = 1.5, high = 3 }", "epochs: 1.5 is not a whole number"),
        ("batch_size = { choices = [] }", "batch_size: choices must be a list"),
        ("batch_size = { choices = [32, 32] }", "batch_size: a choice stands there twice"),
        ("hidden = { choices = [128] }", "hidden: 128 is not a list of widths"),
        ("hidden = { low = 1, high = 3 }", "hidden has no range"),
        ("schedule = { choices = [3] }", "schedule: 3 is not a word"),
        ("hflip = { choices = ['no'] }", "hflip: 'no' is not true or false"),
        ("learning_rate = 0.1", "unknown field 'learning_rate': choose from"),
        ("seed = { choices = [1, 2] }", "seed is not for a sweep to choose: give --seed"),
        ("time_budget = 3.0", "time_budget is not for a sweep to choose"),
        ("lr = 0.1", "nothing to choose"),
        ("lr = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_the_file_and_the_field(text, said, tmp_path):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        space_of(text, tmp_path)
    assert str(tmp_path / "space.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dropout = { low = 0.0, high = 1.0 }", "dropout is 1.0"),
        ("schedule = { choices = ['onecycle', 'magic'] }", "unknown schedule 'magic'"),
        ("hidden = { choices = [[8], [8, 0]] }", "hidden is 0"),
        ("epochs = { low = 0, high = 3 }", "epochs is 0"),
        ("label_smoothing = { low = -0.1, high = 0.3 }", "label_smoothing is -0.1"),
        ("lr = {low = 1, high = 2}\nweight_decay = {low = 0.0, high = 0.9}", "their product"),
    ],
)
def test_values_that_no_recipe_can_have_are_found_before_anything_runs(text, said, tmp_path):
    space = space_of(text, tmp_path)
    with pytest.raises(ArgumentError, match=re.escape(said)):
        space.check(TrainingConfig(), 600, 10)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"missing\.toml cannot be read: No such file"):
        read_space(tmp_path / "missing.toml")


def test_every_part_of_a_distribution_is_reached_and_nothing_else(tmp_path):
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
    shares = (np.arange(10_000) + 0.5) / 10_000
    drawn = {
        name: np.array([_at(distribution, share) for share in shares])
        for name, distribution in distributions(space).items()
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
    for name, distribution in distributions(space).items():  # and Optuna takes them all
        assert all(distribution._contains(distribution.to_internal_repr(v)) for v in drawn[name])


class Numbered:
    """All that a sampler asks of a trial."""

    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_draws_are_a_function_of_seed_and_number(name):
    def draws(seed, numbers):
        sampler = make_sampler(name, read_space(), seed, tried=0)
        space = sampler.infer_relative_search_space(None, None)
        return [sampler.sample_relative(None, Numbered(n), space) for n in numbers]

    forwards = draws(3, range(6))
    assert draws(3, reversed(range(6)))[::-1] == forwards
    assert draws(3, [2000]) == draws(3, [2000])
    assert len({str(draw) for draw in [*forwards, *draws(3, [1500]), *draws(4, range(6))]}) == 13


def test_quasi_random_points_are_evenly_spread():
    """Of a power of two of Sobol's points every half of every range has just a half."""
    sampler = make_sampler("qmc", read_space(), 0, tried=0)
    space = {"dropout": distributions(read_space())["dropout"]}
    drawn = [
        sampler.sample_relative(None, Numbered(n), space)["dropout"] for n in range(1024, 1280)
    ]
    assert sum(value < 0.15 for value in drawn) == 128


def test_the_example_is_a_space():
    example = Path(__file__).parents[2] / "examples" / "space.toml"
    space = read_space(example)
    space.check(TrainingConfig(), rows=60_000, classes=10)
    assert space.fixed["hidden"] == (128, 64)


def test_the_built_in_file_says_how_to_write_one():
    text = BUILT_IN.read_text()
    assert "choices" in text
    assert "log = true" in text
