"""The same images as a less kind camera would have them: new uint8 images, to be judged on.

The kinds are those of Hendrycks & Dietterich (2019) and Mu & Gilmer (2019) that mean something at
28x28, at levels from hardly seen to hard for people.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..nn.random_streams import CORRUPTION, random_stream

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["CORRUPTIONS", "Corruption", "corrupt_images"]

Images = NDArray[np.uint8]

# The eight ways of going one pixel further.
_WAYS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])


@dataclass(frozen=True)
class Corruption:
    """One kind of harm. levels : from mild to hard, in `unit`. apply(images, level, stream)."""

    name: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Images, float, np.random.Generator], Images]

    def label(self, level: float) -> str:
        """The level for people, like "2 pixels"."""
        return f"{level:g} {self.unit}".strip() if len(self.levels) > 1 else self.unit


def _shifted(images: Images, level: float, stream: np.random.Generator) -> Images:
    """So many pixels into one of eight directions; black comes in from the edge."""
    pixels, (height, width) = int(level), images.shape[1:]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels)))
    way_n = stream.integers(0, len(_WAYS), len(images))
    out = np.empty_like(images)
    for way, (y, x) in enumerate(_WAYS * pixels):
        chosen = way_n == way
        rows = slice(pixels - y, pixels - y + height)
        out[chosen] = padded[chosen, rows, pixels - x : pixels - x + width]
    return out


def _rotated(images: Images, level: float, stream: np.random.Generator) -> Images:
    """By so many degrees, to either side."""
    from PIL import Image

    side_n = stream.choice((-1, 1), len(images))
    bilinear = Image.Resampling.BILINEAR
    turned = (
        Image.fromarray(image).rotate(float(side * level), bilinear)
        for image, side in zip(images, side_n)
    )
    return _stacked(turned, images)


def _noisy(images: Images, level: float, stream: np.random.Generator) -> Images:
    """Gaussian noise of that standard deviation on every pixel."""
    noise = stream.standard_normal(images.shape, np.float32) * level
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def _blurred(images: Images, level: float, _: np.random.Generator) -> Images:
    """Gaussian blur of that radius."""
    from PIL import Image, ImageFilter

    blur = ImageFilter.GaussianBlur(level)
    return _stacked((Image.fromarray(image).filter(blur) for image in images), images)


def _darker(images: Images, level: float, _: np.random.Generator) -> Images:
    darker: Images = np.rint(images * level).astype(np.uint8)
    return darker


def _inverted(images: Images, _: float, __: np.random.Generator) -> Images:
    inverted: Images = 255 - images
    return inverted


def _stacked(pictures: "Iterable[Image.Image]", like: Images) -> Images:
    out = np.empty_like(like)
    for place, picture in zip(out, pictures):
        place[:] = np.asarray(picture)
    return out


CORRUPTIONS = (
    Corruption("shift", "pixels", (1, 2, 4), _shifted),
    Corruption("rotation", "degrees", (5, 15, 30), _rotated),
    Corruption("noise", "of 255", (10, 30, 60), _noisy),
    Corruption("blur", "pixels", (0.5, 1, 2), _blurred),
    Corruption("darker", "of the light", (0.75, 0.5, 0.25), _darker),
    Corruption("inverted", "black and white exchanged", (1,), _inverted),
)


def corrupt_images(images: Images, kind: Corruption, level: float, seed: int = 0) -> Images:
    """New images (n, height, width), uint8: a pure function of the arguments."""
    stream = random_stream(seed, CORRUPTION, CORRUPTIONS.index(kind))
    return kind.apply(np.ascontiguousarray(images), level, stream)
