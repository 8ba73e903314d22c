"""Images of the data set as photographs of such clothes look when they are cut out and made small.

The photographs that people take differ from the data set's product pictures: sleeves and legs are
spread, shoes come in pairs and from above, the camera is tilted, the cut-out has lost a piece or
kept some carpet, the light falls from one side. A network that saw such images knows the garment
all the same. And it must know what it does not know: `strangers` are no garment of the ten.

Everything is a pure function of (seed, epoch, row). Distances are in pixels, angles in radians.
How much of each change there is was chosen with photographs, which were never trained on.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cores import usable_cores
from .network import IMITATION, STRANGERS, random_stream

__all__ = ["SIDE", "imitated", "strangers"]

Images = NDArray[np.uint8]
Floats = NDArray[np.floating]

SIDE = 28
MIDDLE = (SIDE - 1) / 2
_PLACES = np.arange(SIDE, dtype=np.float32)

# Labels of Fashion-MNIST whose photographs differ in a way of their own.
TOPS, TROUSERS, DRESS, SHOES = (0, 2, 3, 4, 6), 1, 3, (5, 7, 9)

# Pixels above this are fabric and not background.
FABRIC = 8

# Rows that are made at once: their arrays fit into a core's second-level cache.
ROWS = 128


def imitated(images: Images, labels_n: NDArray[np.integer], seed: int, epoch: int) -> Images:
    """Another image for every one of these, uint8 (n, 28, 28), that shows the same kind of thing.

    images : uint8 (n, 28, 28), garments bright on black. labels_n : (n,), Fashion-MNIST's.
    """

    def make(first: int, stream: np.random.Generator) -> Images:
        part = slice(first, first + ROWS)
        return _imitated(images[part], labels_n[part], stream)

    return _in_parts(make, len(images), seed, IMITATION, epoch)


def strangers(
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
        for kind, draw in enumerate((_short_legs, _skirts, _hats, _pieces)):
            label = (TROUSERS, DRESS, None, None)[kind]
            among = np.arange(len(images)) if label is None else rows_k[label]
            place = slice(kind, None, 4)
            chosen = images[stream.choice(among, len(drawn[place]))] if len(among) else None
            drawn[place] = 0 if chosen is None else draw(chosen.astype(np.float32), stream)
        return _imitated(drawn, np.full(rows, -1), stream)

    return _in_parts(make, count, seed, STRANGERS, epoch)


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
    shoes_b = np.isin(labels_b, SHOES)
    pairs_b = shoes_b & (stream.random(len(images)) < 0.4)
    warp = _Warp.drawn(labels_b, pairs_b, stream)
    layers = images.astype(np.float32) + 1j * (images > FABRIC).astype(np.float32)
    y, x = warp.source(*_fitted(warp, layers.imag > 0.5, stream))
    seen = _sampled(layers.astype(np.complex64), y, x)
    fabric, cover = np.ascontiguousarray(seen.real), np.ascontiguousarray(seen.imag)
    _put_beside(fabric, cover, pairs_b)
    _put_behind(fabric, cover, np.flatnonzero(shoes_b & ~pairs_b), stream)
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
        normal, uniform = _drawers(rows, stream)
        tops, legs = (_column(np.isin(labels_b, kind)) for kind in (TOPS, TROUSERS))
        shoes, pairs = _column(np.isin(labels_b, SHOES)), _column(pairs_b)
        turn = normal(np.deg2rad(7))
        anyhow = shoes & _chance(0.3, rows, stream)
        turn = np.where(anyhow, uniform(-np.pi, np.pi), turn)
        upright = np.pi / 2 * _sign(rows, stream) + normal(np.deg2rad(12))
        spread = np.abs(normal(0.25))
        return cls(
            turn=np.where(pairs, upright, turn),
            flip=_sign(rows, stream),
            aspect=np.exp(normal(0.12) + np.where(tops, 0.08 + normal(0.08), 0)),
            flare=np.where(shoes, 0, 0.12 + normal(0.15)),
            shear=normal(0.06),
            spread=np.where(tops, spread, np.where(legs, spread / 2, 0)),
            trunk=np.where(tops, uniform(6, 9), 0),
            is_top=tops,
            bend=0.6 * np.stack([_smooth(rows, 5, stream) for _ in range(2)]),
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
    wide = 2 * (_PLACES - MIDDLE)  # half as large: what leaves the image is seen too
    y, x = warp.source(wide[None, :, None], wide[None, None, :])
    row = np.clip(np.rint(y), -1, SIDE).astype(np.int32) + 1
    column = np.clip(np.rint(x), -1, SIDE).astype(np.int32) + 1
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    seen = padded[np.arange(len(mask))[:, None, None], row, column]
    (top, bottom), (left, right) = (_extent(_any(seen, axis)) for axis in (2, 1))
    _, uniform = _drawers(len(mask), stream)
    longest = np.maximum(bottom - top, right - left) / SIDE
    zoom = longest / uniform(0.92, 1.027)
    down = (top + bottom) / 2 + uniform(-1, 1)
    aside = (left + right) / 2 + uniform(-1, 1)
    place = _PLACES - MIDDLE
    return place[None, :, None] * zoom + down, place[None, None, :] * zoom + aside


def _extent(any_bn: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Where the half-size view begins and ends to be filled, in pixels from the middle."""
    first = any_bn.argmax(axis=1)
    last = SIDE - 1 - any_bn[:, ::-1].argmax(axis=1)
    places = 2 * (_PLACES - MIDDLE)
    return _column(places[first] - 1), _column(places[last] + 1)


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
    rows = rows[stream.random(len(rows)) < 0.4]
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
    normal, uniform = _drawers(rows, stream)
    inside = cover > 0.5
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    mean = np.where(inside, fabric, 0).sum((1, 2), keepdims=True) / count
    spread = np.sqrt(np.where(inside, (fabric - mean) ** 2, 0).sum((1, 2), keepdims=True) / count)
    detail = (fabric / np.maximum(cover, 0.3) - mean) / np.maximum(spread, 15)
    negative = np.where(_chance(0.1, rows, stream), -1, 1)
    toned = uniform(130, 200) + negative * 35 * np.exp(normal(0.4)) * detail
    toned += 12 * uniform(0, 1) * _smooth(rows, 3, stream)
    toned += 8 * uniform(0, 1) * stream.standard_normal(toned.shape, np.float32)
    patterned = np.flatnonzero(stream.random(rows) < 0.15)
    toned[patterned] += _pattern(len(patterned), stream)
    retoned: Floats = toned.astype(np.float32)
    return retoned


