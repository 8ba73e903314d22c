"""Sample photographs, drawn by the project: polygons of clothes on noise textures."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 360, 440

Points = list[tuple[float, float]]

# Outlines: right halves from top to bottom, in fractions of the image from its middle and top.
SHIRT = [(0.07, 0.16), (0.13, 0.15), (0.34, 0.24), (0.40, 0.38), (0.28, 0.43), (0.23, 0.36)]
TROUSERS = [(0.17, 0.12), (0.21, 0.34), (0.27, 0.88), (0.11, 0.89), (0.02, 0.40)]
DRESS = [(0.06, 0.10), (0.13, 0.09), (0.16, 0.24), (0.10, 0.40), (0.29, 0.88)]
SWEATER = [(0.08, 0.17), (0.15, 0.16), (0.27, 0.23), (0.42, 0.76), (0.32, 0.79), (0.22, 0.42)]
# fmt: off
BOOT: Points = [
    (0.18, 0.26), (0.49, 0.26), (0.52, 0.46), (0.74, 0.54), (0.90, 0.62), (0.91, 0.69),
    (0.48, 0.69), (0.42, 0.66), (0.38, 0.72), (0.16, 0.72), (0.16, 0.50),
]
# fmt: on

# Background -> colour, and standard deviation of its noise.
BACKGROUNDS: dict[str, tuple[tuple[int, int, int], float]] = {
    "boards": ((196, 154, 104), 6),
    "carpet": ((205, 198, 184), 16),
    "wall": ((214, 210, 206), 3),
    "bedspread": ((196, 90, 74), 5),
    "tiles": ((222, 214, 200), 5),
}

# Name of a sample -> outline, lower end of the outline, colour, and background.
SAMPLES: dict[str, tuple[Points, Points, tuple[int, int, int], str]] = {
    "T-shirt on boards": (SHIRT, [(0.24, 0.86)], (176, 42, 58), "boards"),
    "Trousers on a carpet": (TROUSERS, [], (46, 66, 110), "carpet"),
    "Dress on a wall": (DRESS, [], (60, 130, 110), "wall"),
    "Sweater on a bedspread": (SWEATER, [(0.25, 0.82)], (70, 62, 58), "bedspread"),
    "Boot on tiles": (BOOT, [], (92, 54, 30), "tiles"),
}


def draw_sample(name: str) -> bytes:
    """Draw a sample as a PNG file, deterministically."""
    outline, lower, color, background = SAMPLES[name]
    stream = np.random.default_rng(list(SAMPLES).index(name))
    image = _to_image(_draw_background(background, stream))
    if outline is not BOOT:
        right = [(0.5 + x, y) for x, y in [*outline, *lower]]
        left = [(1 - x, y) for x, y in reversed(right)]
        outline = [*right, *left]
    corners = [(x * WIDTH, y * HEIGHT) for x, y in outline]
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(3)).point(lambda level: 255 * (level > 127))
    shadow = Image.new("L", image.size)
    shadow.paste(mask.point(lambda level: level // 2), (5, 8))
    image.paste((20, 18, 16), mask=shadow.filter(ImageFilter.GaussianBlur(6)))
    folds = 0.82 + 0.10 * _folds(stream)
    image.paste(_to_image(np.array(color) * folds + _noise(5, stream)), mask=mask)
    content = BytesIO()
    image.filter(ImageFilter.GaussianBlur(0.7)).save(content, "PNG", optimize=True)
    return content.getvalue()


def _draw_background(name: str, stream: np.random.Generator) -> NDArray[np.float64]:
    color, deviation = BACKGROUNDS[name]
    pixels = np.array(color) + _noise(deviation, stream)
    if name == "boards":
        pixels += np.repeat(stream.normal(0, 9, 9), 40)[:WIDTH, None]
        pixels[:, ::40] -= 60
    elif name == "wall":
        pixels += np.linspace(12, -26, HEIGHT)[:, None, None]
    elif name == "bedspread":
        pixels += 9 * _folds(stream)
    elif name == "tiles":
        pixels[::110] -= 70
        pixels[:, ::120] -= 70
    return pixels


def _noise(deviation: float, stream: np.random.Generator) -> NDArray[np.float64]:
    return stream.normal(0, deviation, (HEIGHT, WIDTH, 1))


def _folds(stream: np.random.Generator) -> NDArray[np.float64]:
    """Smooth waves, mostly vertical."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] / HEIGHT
    waves = np.zeros((HEIGHT, WIDTH))
    for wave in range(1, 5):
        across, down, phase = stream.uniform(6, 26), stream.uniform(0, 6), stream.uniform(0, 6)
        waves += np.sin(across * x + down * y + phase) / wave
    return waves[..., None]


def _to_image(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
