"""Synthetic data set: drawn images with the layout of Fashion-MNIST, where that is not available.

Ten classes in Fashion-MNIST's order, 28 x 28 grey levels on a background that is exactly zero. One
function per class returns polygons for all images of the class at once; Pillow fills them and NumPy
adds texture. The set has about the fraction of zero pixels of Fashion-MNIST and some of its
confusions (shirt, coat, pullover, T-shirt), but accuracies on it do not carry over.

Only operations that IEEE 754 rounds exactly are used (no sin, exp or normal deviates, no long
sums), so the bits do not depend on the SIMD code that NumPy chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # part of cache keys: increment it with every change of the images
SIDE = 28
SUPERSAMPLING = 3  # polygons are filled at 84 x 84 and box-averaged
FULL_TONE = 160  # gray level of tone 1 while drawing; tones up to 1.59 can be represented

Array = NDArray[np.float64]
FloatImages = NDArray[np.float32]
ByteImages = NDArray[np.uint8]
Scalar = float | Array
Range = tuple[float, float]
Point = tuple[Scalar, Scalar]
# From back to front: corners (n or 1, k, 2) and tones (n,); a tone below 0 is not drawn, 0 erases.
Polygons = list[tuple[Array, Scalar]]


@dataclass(frozen=True)
class BatchRng:
    """Random numbers for a batch of n images; every result has shape (n,)."""

    rng: np.random.Generator
    n: int

    def uniform(self, low: Scalar, high: Scalar) -> Array:
        return low + (high - low) * self.rng.random(self.n)

    def bernoulli(self, p: float) -> NDArray[np.bool_]:
        return self.rng.random(self.n) < p

    def uniform_where(self, which: NDArray[np.bool_], yes: Range, no: Range) -> Array:
        return np.where(which, self.uniform(*yes), self.uniform(*no))

    def tone(self, low: float, high: float, p: float = 1.0) -> Array:
        """Return tones in low..high with probability p, else -1 (not drawn)."""
        return np.where(self.bernoulli(p), self.uniform(low, high), -1.0)


# Geometry. Units are roughly pixels, y points down; every drawing is fitted to the frame later.


def path(*points: Point) -> Array:
    """Return k corners (x, y), whose coordinates are scalars or (n,), as one array (n, k, 2)."""
    flat = np.broadcast_arrays(*(np.atleast_1d(c) for point in points for c in point))
    return np.stack(flat, axis=-1).reshape(-1, len(points), 2)


def symmetric(right: Array) -> Array:
    """Return a closed, symmetric outline; its right half runs from top to bottom."""
    return np.concatenate([right, (right * (-1.0, 1.0))[:, ::-1]], axis=1)


def both_sides(points: Array, tone: Scalar) -> Polygons:
    """Return a polygon and its reflection about x = 0."""
    return [(points, tone), (points * (-1.0, 1.0), tone)]


def rounded(points: Array) -> Array:
    """Cut the corners of a closed polygon (one step of Chaikin's algorithm)."""
    after = np.roll(points, -1, axis=1)
    cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], axis=2)
    return cut.reshape(len(points), -1, 2)


def arc(*controls: Point) -> Array:
    """Return 9 points of a quadratic Bezier curve with three control points."""
    start, middle, end = np.split(path(*controls), 3, axis=1)
    t = np.linspace(0, 1, 9)[:, None]
    return (1 - t) * (1 - t) * start + 2 * t * (1 - t) * middle + t * t * end


def stroke(points: Array, width: Scalar) -> Array:
    """Return the outline of a line of the given width along an open path."""
    along = np.gradient(points, axis=1)
    length = np.sqrt(along[..., :1] ** 2 + along[..., 1:] ** 2) + 1e-9
    aside = along[..., ::-1] * (-0.5, 0.5) / length * np.reshape(width, (-1, 1, 1))
    return np.concatenate([points + aside, (points - aside)[:, ::-1]], axis=1)


def box(x: Scalar, y: Scalar, width: Scalar, height: Scalar) -> Array:
    """Return a rectangle with the center of its upper edge at (x, y)."""
    left, right = x - width / 2, x + width / 2
    return path((left, y), (right, y), (right, y + height), (left, y + height))


