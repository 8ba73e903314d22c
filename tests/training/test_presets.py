"""Presets and their measured results."""

from dataclasses import replace

import pytest

from fmnist_fast.errors import ArgumentError
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.presets import DEFAULT, PRESETS, measured_results, preset
from fmnist_fast.training.train_data import resolve_config


def test_preset_is_config_that_changes_override():
    assert preset() == PRESETS[DEFAULT] == TrainingConfig()
    assert preset("fast", epochs=7) == replace(PRESETS["fast"], epochs=7)
    with pytest.raises(ArgumentError, match="unknown preset 'quick': choose from fast, standard"):
        preset("quick")


def test_presets_have_expected_networks():
    def weights(name):
        spec = NetworkSpec((784, *PRESETS[name].hidden, 10))
        return sum((i + 1) * o for i, o in spec.shapes)

    assert all(PRESETS[name].hidden == (128, 64) for name in ("fast", "standard", "best"))
    assert weights("wide") <= 2_000_000


def test_measured_results_are_of_current_presets(small_dataset):
    clothes = replace(small_dataset, hflip_invariant=True)
    # The preset photos is measured on photographs: benchmarks/photo_table.py.
    assert measured_results().keys() == PRESETS.keys() - {"photos"}
    for name, result in measured_results().items():
        then, now = TrainingConfig.from_dict(result.config), resolve_config(PRESETS[name], clothes)
        then = replace(then, validation=now.validation)
        if then.distillation:
            teacher = replace(then.distillation.teacher, validation=now.validation)
            then = replace(then, distillation=replace(then.distillation, teacher=teacher))
        assert then.difference(now) is None
        assert len(result.test_accuracy) == len(result.seconds) >= 5


def test_time_budget_alone_takes_best_fitting_preset():
    seconds = {name: max(result.seconds) for name, result in measured_results().items()}
    assert preset(time_budget=0.1).epochs == PRESETS["fast"].epochs
    assert preset(time_budget=1.1 * seconds["standard"]).epochs == PRESETS["standard"].epochs
    assert preset(time_budget=1.1 * seconds["best"]).distillation
    assert preset(time_budget=10_000).hidden == (128, 64)
    assert not preset("standard", time_budget=10_000).distillation
