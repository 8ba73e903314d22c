"""Images of the data set as photographs of such clothes look when they are cut out and made small.

The photographs that people take differ from the data set's product pictures: sleeves and legs are
spread, shoes come in pairs and from above, the camera is tilted, the cut-out has lost a piece or
kept some carpet, the light falls from one side. A network that saw such images knows the garment
all the same. `simulate_ood_images` makes out-of-distribution images: garments of none of the ten
classes.

Everything is a pure function of (seed, epoch, row). Distances are in pixels, angles in radians.
How much of each change there is was chosen with photographs, which were never trained on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .._cpu import usable_cores
from ..nn.random_streams import OOD, PHOTO_SIMULATION, random_stream
from .image_ops import (
    FABRIC,
    MIDDLE,
    PLACES,
    SIDE,
    Floats,
    Images,
    any_along,
    chance,
    column,
    drawers,
    sampled,
    sign,
    smooth,
)
from .synthetic_shapes import hats, pairs_from_above, pieces, short_legs, skirts

__all__ = ["simulate_photos", "simulate_ood_images"]

# Labels of Fashion-MNIST whose photographs differ in a way of their own.
TOPS, TROUSERS, DRESS, SHOES = (0, 2, 3, 4, 6), 1, 3, (5, 7, 9)

# Share of shoes that are drawn as pairs seen from above; of the others, how many are beside their
# mirror image; and of the rest, how many stand partly behind the other shoe.
FROM_ABOVE, PAIRS, BEHIND = 0.4, 0.2, 0.4

# Rows that are made at once: their arrays fit into a core's second-level cache.
ROWS = 128


def simulate_photos(images: Images, labels_n: NDArray[np.integer], seed: int, epoch: int) -> Images:
    """Another image for every one of these, uint8 (n, 28, 28), that shows the same kind of thing.

    images : uint8 (n, 28, 28), garments bright on black. labels_n : (n,), Fashion-MNIST's.
    """

    def make(first: int, stream: np.random.Generator) -> Images:
        part = slice(first, first + ROWS)
        return _imitated(images[part], labels_n[part], stream)

    return _in_parts(make, len(images), seed, PHOTO_SIMULATION, epoch)


def simulate_ood_images(
    images: Images, labels_n: NDArray[np.integer], count: int, seed: int, epoch: int
) -> Images:
    """What is none of the ten classes, made of these images: uint8 (count, 28, 28).

    Upper parts of trousers, lower parts of dresses, domes of fabric with a brim, pieces and stains,
    a quarter of each: what people would call shorts, skirts, hats and failures of the cut-out.
    """
    rows_k = {label: np.flatnonzero(labels_n == label) for label in (TROUSERS, DRESS)}

    def make(first: int, stream: np.random.Generator) -> Images:
        rows = min(ROWS, count - first)
        drawn = np.empty((rows, SIDE, SIDE), np.float32)
        for kind, draw in enumerate((short_legs, skirts, hats, pieces)):
            label = (TROUSERS, DRESS, None, None)[kind]
            among = np.arange(len(images)) if label is None else rows_k[label]
            place = slice(kind, None, 4)
            chosen = images[stream.choice(among, len(drawn[place]))] if len(among) else None
            drawn[place] = 0 if chosen is None else draw(chosen.astype(np.float32), stream)
        return _imitated(drawn, np.full(rows, -1), stream)

    return _in_parts(make, count, seed, OOD, epoch)


def _in_parts(
    make: Callable[[int, np.random.Generator], Images],
    rows: int,
    seed: int,
    purpose: int,
    epoch: int,
) -> Images:
    """All rows, made ROWS at a time, each part from a stream of its own, on all cores."""
    out = np.empty((rows, SIDE, SIDE), np.uint8)

    def fill(first: int) -> None:
        stream = random_stream(seed, purpose, epoch, first // ROWS)
        out[first : first + ROWS] = make(first, stream)

    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in pool.map(fill, range(0, rows, ROWS)):
            pass
    return out


def _imitated(
    images: NDArray, labels_b: NDArray[np.integer], stream: np.random.Generator
) -> Images:
    images = images.astype(np.float32)
    shoes_b = np.isin(labels_b, SHOES)
    from_above_b = shoes_b & (stream.random(len(images)) < FROM_ABOVE)
    theirs = images[from_above_b], labels_b[from_above_b]
    images[from_above_b] = pairs_from_above(*theirs, stream)
    pairs_b = shoes_b & ~from_above_b & (stream.random(len(images)) < PAIRS)
    warp = _Warp.drawn(labels_b, pairs_b, stream)
    layers = images + 1j * (images > FABRIC).astype(np.float32)
    y, x = warp.source(*_fitted(warp, layers.imag > 0.5, stream))
    seen = sampled(layers.astype(np.complex64), y, x)
    fabric, cover = np.ascontiguousarray(seen.real), np.ascontiguousarray(seen.imag)
    _put_beside(fabric, cover, pairs_b)
    single_b = shoes_b & ~pairs_b & ~from_above_b
    _put_behind(fabric, cover, np.flatnonzero(single_b), stream)
    fabric = _retoned(fabric, cover, stream)
    _cut_badly(fabric, cover, stream)
    # Cut-outs have hard edges; one pixel of softness is left by making them small.
    soft = np.clip(1.4 * cover - 0.2, 0, 1)
    return np.rint(np.clip(fabric, 50, 255) * soft).astype(np.uint8)


@dataclass(frozen=True)
class _Warp:
    """Where each pixel comes from; arrays are (b, 1, 1) but for `bend`.

    turn : of the camera. flip : 1 or -1. aspect : width is multiplied by it. flare : how much wider
    the hem is than the top. shear : sideways for each pixel down. spread : how far limbs move
    outwards for each pixel down; they begin `trunk` pixels from the middle. bend : (2, b, 28, 28),
    smooth displacements, as fabric lies.
    """

    turn: Floats
    flip: Floats
    aspect: Floats
    flare: Floats
    shear: Floats
    spread: Floats
    trunk: Floats
    is_top: NDArray[np.bool_]
    bend: Floats

    @classmethod
    def drawn(
        cls,
        labels_b: NDArray[np.integer],
        pairs_b: NDArray[np.bool_],
        stream: np.random.Generator,
    ) -> "_Warp":
        """One for each image. Those of a pair of shoes point up or down."""
        rows = len(labels_b)
        normal, uniform = drawers(rows, stream)
        tops, legs = (column(np.isin(labels_b, kind)) for kind in (TOPS, TROUSERS))
        shoes, pairs = column(np.isin(labels_b, SHOES)), column(pairs_b)
        turn = normal(np.deg2rad(7))
        anyhow = shoes & chance(0.3, rows, stream)
        turn = np.where(anyhow, uniform(-np.pi, np.pi), turn)
        upright = np.pi / 2 * sign(rows, stream) + normal(np.deg2rad(12))
        spread = np.abs(normal(0.25))
        return cls(
            turn=np.where(pairs, upright, turn),
            flip=sign(rows, stream),
            aspect=np.exp(normal(0.12) + np.where(tops, 0.08 + normal(0.08), 0)),
            flare=np.where(shoes, 0, 0.12 + normal(0.15)),
            shear=normal(0.06),
            spread=np.where(tops, spread, np.where(legs, spread / 2, 0)),
            trunk=np.where(tops, uniform(6, 9), 0),
            is_top=tops,
            bend=0.6 * np.stack([smooth(rows, 5, stream) for _ in range(2)]),
        )

    def source(self, down: Floats, right: Floats) -> tuple[Floats, Floats]:
        """Row and column, each (b, 28, 28), that are seen at a place given from the middle."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        y = cos * down - sin * right
        x = (sin * down + cos * right - self.shear * y) / self.aspect
        depth = (y + SIDE / 2) / SIDE
        x = x / np.maximum(0.4, 1 + self.flare * depth)
        limb = np.abs(x) > self.trunk
        moved = self.spread * SIDE * np.clip(depth, 0, 1.3)
        x = np.where(limb, np.sign(x) * np.maximum(self.trunk, np.abs(x) - moved), x)
        # A sleeve that is turned outwards reaches less far down.
        lift = np.sqrt(1 + self.spread**2)
        y = np.where(limb & self.is_top, (y + SIDE / 2) * lift - SIDE / 2, y)
        return y + MIDDLE + self.bend[0], x * self.flip + MIDDLE + self.bend[1]


