"""From an image file to its pixels, whoever sent it: everything is checked before it is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "Picture", "read_picture"]

# Others start programs (EPS), or have decoders that few images ever test.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# A photograph of 25 megapixels is 75 MB when it is decoded.
MOST_PIXELS = 25_000_000

# How files begin that telephones make: Pillow does not read the first kind, and few decoders of
# the other have been tested for long.
TELEPHONES = {b"ftyphei": "HEIC", b"ftypmif": "HEIC", b"ftyphev": "HEIC", b"ftypavi": "AVIF"}

# Names of pictures, also of those whose answer is that they cannot be read.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".heic", ".heif", ".avif"),
)

# Thinner than this, or longer for its width, nothing that is worn can be seen.
LEAST_SIDE, LONGEST = 16, 8.0

# EXIF's tag, and the first of its values that exchange width and height.
ORIENTATION, SIDEWAYS = 0x0112, 5

# Less alpha than this is nothing that is seen.
VISIBLE = 128


@dataclass(frozen=True)
class Picture:
    """An image upright, at most `max_side` pixels to a side.

    rgb : uint8 (height, width, 3). opaque : bool (height, width), where it is not transparent;
    None: it has no transparency. size : (width, height) as the file has it, upright.
    gray : no pixel has colour. notes : what was left out or converted, for people.
    """

    rgb: NDArray[np.uint8]
    opaque: NDArray[np.bool_] | None
    size: tuple[int, int]
    gray: bool
    notes: tuple[str, ...] = ()


def read_picture(
    source: Path | BinaryIO, max_side: int = 1024, accepted: tuple[int, int] | None = None
) -> Picture:
    """Any image: of an animation the first frame; turned as its camera says; in 8-bit RGB.

    source : a path, or an open file. The content decides its format, not its name. Larger images
    are made smaller, to `max_side` pixels on the longer side. accepted : (width, height) of images
    that are never too small.
    Raises: DataError, one line without the path, that says what is wrong.
    """
    from PIL import Image, ImageOps

    with _opened(source) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise DataError(
                f"the image has {width}x{height} pixels: make it smaller, at most 25 megapixels"
            )
        thin = min(width, height) < LEAST_SIDE or max(width, height) > LONGEST * min(width, height)
        if thin and image.size != accepted:
            raise DataError(
                f"the image is {width}x{height}: nothing can be seen on it; both sides must be at "
                f"least {LEAST_SIDE} pixels, and one at most {LONGEST:g} times the other"
            )
        notes = list(_conversions(image))
        if image.getexif().get(ORIENTATION, 1) >= SIDEWAYS:
            width, height = height, width
        image.draft("RGB", (max_side, max_side))  # JPEG can be decoded at a half or a quarter
        pixels = _colours(ImageOps.exif_transpose(image))
        pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    rgb, opaque = _on_white(pixels)
    gray = bool((rgb == rgb[..., :1]).all())
    return Picture(rgb, opaque, (width, height), gray, tuple(notes))


def _conversions(image: "Image.Image") -> Iterator[str]:
    """What people should know was done to their image."""
    if getattr(image, "n_frames", 1) > 1:
        yield "it has several frames: the first is used"
    if image.mode.startswith(("I", "F")):
        yield "it has more than 8 bits a pixel: the highest 8 are used"
    elif image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"):
        yield f"its {image.mode} colours were converted to RGB"


def _colours(image: "Image.Image") -> "Image.Image":
    """The same in RGBA if any pixel may be transparent, else in RGB."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image).astype(np.float64)
        most = max(255.0, 65535.0 * (levels.max(initial=0) > 255))
        image = Image.fromarray((levels * (255 / most)).clip(0, 255).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _on_white(image: "Image.Image") -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Pixels as they look on white paper, and where there are any; None: everywhere."""
    from PIL import Image

    if image.mode == "RGB":
        return np.asarray(image), None
    alpha = np.asarray(image.getchannel("A"))
    paper = Image.new("RGBA", image.size, "white")
    rgb = np.asarray(Image.alpha_composite(paper, image).convert("RGB"))
    return rgb, None if alpha.min(initial=255) >= VISIBLE else alpha >= VISIBLE


@contextmanager
def _opened(source: Path | BinaryIO) -> "Iterator[Image.Image]":
    """The image, of which so far only the head was read. Raises: DataError for all that is wrong
    with it, also while it is being decoded.
    """
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        # What Pillow warns of (a huge size, damaged metadata) is refused here, or does no harm.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            if isinstance(source, Path) and source.exists() and not source.is_file():
                raise DataError("not a file")
            with Image.open(source, formats=FORMATS) as image:
                yield image
        except (DataError, MemoryError):
            raise
        except Image.DecompressionBombError as error:  # which Pillow sees before we do
            raise DataError("the image is huge: make it smaller, at most 25 megapixels") from error
        except UnidentifiedImageError as error:
            kind = _telephones_kind(source)
            if kind:
                raise DataError(f"{kind} images cannot be read: save it as JPEG or PNG") from error
            raise DataError("not an image, or a damaged one") from error
        except OSError as error:
            raise DataError(error.strerror or "not an image, or a damaged one") from error
        except Exception as error:  # Pillow's decoders have a dozen kinds for a damaged file
            raise DataError("not an image, or a damaged one") from error


def _telephones_kind(source: Path | BinaryIO) -> str | None:
    """HEIC or AVIF, if it is one of them."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            head = file.read(11)
    else:
        source.seek(0)
        head = source.read(11)
    return TELEPHONES.get(head[4:])