def three_lines(start: Point, step: Point, line: Point, width: float, tone: Scalar) -> Polygons:
    """Return three equal parallel lines, `step` apart: laces, stripes, buttons."""
    first = stroke(path(start, (start[0] + line[0], start[1] + line[1])), width)
    return [(first + i * path(step), tone) for i in range(3)]


# Garments. Tops and trousers start at y = 0, centered on x = 0; shoes stand on y = 0, the toe at
# x = 0. Not formatted by ruff: an outline is easier to read with several corners to a line.
# fmt: off


def upper_body(d: BatchRng, collar: Scalar = -1, opening: Scalar = -1, **sizes: Scalar) -> Polygons:
    """Return the polygons of a top or dress: long-sleeved, unless `sizes` says otherwise.

    sizes : shoulder, chest and hem are half widths; depth is that of the neckline, sleeve the
    vertical distance from shoulder to cuff (0: no sleeve), splay the horizontal one.
    """
    girth, reach = d.uniform(5.2, 6.8), d.uniform(23, 27)
    defaults: dict[str, Scalar] = {
        "shoulder": d.uniform(5.8, 7.2), "chest": girth, "hem": girth + d.uniform(-0.6, 0.7),
        "length": reach, "sleeve": reach * d.uniform(0.86, 1.02), "splay": d.uniform(2.0, 4.4),
        "cuff": d.uniform(2.2, 3.4), "depth": d.uniform(0.6, 2.6),
    }
    shoulder, chest, hem, length, sleeve, splay, cuff, depth = (defaults | sizes).values()
    neck, drop, armpit = d.uniform(2.2, 3.6), d.uniform(0.8, 2.0), d.uniform(6.2, 8.2)
    norm = np.sqrt(np.square(sleeve) + np.square(splay)) + 1e-9
    out_x, out_y = shoulder + splay, drop + sleeve
    in_x, in_y = out_x - cuff * sleeve / norm, out_y + cuff * splay / norm
    elbow = d.uniform(0.2, 0.9) * (norm / 24)
    arm = path(
        (shoulder * 0.75, drop * 0.5), (shoulder + splay * 0.4 + elbow, drop + sleeve * 0.16),
        (shoulder + splay * 0.75 + elbow, drop + sleeve * 0.55), (out_x, out_y), (in_x, in_y),
        (chest - 0.3, armpit), (shoulder * 0.7, armpit),
    )
    body = symmetric(path(
        (0.0, depth), (neck * 0.6, depth * 0.75), (neck, 0.0), (shoulder, drop), (chest, armpit),
        (np.minimum(chest, hem) - d.uniform(0.0, 0.9), armpit * 0.55 + length * 0.45),
        (hem, length - d.uniform(0.0, 0.8)), (0.0, length),
    ))
    gap = path((chest, armpit - 2.0), (chest + 0.1, armpit), (in_x, in_y))
    slit = path((d.uniform(-0.4, 0.4), depth), (d.uniform(-0.4, 0.4), length))
    wing = path((neck / 2, -1.2), (neck + 1.2, 0.6), (neck * 0.9, depth + 2.2), (0.1, depth + 0.4))
    return [
        *both_sides(arm, np.where(sleeve > 0, d.uniform(0.85, 1.35), -1.0)),
        (box(0.0, 0.2, 2 * neck, depth), d.tone(0.35, 0.9, 0.6)), (body, 1.0),
        *both_sides(
            stroke(gap, d.uniform(0.4, 0.8)), np.where(sleeve > 0, d.tone(0.0, 0.7, 0.9), -1.0)
        ),
        (box(0.0, length - 1.4, 2 * hem - 0.4, 1.2), d.tone(0.7, 1.3, 0.4)),
        (stroke(slit, d.uniform(0.4, 1.0)), opening), *both_sides(wing, collar),
    ]


def t_shirt(d: BatchRng) -> Polygons:
    tank, long, chest = d.bernoulli(0.14), d.bernoulli(0.06), d.uniform(5.8, 7.4)
    return upper_body(
        d, shoulder=d.uniform_where(tank, (3.8, 5.2), (6.0, 7.4)), chest=chest,
        hem=chest + d.uniform(-0.5, 0.9), length=d.uniform(23, 29),
        sleeve=np.where(tank, 0.0, d.uniform_where(long, (12, 22), (4.0, 7.5))),
        splay=d.uniform_where(long, (2, 4), (2.5, 5.0)), cuff=d.uniform(3.6, 5.2),
        depth=d.uniform_where(tank, (3, 6), (1.0, 4.0)), opening=d.tone(0.4, 1.2, 0.06),
    )