def _pattern(rows: int, stream: np.random.Generator) -> Floats:
    """Stripes in any direction, or checks."""
    _, uniform = _drawers(rows, stream)
    angle, wave, phase = uniform(0, np.pi), uniform(0.4, 3), uniform(0, 2 * np.pi)
    down, right = _PLACES[None, :, None], _PLACES[None, None, :]
    stripes = np.sin((np.cos(angle) * down + np.sin(angle) * right) * wave + phase)
    checks = np.sin(down * wave + phase) + np.sin(right * wave + phase)
    drawn = np.where(_chance(0.5, rows, stream), stripes, checks) * uniform(10, 60)
    return drawn.astype(np.float32)


def _cut_badly(fabric: Floats, cover: Floats, stream: np.random.Generator) -> None:
    """What cut-outs do wrong: background kept between legs and sleeves, holes, and rims."""
    rows = len(fabric)
    _, uniform = _drawers(rows, stream)
    inside = cover > 0.5
    to_the_right = np.maximum.accumulate(inside, axis=2)
    to_the_left = np.maximum.accumulate(inside[:, :, ::-1], axis=2)[:, :, ::-1]
    low = _PLACES[None, :, None] >= SIDE / 2
    kept = to_the_right & to_the_left & ~inside & low & _chance(0.15, rows, stream)
    hole = (_smooth(rows, 7, stream) > uniform(1.6, 3.5)) & _chance(0.3, rows, stream)
    near = _grown(_grown(inside)) & ~inside
    rim = near & (_smooth(rows, 6, stream) > uniform(0.3, 2.5)) & _chance(0.3, rows, stream)
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


def _short_legs(images: Floats, stream: np.random.Generator) -> Floats:
    """The upper part of trousers, made wider."""
    top, bottom, left, right = _box(images)
    end = top + stream.uniform(0.28, 0.6, len(images)) * (bottom - top)
    return _cropped(images, (top, end, left, right), stream.uniform(1, 1.9, len(images)))


def _skirts(images: Floats, stream: np.random.Generator) -> Floats:
    """The lower part of dresses."""
    top, bottom, left, right = _box(images)
    begin = bottom - stream.uniform(0.3, 0.6, len(images)) * (bottom - top)
    return _cropped(images, (begin, bottom, left, right), stream.uniform(0.9, 1.6, len(images)))


def _hats(images: Floats, stream: np.random.Generator) -> Floats:
    """Domes of the fabric in the middle of these images, most with a brim."""
    rows = len(images)
    _, uniform = _drawers(rows, stream)
    down, right = (_PLACES - MIDDLE)[None, :, None], (_PLACES - MIDDLE)[None, None, :]
    base = uniform(2, 10)
    above = down < base
    dome = ((right / uniform(7, 13)) ** 2 + ((down - base) / uniform(8, 20)) ** 2 < 1) & above
    aside = np.where(_chance(0.6, rows, stream), uniform(-8, 8), 0)
    brim = ((right - aside) / uniform(6, 14)) ** 2 + ((down - base) / uniform(1.5, 5)) ** 2 < 1
    hat = dome | (brim & _chance(0.7, rows, stream))
    return np.where(hat, _fabric_of(images), 0)


