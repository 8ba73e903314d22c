"""The data of a training: split, weights, flips, label smoothing."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.data.augment import flip_rows, hflip
from fmnist_fast.errors import ArgumentError
from fmnist_fast.nn.labels import smooth_labels
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config, split

FAST = {"epochs": 2, "hidden": (16,), "backend": "numpy", "threads": 1}


def test_split_partitions_rows():
    train_rows, held_back = split(100, 30)
    assert len(held_back) == 30
    assert sorted([*train_rows, *held_back]) == list(range(100))
    assert not np.array_equal(held_back, np.arange(30))
    assert train_rows.dtype == held_back.dtype == np.int32


def test_sample_weights_weigh_rows(small_dataset):
    """Rows of class 0 alone have weight: everything becomes class 0."""
    weight = (small_dataset.y_train == 0).astype(float)
    result = train(small_dataset, sample_weight=weight, validation=0, **FAST)
    assert (result.model.predict(small_dataset.x_test) == 0).mean() > 0.9


def test_sample_weights_of_equal_value_change_nothing(small_dataset):
    plain = train(small_dataset, **FAST)
    equal = train(small_dataset, sample_weight=np.ones(600), **FAST)
    assert plain.model.to_bytes() == equal.model.to_bytes()


def test_label_smoothing_lowers_confidence(small_dataset):
    soft_nk = smooth_labels(np.array([2, 0], np.int32), 4, 0.1, "float64")
    np.testing.assert_allclose(
        soft_nk, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    )
    unsmoothed, smoothed = (
        train(small_dataset, label_smoothing=s, **{**FAST, "epochs": 8}) for s in (0.0, 0.3)
    )
    plain_confidence, smoothed_confidence = (
        r.model.predict_proba(small_dataset.x_test).max(axis=1).mean()
        for r in (unsmoothed, smoothed)
    )
    assert smoothed_confidence < plain_confidence - 0.1


def test_flip_rows_flips_half_of_rows():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    both = hflip(images)
    assert np.array_equal(both[:2], images)
    assert np.array_equal(both[2:, :, ::-1], images)
    order_n = np.random.default_rng(0).permutation(1000).astype(np.int32)
    flipped = flip_rows(order_n, 1000, 0, 1)
    assert flipped.dtype == np.int32
    assert np.array_equal(flipped % 1000, order_n)
    assert 400 < (flipped >= 1000).sum() < 600
    # What happens to a row does not depend on its place, but on seed and epoch.
    again = flip_rows(np.sort(order_n), 1000, 0, 1)
    assert set(again) == set(flipped)
    assert set(flip_rows(order_n, 1000, 0, 2)) != set(flipped)
    assert set(flip_rows(order_n, 1000, 1, 1)) != set(flipped)


def test_hflip_rejects_tables(small_dataset):
    rows = replace(
        small_dataset,
        x_train=small_dataset.x_train.reshape(600, -1),
        x_test=small_dataset.x_test.reshape(200, -1),
    )
    with pytest.raises(ArgumentError, match="hflip needs images"):
        train(rows, hflip=True, **FAST)


def test_split_folds_cover_rows_once():
    held_back = [split(103, 0, (number, 4)) for number in range(4)]
    assert sorted(np.concatenate([held for _, held in held_back])) == list(range(103))
    for rows, held in held_back:
        assert len(held) in (25, 26)
        assert sorted(np.concatenate([rows, held])) == list(range(103))
        assert (np.diff(rows) > 0).all()


def test_train_uses_given_flipped_images(small_dataset):
    config = resolve_config(TrainingConfig(epochs=1, hidden=(8,), hflip=True), small_dataset)
    ready = replace(small_dataset, x_train_with_flips=hflip(small_dataset.x_train))
    losses = []
    for dataset in (small_dataset, ready):
        run = TrainingRun(dataset, config, "numpy", 1)
        run.train(Progress(), lambda: False)
        losses.append(run.history[0].train_loss)
    assert losses[0] == losses[1]
    assert np.shares_memory(run.train_set.data.x_ni, ready.x_train_with_flips)


def test_resolve_config_flips_invariant_data_only(small_dataset):
    config = TrainingConfig()
    assert resolve_config(config, small_dataset).hflip is False
    assert resolve_config(config, replace(small_dataset, hflip_invariant=True)).hflip is True
    assert resolve_config(replace(config, hflip=True), small_dataset).hflip is True


def test_class_weights_weigh_rows_by_class(small_dataset):
    weights = {0: 3.0, 4: 0.5}
    per_row = np.array([weights.get(int(label), 1.0) for label in small_dataset.y_train])
    by_class = train(small_dataset, class_weight=weights, **FAST)
    by_row = train(small_dataset, sample_weight=per_row, **FAST)
    for ours, theirs in zip(by_class.model.network.params, by_row.model.network.params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_class_weights_balanced_are_equal_per_class(small_dataset):
    keep = (small_dataset.y_train > 2) | (np.arange(600) % 5 == 0)
    uneven = replace(
        small_dataset, x_train=small_dataset.x_train[keep], y_train=small_dataset.y_train[keep]
    )
    config = resolve_config(
        TrainingConfig(class_weight="balanced", validation=0, hidden=(16,), epochs=2), uneven
    )
    run = TrainingRun(uneven, config, "numpy", 1)
    total_k = np.bincount(uneven.y_train, weights=run.train_set.data.weights_n, minlength=10)
    np.testing.assert_allclose(total_k, len(uneven.y_train) / 10)
