"""From an image file to the pixels that a network takes."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_gray"]

# Others start programs (EPS), or have decoders that few images ever test.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


def read_gray(source: Path | BinaryIO, height: int, width: int) -> NDArray[np.uint8]:
    """The pixels of a grayscale image of exactly this size, uint8 (height, width).

    source : a path, or an open file. The content decides its format, not its name. The size is
    checked before any pixel is decoded.
    Raises: DataError, one line without the path, that says what is wrong.
    """
    from PIL import Image

    with warnings.catch_warnings():
        # What Pillow warns of (a huge size, damaged metadata) is refused here, or does no harm.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            if isinstance(source, Path) and source.exists() and not source.is_file():
                raise DataError("not a file")
            with Image.open(source, formats=FORMATS) as image:
                if image.size != (width, height):
                    raise DataError(
                        f"the image is {image.size[0]}x{image.size[1]}: this model takes "
                        f"{width}x{height} grayscale"
                    )
                return _gray(image)
        except DataError:
            raise
        except OSError as error:
            raise DataError(error.strerror or "not an image, or a damaged one") from error
        except Exception as error:  # Pillow's decoders have a dozen kinds for a damaged file
            raise DataError("not an image, or a damaged one") from error


def _gray(image: "Image.Image") -> NDArray[np.uint8]:
    """Pixels of an image without colour, whichever way it stores them."""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("P", "RGB"):
        pixels = np.asarray(image.convert("RGB"))
        if (pixels == pixels[..., :1]).all():
            return pixels[..., 0]
        raise DataError("the image has colour: this model takes grayscale")
    raise DataError(f"the image has mode {image.mode}: save it as 8-bit grayscale")
