"""Shapes drawn with the fabric of given images: pairs of shoes, and out-of-distribution garments.

Images are float32 (b, 28, 28), bright on black; distances are in pixels.
"""

import numpy as np
from numpy.typing import NDArray

from .image_ops import (
    DOWN,
    FOREGROUND,
    RIGHT,
    Floats,
    ImageRng,
    bounding_boxes,
    crop_and_resize,
    fabric_texture,
    per_image,
)

# Labels of Fashion-MNIST.
SANDAL, BOOT = 5, 9


def shoe_pairs_from_above(
    images: Floats, labels_b: NDArray[np.integer], stream: np.random.Generator
) -> Floats:
    """Draw pairs of shoes seen from above, with the fabric of the given images.

    Straps for sandals, laces and an opening for sneakers, a wide opening for boots.
    """
    rng = ImageRng(stream, len(images))
    sandals, boots = (per_image(labels_b == label) for label in (SANDAL, BOOT))
    across, along = _shoe_coordinates(boots, rng)
    outline = _outline(along, rng)
    across = across + rng.uniform(-0.1, 0.2) * (1 - along**2)  # straighter inner side
    details = np.where(
        sandals, _straps(across, along, rng), _opening_and_laces(across, along, boots, rng)
    )
    sole = np.abs(across) > outline - rng.uniform(0, 0.3)
    details ^= sole & rng.bernoulli(0.4)
    fabric = fabric_texture(images)
    other = np.clip(fabric + rng.uniform(-130, 130), 15, 255)
    return np.where(np.abs(across) < outline, np.where(details, other, fabric), 0)


def _shoe_coordinates(boots: NDArray[np.bool_], rng: ImageRng) -> tuple[Floats, Floats]:
    """Return coordinates of every pixel on the shoe of its half of the image, (b, 28, 28) each.

    across : -1..1 over the width, positive outwards. along : -1 at the toe, 1 at the heel.
    """
    long, wide = rng.uniform(11.5, 13.5), np.where(boots, rng.uniform(5, 7), rng.uniform(4, 6.2))
    angle, ahead = rng.normal(0.1), rng.normal(0.8) * np.sign(RIGHT)
    x = np.abs(RIGHT) - wide - rng.uniform(-0.8, 1.2)
    y = (DOWN - ahead) * rng.sign()
    across = (np.cos(angle) * x + np.sin(angle) * y) / wide
    along = (np.cos(angle) * y - np.sin(angle) * x) / long
    return across, along


def _outline(along: Floats, rng: ImageRng) -> Floats:
    """Return half the width of a shoe: round ends, narrower at the waist and towards the heel."""
    blunt, round_ = rng.uniform(2, 3.5), rng.uniform(1.6, 2.4)
    ends = np.clip(1 - np.abs(along) ** blunt, 0, 1) ** (1 / round_)
    waist = rng.uniform(0, 0.25) * np.exp(-(((along - 0.2) / 0.35) ** 2))
    outline: Floats = ends * (1 - waist - rng.uniform(0, 0.25) * along)
    return outline


def _straps(across: Floats, along: Floats, rng: ImageRng) -> NDArray[np.bool_]:
    """Return the mask of straps: one across the toes, often one at the heel."""
    front = rng.uniform(-0.5, 0.1) + rng.uniform(-0.6, 0.6) * np.abs(across)
    strap = np.abs(along - front) < rng.uniform(0.08, 0.3)
    strap |= np.abs(along - rng.uniform(0.2, 0.6)) < rng.uniform(0, 0.15)
    return strap


def _opening_and_laces(
    across: Floats, along: Floats, boots: NDArray[np.bool_], rng: ImageRng
) -> NDArray[np.bool_]:
    """Return the mask of the opening, wide for boots, and often of laces in front of it."""
    reach = np.where(boots, rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.55))
    center = rng.uniform(0.85, 1) - reach
    opening = ((along - center) / reach) ** 2 + (across / rng.uniform(0.5, 0.85)) ** 2 < 1
    laced = (along > rng.uniform(-0.75, -0.4)) & (along < center - reach)
    laced &= np.abs(across) < rng.uniform(0.25, 0.5)
    laced &= np.sin(along * rng.uniform(15, 28)) > rng.uniform(-0.5, 0.5)
    return np.asarray(opening | (laced & rng.bernoulli(0.7)))


def shorts(images: Floats, stream: np.random.Generator) -> Floats:
    """Draw shorts: the upper part of trousers, widened."""
    top, bottom, left, right = bounding_boxes(images > FOREGROUND)
    end = top + stream.uniform(0.28, 0.6, len(images)) * (bottom - top)
    return crop_and_resize(images, (top, end, left, right), stream.uniform(1, 1.9, len(images)))


def skirts(images: Floats, stream: np.random.Generator) -> Floats:
    """Draw skirts: the lower part of dresses."""
    top, bottom, left, right = bounding_boxes(images > FOREGROUND)
    begin = bottom - stream.uniform(0.3, 0.6, len(images)) * (bottom - top)
    widening = stream.uniform(0.9, 1.6, len(images))
    return crop_and_resize(images, (begin, bottom, left, right), widening)


def hats(images: Floats, stream: np.random.Generator) -> Floats:
    """Draw hats: domes with the fabric of the given images, most with a brim."""
    rng = ImageRng(stream, len(images))
    base = rng.uniform(2, 10)
    width, height = rng.uniform(7, 13), rng.uniform(8, 20)
    dome = ((RIGHT / width) ** 2 + ((DOWN - base) / height) ** 2 < 1) & (base > DOWN)
    aside = np.where(rng.bernoulli(0.6), rng.uniform(-8, 8), 0)
    width, height = rng.uniform(6, 14), rng.uniform(1.5, 5)
    brim = ((RIGHT - aside) / width) ** 2 + ((DOWN - base) / height) ** 2 < 1
    hat = dome | (brim & rng.bernoulli(0.7))
    return np.where(hat, fabric_texture(images), 0)


def fragments(images: Floats, stream: np.random.Generator) -> Floats:
    """Draw enlarged quarters of garments, and blobs."""
    rng = ImageRng(stream, len(images))
    top, left = stream.uniform(0, 14, (2, rng.rows))
    side = stream.uniform(10, 14, rng.rows)
    quarters = crop_and_resize(images, (top, top + side, left, left + side), np.ones(rng.rows))
    blob = rng.smooth_noise(6) > per_image(stream.uniform(0, 1, rng.rows))
    blobs = np.where(blob, fabric_texture(images), 0)
    return np.where(rng.bernoulli(0.5), quarters, blobs)
