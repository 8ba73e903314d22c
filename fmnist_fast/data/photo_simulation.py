"""Augmentation that makes Fashion-MNIST images look like segmented, downscaled photographs.

Photographs differ from the product pictures of the data set: sleeves and legs are spread, shoes
come in pairs and from above, the camera is tilted, the segmentation mask has lost a piece or kept
some background, the light falls from one side. `simulate_ood_images` makes out-of-distribution
images: garments of none of the ten classes.

Everything is a pure function of (seed, epoch, row). Distances are in pixels, angles in radians.
The strength of each change was chosen on photographs that were never trained on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from .._cpu import usable_cores
from ..nn.random_streams import Purpose, random_stream
from .image_ops import (
    CENTER,
    DOWN,
    FOREGROUND,
    PIXELS,
    RIGHT,
    SIDE,
    Floats,
    ImageRng,
    Images,
    bounding_boxes,
    per_image,
    sample_bilinear,
)
from .synthetic_shapes import fragments, hats, shoe_pairs_from_above, shorts, skirts

# Labels of Fashion-MNIST with transformations of their own.
TOPS, TROUSERS, DRESS, SHOES = (0, 2, 3, 4, 6), 1, 3, (5, 7, 9)

# Probability that shoes are drawn as a pair seen from above; otherwise, that they stand beside
# their horizontal flip; otherwise, that a second shoe partly covers them.
P_FROM_ABOVE, P_SYMMETRIC_PAIR, P_OVERLAPPING_PAIR = 0.4, 0.2, 0.4

# From positions relative to the center, down and right, to rows and columns of the images, each
# broadcast to (b, 28, 28).
Warp = Callable[[Floats, Floats], tuple[Floats, Floats]]

# Rows per chunk: their arrays fit into a core's second-level cache.
CHUNK_ROWS = 128


def simulate_photos(images: Images, labels_n: NDArray[np.integer], seed: int, epoch: int) -> Images:
    """Return a simulated photograph of every image, uint8 (n, 28, 28), of the same class.

    images : uint8 (n, 28, 28), bright on black. labels_n : (n,), Fashion-MNIST's.
    """

    def make(first: int, stream: np.random.Generator) -> Images:
        part = slice(first, first + CHUNK_ROWS)
        return _simulate(images[part], labels_n[part], stream)

    return _in_chunks(make, len(images), seed, Purpose.PHOTO_SIMULATION, epoch)


def simulate_ood_images(
    images: Images, labels_n: NDArray[np.integer], count: int, seed: int, epoch: int
) -> Images:
    """Return images of none of the ten classes, made from the given ones: uint8 (count, 28, 28).

    Shorts, skirts, hats, and fragments as a failed segmentation leaves them, a quarter each.
    """
    all_rows = np.arange(len(images))
    kinds = (
        (shorts, np.flatnonzero(labels_n == TROUSERS)),
        (skirts, np.flatnonzero(labels_n == DRESS)),
        (hats, all_rows),
        (fragments, all_rows),
    )

    def make(first: int, stream: np.random.Generator) -> Images:
        rows = min(CHUNK_ROWS, count - first)
        drawn = np.zeros((rows, SIDE, SIDE), np.float32)
        for kind, (draw, sources) in enumerate(kinds):
            part = slice(kind, None, len(kinds))
            if len(sources):
                chosen = images[stream.choice(sources, len(drawn[part]))]
                drawn[part] = draw(chosen.astype(np.float32), stream)
        return _simulate(drawn, np.full(rows, -1), stream)

    return _in_chunks(make, count, seed, Purpose.OOD, epoch)


def _in_chunks(make: Callable[[int, np.random.Generator], Images], rows: int, *key: int) -> Images:
    """Make all rows in chunks on all cores, each chunk from its own random stream of the key."""
    out = np.empty((rows, SIDE, SIDE), np.uint8)

    def fill(first: int) -> None:
        stream = random_stream(*key, first // CHUNK_ROWS)
        out[first : first + CHUNK_ROWS] = make(first, stream)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(fill, range(0, rows, CHUNK_ROWS)))  # list: waits, and raises errors of chunks
    return out


def _simulate(
    images: NDArray, labels_b: NDArray[np.integer], stream: np.random.Generator
) -> Images:
    """Return simulated photographs of a chunk; label -1 marks images of no class."""
    images, rng = images.astype(np.float32), ImageRng(stream, len(images))
    shoes_b = np.isin(labels_b, SHOES)
    above_b = shoes_b & (stream.random(len(images)) < P_FROM_ABOVE)
    images[above_b] = shoe_pairs_from_above(images[above_b], labels_b[above_b], stream)
    pairs_b = shoes_b & ~above_b & (stream.random(len(images)) < P_SYMMETRIC_PAIR)
    warp = _random_warp(labels_b, pairs_b, rng)
    layers = images + 1j * (images > FOREGROUND).astype(np.float32)
    y, x = warp(*_fit_to_frame(warp, layers.imag > 0.5, rng))
    warped = sample_bilinear(layers.astype(np.complex64), y, x)
    fabric, cover = np.ascontiguousarray(warped.real), np.ascontiguousarray(warped.imag)
    _symmetric_pairs(fabric, cover, pairs_b)
    single_b = shoes_b & ~pairs_b & ~above_b
    _overlap_pairs(fabric, cover, np.flatnonzero(single_b), stream)
    fabric = _vary_tones(fabric, cover, rng)
    _add_segmentation_errors(fabric, cover, rng)
    # Segmentation masks have hard edges; downscaling blurs them over one pixel.
    soft = np.clip(1.4 * cover - 0.2, 0, 1)
    return np.rint(np.clip(fabric, 50, 255) * soft).astype(np.uint8)


def _random_warp(labels_b: NDArray[np.integer], pairs_b: NDArray[np.bool_], rng: ImageRng) -> Warp:
    """Draw a warp for each image. Shoes of a pair point up or down."""
    tops, legs, shoes = (per_image(np.isin(labels_b, kind)) for kind in (TOPS, TROUSERS, SHOES))
    angle = rng.normal(np.deg2rad(7))  # of the camera
    any_angle = shoes & rng.bernoulli(0.3)
    angle = np.where(any_angle, rng.uniform(-np.pi, np.pi), angle)
    upright = np.pi / 2 * rng.sign() + rng.normal(np.deg2rad(12))
    angle = np.where(per_image(pairs_b), upright, angle)
    # Outward shift of sleeves and legs per pixel down, beyond `trunk` pixels from the center.
    spread = np.abs(rng.normal(0.25))
    spread = np.where(tops, spread, np.where(legs, spread / 2, 0))
    flip = rng.sign()
    aspect = np.exp(rng.normal(0.12) + np.where(tops, 0.08 + rng.normal(0.08), 0))
    flare = np.where(shoes, 0, 0.12 + rng.normal(0.15))  # relative widening of the hem
    shear = rng.normal(0.06)  # horizontal shift per pixel down
    trunk = np.where(tops, rng.uniform(6, 9), 0)
    bend_y, bend_x = 0.6 * rng.smooth_noise(5), 0.6 * rng.smooth_noise(5)

    def warp(down: Floats, right: Floats) -> tuple[Floats, Floats]:
        cos, sin = np.cos(angle), np.sin(angle)
        y = cos * down - sin * right
        x = (sin * down + cos * right - shear * y) / aspect
        depth = (y + SIDE / 2) / SIDE
        x = x / np.maximum(0.4, 1 + flare * depth)
        limb = np.abs(x) > trunk
        moved = spread * SIDE * np.clip(depth, 0, 1.3)
        x = np.where(limb, np.sign(x) * np.maximum(trunk, np.abs(x) - moved), x)
        # A sleeve that is rotated outwards reaches less far down.
        lift = np.sqrt(1 + spread**2)
        y = np.where(limb & tops, (y + SIDE / 2) * lift - SIDE / 2, y)
        return y + CENTER + bend_y, x * flip + CENTER + bend_x

    return warp


def _fit_to_frame(warp: Warp, mask: NDArray[np.bool_], rng: ImageRng) -> tuple[Floats, Floats]:
    """Return positions relative to the center, (b, 28, 1) and (b, 1, 28), that fill the frame.

    The warped garment is cropped to its bounding box as in `vision.preprocessing`, with the errors
    of a bad segmentation mask.
    """
    y, x = warp(2 * DOWN, 2 * RIGHT)  # at half the size, garments that leave the frame are inside
    index = [np.clip(np.rint(position), -1, SIDE).astype(np.int32) + 1 for position in (y, x)]
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    warped = padded[np.arange(len(mask))[:, None, None], *index]
    top, bottom, left, right = (
        per_image((2 * edge_b - SIDE).astype(np.float32)) for edge_b in bounding_boxes(warped)
    )
    longest = np.maximum(bottom - top, right - left) / SIDE
    zoom = longest / rng.uniform(0.92, 1.027)
    down = (top + bottom) / 2 + rng.uniform(-1, 1)
    aside = (left + right) / 2 + rng.uniform(-1, 1)
    return DOWN * zoom + down, RIGHT * zoom + aside


def _symmetric_pairs(fabric: Floats, cover: Floats, pairs_b: NDArray[np.bool_]) -> None:
    """Replace images by a pair of shoes: the central half and its horizontal flip."""
    half = slice(SIDE // 4, SIDE // 4 + SIDE // 2)
    for layer in (fabric, cover):
        shoe = layer[pairs_b][:, :, half]
        layer[pairs_b] = np.concatenate([shoe, shoe[:, :, ::-1]], axis=2)


def _overlap_pairs(
    fabric: Floats, cover: Floats, rows: NDArray[np.intp], stream: np.random.Generator
) -> None:
    """Draw some shoes twice, the second one lower and to the side, in front of the first."""
    rows = rows[stream.random(len(rows)) < P_OVERLAPPING_PAIR]
    lower, aside = stream.integers(4, 10, len(rows)), stream.integers(-6, 7, len(rows))
    for row, y, x in zip(rows, lower, aside):
        target, source = slice(max(0, x), SIDE + min(0, x)), slice(max(0, -x), SIDE - max(0, x))
        shoe, shoe_cover = fabric[row, :-y, source].copy(), cover[row, :-y, source].copy()
        in_front = shoe_cover > 0.5
        fabric[row, y:, target][in_front] = shoe[in_front]
        np.maximum(cover[row, y:, target], shoe_cover, out=cover[row, y:, target])


def _vary_tones(fabric: Floats, cover: Floats, rng: ImageRng) -> Floats:
    """Change colors and light: mean, contrast, a gradient, noise, and sometimes a pattern."""
    inside = cover > 0.5
    count = np.maximum(inside.sum((1, 2), keepdims=True, dtype=np.float32), 1)
    mean = np.where(inside, fabric, 0).sum((1, 2), keepdims=True) / count
    spread = np.sqrt(np.where(inside, (fabric - mean) ** 2, 0).sum((1, 2), keepdims=True) / count)
    detail = (fabric / np.maximum(cover, 0.3) - mean) / np.maximum(spread, 15)
    negative = rng.sign(0.1)
    toned: Floats = rng.uniform(130, 200) + negative * 35 * np.exp(rng.normal(0.4)) * detail
    toned += 12 * rng.uniform(0, 1) * rng.smooth_noise(3)
    toned += 8 * rng.uniform(0, 1) * rng.stream.standard_normal(toned.shape, np.float32)
    patterned = np.flatnonzero(rng.stream.random(rng.rows) < 0.15)
    toned[patterned] += _pattern(ImageRng(rng.stream, len(patterned)))
    return toned


def _pattern(rng: ImageRng) -> Floats:
    """Draw stripes in any direction, or checks."""
    angle, wave, phase = rng.uniform(0, np.pi), rng.uniform(0.4, 3), rng.uniform(0, 2 * np.pi)
    down, right = PIXELS[:, None], PIXELS
    stripes = np.sin((np.cos(angle) * down + np.sin(angle) * right) * wave + phase)
    checks = np.sin(down * wave + phase) + np.sin(right * wave + phase)
    drawn = np.where(rng.bernoulli(0.5), stripes, checks) * rng.uniform(10, 60)
    return drawn.astype(np.float32)


def _add_segmentation_errors(fabric: Floats, cover: Floats, rng: ImageRng) -> None:
    """Add typical segmentation errors: background between legs and sleeves, holes, and rims."""
    inside = cover > 0.5
    to_the_right = np.maximum.accumulate(inside, axis=2)
    to_the_left = np.maximum.accumulate(inside[:, :, ::-1], axis=2)[:, :, ::-1]
    low = DOWN > 0
    kept = to_the_right & to_the_left & ~inside & low & rng.bernoulli(0.15)
    hole = (rng.smooth_noise(7) > rng.uniform(1.6, 3.5)) & rng.bernoulli(0.3)
    near = _dilate(_dilate(inside)) & ~inside
    rim = near & (rng.smooth_noise(6) > rng.uniform(0.3, 2.5)) & rng.bernoulli(0.3)
    cover[hole] = 0
    for added in (kept, rim):
        np.copyto(fabric, rng.uniform(60, 220).astype(np.float32), where=added)
        cover[added] = 1


def _dilate(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate by the four neighbors of each pixel; the border of the image is left alone."""
    dilated = mask.copy()
    inner = dilated[:, 1:-1, 1:-1]
    for rows, columns in ((slice(2, None), slice(1, -1)), (slice(None, -2), slice(1, -1))):
        inner |= mask[:, rows, columns]
        inner |= mask[:, columns, rows]
    return dilated
