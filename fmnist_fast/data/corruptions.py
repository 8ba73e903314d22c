"""Image corruptions at several severities, to measure the robustness of a model.

The kinds are those of Hendrycks & Dietterich (2019) and Mu & Gilmer (2019) that apply to 28x28
images, at levels from barely visible to hard for people.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..nn.random_streams import Purpose, random_stream

Images = NDArray[np.uint8]

# The eight directions of a shift.
_DIRECTIONS = np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)])


@dataclass(frozen=True)
class Corruption:
    """A kind of corruption. levels : severities in `unit`, ascending. apply(images, level, rng)."""

    name: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[Images, float, np.random.Generator], Images]

    def label(self, level: float) -> str:
        """Return the level as text, like "2 pixels"."""
        return f"{level:g} {self.unit}".strip() if len(self.levels) > 1 else self.unit


def _shift(images: Images, level: float, stream: np.random.Generator) -> Images:
    """Shift by `level` pixels in one of eight directions; the border is filled with black."""
    pixels, (height, width) = int(level), images.shape[1:]
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels)))
    direction_n = stream.integers(0, len(_DIRECTIONS), len(images))
    out = np.empty_like(images)
    for direction, (y, x) in enumerate(_DIRECTIONS * pixels):
        chosen = direction_n == direction
        rows = slice(pixels - y, pixels - y + height)
        out[chosen] = padded[chosen, rows, pixels - x : pixels - x + width]
    return out


def _rotate(images: Images, level: float, stream: np.random.Generator) -> Images:
    """Rotate by `level` degrees, clockwise or counterclockwise."""
    from PIL import Image

    side_n = stream.choice((-1, 1), len(images))
    rotated = np.empty_like(images)
    for image, side, out in zip(images, side_n, rotated):
        picture = Image.fromarray(image).rotate(float(side * level), Image.Resampling.BILINEAR)
        out[:] = np.asarray(picture)
    return rotated


def _add_noise(images: Images, level: float, stream: np.random.Generator) -> Images:
    """Add Gaussian noise of standard deviation `level` to every pixel."""
    noise = stream.standard_normal(images.shape, np.float32) * level
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def _blur(images: Images, level: float, _: np.random.Generator) -> Images:
    """Blur by a Gaussian of radius `level`."""
    from PIL import Image, ImageFilter

    blur = ImageFilter.GaussianBlur(level)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images])


def _darken(images: Images, level: float, _: np.random.Generator) -> Images:
    darker: Images = np.rint(images * level).astype(np.uint8)
    return darker


def _invert(images: Images, _: float, __: np.random.Generator) -> Images:
    inverted: Images = 255 - images
    return inverted


CORRUPTIONS = (
    Corruption("shift", "pixels", (1, 2, 4), _shift),
    Corruption("rotation", "degrees", (5, 15, 30), _rotate),
    Corruption("noise", "of 255", (10, 30, 60), _add_noise),
    Corruption("blur", "pixels", (0.5, 1, 2), _blur),
    Corruption("darker", "of the light", (0.75, 0.5, 0.25), _darken),
    Corruption("inverted", "black and white exchanged", (1,), _invert),
)


def corrupt_images(images: Images, kind: Corruption, level: float, seed: int = 0) -> Images:
    """Return corrupted images (n, height, width), uint8: a pure function of the arguments."""
    stream = random_stream(seed, Purpose.CORRUPTION, CORRUPTIONS.index(kind))
    return kind.apply(np.ascontiguousarray(images), level, stream)
