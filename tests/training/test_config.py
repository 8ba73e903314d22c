"""Recipes by name, time budgets, early stops, class weights: what is asked for is what happens."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.data.augment import hflip
from fmnist_fast.errors import ArgumentError
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.calibration import apply_temperature
from fmnist_fast.nn.labels import mix_targets, smooth_labels
from fmnist_fast.training.budget import Clock, TimeBudget
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.distillation import Teachers
from fmnist_fast.training.presets import DEFAULT, PRESETS, measured_results, preset
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config
from fmnist_fast.training.trainer import TrainingDiverged

FAST = {"epochs": 2, "hidden": (16,), "threads": 1}
BACKENDS = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


def test_a_preset_is_a_recipe_and_changes_override_it():
    assert preset() == PRESETS[DEFAULT] == TrainingConfig()
    assert preset("fast", epochs=7) == replace(PRESETS["fast"], epochs=7)
    with pytest.raises(ArgumentError, match="unknown preset 'quick': choose from fast, standard"):
        preset("quick")


def test_presets_are_the_networks_that_they_should_be():
    def weights(name):
        spec = NetworkSpec((784, *PRESETS[name].hidden, 10))
        return sum((i + 1) * o for i, o in spec.shapes)

    assert all(PRESETS[name].hidden == (128, 64) for name in ("fast", "standard", "best"))
    assert weights("wide") <= 2_000_000


def test_what_was_measured_is_what_the_presets_are(small_dataset):
    clothes = replace(small_dataset, hflip_invariant=True)
    # How good photos is, photographs say: benchmarks/photo_table.py.
    assert measured_results().keys() == PRESETS.keys() - {"photos"}
    for name, result in measured_results().items():
        then, now = TrainingConfig.from_dict(result.config), resolve_config(PRESETS[name], clothes)
        then = replace(then, validation=now.validation)
        if then.distillation:
            taught = replace(then.distillation.teacher, validation=now.validation)
            then = replace(then, distillation=replace(then.distillation, teacher=taught))
        assert then.difference(now) is None
        assert len(result.test_accuracy) == len(result.seconds) >= 5


def test_a_time_budget_alone_takes_the_best_recipe_that_fits():
    seconds = {name: max(result.seconds) for name, result in measured_results().items()}
    assert preset(time_budget=0.1).epochs == PRESETS["fast"].epochs
    assert preset(time_budget=1.1 * seconds["standard"]).epochs == PRESETS["standard"].epochs
    assert preset(time_budget=1.1 * seconds["best"]).distillation
    assert preset(time_budget=10_000).hidden == (128, 64)
    assert not preset("standard", time_budget=10_000).distillation


def test_clothes_are_flipped_and_other_images_are_not(small_dataset):
    config = TrainingConfig()
    assert resolve_config(config, small_dataset).hflip is False
    assert resolve_config(config, replace(small_dataset, hflip_invariant=True)).hflip is True
    assert resolve_config(replace(config, hflip=True), small_dataset).hflip is True


@pytest.mark.parametrize("name", BACKENDS)
def test_a_student_learns_what_its_teachers_say(small_dataset, name):
    """Two teachers by hand, blended by hand, give the bytes that distillation gives."""
    taught_by = Distillation(
        TrainingConfig(hidden=(24,), epochs=3), n_teachers=2, temperature=3.0, alpha=0.6
    )
    options = {**FAST, "backend": name, "hflip": True, "seed": 5}
    student = train(small_dataset, distillation=taught_by, **options)
    said_nk, networks = 0, []
    for seed in (10, 11):
        teacher = train(small_dataset, hidden=(24,), epochs=3, seed=seed, threads=1, backend=name)
        networks.append(teacher.model.network)
        probability_nk = networks[-1].predict_proba(hflip(small_dataset.x_train))
        said_nk = said_nk + apply_temperature(probability_nk, 3.0) / 2
    asked_nk = smooth_labels(small_dataset.y_train.astype(np.int32), 10, 0.05, "float32")
    expected_nk = mix_targets(said_nk, np.concatenate([asked_nk, asked_nk]), 0.6)
    config = resolve_config(
        TrainingConfig(distillation=taught_by, **without_threads(options)), small_dataset
    )
    teachers = Teachers(tuple(networks), taught_by)
    by_hand = TrainingRun(small_dataset, config, name, 1, teachers=teachers)
    np.testing.assert_array_equal(by_hand.train_set.data.targets_n, expected_nk)
    by_hand.train(Progress(), lambda: False)
    for ours, theirs in zip(student.model.network.params, by_hand.best_network().params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def without_threads(options):
    return {name: value for name, value in options.items() if name not in ("threads", "backend")}


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_distillation_gives_the_same_bits_for_any_number_of_threads(small_dataset, backend):
    taught_by = Distillation(TrainingConfig(hidden=(140,), epochs=1), n_teachers=2)
    options = {"hidden": (130, 20), "epochs": 2, "hflip": True, "backend": backend}
    one, three = (
        train(small_dataset, distillation=taught_by, threads=threads, **options)
        for threads in (1, 3)
    )
    assert one.model.to_bytes() == three.model.to_bytes()


def test_patience_ends_a_run_that_gets_no_better(small_dataset):
    result = train(small_dataset, epochs=200, hidden=(16,), validation=100, patience=3, threads=1)
    assert result.best_epoch + 3 == len(result.history) < 200
    accuracies = [record.validation_accuracy for record in result.history]
    assert accuracies[result.best_epoch - 1] == max(accuracies)
    assert result.model.metrics["validation_accuracy"] == max(accuracies)


def test_callbacks_see_every_epoch_and_can_end_the_run(small_dataset):
    seen = []

    def watch(state):
        seen.append((state.record.epoch, len(state.history), state.best_epoch))
        assert state.network.predict_proba(small_dataset.x_test[:2]).shape == (2, 10)
        assert state.config.epochs == 50

    def enough(state):
        return state.record.epoch == 4

    result = train(small_dataset, on_epoch_end=[enough, watch], **{**FAST, "epochs": 50})
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4]
    assert [count for _, count, _ in seen] == [1, 2, 3, 4]
    assert len(result.history) == 4
    assert len(train(small_dataset, on_epoch_end=enough, **{**FAST, "epochs": 3}).history) == 3


def test_class_weights_weigh_rows_by_their_class(small_dataset):
    weights = {0: 3.0, 4: 0.5}
    per_row = np.array([weights.get(int(label), 1.0) for label in small_dataset.y_train])
    by_class = train(small_dataset, class_weight=weights, **FAST)
    by_row = train(small_dataset, sample_weight=per_row, **FAST)
    for ours, theirs in zip(by_class.model.network.params, by_row.model.network.params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_balanced_gives_every_class_the_same_weight(small_dataset):
    keep = (small_dataset.y_train > 2) | (np.arange(600) % 5 == 0)
    uneven = replace(
        small_dataset, x_train=small_dataset.x_train[keep], y_train=small_dataset.y_train[keep]
    )
    config = resolve_config(
        TrainingConfig(class_weight="balanced", validation=0, **without_threads(FAST)), uneven
    )
    run = TrainingRun(uneven, config, "numpy", 1)
    total_k = np.bincount(uneven.y_train, weights=run.train_set.data.weights_n, minlength=10)
    np.testing.assert_allclose(total_k, len(uneven.y_train) / 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weight": "heavy"}, "class_weight is 'heavy': give 'balanced' or"),
        ({"class_weight": {10: 1.0}}, r"class_weight: unknown label 10: labels are 0\.\.9"),
        ({"class_weight": {1: -1}}, "class_weight of label 1 is -1: give 0 or more"),
        ({"time_budget": 0}, "time_budget is 0.0: give seconds, more than 0"),
        ({"time_budget": "2s"}, "time_budget is '2s': give seconds"),
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
def test_what_is_wrong_is_said(small_dataset, options, message):
    with pytest.raises(ArgumentError, match=message):
        train(small_dataset, **options)


def test_a_loss_that_explodes_is_a_divergence(small_dataset):
    """Finite all the way, and useless."""
    with pytest.raises(TrainingDiverged, match=r"the loss has exploded; use a lower learning rate"):
        train(small_dataset, lr=30.0, schedule="constant", weight_decay=0.0, **FAST)


def test_a_large_penalty_is_no_explosion(small_dataset):
    assert len(train(small_dataset, l2=1.0, **FAST).history) == 2


class Ticking(Clock):
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("slower", [1.0, 0.3, 3.0])
def test_a_run_by_the_clock_ends_in_time_at_an_annealed_rate(slower):
    """Also on a machine whose speed changes half-way."""
    clock = Ticking()
    pace, done, rates = TimeBudget("onecycle", 1.0, 0.0, 10.0, clock), 0, []
    while len(found := pace.rates(done, 40)):
        seconds = 0.001 * len(found) * (slower if clock.now > 5 else 1)
        clock.now += seconds
        pace.observe(len(found), seconds)
        done += len(found)
        rates.extend(found)
    assert 9.9 < clock.now <= 10.0 + 0.1
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] < 1e-4
    assert rates.index(max(rates)) == pytest.approx(2500, abs=60)


@pytest.mark.alone
def test_a_budget_is_for_teachers_and_student_together(small_dataset):
    """Also where the teachers have more time than their epochs would take."""

    class Watch(Progress):
        begun: ClassVar[list] = []

        def begin(self, network, config, dataset):
            self.begun.append((network.spec.sizes[1], time.perf_counter()))

    taught_by = Distillation(TrainingConfig(hidden=(24,), epochs=2), n_teachers=2)
    start = time.perf_counter()
    result = train(
        small_dataset,
        distillation=taught_by,
        preset="standard",
        hidden=(16,),
        epochs=4,
        time_budget=1.5,
        threads=1,
        progress=Watch(),
    )
    assert [width for width, _ in Watch.begun] == [24, 24, 16]
    times = [at - start for _, at in Watch.begun]
    # By their multiply-adds: 2 x 24 wide, 2 x 24 wide, 4 x 16 wide.
    assert times[1] == pytest.approx(1.5 * 48 / 160, abs=0.15)
    assert times[2] == pytest.approx(1.5 * 96 / 160, abs=0.15)
    assert result.seconds == pytest.approx(1.5, abs=0.1)
    assert len(result.history) > 4


def test_time_that_is_over_before_it_begins_still_trains_a_step(small_dataset):
    result = train(small_dataset, time_budget=1e-3, threads=1)
    assert len(result.history) == 1
    assert result.model.predict(small_dataset.x_test).shape == (200,)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.7, 1.5])
def test_a_command_with_a_budget_ends_in_time(small_npz, tmp_path, seconds):
    """The whole process; the best of three, since a machine has other things to do."""
    late, epochs = [], []
    for attempt in range(3):
        out = tmp_path / f"{attempt}.safetensors"
        command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz)]
        command += ["--time-budget", f"{seconds}s", "--threads", "1", "--json", "--quiet"]
        start = time.perf_counter()
        ran = subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.PIPE)
        late.append(time.perf_counter() - start - seconds)
        epochs.append(json.loads(ran.stdout)["epochs"])
    assert min(late) < max(0.1, 0.05 * seconds)
    assert max(epochs) > 3
    assert max(late) > -0.5 * seconds  # the time is used