def _pieces(images: Floats, stream: np.random.Generator) -> Floats:
    """Enlarged quarters of garments, and stains."""
    rows = len(images)
    top, left = stream.uniform(0, 14, (2, rows))
    side = stream.uniform(10, 14, rows)
    pieces = _cropped(images, (top, top + side, left, left + side), np.ones(rows))
    stain = _smooth(rows, 6, stream) > _column(stream.uniform(0, 1, rows))
    stains = np.where(stain, _fabric_of(images), 0)
    return np.where(_chance(0.5, rows, stream), pieces, stains)


def _fabric_of(images: Floats) -> Floats:
    """The middle third, enlarged to the whole image and bright enough to be fabric."""
    place = (MIDDLE + 0.35 * (_PLACES - MIDDLE)).astype(np.float32)
    shape = images.shape
    y, x = np.broadcast_to(place[:, None], shape), np.broadcast_to(place[None, :], shape)
    enlarged: Floats = np.clip(_sampled(images, y, x) + 20, 20, 255)
    return enlarged


def _box(images: Floats) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """First row, end of the rows, first column and end of the columns with fabric; (b,) each."""
    filled = (_any(images > FABRIC, axis) for axis in (2, 1))
    (top, bottom), (left, end) = (
        (any_bn.argmax(axis=1), SIDE - any_bn[:, ::-1].argmax(axis=1)) for any_bn in filled
    )
    return top, bottom, left, end


def _any(mask: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    return np.asarray(mask.any(axis=axis))


def _cropped(
    images: Floats, box: tuple[NDArray, NDArray, NDArray, NDArray], widening: NDArray
) -> Floats:
    """What is in the box, its width multiplied, as large as the image holds, in its middle."""
    top, bottom, left, right = map(_column, box)
    wider = _column(widening)
    height, width = bottom - top, (right - left) * wider
    zoom = np.maximum(height, width) / SIDE
    down, aside = (_PLACES - MIDDLE)[None, :, None] * zoom, (_PLACES - MIDDLE)[None, None, :] * zoom
    shape = images.shape
    y = np.broadcast_to((top + bottom - 1) / 2 + down, shape)
    x = np.broadcast_to((left + right - 1) / 2 + aside / wider, shape)
    inside = (np.abs(down) <= height / 2) & (np.abs(aside) <= width / 2)
    return np.where(inside, _sampled(images, y, x), 0)


def _sampled(layers: NDArray, y: NDArray, x: NDArray) -> NDArray:
    """The images (b, 28, 28) between their pixels, at rows y and columns x; outside there is 0.

    Complex numbers carry two layers at once: each is gathered with one look-up.
    """
    side = SIDE + 3
    padded = np.pad(layers, ((0, 0), (1, 2), (1, 2))).ravel()
    y = np.clip(np.asarray(y, np.float32) + 1, 0, SIDE + 1)
    x = np.clip(np.asarray(x, np.float32) + 1, 0, SIDE + 1)
    row, column = y.astype(np.int32), x.astype(np.int32)
    below, right = y - row, x - column
    first = np.arange(len(layers), dtype=np.int32)[:, None, None] * side**2
    at = first + row * side + column
    upper = padded[at] * (1 - right) + padded[at + 1] * right
    lower = padded[at + side] * (1 - right) + padded[at + side + 1] * right
    sampled: NDArray = upper * (1 - below) + lower * below
    return sampled


def _smooth(rows: int, points: int, stream: np.random.Generator) -> Floats:
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


def _drawers(
    rows: int, stream: np.random.Generator
) -> tuple[Callable[[float], Floats], Callable[[float, float], Floats]]:
    """One number for each row, (b, 1, 1): normal of a deviation, and uniform between two."""

    def normal(deviation: float) -> Floats:
        return _column(np.float32(deviation) * stream.standard_normal(rows, np.float32))

    def uniform(low: float, high: float) -> Floats:
        return _column(np.float32(low) + np.float32(high - low) * stream.random(rows, np.float32))

    return normal, uniform


def _chance(share: float, rows: int, stream: np.random.Generator) -> NDArray[np.bool_]:
    return _column(stream.random(rows) < share)


def _sign(rows: int, stream: np.random.Generator) -> Floats:
    return _column(np.where(stream.random(rows) < 0.5, np.float32(-1), np.float32(1)))


def _column(values_b: NDArray) -> NDArray:
    return values_b[:, None, None]
