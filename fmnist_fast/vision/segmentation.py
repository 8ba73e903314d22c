"""Which pixels of a photograph are the garment: a mask.

Two ways: GrabCut from OpenCV, which is the better one, and a plain one in NumPy and Pillow for
where OpenCV is not installed.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError

__all__ = [
    "METHODS",
    "OPENCV_MISSING",
    "best_method",
    "segment",
    "symmetry",
    "limit_opencv_threads",
]

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# What lies at the edge of a photograph, this share of a side, is taken for background.
MARGIN = 0.04

# Less of the photograph than this is no garment: the method has lost it.
LEAST_SHARE = 0.03

# Parts smaller than this share of the largest are dirt; shoes come in pairs, and skirts with belts.
PART = 0.15

OPENCV_MISSING = (
    "OpenCV is not installed, so garments were found by their colours alone, and fewer answers are "
    "right: pip install 'fmnist-fast[app]'"
)

# Holes smaller than this share of the garment are prints and buttons; larger ones are seen through.
HOLE = 0.04


def best_method() -> str:
    """grabcut where OpenCV is installed, else plain."""
    return "grabcut" if _has_opencv() else "histogram"


@cache
def _has_opencv() -> bool:
    try:
        import_module("cv2")
    except ImportError:
        return False
    return True


def limit_opencv_threads() -> None:
    """Have OpenCV use the thread that calls it alone, where others have the other cores."""
    if _has_opencv():
        import cv2

        cv2.setNumThreads(1)


def segment(rgb: Rgb, method: str = "auto") -> tuple[Mask, str]:
    """The mask of what lies in the middle, and the method that found it.

    rgb : uint8 (height, width, 3), some 200 pixels to a side. method : auto, grabcut, plain, or
    none, for which everything is the garment.
    Raises: ArgumentError for an unknown method, or grabcut without OpenCV.
    """
    if method == "auto":
        method = best_method()
    if method not in METHODS:
        raise ArgumentError(f"unknown cut-out {method!r}: choose from auto, {', '.join(METHODS)}")
    if method == "grabcut" and not _has_opencv():
        raise ArgumentError("the cut-out grabcut needs OpenCV: pip install 'fmnist-fast[app]'")
    return METHODS[method](rgb), method


def _none(rgb: Rgb) -> Mask:
    return np.ones(rgb.shape[:2], bool)


def _grabcut(rgb: Rgb) -> Mask:
    """Once as if somebody had drawn a box, once from what the plain method found: one of the two
    is mostly right, and clothes are much alike on the left and on the right.

    Source: Rother, Kolmogorov, Blake (2004).
    """
    import cv2

    bgr = np.ascontiguousarray(rgb[..., ::-1])
    edge, plain = _edge(rgb), _histogram(rgb)

    def found(start: NDArray) -> Mask:
        start = start.astype(np.uint8)
        start[edge] = cv2.GC_BGD
        models: Any = np.zeros((2, 1, 65))
        cv2.setRNGSeed(0)  # its mixtures begin at random
        nothing: Any = None
        cv2.grabCut(bgr, start, nothing, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK)
        mask = ((start == cv2.GC_FGD) | (start == cv2.GC_PR_FGD)).astype(np.uint8)
        return _cleaned(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)

    boxed = found(np.full(edge.shape, cv2.GC_PR_FGD))
    if boxed.mean() < LEAST_SHARE:  # everything looked like the edge: now the middle is certain
        start = np.where(_ellipse(edge.shape, 0.84), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
        start[_ellipse(edge.shape, 0.3)] = cv2.GC_FGD
        boxed = found(start)
    refined = found(np.where(plain, cv2.GC_PR_FGD, cv2.GC_PR_BGD))
    if refined.mean() < LEAST_SHARE:
        refined = plain
    return max((boxed, refined), key=symmetry)


# Levels of each colour channel that the plain method tells apart.
LEVELS = 12


def _histogram(rgb: Rgb) -> Mask:
    """What has other colours than the edge: two histograms, of what is taken for background and
    for garment, are made from each other in turn, and their ratio is smoothed.
    """
    from PIL import Image, ImageFilter

    height, width = rgb.shape[:2]
    bins = (rgb // (256 // LEVELS + 1)).astype(np.int32)
    code = (bins[..., 0] * LEVELS + bins[..., 1]) * LEVELS + bins[..., 2]
    edge, radius = _edge(rgb), max(height, width) / 80
    mask = ~edge & _ellipse((height, width), 1.0)
    for _ in range(6):
        ratio = np.log(_density(code[mask]) / _density(code[~mask]))[code]
        level = (128 + 24 * ratio).clip(0, 255).astype(np.uint8)
        smooth = Image.fromarray(level).filter(ImageFilter.GaussianBlur(radius))
        found = (np.asarray(smooth) > 128) & ~edge
        if found.mean() < LEAST_SHARE:
            break
        mask = found
    return _cleaned(mask)


def _density(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """How frequent each colour is; neighbouring colours count a little too, and none is 0."""
    count = np.bincount(codes.ravel(), minlength=LEVELS**3).astype(np.float64)
    cube = count.reshape(LEVELS, LEVELS, LEVELS)
    for axis in range(3):
        padded = np.pad(cube, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = (np.take(padded, range(k, LEVELS + k), axis) for k in (0, 2))
        cube = 0.6 * cube + 0.2 * (before + after)
    density: NDArray[np.float64] = (cube.ravel() + 0.05) / (count.sum() + 0.05 * LEVELS**3)
    return density


METHODS: dict[str, Callable[[Rgb], Mask]] = {
    "grabcut": _grabcut,
    "histogram": _histogram,
    "none": _none,
}


def symmetry(mask: Mask) -> float:
    """How alike the left and the right half are, 0 to 1: what a mask shares with its mirror image,
    about the middle of its extent or its centre of gravity, over what either has.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return 0.0
    weight = mask.sum(axis=0)
    gravity = float((weight * np.arange(mask.shape[1])).sum() / weight.sum())
    best, place = 0.0, np.arange(mask.shape[1])
    for twice_the_axis in (int(columns[0] + columns[-1]), round(2 * gravity)):
        mirrored = np.zeros_like(mask)
        there = twice_the_axis - place
        inside = (there >= 0) & (there < mask.shape[1])
        mirrored[:, inside] = mask[:, there[inside]]
        best = max(best, float((mask & mirrored).sum() / (mask | mirrored).sum()))
    return best


