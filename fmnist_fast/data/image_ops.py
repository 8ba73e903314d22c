"""Random operations on batches of small images: sampling, smooth noise, cropping.

Images are (b, 28, 28); one value per image is (b, 1, 1). Distances are in pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FOREGROUND",
    "CENTER",
    "PIXELS",
    "SIDE",
    "Floats",
    "Images",
    "bounding_boxes",
    "bernoulli",
    "per_image",
    "crop_and_resize",
    "row_samplers",
    "fabric_texture",
    "sample_bilinear",
    "random_sign",
    "smooth_noise",
]

Images = NDArray[np.uint8]
Floats = NDArray[np.floating]

SIDE = 28
CENTER = (SIDE - 1) / 2
PIXELS = np.arange(SIDE, dtype=np.float32)

# Pixels above this level belong to the garment, others to the background.
FOREGROUND = 8


def row_samplers(
    rows: int, stream: np.random.Generator
) -> tuple[Callable[[float], Floats], Callable[[float, float], Floats]]:
    """Return functions that draw one number per image, (b, 1, 1): normal(std), uniform(a, b)."""

    def normal(deviation: float) -> Floats:
        return per_image(np.float32(deviation) * stream.standard_normal(rows, np.float32))

    def uniform(low: float, high: float) -> Floats:
        return per_image(np.float32(low) + np.float32(high - low) * stream.random(rows, np.float32))

    return normal, uniform


def bernoulli(p: float, rows: int, stream: np.random.Generator) -> NDArray[np.bool_]:
    """Return True with probability p for each image, (b, 1, 1)."""
    return per_image(stream.random(rows) < p)


def random_sign(rows: int, stream: np.random.Generator) -> Floats:
    """Return -1 or 1 for each image, (b, 1, 1)."""
    return per_image(np.where(stream.random(rows) < 0.5, np.float32(-1), np.float32(1)))


def per_image(values_b: NDArray) -> NDArray:
    """Reshape one value per image to (b, 1, 1), to broadcast over its pixels."""
    return values_b[:, None, None]


def smooth_noise(rows: int, points: int, stream: np.random.Generator) -> Floats:
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
    noise: Floats = spline @ stream.standard_normal((rows, points, points), np.float32) @ spline.T
    return noise


def sample_bilinear(layers: NDArray, y: NDArray, x: NDArray) -> NDArray:
    """Interpolate images (b, 28, 28) bilinearly at rows y and columns x; 0 outside.

    Complex values carry two layers, so that both are gathered by one look-up.
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
    down, aside = (PIXELS - CENTER)[None, :, None] * zoom, (PIXELS - CENTER)[None, None, :] * zoom
    shape = images.shape
    y = np.broadcast_to((top + bottom - 1) / 2 + down, shape)
    x = np.broadcast_to((left + right - 1) / 2 + aside / wider, shape)
    inside = (np.abs(down) <= height / 2) & (np.abs(aside) <= width / 2)
    return np.where(inside, sample_bilinear(images, y, x), 0)


def bounding_boxes(images: Floats) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Return first row, end of rows, first column and end of columns of the garments, (b,) each."""
    filled = (np.any(images > FOREGROUND, axis=axis) for axis in (2, 1))
    (top, bottom), (left, end) = (
        (any_bn.argmax(axis=1), SIDE - any_bn[:, ::-1].argmax(axis=1)) for any_bn in filled
    )
    return top, bottom, left, end


def fabric_texture(images: Floats) -> Floats:
    """Return the central third, enlarged to the whole image and brighter than the background."""
    position = (CENTER + 0.35 * (PIXELS - CENTER)).astype(np.float32)
    shape = images.shape
    y, x = np.broadcast_to(position[:, None], shape), np.broadcast_to(position[None, :], shape)
    enlarged: Floats = np.clip(sample_bilinear(images, y, x) + 20, 20, 255)
    return enlarged
