"""From a photograph to the 28x28 pixels that a network takes, as the data set was made.

Fashion-MNIST's pictures show the garment cut out on white, trimmed to its edges, its longest side
made 28 pixels, sharpened, negated and in the middle.  Source: Xiao, Rasul, Vollgraf (2017),
section 2. Here the garment must be found first, and the light be evened out.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .image_io import Picture
from .segmentation import segment, symmetry

__all__ = ["PreprocessedImage", "edit_picture", "passthrough", "preprocess"]

# Pixels of the longest side in which the garment is looked for: GrabCut takes a tenth of a second.
WORKING_SIDE = 192

# Less deviation than this, of 255, is one colour and its noise.
FLAT = 3.0
NOTHING = "the image is all of one colour: there is nothing on it"

# Tilts in degrees that are tried; how much more symmetric a garment must become by one, and how
# symmetric at least: shoes from the side are not, whatever their tilt.
TILTS, STEP, GAIN, SYMMETRIC = 20, 4, 0.07, 0.8

# Where the light of the garment is put: its median, the extent of nine tenths, and the darkest,
# which still differs from the background.
MEDIAN, EXTENT, DARKEST, BRIGHTEST = 170.0, 150.0, 60.0, 250.0


@dataclass(frozen=True)
class PreprocessedImage:
    """A photograph on its way to the network, stage by stage.

    rgb : uint8 (height, width, 3), as it was looked at. mask : bool (height, width), where the
    garment is. method : how it was found. cut : rgb on white. tilt : degrees by which it was turned
    to the left. toned : uint8, the garment upright and trimmed, negated, on black.
    pixels : uint8 (28, 28), or whatever the network takes. notes : for people.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    method: str
    cut: NDArray[np.uint8]
    tilt: float
    toned: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def edit_picture(
    picture: Picture,
    quarter_turns: int = 0,
    crop: tuple[float, float, float, float] = (0, 0, 1, 1),
) -> Picture:
    """The picture turned to the left by so many quarters, then cropped to (left, top, right,
    bottom), shares of its width and height. Raises: DataError if nothing is left.
    """
    rgb = np.rot90(picture.rgb, quarter_turns)
    opaque = None if picture.opaque is None else np.rot90(picture.opaque, quarter_turns)
    height, width = rgb.shape[:2]
    rows = slice(round(crop[1] * height), round(crop[3] * height))
    columns = slice(round(crop[0] * width), round(crop[2] * width))
    rgb = np.ascontiguousarray(rgb[rows, columns])
    if min(rgb.shape[:2]) < 8:
        raise DataError("nothing is left of the image: crop less of it")
    opaque = None if opaque is None else np.ascontiguousarray(opaque[rows, columns])
    whole = (rows.start, columns.start) == (0, 0) and rgb.shape[:2] == (height, width)
    size = picture.size[:: -1 if quarter_turns % 2 else 1] if whole else rgb.shape[1::-1]
    return replace(picture, rgb=rgb, opaque=opaque, size=(int(size[0]), int(size[1])))


def passthrough(picture: Picture, invert: bool = False) -> PreprocessedImage:
    """A gray picture that has the size and the tones of the data set already.

    Raises: DataError if all of it is alike.
    """
    pixels = picture.rgb[..., 0]
    pixels = 255 - pixels if invert else pixels
    everything = np.ones(pixels.shape, bool)
    if pixels.min() == pixels.max():
        raise DataError(NOTHING)
    return PreprocessedImage(
        rgb=picture.rgb,
        mask=everything,
        method="as it is",
        cut=picture.rgb,
        tilt=0.0,
        toned=pixels,
        pixels=pixels,
        notes=picture.notes,
    )


