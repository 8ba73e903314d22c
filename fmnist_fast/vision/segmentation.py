"""Segmentation of photographs: the mask of the garment.

Two methods: GrabCut from OpenCV, which is better, and color histograms in NumPy and Pillow where
OpenCV is not installed.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Margin of a photograph that is assumed to be background, as a fraction of each side.
MARGIN = 0.04

# Smallest fraction of the photograph: a smaller mask means that the method failed.
MIN_FRACTION = 0.03

# Smallest component, as a fraction of the largest: shoes come in pairs, smaller ones are noise.
MIN_COMPONENT = 0.15

OPENCV_MISSING = (
    "OpenCV is not installed, so garments were segmented by color histograms, which is less "
    "accurate: pip install 'fmnist-fast[app]'"
)

# Largest hole that is filled, as a fraction of the garment: prints and buttons.
MAX_HOLE = 0.04


def best_method() -> str:
    """Return "grabcut" if OpenCV is installed, else "histogram"."""
    return "grabcut" if has_opencv() else "histogram"


@cache
def has_opencv() -> bool:
    try:
        import_module("cv2")
    except ImportError:
        return False
    return True


def limit_opencv_threads() -> None:
    """Make OpenCV use one thread, where other processes use the other cores."""
    if has_opencv():
        import cv2

        cv2.setNumThreads(1)


def segment(rgb: Rgb, method: str = "auto") -> tuple[Mask, str]:
    """Return the mask of the object in the center, and the method.

    rgb : uint8 (height, width, 3), about 200 pixels on a side. method : "auto", "grabcut",
    "histogram", or "none" for a mask of the whole picture.
    Raises: ArgumentError for an unknown method, or grabcut without OpenCV.
    """
    if method == "auto":
        method = best_method()
    if method not in METHODS:
        raise ArgumentError(f"no segmentation {method!r}: choose from auto, {', '.join(METHODS)}")
    if method == "grabcut" and not has_opencv():
        raise ArgumentError("segmentation grabcut needs OpenCV: pip install 'fmnist-fast[app]'")
    return METHODS[method](rgb), method


def _none(rgb: Rgb) -> Mask:
    return np.ones(rgb.shape[:2], bool)


def _grabcut(rgb: Rgb) -> Mask:
    """Run GrabCut from a box and from the histogram mask; return the more symmetric mask.

    Source: Rother, Kolmogorov, Blake (2004).
    """
    import cv2

    bgr = np.ascontiguousarray(rgb[..., ::-1])
    edge, by_histogram = _margin(rgb), _histogram(rgb)

    def run(start: NDArray) -> Mask:
        start = start.astype(np.uint8)
        start[edge] = cv2.GC_BGD
        models: Any = np.zeros((2, 1, 65))
        cv2.setRNGSeed(0)  # its mixtures are initialized at random
        no_box: Any = None
        cv2.grabCut(bgr, start, no_box, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK)
        mask = ((start == cv2.GC_FGD) | (start == cv2.GC_PR_FGD)).astype(np.uint8)
        return _clean(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)

    boxed = run(np.full(edge.shape, cv2.GC_PR_FGD))
    if boxed.mean() < MIN_FRACTION:  # all looked like background: start from the center
        start = np.where(_ellipse(edge.shape, 0.84), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        start[_ellipse(edge.shape, 0.3)] = cv2.GC_FGD
        boxed = run(start)
    refined = run(np.where(by_histogram, cv2.GC_PR_FGD, cv2.GC_PR_BGD))
    if refined.mean() < MIN_FRACTION:
        refined = by_histogram
    return max((boxed, refined), key=symmetry)


# Histogram bins per color channel.
BINS = 12


def _histogram(rgb: Rgb) -> Mask:
    """Segment by the smoothed likelihood ratio of two color histograms, garment and background.

    Starts from an ellipse; histograms and mask are updated alternately.
    """
    from PIL import Image, ImageFilter

    height, width = rgb.shape[:2]
    bins = (rgb // (256 // BINS + 1)).astype(np.int32)
    code = (bins[..., 0] * BINS + bins[..., 1]) * BINS + bins[..., 2]
    edge, radius = _margin(rgb), max(height, width) / 80
    mask = ~edge & _ellipse((height, width), 1.0)
    for _ in range(6):
        ratio = np.log(_density(code[mask]) / _density(code[~mask]))[code]
        level = (128 + 24 * ratio).clip(0, 255).astype(np.uint8)
        smooth = Image.fromarray(level).filter(ImageFilter.GaussianBlur(radius))
        found = (np.asarray(smooth) > 128) & ~edge
        if found.mean() < MIN_FRACTION:
            break
        mask = found
    return _clean(mask)


def _density(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the smoothed frequency of each color, above 0."""
    count = np.bincount(codes.ravel(), minlength=BINS**3).astype(np.float64)
    cube = count.reshape(BINS, BINS, BINS)
    for axis in range(3):
        padded = np.pad(cube, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (np.take(padded, range(k, BINS + k), axis) for k in (0, 2))
        cube = 0.6 * cube + 0.2 * (before + after)
    density: NDArray[np.float64] = (cube.ravel() + 0.05) / (count.sum() + 0.05 * BINS**3)
    return density


METHODS: dict[str, Callable[[Rgb], Mask]] = {
    "grabcut": _grabcut,
    "histogram": _histogram,
    "none": _none,
}


def symmetry(mask: Mask) -> float:
    """Return the left-right symmetry of a mask, 0 to 1.

    Intersection over union with its horizontal flip, about the center of its extent or its center
    of mass, whichever is greater.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return 0.0
    best, x = 0.0, np.arange(mask.shape[1])
    gravity = float(np.average(x, weights=mask.sum(axis=0)))
    for twice_axis in (int(columns[0] + columns[-1]), round(2 * gravity)):
        flipped = np.zeros_like(mask)
        source = twice_axis - x
        inside = (source >= 0) & (source < mask.shape[1])
        flipped[:, inside] = mask[:, source[inside]]
        best = max(best, float((mask & flipped).sum() / (mask | flipped).sum()))
    return best


def _margin(rgb: Rgb) -> Mask:
    """Return the mask of the margin."""
    height, width = rgb.shape[:2]
    edge = np.ones((height, width), bool)
    y, x = max(1, round(MARGIN * height)), max(1, round(MARGIN * width))
    edge[y:-y, x:-x] = False
    return edge


def _ellipse(shape: tuple[int, ...], fraction: float) -> Mask:
    """Return the mask of a centered ellipse, its axes fractions of height and width."""
    y, x = (np.linspace(-1, 1, side) / fraction for side in shape)
    inside: Mask = y[:, None] ** 2 + x[None, :] ** 2 < 1
    return inside


def _clean(mask: Mask) -> Mask:
    """Remove small components and fill small holes."""
    components, sizes = label_components(mask)
    if not len(sizes):
        return mask
    keep = np.append(False, sizes >= MIN_COMPONENT * sizes.max())
    mask = keep[components]
    holes, sizes = label_components(~mask)
    outside = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    small = np.append(False, sizes < MAX_HOLE * mask.sum())
    small[outside] = False
    cleaned: Mask = mask | small[holes]
    return cleaned


def label_components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the 4-connected components of a mask.

    Returns: labels from 1, 0 outside, in the shape of the mask; sizes of the components. Each pixel
    takes the least label of its run in a row, then in a column, until no label changes.
    """
    runs_of_pixels = _number_runs(mask)[mask], _number_runs(mask.T).T[mask]
    label = np.arange(mask.sum())
    before = np.full_like(label, -1)
    while not np.array_equal(label, before):
        before = label
        for run in runs_of_pixels:
            least = np.full(mask.size + 1, mask.size)  # by run
            np.minimum.at(least, run, label)
            label = least[run]
    _, number = np.unique(label, return_inverse=True)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = number + 1
    return labels, np.bincount(number)


def _number_runs(mask: Mask) -> NDArray[np.int64]:
    """Return a number for each pixel of the mask: the same within a run of a row, else unequal."""
    return np.diff(mask, axis=1, prepend=False).cumsum().reshape(mask.shape)