def pullover(d: BatchRng) -> Polygons:
    roll_neck = box(0.0, -1.5, d.uniform(4, 6), d.uniform(2, 3.2))
    layers = upper_body(d, collar=d.tone(0.7, 1.2, 0.05), opening=d.tone(0.3, 0.9, 0.06))
    return [*layers, (roll_neck, d.tone(0.7, 1.2, 0.22))]


def coat(d: BatchRng) -> Polygons:
    zip_tone = np.where(d.bernoulli(0.5), d.tone(0.1, 0.5, 0.85), d.tone(1.3, 1.55, 0.8))
    layers = upper_body(
        d, length=d.uniform_where(d.bernoulli(0.3), (28, 36), (24, 28)), sleeve=d.uniform(21, 25),
        cuff=d.uniform(2.8, 4.0), depth=d.uniform(0.6, 3.5), collar=d.tone(0.6, 1.4, 0.8),
        opening=zip_tone,
    )
    hood = rounded(box(0.0, -d.uniform(1.5, 3), d.uniform(5, 7.5), d.uniform(4, 5.5)))
    pocket = box(d.uniform(3.2, 4.2), d.uniform(15, 19), d.uniform(2, 3), d.uniform(0.5, 3))
    lapels = path((-2.4, 0.0), (2.4, 0.0), (0.0, d.uniform(8, 14)))
    return [
        (hood, d.tone(0.5, 1.1, 0.45)), *layers, *both_sides(pocket, d.tone(0.5, 1.35, 0.45)),
        (lapels, d.tone(0.1, 0.6, 0.3)),
    ]


def shirt(d: BatchRng) -> Polygons:
    short, length = d.bernoulli(0.32), d.uniform(23, 28)
    layers = upper_body(
        d, length=length, hem=d.uniform(5.8, 7.8), depth=d.uniform(1.2, 4.6),
        sleeve=np.where(short, d.uniform(4.5, 9.5), length * d.uniform(0.76, 0.96)),
        splay=d.uniform_where(short, (2.0, 4.6), (2.4, 4.8)),
        cuff=d.uniform_where(short, (3.4, 5), (2.2, 3.2)),
        collar=d.tone(0.7, 1.4, 0.78), opening=d.tone(0.4, 0.8, 0.8),
    )
    buttons = three_lines((-0.4, 7.0), (0.0, 5.0), (0.8, 0.0), 0.8, d.tone(0.3, 1.5, 0.35))
    pocket = box(d.uniform(2.4, 3.4), d.uniform(7, 9), 2.4, 2.6)
    return [*layers, *buttons, (pocket, d.tone(0.75, 1.25, 0.25))]


def dress(d: BatchRng) -> Polygons:
    long, bare, wide = d.bernoulli(0.22), d.bernoulli(0.45), d.bernoulli(0.65)
    chest, length = d.uniform(4.8, 6.6), d.uniform(28, 41)
    belt = box(0.0, length * d.uniform(0.35, 0.5), 2 * chest - 1.6, d.uniform(0.8, 2))
    layers = upper_body(
        d, shoulder=d.uniform_where(bare, (3.6, 5.0), (5, 6.4)), chest=chest,
        hem=chest + d.uniform_where(wide, (1.8, 4.5), (-0.8, 1.8)), length=length,
        sleeve=np.where(bare, 0.0, d.uniform_where(long, (14, 24), (3.5, 8))),
        splay=d.uniform_where(long, (1, 4), (1.5, 3.5)), cuff=d.uniform(2.4, 4.4),
        depth=d.uniform(1.5, 6), opening=d.tone(0.7, 1.2, 0.06),
    )
    return [*layers, (belt, d.tone(0.4, 1.4, 0.35))]


