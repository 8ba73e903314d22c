"""Search space: reading and validation of its file."""

import re
from pathlib import Path

import pytest
from messages import assert_one_line
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_fast.distributed.sweep.space import BUILT_IN, FIELDS, read_space
from fmnist_fast.errors import ArgumentError, UserError
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.presets import preset


def space_of(text, tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(text)
    return read_space(path)


def test_built_in_space_is_valid_for_every_preset():
    space = read_space()
    assert space.searched.keys() >= {
        "lr",
        "l2",
        "batch_size",
        "schedule",
        "hidden",
        "label_smoothing",
        "dropout",
        "epochs",
    }
    for name in ("fast", "standard", "photos"):
        space.check(preset(name), 60_000, 10)


def test_read_space_accepts_byte_order_mark(tmp_path):
    text = "lr = { low = 1e-4, high = 1 }\r\n"
    assert space_of("\ufeff" + text, tmp_path) == space_of(text, tmp_path)


def test_read_space_ranges_choices_and_fixed_values(tmp_path):
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
        "epochs": IntDistribution(2, 8, step=3),
        "hidden": CategoricalDistribution(("128,64", "none")),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
    }
    assert space.settings({"epochs": 5, "hidden": "none", "lr": 0.1}) == {
        "hflip": False,
        "l2": 0.0,
        "epochs": 5,
        "hidden": (),
        "lr": 0.1,
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("lr = { low = 1, high = 0.1 }", "lr: low is 1.0 and high is 0.1"),
        ("lr = { low = 0, high = 0.1, log = true }", "lr: low is 0.0: a log scale"),
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
        ("epochs = { low = 1.5, high = 3 }", "epochs: 1.5 is not an integer"),
        ("batch_size = { choices = [] }", "batch_size: choices must be a list"),
        ("batch_size = { choices = [32, 32] }", "batch_size: duplicate choice"),
        ("hidden = { choices = [128] }", "hidden: 128 is not a list of widths"),
        ("hidden = { low = 1, high = 3 }", "hidden has no range"),
        ("schedule = { choices = [3] }", "schedule: 3 is not a string"),
        ("hflip = { choices = ['no'] }", "hflip: 'no' is not true or false"),
        ("learning_rate = 0.1", "unknown field 'learning_rate': choose from"),
        ("seed = { choices = [1, 2] }", "seed cannot be searched: give --seed"),
        ("time_budget = 3.0", "time_budget cannot be searched"),
        ("lr = 0.1", "nothing to choose"),
        ("lr = ", "is not TOML"),
    ],
)
def test_read_space_error_names_file_and_field(text, part, tmp_path):
    with pytest.raises(UserError) as caught:
        space_of(text, tmp_path)
    assert_one_line(str(caught.value), part, str(tmp_path / "space.toml"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("dropout = { low = 0.0, high = 1.0 }", "dropout is 1.0"),
        ("schedule = { choices = ['onecycle', 'magic'] }", "unknown schedule 'magic'"),
        ("hidden = { choices = [[8], [8, 0]] }", "hidden is 0"),
        ("epochs = { low = 0, high = 3 }", "epochs is 0"),
        ("label_smoothing = { low = -0.1, high = 0.3 }", "label_smoothing is -0.1"),
        ("lr = {low = 1, high = 2}\nweight_decay = {low = 0.0, high = 0.9}", "their product"),
    ],
)
def test_check_rejects_values_invalid_in_every_config(text, part, tmp_path):
    space = space_of(text, tmp_path)
    with pytest.raises(ArgumentError) as caught:
        space.check(TrainingConfig(), 600, 10)
    assert_one_line(str(caught.value), part)


def test_read_space_rejects_missing_file(tmp_path):
    with pytest.raises(UserError) as caught:
        read_space(tmp_path / "missing.toml")
    assert_one_line(str(caught.value), "missing.toml cannot be read: No such file")


def test_example_space_is_valid():
    example = Path(__file__).parents[3] / "examples" / "space.toml"
    space = read_space(example)
    space.check(TrainingConfig(), rows=60_000, classes=10)
    assert space.fixed["hidden"] == (128, 64)


def test_built_in_space_file_documents_format():
    text = BUILT_IN.read_text()
    assert "choices" in text
    assert "log = true" in text


def test_built_in_space_file_lists_every_field():
    listed = BUILT_IN.read_text().partition("# Fields: ")[2].partition(".")[0]
    assert set(re.findall(r"[a-z_0-9]+", listed)) >= set(FIELDS)
