"""Random operations on batches of small images: sampling, smooth noise, cropping.

Images are (b, 28, 28); one value per image is (b, 1, 1). Distances are in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Floats = NDArray[np.floating]

SIDE = 28
CENTER = (SIDE - 1) / 2
PIXELS = np.arange(SIDE, dtype=np.float32)

# Positions of the pixels relative to the center: of rows, (28, 1), and of columns, (28,).
DOWN, RIGHT = (PIXELS - CENTER)[:, None], PIXELS - CENTER

# Pixels above this level belong to the garment, others to the background.
FOREGROUND = 8


def per_image(values_b: NDArray) -> NDArray:
    """Reshape one value per image to (b, 1, 1), to broadcast over its pixels."""
    return values_b[:, None, None]


@dataclass(frozen=True)
class ImageRng:
    """Random numbers for a batch of images: one value per image, (rows, 1, 1)."""

    stream: np.random.Generator
    rows: int

    def normal(self, deviation: float) -> Floats:
        return per_image(np.float32(deviation) * self.stream.standard_normal(self.rows, np.float32))

    def uniform(self, low: float, high: float) -> Floats:
        uniform_b = self.stream.random(self.rows, np.float32)
        return per_image(np.float32(low) + np.float32(high - low) * uniform_b)

    def bernoulli(self, p: float) -> NDArray[np.bool_]:
        return per_image(self.stream.random(self.rows) < p)

    def sign(self, p_negative: float = 0.5) -> Floats:
        """Return -1 with probability p_negative, else 1."""
        return np.where(self.bernoulli(p_negative), np.float32(-1), np.float32(1))

    def smooth_noise(self, points: int) -> Floats:
        """Return smooth noise (rows, 28, 28) of variance about 1/2.

        Standard normal values on a grid of points x points, interpolated by smoothstep.
        """
        position = np.linspace(0, points - 1.001, SIDE)
        first = position.astype(int)
        weight = (position - first).astype(np.float32)
        weight = weight * weight * (3 - 2 * weight)
        spline = np.zeros((SIDE, points), np.float32)
        spline[np.arange(SIDE), first] = 1 - weight
        spline[np.arange(SIDE), first + 1] += weight
        grid = self.stream.standard_normal((self.rows, points, points), np.float32)
        noise: Floats = spline @ grid @ spline.T
        return noise


def sample_bilinear(layers: NDArray, y: NDArray, x: NDArray) -> NDArray:
    """Interpolate images (b, 28, 28) bilinearly at rows y and columns x; 0 outside.

    y, x : broadcast to (b, 28, 28). Complex values carry two layers, so that both are gathered by
    one look-up.
    """
    side = SIDE + 3
    padded = np.pad(layers, ((0, 0), (1, 2), (1, 2))).ravel()
    y = np.clip(np.asarray(y, np.float32) + 1, 0, SIDE + 1)
    x = np.clip(np.asarray(x, np.float32) + 1, 0, SIDE + 1)
    upper, left = np.trunc(y), np.trunc(x)  # float32 and integers together would be float64
    below, right = y - upper, x - left
    first = np.arange(len(layers))[:, None, None] * side**2
    index = first + (upper * side + left).astype(np.intp)

    def interpolate_row(index: NDArray[np.intp]) -> NDArray:
        value: NDArray = padded[index]
        value += (padded[index + 1] - value) * right
        return value

    value = interpolate_row(index)
    value += (interpolate_row(index + side) - value) * below
    return value


def crop_and_resize(
    images: Floats, edges: tuple[NDArray, NDArray, NDArray, NDArray], widening: NDArray
) -> Floats:
    """Crop each image to a box, scale its width, and resize it to fill the frame, centered.

    edges : first row, end of rows, first column, end of columns, (b,) each. widening : (b,).
    """
    top, bottom, left, right = map(per_image, edges)
    wider = per_image(widening)
    height, width = bottom - top, (right - left) * wider
    zoom = np.maximum(height, width) / SIDE
    down, aside = DOWN * zoom, RIGHT * zoom
    y, x = (top + bottom - 1) / 2 + down, (left + right - 1) / 2 + aside / wider
    inside = (np.abs(down) <= height / 2) & (np.abs(aside) <= width / 2)
    return np.where(inside, sample_bilinear(images, y, x), 0)


def bounding_boxes(mask: NDArray[np.bool_]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return first row, end of rows, first column and end of columns of the garments, (b,) each."""
    filled = (np.any(mask, axis=axis) for axis in (2, 1))
    (top, bottom), (left, right) = (
        (any_bn.argmax(axis=1), SIDE - any_bn[:, ::-1].argmax(axis=1)) for any_bn in filled
    )
    return top, bottom, left, right


def fabric_texture(images: Floats) -> Floats:
    """Return the central third, enlarged to the whole image and brighter than the background."""
    y, x = CENTER + 0.35 * DOWN, CENTER + 0.35 * RIGHT
    enlarged: Floats = np.clip(sample_bilinear(images, y, x) + 20, 20, 255)
    return enlarged