def trouser(d: BatchRng) -> Polygons:
    waist, hip, crotch = d.uniform(4.4, 5.8), d.uniform(5.0, 6.6), d.uniform(8, 11)
    length = d.uniform_where(d.bernoulli(0.04), (16, 24), (29, 36))
    gap = d.uniform(0.8, 3.0)
    ankle = gap + d.uniform_where(d.bernoulli(0.25), (3.2, 4.8), (2.2, 3.2))
    leg = path(
        (0.0, 0.0), (waist, 0.0), (hip, crotch * 0.7), ((hip + ankle) / 2 + 0.3, crotch * 2),
        (ankle, length), (gap, length), (gap * 0.8, crotch * 2), (0.0, crotch),
    )
    pocket = stroke(path((waist * 0.5, 1.2), (hip * 0.95, 4.5)), 0.6)
    crease = stroke(path((hip * 0.5, crotch), ((gap + ankle) / 2, length)), 1.2)
    return [
        *both_sides(leg, d.uniform(0.85, 1.1)), *both_sides(crease, d.tone(1.05, 1.35, 0.6)),
        *both_sides(pocket, d.tone(0.5, 0.9, 0.7)),
        (box(0.0, 1.0, 0.6, crotch - 1), d.tone(0.5, 0.9, 0.7)),
        (box(0.0, 0.0, 2 * waist, 1.5), d.tone(0.7, 1.3, 0.6)),
    ]


def bag(d: BatchRng) -> Polygons:
    wide, high, corner = d.uniform(9, 14), d.uniform(10, 20), d.uniform(0.2, 3.5)
    top = wide * d.uniform_where(d.bernoulli(0.35), (0.55, 0.86), (0.86, 1.06))
    body = symmetric(path(
        (top - corner, 0.0), (top, corner), (wide, high - corner), (wide - corner, high),
    ))
    grip, rise = wide * d.uniform(0.3, 0.85), d.uniform_where(d.bernoulli(0.5), (12, 30), (5, 12))
    front = arc((-grip, 1.0), (0.0, -rise), (grip, 1.0))
    drop = high * d.uniform(0.25, 0.65)
    flap = symmetric(path((top, 0.6), (top * 0.92, drop), (0.0, drop * 1.12)))
    return [
        (stroke(front, d.uniform(0.9, 2.0)), d.tone(0.5, 1.2, 0.8)), (body, 1.0),
        (flap, d.tone(0.75, 1.25, 0.4)), (box(0.0, drop, 2 * top, 0.8), d.tone(0.4, 0.8, 0.45)),
        *both_sides(box(wide * 0.6, 1.0, 0.8, high - 1), d.tone(0.5, 1.4, 0.2)),
        (box(d.uniform(-1, 1), drop - 1, d.uniform(1, 3), d.uniform(1, 3)), d.tone(0.2, 1.55, 0.6)),
        (box(0.0, 0.0, 2 * top - 2, 1.2), d.tone(0.5, 1.3, 0.5)),
    ]


def sneaker(d: BatchRng) -> Polygons:
    toe, peak, thick = d.uniform(3.4, 5.4), d.uniform(14, 18), d.uniform(1.4, 3.0)
    high = d.bernoulli(0.2)
    tongue = d.uniform_where(high, (13, 20), (8.5, 13.5))
    ankle = tongue * d.uniform_where(high, (0.85, 1.0), (0.62, 0.85))
    heel = ankle + d.uniform(0.4, 2.4)
    upper = rounded(path(
        (0.2, -1.0), (0.2, -toe), (4.5, -toe - 1.2), (peak - 3, -np.minimum(tongue * 0.82, 9.5)),
        (peak, -tongue - 0.4), (peak + 2.5, -tongue), (peak + 4, -ankle), (25.0, -ankle),
        (26.3, -heel - 0.4), (28.0, -heel), (27.0, -heel * 0.5), (28.0, -1.0),
    ))
    sole = path((0.0, -thick * 0.9), (1.4, 0.0), (27.2, 0.0), (28.2, -thick), (14.0, -thick * 0.8))
    cap = path((0.4, -thick), (0.8, -toe * 0.8), (5.0, -toe - 0.4), (6.5, -thick))
    swoosh = stroke(arc((9.0, -4.5), (12.0, -1.0), (23.0, -6.5)), 1.2)
    slope, lean = (tongue - toe) * 0.9 / (peak - 4), d.uniform(-3, 3)
    stripe_tone = d.tone(0.2, 1.55, 0.55)
    stripe, lace = (lean, thick - ankle * 0.85), (peak - 5.5, 5.5 * slope - tongue)
    return [
        (upper, 1.0), (cap, d.tone(0.5, 1.4, 0.5)),
        *three_lines((13.5, -thick), (2.5, 0.0), stripe, 1.0, stripe_tone),
        *three_lines(lace, (2.0, -2 * slope), (2.6, 1.8), 0.7, d.tone(0.25, 1.55, 0.8)),
        (swoosh, np.where(stripe_tone > 0, -1.0, d.tone(0.2, 1.55, 0.5))),
        (sole, d.uniform(0.35, 1.5)), (box(14.0, -thick - 0.3, 27.4, 0.5), d.tone(0.15, 0.6, 0.7)),
    ]


