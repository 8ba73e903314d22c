"""Distillation: targets of the student, and which teachers fit."""

import json
import warnings
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from fmnist_fast import Ensemble, load_model, train
from fmnist_fast.data.augment import hflip
from fmnist_fast.data.fashion_mnist import CLASS_NAMES
from fmnist_fast.errors import ArgumentError
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.calibration import apply_temperature
from fmnist_fast.nn.labels import mix_targets, smooth_labels
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.distillation import Teachers, teacher_id
from fmnist_fast.training.presets import PRESETS, preset
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config, split

FAST = {"epochs": 2, "hidden": (16,), "threads": 1}
BACKENDS = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


@pytest.mark.parametrize("name", BACKENDS)
def test_student_targets_are_teachers_predictions(small_dataset, name):
    """Targets mixed explicitly from two teachers give the bytes of distillation."""
    how = Distillation(
        TrainingConfig(hidden=(24,), epochs=3), n_teachers=2, temperature=3.0, alpha=0.6
    )
    options = {**FAST, "backend": name, "hflip": True, "seed": 5}
    student = train(small_dataset, distillation=how, **options)
    probs_nk, networks = 0, []
    for seed in (10, 11):
        teacher = train(small_dataset, hidden=(24,), epochs=3, seed=seed, threads=1, backend=name)
        networks.append(teacher.model.network)
        probability_nk = networks[-1].predict_proba(hflip(small_dataset.x_train))
        probs_nk = probs_nk + apply_temperature(probability_nk, 3.0) / 2
    label_targets_nk = smooth_labels(small_dataset.y_train.astype(np.int32), 10, 0.05, "float32")
    expected_nk = mix_targets(probs_nk, np.concatenate([label_targets_nk, label_targets_nk]), 0.6)
    config = resolve_config(
        TrainingConfig(
            distillation=how,
            **{k: v for k, v in options.items() if k not in ("threads", "backend")},
        ),
        small_dataset,
    )
    teachers = Teachers(tuple(networks), how)
    by_hand = TrainingRun(small_dataset, config, name, 1, teachers=teachers)
    np.testing.assert_array_equal(by_hand.train_set.data.targets_n, expected_nk)
    by_hand.train(Progress(), lambda: False)
    for ours, theirs in zip(student.model.network.params, by_hand.best_network().params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_distillation_bits_do_not_depend_on_threads(small_dataset, backend):
    how = Distillation(TrainingConfig(hidden=(140,), epochs=1), n_teachers=2)
    options = {"hidden": (130, 20), "epochs": 2, "hflip": True, "backend": backend}
    one, three = (
        train(small_dataset, distillation=how, threads=threads, **options) for threads in (1, 3)
    )
    assert one.model.to_bytes() == three.model.to_bytes()


def same(ours, theirs):
    return all(np.array_equal(a, b) for pair in zip(ours, theirs) for a, b in zip(*pair))


@pytest.fixture(scope="module")
def teacher(small_dataset) -> Ensemble:
    """Two models with different temperatures."""
    options = {"epochs": 3, "hidden": (24,), "threads": 1, "backend": "numpy"}
    one, two = (train(small_dataset, seed=seed, **options).model for seed in (10, 11))
    return Ensemble((replace(one, temperature=1.4), replace(two, temperature=0.7)))


@pytest.mark.parametrize("name", BACKENDS)
def test_student_targets_are_predictions_of_given_teacher(small_dataset, teacher, name):
    """Targets mixed explicitly give the same bytes."""
    options = {"hidden": (16,), "epochs": 2, "hflip": True, "seed": 5}
    student = train(small_dataset, teacher=teacher, backend=name, threads=1, **options)
    x = hflip(small_dataset.x_train)
    teachers = Teachers.from_model(teacher, Distillation(""), name, 1)
    probs_nk = sum(apply_temperature(n.predict_proba(x), 2.0) / 2 for n in teachers.networks)
    label_targets_nk = smooth_labels(small_dataset.y_train.astype(np.int32), 10, 0.05, "float32")
    expected_nk = mix_targets(probs_nk, np.concatenate([label_targets_nk, label_targets_nk]), 0.7)
    config = TrainingConfig(**options).with_teacher(teacher_id(teacher))
    run = TrainingRun(
        small_dataset, resolve_config(config, small_dataset), name, 1, teachers=teachers
    )
    np.testing.assert_array_equal(run.train_set.data.targets_n, expected_nk)
    run.train(Progress(), lambda: False)
    assert same(run.best_network().params, student.model.network.params)


def test_predict_soft_at_temperature_1_is_predict_proba(small_dataset, teacher):
    for one in (teacher, teacher.members[0]):
        probs_nk = Teachers.from_model(
            one, Distillation("", temperature=1.0), "numpy", 1
        ).predict_soft(small_dataset.x_test)
        np.testing.assert_allclose(probs_nk, one.predict_proba(small_dataset.x_test), atol=1e-6)


def test_train_saved_teachers_equal_trained_ones(small_dataset):
    """Too few validation rows for calibration."""
    how = Distillation(
        TrainingConfig(hidden=(24,), epochs=2), n_teachers=2, temperature=3.0, alpha=0.6
    )
    options = {**FAST, "seed": 3}
    first = train(small_dataset, distillation=how, **options).model
    kept = Ensemble(
        tuple(
            train(small_dataset, **{**FAST, "hidden": (24,), "seed": seed}).model for seed in (6, 7)
        )
    )
    given = train(small_dataset, distillation=how, teacher=kept, **options).model
    assert same(given.network.params, first.network.params)
    alone = train(small_dataset, **options).model
    assert not same(given.network.params, alone.network.params)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_distillation_given_teacher_bits_independent_of_threads(small_dataset, teacher, backend):
    options = {"hidden": (130, 20), "epochs": 2, "hflip": True, "backend": backend}
    one, three = (
        train(small_dataset, teacher=teacher, threads=threads, **options) for threads in (1, 3)
    )
    assert one.model.to_bytes() == three.model.to_bytes()


def test_model_stores_teacher_in_training_metadata(small_dataset, teacher, tmp_path):
    student = train(small_dataset, teacher=teacher, **FAST).model
    teacher.save(tmp_path / "t.safetensors")
    digest = sha256((tmp_path / "t.safetensors").read_bytes()).hexdigest()
    assert student.training["distillation"] == {
        "teacher": f"sha256:{digest}",
        "n_teachers": 1,
        "temperature": 2.0,
        "alpha": 0.7,
    }
    student.save(tmp_path / "s.safetensors")
    assert load_model(tmp_path / "s.safetensors").training == student.training


def test_train_given_teacher_replaces_preset_teachers(small_dataset, teacher):
    name = teacher_id(teacher)
    for key, how in (("best", (2.0, 0.7)), ("wide", (1.0, 0.8)), ("fast", (2.0, 0.7))):
        config = preset(key).with_teacher(name)
        assert config.difference(PRESETS[key]) == "distillation"
        assert config.distillation == Distillation(name, 1, *how)
        assert config.external_teacher == name
        assert config.with_teacher(name) == config
        assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert preset("best").external_teacher is preset("fast").external_teacher is None

    class Nobody(Progress):
        def teacher(self, number, of):
            pytest.fail("a teacher is trained")

    options = {**FAST, "progress": Nobody()}
    result = train(small_dataset, preset="best", teacher=teacher, **options)
    assert result.config.external_teacher == name


def test_teacher_targets_follow_augmented_images(small_dataset):
    clothes = replace(small_dataset, class_names=CLASS_NAMES)
    teacher = train(clothes, augment="photos", **FAST).model
    how = Distillation(teacher_id(teacher), 1)
    config = resolve_config(
        TrainingConfig(augment="photos", distillation=how, hidden=(16,), epochs=2), clothes
    )
    run = TrainingRun(
        clothes, config, "numpy", 1, teachers=Teachers.from_model(teacher, how, "numpy", 1)
    )
    label_targets_nk, seen = run.train_set.label_targets_n, []

    class Recorder(Progress):
        def epoch(self, record):
            rows_n, networks = run.train_set.rows_n, run.train_set.teachers.networks
            probs_nk = apply_temperature(networks[0].predict_proba(run.train_set.data.x_ni), 2.0)
            expected_nk = mix_targets(probs_nk, label_targets_nk, 0.7)
            assert np.array_equal(run.train_set.data.targets_n[rows_n], expected_nk[rows_n])
            seen.append(expected_nk)

    run.train(Recorder(), lambda: False)
    assert not np.array_equal(*seen)
    by_train = train(clothes, augment="photos", teacher=teacher, backend="numpy", **FAST).model
    assert same(by_train.network.params, run.best_network().params)


def with_training(model, **changes):
    return replace(model, training={**model.training, **changes})


def test_check_teacher_warns_of_seen_validation_rows(small_dataset, teacher):
    member = teacher.members[0]

    def warned(one, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(small_dataset, teacher=one, **{**FAST, **options})
        return [str(warning.message) for warning in caught]

    assert warned(teacher) == []
    strange = replace(member, dataset_name="mine", dataset_checksum="1" * 64)
    assert warned(strange) == ["the teacher was trained on another data set (mine)"]
    warning_text = (
        "the teacher was trained on {} of the {} validation rows: validation accuracy and"
    )
    assert warned(with_training(member, validation=0))[0].startswith(warning_text.format(50, 50))
    assert warned(Ensemble((member, with_training(member, validation=20))))[0].startswith(
        warning_text.format(30, 50)
    )
    assert warned(member, validation=80)[0].startswith(warning_text.format(30, 80))
    assert warned(member, validation=0) == warned(member, validation=30) == []
    assert warned(replace(member, training={})) == []
    assert warned(with_training(member, augment="photos"))[0].startswith(
        "the teacher was trained with augment 'photos', and the student is trained with None"
    )


def test_split_validation_rows_of_smaller_sets_are_nested():
    """`check_teacher` relies on this."""

    train_rows_n, _ = split(600, 50)
    for validation in (20, 50):
        assert not set(split(600, validation)[1]) & set(train_rows_n)
    assert len(set(split(600, 80)[1]) & set(train_rows_n)) == 30


def test_check_teacher_rejects_incompatible_teacher(small_dataset, teacher):
    flat = replace(
        small_dataset,
        x_train=small_dataset.x_train[:, :20],
        x_test=small_dataset.x_test[:, :20],
        checksum="2" * 64,
    )
    with pytest.raises(ArgumentError, match="has 784 inputs and 10 classes; small has 560"):
        train(flat, teacher=teacher, **FAST)
    more = replace(small_dataset, class_names=tuple("abcdefghijk"), checksum="2" * 64)
    with pytest.raises(ArgumentError, match="10 classes; small has 784 and 11"):
        train(more, teacher=teacher, **FAST)
    with pytest.raises(ArgumentError, match=r"teacher is 'x\.safetensors': give a model"):
        train(small_dataset, teacher="x.safetensors", **FAST)
    with pytest.raises(ArgumentError, match=r"'best': give a TrainingConfig, or a trained model"):
        train(small_dataset, distillation=Distillation("best"), **FAST)
    name = teacher_id(teacher)
    with pytest.raises(ArgumentError, match=r"teacher sha256:\w{8}\.\.\. .* is missing"):
        train(small_dataset, distillation=Distillation(name), **FAST)
