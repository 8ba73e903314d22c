"""Synthetic data set: reproducible, balanced, varied, of moderate difficulty."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from fmnist_fast.data.synthetic import CLASS_STYLES, SIDE, draw_class, draw_synthetic

SMALL = {"train": 1000, "test": 300}


@pytest.fixture(scope="module")
def drawn():
    return draw_synthetic(seed=3, **SMALL)


def digest(arrays):
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()


def test_draw_synthetic_same_seed_same_bits(drawn):
    np.random.seed(1)  # the global state must not matter
    assert digest(draw_synthetic(seed=3, **SMALL)) == digest(drawn)


def test_draw_synthetic_same_bits_in_another_process():
    code = (
        "import hashlib; from fmnist_fast.data.synthetic import draw_synthetic;"
        "drawn = b''.join(a.tobytes() for a in draw_synthetic(3, 200, 50));"
        "print(hashlib.sha256(drawn).hexdigest())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == digest(draw_synthetic(3, 200, 50))


def test_draw_synthetic_another_seed_other_images(drawn):
    other = draw_synthetic(seed=4, **SMALL)
    for ours, theirs in zip(drawn, other, strict=True):
        assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize(("train", "test"), [(1000, 300), (10, 10), (1, 1), (7, 23)])
def test_draw_synthetic_shapes_dtypes_and_balance(train, test):
    x, y, x_test, y_test = draw_synthetic(5, train, test)
    for images, labels, n in ((x, y, train), (x_test, y_test, test)):
        assert images.shape == (n, SIDE, SIDE)
        assert labels.shape == (n,)
        assert images.dtype == labels.dtype == np.uint8
        counts = np.bincount(labels, minlength=10)
        assert len(counts) == 10
        assert counts.max() - counts.min() <= 1
        assert images.any(axis=(1, 2)).all()


def test_draw_synthetic_shuffles_labels(drawn):
    y = drawn[1].astype(int)
    assert not np.array_equal(y, np.arange(len(y)) % 10)
    assert (np.diff(y) != 0).mean() > 0.8


@pytest.mark.parametrize("counts", [(0, 10), (10, 0), (-1, 10)])
def test_draw_synthetic_rejects_counts_below_one(counts):
    with pytest.raises(ValueError, match="at least 1"):
        draw_synthetic(0, *counts)


def test_draw_synthetic_has_no_duplicates(drawn):
    images = np.concatenate([drawn[0], drawn[2]])
    assert len({image.tobytes() for image in images}) == len(images)


# Fraction of zero pixels per class in the 60,000 real training images.
REAL_ZEROS = (0.41, 0.65, 0.35, 0.57, 0.40, 0.68, 0.37, 0.66, 0.41, 0.52)


def test_draw_synthetic_background_fraction_is_realistic(drawn):
    x, y = drawn[:2]
    assert 0.45 < (x == 0).mean() < 0.55
    zeros = [(x[y == label] == 0).mean() for label in range(10)]
    assert np.abs(np.subtract(zeros, REAL_ZEROS)).max() < 0.08


def test_draw_synthetic_fills_frame(drawn):
    seen = drawn[0] > 0
    height, width = seen.any(axis=2).sum(axis=1), seen.any(axis=1).sum(axis=1)
    assert np.maximum(height, width).min() >= SIDE - 3


@pytest.mark.parametrize("label", [5, 7, 9])
def test_draw_synthetic_shoes_point_left(drawn, label):
    """Shaft and heel are behind the toe: the upper half is brighter at the right."""
    mean = drawn[0][drawn[1] == label].mean(axis=0)[: SIDE // 2]
    assert mean[:, SIDE // 2 :].sum() > 1.5 * mean[:, : SIDE // 2].sum()


@pytest.mark.parametrize("kind", CLASS_STYLES, ids=lambda kind: kind.draw.__name__)
def test_draw_class_varies_shape_and_brightness(kind):
    images = draw_class(np.random.Generator(np.random.Philox(0)), kind, 200)
    shapes = (images > 0).mean(axis=(1, 2))
    brightness = images.sum(axis=(1, 2)) / (images > 0).sum(axis=(1, 2))
    assert shapes.std() > 0.02
    assert brightness.std() > 20
    assert np.median(images.std(axis=0)[10:18, 10:18]) > 20


def test_draw_synthetic_nearest_mean_accuracy_is_moderate(drawn):
    x, y, x_test, y_test = drawn
    means = np.stack([x[y == label].mean(axis=0).ravel() for label in range(10)])
    rows = x_test.reshape(len(x_test), -1).astype(float)
    distance = ((rows[:, None] - means) ** 2).sum(axis=2)
    accuracy = (distance.argmin(axis=1) == y_test).mean()
    assert 0.5 < accuracy < 0.85