def heel_block(back: Scalar, lift: Scalar, width: Scalar) -> Array:
    """The heel under a shoe whose rear is lifted by that much."""
    top, left = -lift - 0.6, back - width
    return path((left - 1.5, top), (back, top), (back - 0.3, 0.0), (left, 0.0))


def ankle_boot(d: BatchRng) -> Polygons:
    lift = d.uniform_where(d.bernoulli(0.35), (4, 10), (1.2, 3.5))
    tall = lift + d.uniform_where(d.bernoulli(0.4), (15, 23), (9.5, 15))
    front, back, toe = d.uniform(11, 15), d.uniform(25.6, 27.5), d.uniform(3.2, 5.2)
    upper = rounded(path(
        (0.0, -0.6), (0.0, -toe), (5.0, -toe - 1.2), (front - 2, -lift * 0.7 - 7.5),
        (front, -lift - 10), (front + d.uniform(-1.5, 1), -tall), (front + 2, -tall),
        (back - 2, -tall), (back + d.uniform(-0.6, 0.8), -tall), (back - 0.4, -lift - 7),
        (back + 0.6, -lift - 3), (back + 0.3, -lift), (back - 6, -lift), (11.0, -0.3),
    ))
    sole = stroke(path((0.6, -0.7), (10.5, -0.7), (back - 6, -lift), (back + 0.2, -lift)), 1.4)
    low = -lift - 6
    gusset = path((front + 3, -tall), (back - 4, -tall), (back - 5, low), (front + 4, low))
    cuff = box((front + back) / 2, -tall, back - front - 1, 1.5)
    heel = heel_block(back, lift, d.uniform_where(d.bernoulli(0.35), (1.5, 4), (4, 8)))
    return [
        (heel, d.uniform(0.35, 1.1)), (upper, 1.0), (gusset, d.tone(0.3, 0.8, 0.25)),
        *three_lines((front - 0.5, low - 1), (0.0, -2.0), (3.2, 1.2), 0.8, d.tone(0.2, 1.5, 0.4)),
        (sole, d.tone(0.3, 1.3, 0.85)), (cuff, d.tone(0.5, 1.35, 0.45)),
    ]


def sandal(d: BatchRng) -> Polygons:
    heeled, wedged, closed = d.bernoulli(0.5), d.bernoulli(0.4), d.bernoulli(0.65)
    lift = d.uniform_where(heeled, (5, 15), (0.4, 2.5))
    thick = d.uniform_where(heeled, (1.2, 4), (1.3, 3.2))
    ankle, instep = lift + thick + d.uniform(4, 9), d.uniform(3.5, 6.5) + thick
    toe, band = d.uniform(1.5, 5), d.uniform(1.5, 5)
    width, tone = d.uniform(1.2, 3.0), d.uniform(0.7, 1.4)
    middle = -thick / 2
    bed = path((0.0, middle), (9.0, middle), (19.0, middle - lift * 0.85), (27.5, middle - lift))
    wedge = path((8.0, 0.0), (19.0, -lift * 0.9), (27.4, -lift), (26.8, 0.0))
    block = heel_block(27.2, lift, d.uniform_where(d.bernoulli(0.5), (0.8, 2), (2.5, 6)))
    toe_band = path(
        (toe, -thick), (toe + 3, -instep), (toe + band + 3.5, -instep - 1),
        (toe + band + 2.5, -thick - lift * 0.1),
    )
    cross = arc((toe + 8, -thick), (12.0, -instep - lift * 0.4), (20.0, -ankle))
    counter = arc((26.8, -lift - thick * 0.4), (27.6, -(ankle + lift) / 2), (26.4, -ankle))
    loop = arc((26.4, -ankle), (21.0, -ankle + d.uniform(-3, 3)), (17.0, -ankle))
    sling = arc((toe + 5, -instep * 0.8), (17.0, -ankle * 0.75), (27.0, -ankle * 0.9))
    tie = arc((17.0, -ankle), (15.0, -lift - 3), (18.0, -lift * 0.9))
    return [
        (wedge, np.where(wedged, d.uniform(0.4, 1.2), -1.0)),
        (block, np.where(heeled & ~wedged, d.uniform(0.5, 1.3), -1.0)),
        (stroke(sling, width * 0.7), np.where(closed & d.bernoulli(0.7), -1.0, tone)),
        (stroke(counter, width * 0.9), np.where(closed, tone, -1.0)),
        (stroke(loop, width * 0.7), np.where(closed & d.bernoulli(0.8), tone, -1.0)),
        (stroke(tie, width * 0.7), np.where(closed & d.bernoulli(0.5), tone, -1.0)),
        (stroke(cross, width), d.tone(0.6, 1.3, 0.55)), (toe_band, d.tone(0.6, 1.3, 0.85)),
        (stroke(bed, thick), d.uniform(0.5, 1.3)),
    ]


