"""Reading of image files from untrusted sources: everything is checked before it is decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Pillow's other formats start programs (EPS) or have decoders that are little tested.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

# A photograph of 25 megapixels is 75 MB when it is decoded.
MAX_PIXELS = 25_000_000

# First bytes of formats of mobile phones that are refused by name: Pillow does not read HEIC, and
# its AVIF decoder is new.
PHONE_FORMATS = {b"ftyphei": "HEIC", b"ftypmif": "HEIC", b"ftyphev": "HEIC", b"ftypavi": "AVIF"}

# Suffixes of image files, including those that are refused by name.
# fmt: off
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".heic", ".heif", ".avif",
)
# fmt: on


# Smallest side in pixels, and largest ratio of the sides.
MIN_SIDE, MAX_ASPECT_RATIO = 16, 8.0

# EXIF tag, and the first of its values that transpose the image.
ORIENTATION, FIRST_TRANSPOSED = 0x0112, 5

# Smallest alpha of an opaque pixel.
MIN_ALPHA = 128


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright and downscaled.

    rgb : uint8 (height, width, 3). opaque : bool (height, width), False where it is transparent;
    None: no transparency. size : (width, height) in the file, upright. gray : whether all pixels
    are gray. notes : conversions, for the user.
    """

    rgb: NDArray[np.uint8]
    opaque: NDArray[np.bool_] | None
    size: tuple[int, int]
    gray: bool
    notes: tuple[str, ...] = ()


def read_picture(
    source: Path | BinaryIO, max_side: int = 1024, accepted: tuple[int, int] | None = None
) -> Picture:
    """Read an image file: its first frame, rotated as EXIF says, in 8-bit RGB.

    source : path or open file; its content decides the format. max_side : larger images are
    downscaled to so many pixels on the longer side. accepted : (width, height) of images that are
    never too small.
    Raises: DataError, one line without the path, that says what is wrong.
    """
    from PIL import Image, ImageOps

    with _open(source) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise DataError(f"the image has {width}x{height} pixels: give at most 25 megapixels")
        shorter, longer = sorted(image.size)
        if image.size != accepted and (shorter < MIN_SIDE or longer > MAX_ASPECT_RATIO * shorter):
            raise DataError(
                f"the image is too small or too narrow ({width}x{height}): both sides must be at "
                f"least {MIN_SIDE} pixels, and one at most {MAX_ASPECT_RATIO:g} times the other"
            )
        notes = list(_conversions(image))
        if image.getexif().get(ORIENTATION, 1) >= FIRST_TRANSPOSED:
            width, height = height, width
        image.draft("RGB", (max_side, max_side))  # JPEG can be decoded at a half or a quarter
        pixels = _to_rgb(ImageOps.exif_transpose(image))
        pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    rgb, opaque = _on_white(pixels)
    gray = bool((rgb == rgb[..., :1]).all())
    return Picture(rgb, opaque, (width, height), gray, tuple(notes))


def _conversions(image: "Image.Image") -> Iterator[str]:
    """Yield notes on conversions, for the user."""
    if getattr(image, "n_frames", 1) > 1:
        yield "it has several frames: the first is used"
    if image.mode.startswith(("I", "F")):
        yield "it has more than 8 bits a pixel: the highest 8 are used"
    elif image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"):
        yield f"its {image.mode} colours were converted to RGB"


def _to_rgb(image: "Image.Image") -> "Image.Image":
    """Convert to RGBA if any pixel may be transparent, else to RGB."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        levels = np.asarray(image).astype(np.float64)
        peak = max(255.0, 65535.0 * (levels.max(initial=0) > 255))
        image = Image.fromarray((levels * (255 / peak)).clip(0, 255).astype(np.uint8))
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _on_white(image: "Image.Image") -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Blend with white; return RGB pixels and the mask of opaque ones (None: all)."""
    from PIL import Image

    if image.mode == "RGB":
        return np.asarray(image), None
    alpha = np.asarray(image.getchannel("A"))
    white = Image.new("RGBA", image.size, "white")
    rgb = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return rgb, None if alpha.min(initial=255) >= MIN_ALPHA else alpha >= MIN_ALPHA


@contextmanager
def _open(source: Path | BinaryIO) -> "Iterator[Image.Image]":
    """Open an image, of which only the header is read, and turn all errors into DataError.

    Errors of decoding within the `with` block, too.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of huge sizes, which are refused here, and of damaged metadata.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            if isinstance(source, Path) and source.exists() and not source.is_file():
                raise DataError("not a file")
            with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
                kind = PHONE_FORMATS.get(file.read(11)[4:])
                if kind:
                    raise DataError(f"{kind} images cannot be read: save it as JPEG or PNG")
                with Image.open(file, formats=FORMATS) as image:
                    yield image
        except (DataError, MemoryError):
            raise
        except Image.DecompressionBombError as error:  # raised by Pillow before the check above
            raise DataError("the image is huge: make it smaller, at most 25 megapixels") from error
        except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
            reason = getattr(error, "strerror", None) or "not an image, or a damaged one"
            raise DataError(reason) from error
