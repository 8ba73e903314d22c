"""Many small images at once, by chance: numbers for each, smooth noise, crops, sampling.

Images are (b, 28, 28); one number for each of them is (b, 1, 1). Distances are in pixels.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FABRIC",
    "MIDDLE",
    "PLACES",
    "SIDE",
    "Floats",
    "Images",
    "any_along",
    "box",
    "chance",
    "column",
    "cropped",
    "drawers",
    "fabric_of",
    "sampled",
    "sign",
    "smooth",
]

Images = NDArray[np.uint8]
Floats = NDArray[np.floating]

SIDE = 28
MIDDLE = (SIDE - 1) / 2
PLACES = np.arange(SIDE, dtype=np.float32)

# Pixels above this are fabric and not background.
FABRIC = 8


def drawers(
    rows: int, stream: np.random.Generator
) -> tuple[Callable[[float], Floats], Callable[[float, float], Floats]]:
    """One number for each row, (b, 1, 1): normal of a deviation, and uniform between two."""

    def normal(deviation: float) -> Floats:
        return column(np.float32(deviation) * stream.standard_normal(rows, np.float32))

    def uniform(low: float, high: float) -> Floats:
        return column(np.float32(low) + np.float32(high - low) * stream.random(rows, np.float32))

    return normal, uniform


def chance(share: float, rows: int, stream: np.random.Generator) -> NDArray[np.bool_]:
    """Whether each row is among this share of all, (b, 1, 1)."""
    return column(stream.random(rows) < share)


def sign(rows: int, stream: np.random.Generator) -> Floats:
    """-1 or 1 for each row, (b, 1, 1)."""
    return column(np.where(stream.random(rows) < 0.5, np.float32(-1), np.float32(1)))


def column(values_b: NDArray) -> NDArray:
    """One value for each image, as it meets images: (b, 1, 1)."""
    return values_b[:, None, None]


def smooth(rows: int, points: int, stream: np.random.Generator) -> Floats:
    """Smooth noise (rows, 28, 28) of variance about 1/2: normal at points x points places."""
    at = np.linspace(0, points - 1.001, SIDE)
    first = at.astype(int)
    part = (at - first).astype(np.float32)
    part = part * part * (3 - 2 * part)
    spline = np.zeros((SIDE, points), np.float32)
    spline[np.arange(SIDE), first] = 1 - part
    spline[np.arange(SIDE), first + 1] += part
    noise: Floats = spline @ stream.standard_normal((rows, points, points), np.float32) @ spline.T
    return noise


def sampled(layers: NDArray, y: NDArray, x: NDArray) -> NDArray:
    """The images (b, 28, 28) between their pixels, at rows y and columns x; outside there is 0.

    Complex numbers carry two layers at once: each is gathered with one look-up.
    """
    side = SIDE + 3
    padded = np.pad(layers, ((0, 0), (1, 2), (1, 2))).ravel()
    y = np.clip(np.asarray(y, np.float32) + 1, 0, SIDE + 1)
    x = np.clip(np.asarray(x, np.float32) + 1, 0, SIDE + 1)
    upper, left = np.trunc(y), np.trunc(x)  # float32 and integers together would be float64
    below, right = y - upper, x - left
    first = np.arange(len(layers))[:, None, None] * side**2
    at = first + (upper * side + left).astype(np.intp)

    def in_row(at: NDArray[np.intp]) -> NDArray:
        between: NDArray = padded[at]
        between += (padded[at + 1] - between) * right
        return between

    found = in_row(at)
    found += (in_row(at + side) - found) * below
    return found


def cropped(
    images: Floats, edges: tuple[NDArray, NDArray, NDArray, NDArray], widening: NDArray
) -> Floats:
    """What is in the box, its width multiplied, as large as the image holds, in its middle."""
    top, bottom, left, right = map(column, edges)
    wider = column(widening)
    height, width = bottom - top, (right - left) * wider
    zoom = np.maximum(height, width) / SIDE
    down, aside = (PLACES - MIDDLE)[None, :, None] * zoom, (PLACES - MIDDLE)[None, None, :] * zoom
    shape = images.shape
    y = np.broadcast_to((top + bottom - 1) / 2 + down, shape)
    x = np.broadcast_to((left + right - 1) / 2 + aside / wider, shape)
    inside = (np.abs(down) <= height / 2) & (np.abs(aside) <= width / 2)
    return np.where(inside, sampled(images, y, x), 0)


def box(images: Floats) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """First row, end of the rows, first column and end of the columns with fabric; (b,) each."""
    filled = (any_along(images > FABRIC, axis) for axis in (2, 1))
    (top, bottom), (left, end) = (
        (any_bn.argmax(axis=1), SIDE - any_bn[:, ::-1].argmax(axis=1)) for any_bn in filled
    )
    return top, bottom, left, end


def any_along(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Which rows (axis 2) or columns (axis 1) of each mask have anything, (b, 28)."""
    return np.asarray(mask.any(axis=axis))


def fabric_of(images: Floats) -> Floats:
    """The middle third, enlarged to the whole image and bright enough to be fabric."""
    place = (MIDDLE + 0.35 * (PLACES - MIDDLE)).astype(np.float32)
    shape = images.shape
    y, x = np.broadcast_to(place[:, None], shape), np.broadcast_to(place[None, :], shape)
    enlarged: Floats = np.clip(sampled(images, y, x) + 20, 20, 255)
    return enlarged