def _edge(rgb: Rgb) -> Mask:
    """The margin."""
    height, width = rgb.shape[:2]
    edge = np.ones((height, width), bool)
    y, x = max(1, round(MARGIN * height)), max(1, round(MARGIN * width))
    edge[y:-y, x:-x] = False
    return edge


def _ellipse(shape: tuple[int, ...], share: float) -> Mask:
    """In the middle, with so much of the height and of the width."""
    y, x = (np.linspace(-1, 1, side) / share for side in shape)
    inside: Mask = y[:, None] ** 2 + x[None, :] ** 2 < 1
    return inside


def _cleaned(mask: Mask) -> Mask:
    """Without dirt, and without the holes that prints make."""
    parts, sizes = _parts(mask)
    if not len(sizes):
        return mask
    keep = np.append(False, sizes >= PART * sizes.max())
    mask = keep[parts]
    holes, sizes = _parts(~mask)
    outside = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    small = np.append(False, sizes < HOLE * mask.sum())
    small[outside] = False
    cleaned: Mask = mask | small[holes]
    return cleaned


def _parts(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(number of its connected part for every pixel, 0 outside; their sizes, from number 1).

    Runs of a row are joined to those that they touch in the row above, by union-find.
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded, axis=1)
    row, first = np.nonzero(steps == 1)
    last = np.nonzero(steps == -1)[1]  # one past the end
    parent = list(range(len(row)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    begin: list[int] = np.searchsorted(row, np.arange(height + 1)).tolist()
    for y in range(1, height):
        above, here = begin[y - 1], begin[y]
        while above < begin[y] and here < begin[y + 1]:
            if first[above] < last[here] and first[here] < last[above]:
                one, other = root(above), root(here)
                parent[max(one, other)] = min(one, other)
            if last[above] < last[here]:
                above += 1
            else:
                here += 1
    roots = np.array([root(run) for run in range(len(row))], np.int64)
    _, number = np.unique(roots, return_inverse=True)
    parts = np.zeros((height, width), np.int32)
    for of_row, x, end, n in zip(row, first, last, number):
        parts[of_row, x:end] = n + 1
    sizes = np.bincount(parts.ravel(), minlength=number.max(initial=-1) + 2)[1:]
    return parts, sizes
