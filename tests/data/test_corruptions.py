"""Corruptions: every kind changes the images by its definition."""

import numpy as np
import pytest

from fmnist_fast.data.corruptions import CORRUPTIONS, corrupt_images

KINDS = {kind.name: kind for kind in CORRUPTIONS}
CASES = [(kind, level) for kind in CORRUPTIONS for level in kind.levels]


@pytest.fixture
def images():
    images = np.random.default_rng(0).integers(0, 256, (40, 9, 12), dtype=np.uint8)
    images.setflags(write=False)
    return images


@pytest.mark.parametrize(("kind", "level"), CASES)
def test_corrupt_images_is_pure_function(images, kind, level):
    out = corrupt_images(images, kind, level)
    assert (out.shape, out.dtype, out.flags.c_contiguous) == (images.shape, np.uint8, True)
    assert not np.array_equal(out, images)
    corrupt_images(images, KINDS["noise"], 10)
    np.testing.assert_array_equal(corrupt_images(images, kind, level), out)
    random = kind.name in ("shift", "rotation", "noise")
    assert random != np.array_equal(corrupt_images(images, kind, level, seed=1), out)


def test_corrupt_images_shift_moves_all_pixels_equally():
    dot = np.zeros((400, 11, 13), np.uint8)
    dot[:, 5, 6] = 200
    out = corrupt_images(dot, KINDS["shift"], 2)
    offsets = {(int(y) - 5, int(x) - 6) for y, x in (np.argwhere(image)[0] for image in out)}
    assert offsets == {(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2)} - {(0, 0)}
    assert (out.sum(axis=(1, 2)) == 200).all()


def test_corrupt_images_shift_fills_with_black():
    full = np.full((50, 6, 6), 7, np.uint8)
    out = corrupt_images(full, KINDS["shift"], 2)
    assert set((out > 0).sum(axis=(1, 2))) <= {4 * 6, 4 * 4}


def test_corrupt_images_rotation_has_both_directions():
    bar = np.zeros((60, 21, 21), np.uint8)
    bar[:, 10, 2:19] = 255
    out = corrupt_images(bar, KINDS["rotation"], 30).astype(float)
    y, x = np.mgrid[-10:11, -10:11]
    slopes = (out * y * x).sum(axis=(1, 2)) / (out * x * x).sum(axis=(1, 2))
    np.testing.assert_allclose(np.abs(slopes), np.tan(np.pi / 6), rtol=0.1)
    assert 15 < (slopes > 0).sum() < 45


def test_corrupt_images_noise_has_given_deviation():
    gray = np.full((50, 28, 28), 128, np.uint8)
    for level in (10, 30):
        noise = corrupt_images(gray, KINDS["noise"], level) - 128.0
        assert noise.std() == pytest.approx(level, rel=0.02)
        assert abs(noise.mean()) < 0.02 * level


def test_corrupt_images_blur_keeps_brightness():
    dot = np.zeros((2, 21, 21), np.uint8)
    dot[:, 9:12, 9:12] = 240
    widths = []
    for level in KINDS["blur"].levels:
        out = corrupt_images(dot, KINDS["blur"], level).astype(float)
        assert out.sum() == pytest.approx(float(dot.sum()), rel=0.1)
        widths.append((out > 5).sum())
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_corrupt_images_darker_and_inverted_values(images):
    np.testing.assert_array_equal(
        corrupt_images(images, KINDS["darker"], 0.5), np.rint(images / 2).astype(np.uint8)
    )
    np.testing.assert_array_equal(corrupt_images(images, KINDS["inverted"], 1), 255 - images)
