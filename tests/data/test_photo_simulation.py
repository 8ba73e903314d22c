"""Simulated photographs, photo augmentation and the averaging of weights over epochs."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.data.augment import EpochPrefetcher
from fmnist_fast.data.fashion_mnist import CLASS_NAMES
from fmnist_fast.data.image_ops import bounding_boxes, crop_and_resize, sample_bilinear
from fmnist_fast.data.photo_augment import OOD_FRACTION, PhotoAugmentation
from fmnist_fast.data.photo_simulation import CHUNK_ROWS, simulate_ood_images, simulate_photos
from fmnist_fast.data.synthetic_shapes import shoe_pairs_from_above
from fmnist_fast.errors import ArgumentError
from fmnist_fast.kernels.interface import Params
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.calibration import apply_temperature
from fmnist_fast.nn.labels import mix_targets
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.distillation import Teachers
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config, split

BACKENDS = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


@pytest.fixture
def clothes(small_dataset):
    """Synthetic data set with the class names of Fashion-MNIST, which the simulation requires."""
    return replace(small_dataset, class_names=CLASS_NAMES)


def simulate(images, labels, seed=0, epoch=1):
    return simulate_photos(images, labels, seed, epoch)


def test_simulate_photos_depends_on_seed_epoch_and_row(clothes):
    images, labels = clothes.x_train[:300], clothes.y_train[:300]
    first = simulate(images, labels)
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    assert np.array_equal(first, simulate(images, labels))
    assert not np.array_equal(first, simulate(images, labels, epoch=2))
    assert not np.array_equal(first, simulate(images, labels, seed=1))
    # Rows do not depend on the parts that come after theirs.
    assert np.array_equal(
        first[:CHUNK_ROWS],
        simulate(images[: 2 * CHUNK_ROWS], labels[: 2 * CHUNK_ROWS])[:CHUNK_ROWS],
    )


def test_simulate_photos_changes_every_image(clothes):
    images, labels = clothes.x_train[:300], clothes.y_train[:300]
    found = simulate(images, labels)
    assert (found != images).any(axis=(1, 2)).all()
    filled = (found > 0).mean(axis=(1, 2))
    assert filled.min() > 0.05
    assert 0.3 < filled.mean() < 0.7
    rows, columns = (found > 0).any(2).sum(1), (found > 0).any(1).sum(1)
    assert np.median(np.maximum(rows, columns)) >= 26  # trimmed to the edges, as photo.py does


def test_simulate_photos_keeps_classes_learnable(clothes):
    """A network trained on simulated photographs classifies the original images."""
    augmented = train(clothes, augment="photos", epochs=12, hidden=(64,), threads=1)
    plain = train(clothes, epochs=12, hidden=(64,), threads=1)
    assert augmented.test_accuracy > 0.55
    assert plain.test_accuracy > augmented.test_accuracy - 0.05


def test_simulate_ood_images_is_deterministic_and_nonempty(clothes):
    drawn = simulate_ood_images(clothes.x_train, clothes.y_train, 203, 0, 1)
    assert drawn.shape == (203, 28, 28)
    assert np.array_equal(drawn, simulate_ood_images(clothes.x_train, clothes.y_train, 203, 0, 1))
    assert (drawn > 0).any(axis=(1, 2)).mean() > 0.95
    no_trousers = clothes.y_train != 1
    few = simulate_ood_images(clothes.x_train[no_trousers], clothes.y_train[no_trousers], 40, 0, 1)
    assert not few[::4].any()  # nothing to make shorts of
    assert few[2::4].any()


def test_shoe_pairs_from_above_have_one_fabric():
    labels = np.repeat((5, 7, 9), 40)
    images = np.full((120, 28, 28), 99, np.float32)
    pairs = shoe_pairs_from_above(images, labels, np.random.default_rng(0))
    assert pairs.shape == images.shape
    shoe = pairs > 0
    assert shoe[:, :, :14].any(axis=(1, 2)).all()
    assert shoe[:, :, 14:].any(axis=(1, 2)).all()
    assert 0.3 < shoe.mean() < 0.75
    width = shoe.any(axis=1).sum(axis=1)
    assert np.median(width[80:]) > np.median(width[:80])  # boots are wide
    fabric = 99 + 20  # made brighter than any background
    tones = [set(np.unique(pair)) - {0} for pair in pairs]
    assert all(fabric in tone and len(tone) <= 2 for tone in tones)


def test_sample_bilinear_interpolates():
    image = np.arange(28 * 28, dtype=np.float32).reshape(1, 28, 28)
    y, x = np.full((1, 28, 28), 3.25), np.full((1, 28, 28), 7.5)
    assert sample_bilinear(image, y, x)[0, 0, 0] == pytest.approx(3.25 * 28 + 7.5)
    assert not sample_bilinear(image, y + 100, x).any()
    both = sample_bilinear(image + 2j * image, y, x)
    assert both.imag == pytest.approx(2 * both.real)


def test_crop_and_resize_fills_frame():
    image = np.zeros((1, 28, 28), np.float32)
    image[0, 4:14, 10:20] = 200
    found = bounding_boxes(image > 0)
    assert [int(edge[0]) for edge in found] == [4, 14, 10, 20]
    whole = crop_and_resize(image, found, np.ones(1))
    assert (whole > 100).mean() > 0.9
    wide = crop_and_resize(image, found, np.full(1, 2.0))
    rows = (wide[0] > 100).any(axis=1).sum()
    assert 12 <= rows <= 15


def test_epoch_prefetcher_stops_after_last_epoch():
    epochs = []

    def make(epoch):
        epochs.append(epoch)
        return np.full(1, epoch)

    images = EpochPrefetcher(make, 3)
    assert [int(images.get(epoch)[0]) for epoch in (1, 2, 3)] == [1, 2, 3]
    assert sorted(epochs) == [1, 2, 3]
    jumped = EpochPrefetcher(make, None)
    assert int(jumped.get(7)[0]) == 7
    assert int(jumped.get(3)[0]) == 3
    images.close()
    jumped.close()


def test_photo_augmentation_appends_ood_rows(clothes):
    config = resolve_config(TrainingConfig(augment="photos", class_weight={1: 3.0}), clothes)
    run = TrainingRun(clothes, config, "numpy", 1)
    count = len(run.train_set.data.targets_n) - 600
    train_n, held_out_n = split(600, config.validation)
    assert count == int(OOD_FRACTION * len(train_n))
    assert np.array_equal(run.train_set.rows_n, np.append(train_n, np.arange(600, 600 + count)))
    assert (run.train_set.data.targets_n[600:] == np.float32(0.1)).all()
    assert (run.train_set.data.weights_n[600:] == 1).all()
    assert set(run.train_set.data.weights_n[:600][clothes.y_train == 1]) == {3.0}
    made = PhotoAugmentation(clothes.x_train, clothes.y_train, train_n, held_out_n, config.seed)
    images = made.epoch_images(4)
    assert images.shape == (600 + count, 784)
    assert not images[held_out_n].any()  # not used for training
    expected = simulate_photos(clothes.x_train[train_n], clothes.y_train[train_n], 0, 4)
    assert np.array_equal(images[train_n], expected.reshape(-1, 784))
    assert np.array_equal(run.train_set.x_validation, made.x_validation)
    assert len(run.train_set.x_ood) == int(OOD_FRACTION * len(held_out_n))


def test_photo_validation_images_are_independent_of_seed(clothes):
    runs = [
        TrainingRun(
            clothes,
            resolve_config(TrainingConfig(augment="photos", seed=seed), clothes),
            "numpy",
            1,
        )
        for seed in (0, 1)
    ]
    assert np.array_equal(runs[0].train_set.x_validation, runs[1].train_set.x_validation)
    assert not np.array_equal(runs[0].train_set.images.get(1), runs[1].train_set.images.get(1))


def test_photo_augmentation_without_validation_no_threshold(clothes):
    result = train(clothes, augment="photos", epochs=1, hidden=(16,), validation=0, backend="numpy")
    assert result.model.threshold is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_photo_training_is_independent_of_threads(clothes, backend):
    options = {"augment": "photos", "epochs": 2, "hidden": (130, 20), "backend": backend}
    first = train(clothes, threads=1, **options).model.to_bytes()
    threads = 1 if backend == "numpy" else 3
    assert train(clothes, threads=threads, **options).model.to_bytes() == first


def test_photo_teacher_targets_follow_epoch_images(clothes):
    teacher = TrainingConfig(augment="photos", hidden=(24,), epochs=1)
    how = Distillation(teacher, n_teachers=2, temperature=3.0, alpha=0.6)
    networks = tuple(
        train(clothes, **{**vars(teacher), "seed": seed}, threads=1).model.network
        for seed in (1, 2)
    )
    config = resolve_config(
        TrainingConfig(augment="photos", distillation=how, hidden=(16,), epochs=3), clothes
    )
    run = TrainingRun(clothes, config, "numpy", 1, teachers=Teachers(networks, how))
    label_targets_nk, epoch_targets = run.train_set.label_targets_n, []

    class RecordTargets(Progress):
        def epoch(self, record):
            rows_n = run.train_set.rows_n
            teachers_nk = sum(
                apply_temperature(n.predict_proba(run.train_set.data.x_ni), 3.0) / 2
                for n in networks
            )
            expected_nk = mix_targets(teachers_nk, label_targets_nk, 0.6)
            assert np.array_equal(run.train_set.data.targets_n[rows_n], expected_nk[rows_n])
            epoch_targets.append(expected_nk)

    run.train(RecordTargets(), lambda: False)
    assert len(epoch_targets) == 3
    assert not np.array_equal(epoch_targets[0], epoch_targets[1])


def test_photo_augmentation_rejects_other_data(small_dataset, clothes):
    with pytest.raises(ArgumentError, match="must have the classes of Fashion-MNIST"):
        train(small_dataset, augment="photos")
    flat = replace(clothes, x_train=clothes.x_train.reshape(-1, 784))
    with pytest.raises(ArgumentError, match="uint8 images of 28x28 pixels"):
        train(flat, augment="photos")
    with pytest.raises(ArgumentError, match="unknown augment 'mixup': choose from photos"):
        train(clothes, augment="mixup")
    with pytest.raises(ArgumentError, match="for the teachers: give one"):
        train(clothes, preset="best", augment="photos")
    with pytest.raises(ArgumentError, match=r"target_precision is 1\.0: give .* less than 1"):
        train(clothes, target_precision=1)


def test_lr_finder_uses_original_images(clothes):
    from fmnist_fast.training.lr_finder import find_learning_rate

    augmented, plain = (
        find_learning_rate(clothes, TrainingConfig(augment=augment, hflip=False), "auto", 1)
        for augment in ("photos", None)
    )
    assert np.array_equal(augmented.loss_t, plain.loss_t)


def epochs_of(dataset, **options):
    """Weights after every epoch."""
    seen = []

    def keep(state):
        seen.append([array.copy() for arrays in state.network.params for array in arrays])

    result = train(dataset, callbacks=keep, threads=1, hidden=(16,), validation=0, **options)
    return seen, result


@pytest.mark.parametrize("backend", BACKENDS)
def test_ema_is_mean_of_epoch_weights(small_dataset, backend):
    options = {"schedule": "constant", "lr": 1e-2, "backend": backend}
    seen, result = epochs_of(small_dataset, epochs=5, ema_epochs=5, **options)
    mean = [np.mean(arrays, axis=0, dtype=np.float64) for arrays in zip(*seen)]
    found = [array for arrays in result.model.network.params for array in arrays]
    # Five roundings of numbers of that size, and of the differences to them.
    bound = 12 * np.finfo(np.float32).eps * max(np.abs(array).max() for array in mean)
    for ours, expected in zip(found, mean):
        np.testing.assert_allclose(ours, expected, atol=bound, rtol=0)
    assert any((ours != last).any() for ours, last in zip(found, seen[-1]))


def test_ema_weights_later_epochs_more(small_dataset):
    seen, result = epochs_of(small_dataset, epochs=6, ema_epochs=2, schedule="constant")
    expected = seen[0][0].astype(np.float64)
    for epoch, arrays in enumerate(seen[1:], start=2):
        expected += (arrays[0] - expected) / min(epoch, 2)
    found = result.model.network.params.weights[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ema_does_not_change_training(small_dataset):
    averaged, _ = epochs_of(small_dataset, epochs=3, ema_epochs=3)
    plain, _ = epochs_of(small_dataset, epochs=3)
    for ours, theirs in zip(averaged, plain):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_photo_training_resumes_with_same_bytes(clothes):
    """Stop at the end of every epoch, and resume from its snapshot."""
    config = resolve_config(
        TrainingConfig(augment="photos", ema_epochs=3, epochs=4, hidden=(16,)), clothes
    )

    def fresh():
        return TrainingRun(clothes, config, "numpy", 1)

    whole = fresh()
    whole.train(Progress(), lambda: False)

    class Stop(Progress):
        def __init__(self, after):
            self.after = after

        def steps(self, epoch, done, total):
            self.stopped = (epoch, done) >= (self.after, total)

        stopped = False

    for after in (1, 2, 3):
        part, stop = fresh(), Stop(after)
        with pytest.raises(KeyboardInterrupt):
            part.train(stop, lambda stop=stop: stop.stopped)
        snapshot = part.snapshot()
        rest = fresh()
        rest.restore(snapshot)
        rest.train(Progress(), lambda: False)
        assert same(rest.best_network().params, whole.best_network().params)


def same(ours: Params, theirs: Params) -> bool:
    return all(np.array_equal(a, b) for pair in zip(ours, theirs) for a, b in zip(*pair))