def preprocess(
    picture: Picture, segmentation: str = "auto", invert: bool = False, side: int = 28
) -> PreprocessedImage:
    """Find the garment, straighten, trim, even out its light, make it small.

    cutout : auto, or one of cutout.METHODS; a picture with transparency has been cut out already.
    invert : exchange dark and light within the garment.
    Raises: DataError if there is nothing to be seen; ArgumentError for an unknown cut-out.
    """
    from PIL import Image

    image = Image.fromarray(picture.rgb)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BICUBIC)
    rgb = np.asarray(image)
    if picture.opaque is not None and segmentation == "auto":
        opaque = Image.fromarray(picture.opaque).resize(image.size)
        mask, method = np.asarray(opaque), "transparency"
    elif float(rgb.std(axis=(0, 1)).max()) < FLAT:
        raise DataError(NOTHING)
    else:
        mask, method = segment(rgb, segmentation)
    if mask.sum() < 20:
        raise DataError("no garment was found: photograph it whole, on a plain background")
    tilt = 0.0 if method == "none" else _tilt(mask)
    toned, cover = _trimmed(_toned(rgb, mask, invert), mask, tilt)
    cut = np.where(mask[..., None], rgb, 255).astype(np.uint8)
    pixels = _placed(toned, cover, side)
    return PreprocessedImage(rgb, mask, method, cut, tilt, toned, pixels, picture.notes)


def _tilt(mask: NDArray[np.bool_]) -> float:
    """Degrees to the left after which the garment is most symmetric; 0 if it hardly gains."""
    from PIL import Image

    small = Image.fromarray(mask).convert("L")
    small.thumbnail((WORKING_SIDE // 2, WORKING_SIDE // 2))

    def gain(degrees: float) -> float:
        turned = small.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
        return symmetry(np.asarray(turned) > 127)

    coarse = {degrees: gain(degrees) for degrees in range(-TILTS, TILTS + 1, STEP)}
    best = max(coarse, key=coarse.__getitem__)
    if coarse[best] < max(SYMMETRIC, coarse[0] + GAIN):
        return 0.0
    fine = {degrees: gain(degrees) for degrees in range(best - STEP + 1, best + STEP)}
    return float(max(fine, key=fine.__getitem__))


def _toned(rgb: NDArray[np.uint8], mask: NDArray[np.bool_], invert: bool) -> NDArray[np.uint8]:
    """Negated gray, so that dark clothes are bright, with the garment's light evened out."""
    light = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    tone = light if invert else 255 - light
    low, median, high = np.percentile(tone[mask], (3, 50, 97))
    tone = MEDIAN + (tone - median) * (EXTENT / max(high - low, 40))
    toned = np.where(mask, tone.clip(DARKEST, BRIGHTEST), 0)
    return np.rint(toned).astype(np.uint8)


def _trimmed(
    toned: NDArray[np.uint8], mask: NDArray[np.bool_], tilt: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The garment turned and trimmed to its edges, and how much of each pixel it covers, 0..255."""
    from PIL import Image

    layers: list[Image.Image] = [
        Image.fromarray(toned),
        Image.fromarray(mask).convert("L"),
    ]
    if tilt:
        layers = [layer.rotate(tilt, Image.Resampling.BILINEAR, expand=True) for layer in layers]
    box = layers[1].point(lambda level: 255 * (level > 127)).getbbox()
    gray, cover = (np.asarray(layer.crop(box)) for layer in layers)
    return gray, cover


def _placed(toned: NDArray[np.uint8], cover: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """In the middle of side x side pixels, its longest side as long, a little sharpened."""
    from PIL import Image, ImageFilter

    height, width = toned.shape
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(toned).resize(size, Image.Resampling.BOX)
    sharp = np.asarray(small.filter(ImageFilter.UnsharpMask(radius=1, percent=50, threshold=0)))
    covered = np.asarray(Image.fromarray(cover).resize(size, Image.Resampling.BOX))
    pixels = np.zeros((side, side), np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    pixels[top : top + size[1], left : left + size[0]] = np.where(covered > 0, sharp, 0)
    return pixels
