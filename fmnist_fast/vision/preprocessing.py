"""Preprocessing of photographs to the 28x28 pixels of the data set.

Fashion-MNIST's pictures show the garment on white, cropped to its bounding box, resized to 28
pixels on the longer side, sharpened, negated and centered. Source: Xiao, Rasul, Vollgraf (2017),
section 2. Photographs also need segmentation, deskewing and tone normalization.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .image_io import Picture
from .segmentation import segment, symmetry

# Pixels of the longer side for segmentation: GrabCut takes a tenth of a second.
WORKING_SIDE = 192

# Smallest standard deviation of a color channel, of 255: below it there is only noise.
MIN_CONTRAST = 3.0
BLANK_IMAGE = "the image is all of one colour: there is nothing on it"

# Deskewing: largest angle in degrees, step of the coarse search, smallest gain of symmetry, and
# smallest symmetry afterwards (shoes from the side are not symmetric at any angle).
MAX_ANGLE, COARSE_STEP, MIN_GAIN, MIN_SYMMETRY = 20, 4, 0.07, 0.8

# Tone normalization: median, range from the 3rd to the 97th percentile, and limits; the lower one
# differs from the background.
MEDIAN, RANGE, MIN_TONE, MAX_TONE = 170.0, 150.0, 60.0, 250.0


@dataclass(frozen=True)
class PreprocessedImage:
    """Results of the steps of preprocessing.

    rgb : uint8 (height, width, 3), downscaled picture. mask : bool (height, width), segmentation
    mask. method : segmentation method. masked : rgb on white. tilt : degrees of rotation,
    counterclockwise. toned : uint8, deskewed, cropped, normalized and negated, on black.
    pixels : uint8 (28, 28), or the input size of the network. notes : for the user.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    method: str
    masked: NDArray[np.uint8]
    tilt: float
    toned: NDArray[np.uint8]
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def edit_picture(
    picture: Picture, quarter_turns: int = 0, crop: tuple[float, float, float, float] = (0, 0, 1, 1)
) -> Picture:
    """Rotate counterclockwise by multiples of 90 degrees, then crop.

    crop : (left, top, right, bottom), fractions of width and height.
    Raises: DataError if nothing is left.
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
    """Return a grayscale picture that needs no preprocessing; DataError if it is blank."""
    pixels = 255 - picture.rgb[..., 0] if invert else picture.rgb[..., 0]
    if pixels.min() == pixels.max():
        raise DataError(BLANK_IMAGE)
    return PreprocessedImage(
        rgb=picture.rgb,
        mask=np.ones(pixels.shape, bool),
        method="as it is",
        masked=picture.rgb,
        tilt=0.0,
        toned=pixels,
        pixels=pixels,
        notes=picture.notes,
    )


def preprocess(
    picture: Picture, segmentation: str = "auto", invert: bool = False, side: int = 28
) -> PreprocessedImage:
    """Segment the garment, deskew, crop, normalize its tones, and downscale.

    segmentation : "auto", or one of segmentation.METHODS; "auto" takes the transparency of a
    picture that has any. invert : exchange dark and light within the garment.
    Raises: DataError if nothing is found; ArgumentError for an unknown method.
    """
    from PIL import Image

    image = Image.fromarray(picture.rgb)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BICUBIC)
    rgb = np.asarray(image)
    if picture.opaque is not None and segmentation == "auto":
        opaque = Image.fromarray(picture.opaque).resize(image.size)
        mask, method = np.asarray(opaque), "transparency"
    elif float(rgb.std(axis=(0, 1)).max()) < MIN_CONTRAST:
        raise DataError(BLANK_IMAGE)
    else:
        mask, method = segment(rgb, segmentation)
    if mask.sum() < 20:
        raise DataError("no garment was found: photograph it whole, on a plain background")
    tilt = 0.0 if method == "none" else _find_tilt(mask)
    toned, cover = _rotate_and_crop(_normalize_tones(rgb, mask, invert), mask, tilt)
    masked = np.where(mask[..., None], rgb, 255).astype(np.uint8)
    pixels = _downscale(toned, cover, side)
    return PreprocessedImage(rgb, mask, method, masked, tilt, toned, pixels, picture.notes)


def _find_tilt(mask: NDArray[np.bool_]) -> float:
    """Return the rotation of greatest symmetry, in degrees counterclockwise; 0 for a small gain."""
    from PIL import Image

    small = Image.fromarray(mask).convert("L")
    small.thumbnail((WORKING_SIDE // 2, WORKING_SIDE // 2))

    def gain(degrees: float) -> float:
        rotated = small.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
        return symmetry(np.asarray(rotated) > 127)

    coarse = {degrees: gain(degrees) for degrees in range(-MAX_ANGLE, MAX_ANGLE + 1, COARSE_STEP)}
    best = max(coarse, key=coarse.__getitem__)
    if coarse[best] < max(MIN_SYMMETRY, coarse[0] + MIN_GAIN):
        return 0.0
    fine = {degrees: gain(degrees) for degrees in range(best - COARSE_STEP + 1, best + COARSE_STEP)}
    return float(max(fine, key=fine.__getitem__))


def _normalize_tones(
    rgb: NDArray[np.uint8], mask: NDArray[np.bool_], invert: bool
) -> NDArray[np.uint8]:
    """Return negated gray levels, so that dark clothes are bright, with normalized tones."""
    light = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    tone = light if invert else 255 - light
    low, median, high = np.percentile(tone[mask], (3, 50, 97))
    tone = MEDIAN + (tone - median) * (RANGE / max(high - low, 40))
    toned = np.where(mask, tone.clip(MIN_TONE, MAX_TONE), 0)
    return np.rint(toned).astype(np.uint8)


def _rotate_and_crop(
    toned: NDArray[np.uint8], mask: NDArray[np.bool_], tilt: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Rotate and crop to the bounding box; return gray levels and coverage 0..255 of each pixel."""
    from PIL import Image

    layers: list[Image.Image] = [Image.fromarray(toned), Image.fromarray(mask).convert("L")]
    if tilt:
        layers = [layer.rotate(tilt, Image.Resampling.BILINEAR, expand=True) for layer in layers]
    box = layers[1].point(lambda level: 255 * (level > 127)).getbbox()
    gray, cover = (np.asarray(layer.crop(box)) for layer in layers)
    return gray, cover


def _downscale(toned: NDArray[np.uint8], cover: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize to `side` pixels on the longer side, sharpen slightly, and center."""
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