class ClassStyle(NamedTuple):
    """Polygons, brightness and patterns of one class."""

    draw: Callable[[BatchRng], Polygons]
    brightness: Range  # within 0..1
    # Probabilities of horizontal stripes, vertical stripes, plaid, print all over, print on chest.
    patterns: tuple[float, ...]


CLASS_STYLES = (
    ClassStyle(t_shirt, (0.25, 0.95), (0.14, 0.02, 0.02, 0.16, 0.30)),
    ClassStyle(trouser, (0.40, 0.98), (0.01, 0.04, 0.02, 0.12, 0.00)),
    ClassStyle(pullover, (0.25, 0.98), (0.16, 0.02, 0.03, 0.12, 0.22)),
    ClassStyle(dress, (0.35, 0.98), (0.08, 0.06, 0.02, 0.22, 0.04)),
    ClassStyle(coat, (0.38, 0.98), (0.04, 0.05, 0.04, 0.14, 0.02)),
    ClassStyle(sandal, (0.35, 0.90), (0.00, 0.00, 0.00, 0.10, 0.00)),
    ClassStyle(shirt, (0.22, 0.92), (0.06, 0.10, 0.20, 0.24, 0.04)),
    ClassStyle(sneaker, (0.35, 0.88), (0.00, 0.00, 0.00, 0.20, 0.00)),
    ClassStyle(bag, (0.40, 0.95), (0.06, 0.08, 0.06, 0.20, 0.06)),
    ClassStyle(ankle_boot, (0.48, 1.0), (0.00, 0.00, 0.00, 0.12, 0.00)),
)


# fmt: on
# Rasterization


def fit_to_frame(layers: Polygons, d: BatchRng) -> Polygons:
    """Scale each image until its longer side fills the frame, as in Fashion-MNIST, and center it.

    Size and position vary a little; the frame clips the rest.
    """
    low, high = np.full((d.n, 2), np.inf), np.full((d.n, 2), -np.inf)
    for points, tone in layers:
        drawn = np.broadcast_to(np.asarray(tone) > 0, d.n)[:, None]
        low = np.where(drawn, np.minimum(low, points.min(axis=1)), low)
        high = np.where(drawn, np.maximum(high, points.max(axis=1)), high)
    scale = SIDE / (high - low).max(axis=1) * d.uniform(0.96, 1.03)
    target = SIDE / 2 + np.stack([d.uniform(-1, 1), d.uniform(-0.8, 0.8)], axis=1)
    move = target - (low + high) / 2 * scale[:, None]
    return [(points * scale[:, None, None] + move[:, None], tone) for points, tone in layers]


def rasterize(layers: Polygons, n: int) -> FloatImages:
    """Return tones (n, 28, 28). All images are on one tall canvas, reduced by a single call."""
    from PIL import Image, ImageDraw

    cell = SIDE * SUPERSAMPLING
    canvas = Image.new("L", (cell, cell * n))
    draw = ImageDraw.Draw(canvas)
    tops = (np.arange(n) * cell)[:, None]
    for points, tone in layers:
        corners = np.clip(np.rint(points * SUPERSAMPLING), 0, cell - 1).astype(np.int64)
        corners[..., 1] += tops
        inks = np.broadcast_to(np.rint(np.asarray(tone) * FULL_TONE), n).astype(np.int64)
        for corner, ink in zip(corners.reshape(n, -1).tolist(), inks.tolist(), strict=True):
            if ink >= 0:
                draw.polygon(corner, fill=ink)
    levels = np.asarray(canvas.reduce(SUPERSAMPLING), np.float32)
    tones: FloatImages = levels / np.float32(FULL_TONE)
    return tones.reshape(n, SIDE, SIDE)


