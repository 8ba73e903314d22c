"""What is drawn of the fabric of the data set's garments: shoes from above, and none of the ten.

Images are float32 (b, 28, 28), bright on black; distances are in pixels.
"""

import numpy as np
from numpy.typing import NDArray

from .image_ops import (
    MIDDLE,
    PLACES,
    Floats,
    box,
    chance,
    column,
    cropped,
    drawers,
    fabric_of,
    sign,
    smooth,
)

__all__ = ["hats", "pairs_from_above", "pieces", "short_legs", "skirts"]

# Labels of Fashion-MNIST.
SANDAL, BOOT = 5, 9


def pairs_from_above(
    images: Floats, labels_b: NDArray[np.integer], stream: np.random.Generator
) -> Floats:
    """Pairs on the floor, of the fabric of these images: straps for sandals, laces and an opening
    for sneakers, a wide opening for boots.
    """
    rows = len(images)
    _, uniform = drawers(rows, stream)
    sandals, boots = (column(labels_b == label) for label in (SANDAL, BOOT))
    across, along = _places_on_shoes(boots, stream)
    outline = _outline(along, stream)
    across = across + uniform(-0.1, 0.2) * (1 - along**2)  # the inner side is straighter
    details = np.where(
        sandals,
        _straps(across, along, stream),
        _opening_and_laces(across, along, boots, stream),
    )
    details ^= (np.abs(across) > outline - uniform(0, 0.3)) & chance(0.4, rows, stream)  # the sole
    fabric = fabric_of(images)
    other = np.clip(fabric + uniform(-130, 130), 15, 255)
    return np.where(np.abs(across) < outline, np.where(details, other, fabric), 0)


def _places_on_shoes(
    boots: NDArray[np.bool_], stream: np.random.Generator
) -> tuple[Floats, Floats]:
    """Where each pixel is on the shoe of its half of the image, (b, 28, 28) both: across, from its
    middle outwards, its width is from -1 to 1; along, from the toe at -1 to the heel at 1.
    """
    rows = len(boots)
    normal, uniform = drawers(rows, stream)
    down, right = (PLACES - MIDDLE)[None, :, None], (PLACES - MIDDLE)[None, None, :]
    long, wide = uniform(11.5, 13.5), np.where(boots, uniform(5, 7), uniform(4, 6.2))
    angle, ahead = normal(0.1), normal(0.8) * np.sign(right)
    x = np.abs(right) - wide - uniform(-0.8, 1.2)
    y = (down - ahead) * sign(rows, stream)
    across = (np.cos(angle) * x + np.sin(angle) * y) / wide
    along = (np.cos(angle) * y - np.sin(angle) * x) / long
    return across, along


def _outline(along: Floats, stream: np.random.Generator) -> Floats:
    """Half the width of a shoe: round at both ends, narrower at the waist and towards the heel."""
    _, uniform = drawers(len(along), stream)
    blunt, round_ = uniform(2, 3.5), uniform(1.6, 2.4)
    ends = np.clip(1 - np.abs(along) ** blunt, 0, 1) ** (1 / round_)
    waist = uniform(0, 0.25) * np.exp(-(((along - 0.2) / 0.35) ** 2))
    outline: Floats = ends * (1 - waist - uniform(0, 0.25) * along)
    return outline


def _straps(across: Floats, along: Floats, stream: np.random.Generator) -> NDArray[np.bool_]:
    """One across the toes, straight or as a V, and most have one at the heel."""
    _, uniform = drawers(len(along), stream)
    front = uniform(-0.5, 0.1) + uniform(-0.6, 0.6) * np.abs(across)
    strap = np.abs(along - front) < uniform(0.08, 0.3)
    strap |= np.abs(along - uniform(0.2, 0.6)) < uniform(0, 0.15)
    return strap


def _opening_and_laces(
    across: Floats, along: Floats, boots: NDArray[np.bool_], stream: np.random.Generator
) -> NDArray[np.bool_]:
    """Where the foot goes in, wide for boots; before it laces, for most."""
    rows = len(along)
    _, uniform = drawers(rows, stream)
    reach = np.where(boots, uniform(0.5, 0.8), uniform(0.25, 0.55))
    middle = uniform(0.85, 1) - reach
    opening = ((along - middle) / reach) ** 2 + (across / uniform(0.5, 0.85)) ** 2 < 1
    laced = (along > uniform(-0.75, -0.4)) & (along < middle - reach)
    laced &= np.abs(across) < uniform(0.25, 0.5)
    laced &= np.sin(along * uniform(15, 28)) > uniform(-0.5, 0.5)
    return np.asarray(opening | (laced & chance(0.7, rows, stream)))


def short_legs(images: Floats, stream: np.random.Generator) -> Floats:
    """The upper part of trousers, made wider."""
    top, bottom, left, right = box(images)
    end = top + stream.uniform(0.28, 0.6, len(images)) * (bottom - top)
    return cropped(images, (top, end, left, right), stream.uniform(1, 1.9, len(images)))


def skirts(images: Floats, stream: np.random.Generator) -> Floats:
    """The lower part of dresses."""
    top, bottom, left, right = box(images)
    begin = bottom - stream.uniform(0.3, 0.6, len(images)) * (bottom - top)
    return cropped(images, (begin, bottom, left, right), stream.uniform(0.9, 1.6, len(images)))


def hats(images: Floats, stream: np.random.Generator) -> Floats:
    """Domes of the fabric in the middle of these images, most with a brim."""
    rows = len(images)
    _, uniform = drawers(rows, stream)
    down, right = (PLACES - MIDDLE)[None, :, None], (PLACES - MIDDLE)[None, None, :]
    base = uniform(2, 10)
    above = down < base
    dome = ((right / uniform(7, 13)) ** 2 + ((down - base) / uniform(8, 20)) ** 2 < 1) & above
    aside = np.where(chance(0.6, rows, stream), uniform(-8, 8), 0)
    brim = ((right - aside) / uniform(6, 14)) ** 2 + ((down - base) / uniform(1.5, 5)) ** 2 < 1
    hat = dome | (brim & chance(0.7, rows, stream))
    return np.where(hat, fabric_of(images), 0)


def pieces(images: Floats, stream: np.random.Generator) -> Floats:
    """Enlarged quarters of garments, and stains."""
    rows = len(images)
    top, left = stream.uniform(0, 14, (2, rows))
    side = stream.uniform(10, 14, rows)
    quarters = cropped(images, (top, top + side, left, left + side), np.ones(rows))
    stain = smooth(rows, 6, stream) > column(stream.uniform(0, 1, rows))
    stains = np.where(stain, fabric_of(images), 0)
    return np.where(chance(0.5, rows, stream), quarters, stains)