def _fitted(
    warp: _Warp, mask: NDArray[np.bool_], stream: np.random.Generator
) -> tuple[Floats, Floats]:
    """Places, (b, 28, 1) and (b, 1, 28) from the middle, so that what is warped fills the image, as
    photo.py trims and places what it has cut out, give or take what a bad cut-out costs.
    """
    wide = 2 * (PLACES - MIDDLE)  # half as large: what leaves the image is seen too
    y, x = warp.source(wide[None, :, None], wide[None, None, :])
    at = [np.clip(np.rint(place), -1, SIDE).astype(np.int32) + 1 for place in (y, x)]
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    seen = padded[np.arange(len(mask))[:, None, None], *at]
    (top, bottom), (left, right) = (_extent(any_along(seen, axis)) for axis in (2, 1))
    _, uniform = drawers(len(mask), stream)
    longest = np.maximum(bottom - top, right - left) / SIDE
    zoom = longest / uniform(0.92, 1.027)
    down = (top + bottom) / 2 + uniform(-1, 1)
    aside = (left + right) / 2 + uniform(-1, 1)
    place = PLACES - MIDDLE
    return place[None, :, None] * zoom + down, place[None, None, :] * zoom + aside


def _extent(any_bn: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Where the half-size view begins and ends to be filled, in pixels from the middle."""
    first = any_bn.argmax(axis=1)
    last = SIDE - 1 - any_bn[:, ::-1].argmax(axis=1)
    places = 2 * (PLACES - MIDDLE)
    return column(places[first] - 1), column(places[last] + 1)


def _put_beside(fabric: Floats, cover: Floats, pairs_b: NDArray[np.bool_]) -> None:
    """A pair of shoes seen from above: the middle of the image, and beside it its mirror image."""
    half = slice(SIDE // 4, SIDE // 4 + SIDE // 2)
    for layer in (fabric, cover):
        one = layer[pairs_b][:, :, half]
        layer[pairs_b] = np.concatenate([one, one[:, :, ::-1]], axis=2)


def _put_behind(
    fabric: Floats, cover: Floats, rows: NDArray[np.intp], stream: np.random.Generator
) -> None:
    """Two shoes in the way of each other: the same one again, lower and aside."""
    rows = rows[stream.random(len(rows)) < BEHIND]
    lower, aside = stream.integers(4, 10, len(rows)), stream.integers(-6, 7, len(rows))
    for row, y, x in zip(rows, lower, aside):
        to, of = slice(max(0, x), SIDE + min(0, x)), slice(max(0, -x), SIDE - max(0, x))
        other, its_cover = fabric[row, :-y, of].copy(), cover[row, :-y, of].copy()
        before = its_cover > 0.5
        fabric[row, y:, to][before] = other[before]
        np.maximum(cover[row, y:, to], its_cover, out=cover[row, y:, to])


def _retoned(fabric: Floats, cover: Floats, stream: np.random.Generator) -> Floats:
    """Other dyes and light: mean and contrast anew, a gradient, noise, now and then a pattern."""
    rows = len(fabric)
    normal, uniform = drawers(rows, stream)
    inside = cover > 0.5
    count = np.maximum(inside.sum((1, 2), keepdims=True, dtype=np.float32), 1)
    mean = np.where(inside, fabric, 0).sum((1, 2), keepdims=True) / count
    spread = np.sqrt(np.where(inside, (fabric - mean) ** 2, 0).sum((1, 2), keepdims=True) / count)
    detail = (fabric / np.maximum(cover, 0.3) - mean) / np.maximum(spread, 15)
    negative = np.where(chance(0.1, rows, stream), np.float32(-1), np.float32(1))
    toned: Floats = uniform(130, 200) + negative * 35 * np.exp(normal(0.4)) * detail
    toned += 12 * uniform(0, 1) * smooth(rows, 3, stream)
    toned += 8 * uniform(0, 1) * stream.standard_normal(toned.shape, np.float32)
    patterned = np.flatnonzero(stream.random(rows) < 0.15)
    toned[patterned] += _pattern(len(patterned), stream)
    return toned


def _pattern(rows: int, stream: np.random.Generator) -> Floats:
    """Stripes in any direction, or checks."""
    _, uniform = drawers(rows, stream)
    angle, wave, phase = uniform(0, np.pi), uniform(0.4, 3), uniform(0, 2 * np.pi)
    down, right = PLACES[None, :, None], PLACES[None, None, :]
    stripes = np.sin((np.cos(angle) * down + np.sin(angle) * right) * wave + phase)
    checks = np.sin(down * wave + phase) + np.sin(right * wave + phase)
    drawn = np.where(chance(0.5, rows, stream), stripes, checks) * uniform(10, 60)
    return drawn.astype(np.float32)


def _cut_badly(fabric: Floats, cover: Floats, stream: np.random.Generator) -> None:
    """What cut-outs do wrong: background kept between legs and sleeves, holes, and rims."""
    rows = len(fabric)
    _, uniform = drawers(rows, stream)
    inside = cover > 0.5
    to_the_right = np.maximum.accumulate(inside, axis=2)
    to_the_left = np.maximum.accumulate(inside[:, :, ::-1], axis=2)[:, :, ::-1]
    low = PLACES[None, :, None] >= SIDE / 2
    kept = to_the_right & to_the_left & ~inside & low & chance(0.15, rows, stream)
    hole = (smooth(rows, 7, stream) > uniform(1.6, 3.5)) & chance(0.3, rows, stream)
    near = _grown(_grown(inside)) & ~inside
    rim = near & (smooth(rows, 6, stream) > uniform(0.3, 2.5)) & chance(0.3, rows, stream)
    cover[hole] = 0
    for added in (kept, rim):
        np.copyto(fabric, uniform(60, 220).astype(np.float32), where=added)
        cover[added] = 1


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the four neighbours of each pixel, but for those at the border of the image."""
    grown = mask.copy()
    middle = grown[:, 1:-1, 1:-1]
    for rows, columns in ((slice(2, None), slice(1, -1)), (slice(None, -2), slice(1, -1))):
        middle |= mask[:, rows, columns]
        middle |= mask[:, columns, rows]
    return grown
