"""Preprocessing of photographs: segmentation, deskewing, cropping and scaling to 28x28."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fmnist_fast.app.samples import SAMPLES, draw_sample
from fmnist_fast.errors import ArgumentError, DataError
from fmnist_fast.vision.image_io import Picture, read_picture
from fmnist_fast.vision.preprocessing import edit_picture, preprocess
from fmnist_fast.vision.segmentation import (
    METHODS,
    best_method,
    label_components,
    segment,
    symmetry,
)

METHODS_HERE = [name for name in METHODS if name not in ("none", "grabcut")]
METHODS_HERE += ["grabcut"] * (best_method() == "grabcut")


def picture_of(image: Image.Image, opaque=None) -> Picture:
    return Picture(np.asarray(image.convert("RGB")), opaque, image.size, False)


def shirt(angle: float = 0, floor="tan", cloth="navy") -> tuple[Picture, np.ndarray]:
    """Return a picture of a shirt on a noisy background, and its true mask."""
    mask = Image.new("L", (300, 400))
    outline = [(110, 90), (190, 90), (260, 130), (240, 180), (200, 160), (200, 320), (100, 320)]
    outline += [(100, 160), (60, 180), (40, 130)]
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    mask = mask.rotate(angle)
    image = Image.new("RGB", (300, 400), floor)
    image.paste(cloth, mask=mask)
    noise = np.random.default_rng(0).normal(0, 6, (400, 300, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return picture_of(Image.fromarray(pixels)), np.asarray(mask) > 127


def overlap(a, b) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("method", METHODS_HERE)
@pytest.mark.parametrize(("floor", "cloth"), [("tan", "navy"), ("firebrick", "white")])
def test_segment_finds_garment(method, floor, cloth):
    picture, true_mask = shirt(floor=floor, cloth=cloth)
    found = preprocess(picture, method)
    small = np.asarray(Image.fromarray(true_mask).resize(found.mask.shape[::-1]))
    assert found.method == method
    assert overlap(found.mask, small) > 0.95
    assert (found.masked[~found.mask] == 255).all()


@pytest.mark.parametrize("tilt", [-15, -8, 8, 15])
def test_preprocess_deskews(tilt):
    straight, rotated = shirt()[0], shirt(angle=-tilt)[0]
    assert preprocess(straight).tilt == 0
    found = preprocess(rotated)
    assert found.tilt == pytest.approx(tilt, abs=3)
    expected = preprocess(straight).pixels.astype(int)
    assert np.abs(found.pixels - expected).mean() < 20


def test_preprocess_fills_frame_centered_on_black():
    pixels = preprocess(shirt()[0]).pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (28, 28)
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert (rows[0], rows[-1]) == (0, 27)
    assert abs(columns[0] + columns[-1] - 27) <= 1
    assert pixels[14, 14] > 60
    assert (pixels == 0).mean() > 0.2


def test_preprocess_negates_unless_inverted():
    image = Image.new("RGB", (200, 200), "green")
    draw = ImageDraw.Draw(image)
    draw.rectangle((50, 40, 150, 160), fill="black")
    draw.rectangle((80, 60, 120, 100), fill="white")
    pixels = {
        invert: preprocess(picture_of(image), "histogram", invert).pixels
        for invert in (False, True)
    }
    print_, cloth = (slice(9, 14), slice(12, 16)), (slice(20, 26), slice(8, 20))
    assert pixels[False][print_].mean() < pixels[False][cloth].mean()
    assert pixels[True][print_].mean() > pixels[True][cloth].mean()


def test_preprocess_uses_alpha_channel_as_mask():
    image = Image.new("RGB", (90, 120), "red")
    opaque = np.zeros((120, 90), bool)
    opaque[20:100, 30:60] = True
    found = preprocess(picture_of(image, opaque))
    assert found.method == "transparency"
    assert np.array_equal(found.mask, opaque)
    assert found.toned.shape == (80, 30)


def test_segment_none_selects_whole_picture():
    picture, _ = shirt()
    found = preprocess(picture, "none")
    assert found.mask.all()
    assert found.tilt == 0


@pytest.mark.parametrize("color", ["white", "black", "red"])
def test_preprocess_rejects_blank_image(color):
    with pytest.raises(DataError, match="all of one colour"):
        preprocess(picture_of(Image.new("RGB", (64, 64), color)))


@pytest.mark.parametrize("method", METHODS_HERE)
def test_preprocess_reports_missing_garment(method, monkeypatch):
    monkeypatch.setitem(METHODS, method, lambda rgb: np.zeros(rgb.shape[:2], bool))
    with pytest.raises(DataError, match="no garment was found: photograph it whole"):
        preprocess(shirt()[0], method)


def test_segment_rejects_unknown_method():
    with pytest.raises(ArgumentError, match="no segmentation 'magic': choose from auto, grabcut"):
        segment(np.zeros((20, 20, 3), np.uint8), "magic")


def test_segment_without_opencv_uses_histogram(monkeypatch):
    monkeypatch.setattr("fmnist_fast.vision.segmentation.has_opencv", lambda: False)
    picture, _ = shirt()
    assert preprocess(picture).method == "histogram"
    with pytest.raises(ArgumentError, match="pip install 'fmnist-fast\\[app\\]'"):
        preprocess(picture, "grabcut")


def test_label_components_finds_4_connected_parts():
    """Compared with flood fill on random masks of several densities."""
    stream = np.random.default_rng(1)
    for density in (0, 0.3, 0.5, 0.7, 1):
        mask = stream.random((23, 31)) < density
        parts, sizes = label_components(mask)
        assert np.array_equal(parts > 0, mask)
        assert np.array_equal(np.bincount(parts[mask], minlength=len(sizes) + 1)[1:], sizes)
        seen = np.zeros(mask.shape, bool)
        count = 0
        for place in zip(*np.nonzero(mask)):
            if seen[place]:
                continue
            count += 1
            heap, number = [place], parts[place]
            while heap:
                y, x = heap.pop()
                if 0 <= y < 23 and 0 <= x < 31 and mask[y, x] and not seen[y, x]:
                    seen[y, x] = True
                    assert parts[y, x] == number
                    heap += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        assert count == len(sizes)


def test_symmetry_is_one_for_flip_invariant_mask():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 3:14] = True
    assert symmetry(mask) == 1
    mask[5:8, 14:25] = True
    assert 0.3 < symmetry(mask) < 0.8
    assert symmetry(np.zeros((4, 4), bool)) == 0


def test_edit_picture_rotates_and_crops():
    picture, _ = shirt()
    rotated = edit_picture(picture, 1)
    assert np.array_equal(rotated.rgb, np.rot90(picture.rgb))
    assert rotated.size == (400, 300)
    cropped = edit_picture(picture, 0, (0.5, 0, 1, 0.25))
    assert np.array_equal(cropped.rgb, picture.rgb[:100, 150:])
    assert cropped.size == (150, 100)
    assert np.array_equal(edit_picture(picture).rgb, picture.rgb)
    with pytest.raises(DataError, match="crop less"):
        edit_picture(picture, 0, (0.5, 0, 0.5, 1))


@pytest.mark.parametrize("name", SAMPLES)
def test_draw_sample_is_deterministic_and_segmentable(name):
    content = draw_sample(name)
    assert content == draw_sample(name)
    found = preprocess(read_picture(io.BytesIO(content)))
    assert 0.1 < found.mask.mean() < 0.6
