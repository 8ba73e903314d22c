"""Training configurations: validation of fields, JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.errors import ArgumentError
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.presets import PRESETS


def test_n_validation_is_a_twelfth_of_small_sets():
    assert TrainingConfig().n_validation(60_000) == 5000
    assert TrainingConfig().n_validation(600) == 50
    assert TrainingConfig().n_validation(3) == 0
    assert TrainingConfig(validation=7).n_validation(600) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"hidden": (16, 0)}, "hidden is 0"),
        ({"lr": 0.0}, "lr is 0.0: give more than 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"validation": 600}, "validation is 600: give less than all 600 rows"),
        ({"validation": -1}, "validation is -1"),
        ({"sample_weight": np.ones(3)}, r"sample_weight has shape \(3,\)"),
        ({"sample_weight": -np.ones(600)}, "sample_weight must be finite, not negative"),
        ({"threads": 0}, "threads is 0"),
        ({"epochs": "5"}, "epochs is '5': give an integer"),
        ({"seed": 1.5}, "seed is 1.5: give an integer"),
        ({"batch_size": 10**20}, "batch_size is 1.*: give at least 1 and less than 2,147,483,648"),
        ({"threads": 2.5}, "threads is 2.5: give an integer"),
        ({"hidden": 64}, r"hidden is 64: give the widths, like \(128, 64\)"),
        ({"lr": "1"}, "lr is '1': give a number"),
        ({"weight_decay": -1}, "weight_decay is -1.0: give at least 0"),
        ({"weight_decay": 500.0}, "lr is 0.002 and weight_decay is 500: their product"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0: give at least 0 and less than 1"),
        ({"dropout": 1.0}, "dropout is 1.0: give at least 0 and less than 1"),
        ({"dropout": -0.1}, "dropout is -0.1: give at least 0"),
        ({"dropout": "some"}, "dropout is 'some': give a number"),
        ({"hflip": 1}, "hflip is 1: give True, False or None"),
    ],
)
def test_config_check_names_invalid_argument(small_dataset, options, message):
    with pytest.raises(ArgumentError, match=message):
        train(small_dataset, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weight": "heavy"}, "class_weight is 'heavy': give 'balanced' or"),
        ({"class_weight": [1.0, 2.0]}, r"class_weight is \[1.0, 2.0\]: give 'balanced' or"),
        ({"class_weight": {10: 1.0}}, r"class_weight: label 10 is not in 0\.\.9"),
        ({"class_weight": {1: -1}}, "class_weight of label 1 is -1: give 0 or more"),
        ({"time_budget": 0}, "time_budget is 0.0: give more than 0"),
        ({"time_budget": "2s"}, "time_budget is '2s': give a number"),
        ({"patience": 0}, "patience is 0: give at least 1"),
        ({"patience": 2, "validation": 0}, "patience needs validation rows"),
        ({"preset": "nope"}, "unknown preset 'nope'"),
        ({"distillation": Distillation(TrainingConfig(epochs=0))}, "epochs is 0"),
        ({"distillation": Distillation(TrainingConfig(), n_teachers=0)}, "n_teachers is 0"),
        ({"distillation": Distillation(TrainingConfig(), temperature=0)}, "temperature is 0"),
        ({"distillation": Distillation(TrainingConfig(), alpha=1.1)}, "alpha is 1.1"),
        ({"distillation": Distillation(PRESETS["best"])}, "a teacher with teachers"),
        ({"checkpoint": "x", "checkpoint_every": 0}, "checkpoint_every is 0"),
    ],
)
def test_config_check_names_invalid_field(small_dataset, options, message):
    with pytest.raises(ArgumentError, match=message):
        train(small_dataset, **options)


def test_config_of_presets_round_trips_through_json():
    for config in PRESETS.values():
        changed = replace(config, class_weight={3: 2.0, 1: 0.5}, time_budget=1, patience=2)
        for one in (config, changed):
            assert TrainingConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one
            assert one.difference(one) is None
    assert PRESETS["fast"].difference(PRESETS["standard"]) == "epochs"