def triangle_wave(phase: FloatImages) -> FloatImages:
    """Return a triangle wave of period 1 between -1 and 1."""
    height: FloatImages = np.abs(phase - np.floor(phase) - 0.5) * 4 - 1
    return height


def draw_fabric(d: BatchRng, style: ClassStyle) -> FloatImages:
    """Return the brightness (n, 28, 28) of the fabric, 1 is white: pattern, folds and grain."""

    def per_image(low: float, high: float) -> FloatImages:
        return d.uniform(low, high).astype(np.float32)[:, None, None]

    x = np.arange(SIDE, dtype=np.float32) - 13.5
    y = x[:, None]
    pattern = np.searchsorted(np.cumsum(style.patterns), d.rng.random(d.n), side="right")
    across, along, plaid, allover, on_chest = (pattern[:, None, None] == i for i in range(5))
    strength, pitch = per_image(0.12, 0.5), per_image(0.12, 0.4)
    stripes = triangle_wave(y * pitch + per_image(0, 1)) * (across | plaid)
    stripes = stripes + triangle_wave(x * pitch + per_image(0, 1)) * (along | plaid)
    blobs = d.rng.random((d.n, SIDE // 2, SIDE // 2), np.float32).repeat(2, 1).repeat(2, 2) - 0.5
    blobs[:, 1:] += blobs[:, :-1]
    blobs[:, :, 1:] += blobs[:, :, :-1]
    chest = (np.abs(x) < per_image(2, 5)) & (np.abs(y + per_image(0, 5)) < per_image(1, 5))
    prints = blobs * (0.5 * allover + 1.5 * (on_chest & chest)).astype(np.float32)
    folds = triangle_wave(x * per_image(-0.08, 0.08) + y * per_image(-0.05, 0.05) + per_image(0, 1))
    light = x * per_image(-0.012, 0.012) + y * per_image(-0.015, 0.015) + folds * per_image(0, 0.18)
    grain = (d.rng.random((d.n, SIDE, SIDE), np.float32) - 0.5) * per_image(0.1, 0.42) ** 2
    relative = 1 + strength * (stripes + prints) + light + grain
    fabric: FloatImages = per_image(*style.brightness) * relative
    return fabric


def draw_class(rng: np.random.Generator, style: ClassStyle, n: int) -> ByteImages:
    """Return n images (n, 28, 28) of one class."""
    d = BatchRng(rng, n)
    tones = rasterize(fit_to_frame(style.draw(d), d), n)
    levels: FloatImages = tones * draw_fabric(d, style) * np.float32(255)
    return np.clip(levels, 0, 255).astype(np.uint8)


def draw_split(seed: int, split: int, n: int) -> tuple[ByteImages, ByteImages]:
    """Return n images and labels in random order; class counts differ by at most one."""

    def stream(part: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, split, part])))

    n_classes = len(CLASS_STYLES)
    labels = stream(n_classes).permutation(np.arange(n) % n_classes).astype(np.uint8)
    images = np.empty((n, SIDE, SIDE), np.uint8)
    for label, style in enumerate(CLASS_STYLES[:n]):
        rows = np.flatnonzero(labels == label)
        images[rows] = draw_class(stream(label), style, len(rows))
    return images, labels


def draw_synthetic(seed: int = 0, train: int = 12_000, test: int = 2_000) -> tuple[ByteImages, ...]:
    """Draw a training set and an independent test set.

    seed : integer >= 0; the same seed gives the same bits.
    train, test : number of images, at least 1 each.
    Returns: x_train (train, 28, 28), y_train (train,), x_test (test, 28, 28), y_test (test,), all
    uint8; pixels 0..255 with background exactly 0, labels 0..9 in Fashion-MNIST's order.
    Raises: ValueError if train or test is below 1, or seed is negative.
    """
    if train < 1 or test < 1:
        raise ValueError(f"train and test must be at least 1, got train={train}, test={test}")
    return *draw_split(seed, 0, train), *draw_split(seed, 1, test)
