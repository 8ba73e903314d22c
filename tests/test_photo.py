"""Images that are read to the pixel, and everything else, refused by one short line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fmnist_fast.errors import DataError
from fmnist_fast.photo import read_gray

PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
GRAY = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def read(content: bytes, height=28, width=28):
    return read_gray(io.BytesIO(content), height, width)


def refusal(source, height=28, width=28) -> str:
    """The message, once it is sure to be short and alone."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(DataError) as caught:
            read_gray(source, height, width)
    assert seen == []
    message = str(caught.value)
    assert "\n" not in message
    assert 0 < len(message) < 100
    return message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and has no pixel that can be decoded."""
    size = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"?") + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_gray_is_read_to_the_pixel_however_it_is_stored(mode):
    found = read(encoded(GRAY.convert(mode)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS)


def test_palette_in_any_order_is_looked_up():
    image = Image.fromarray(255 - PIXELS).convert("P")
    image.putpalette([level for k in range(256) for level in [255 - k] * 3])
    assert np.array_equal(read(encoded(image)), PIXELS)


def test_black_and_white_becomes_0_and_255():
    found = read(encoded(Image.fromarray(PIXELS > 99)))
    assert np.array_equal(found, np.where(PIXELS > 99, 255, 0))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM"])
def test_content_decides_the_format_not_the_name(tmp_path, kind):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(GRAY, kind))
    assert np.array_equal(read_gray(path, 28, 28), PIXELS)


def test_height_comes_before_width():
    content = encoded(Image.fromarray(PIXELS[:, :20]))
    assert np.array_equal(read(content, 28, 20), PIXELS[:, :20])
    assert refusal(io.BytesIO(content), 20, 28) == (
        "the image is 20x28: this model takes 28x20 grayscale"
    )


def test_one_coloured_pixel_is_colour():
    image = GRAY.convert("RGB")
    image.putpixel((13, 7), (10, 10, 11))
    assert "colour" in refusal(io.BytesIO(encoded(image)))


def test_colour_in_the_palette_is_colour():
    image = GRAY.convert("P")
    palette = [level for level in range(256) for _ in range(3)]
    palette[3 * int(PIXELS[0, 0])] ^= 1
    image.putpalette(palette)
    assert "colour" in refusal(io.BytesIO(encoded(image)))


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (Image.fromarray(PIXELS.astype(np.uint16) * 257), "I;16"),
        (GRAY.convert("LA"), "LA"),
        (GRAY.convert("RGBA"), "RGBA"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_modes_are_refused_with_what_to_save(image, mode):
    words = f"the image has mode {mode}: save it as 8-bit grayscale"
    assert refusal(io.BytesIO(encoded(image))) == words


@pytest.mark.parametrize(
    ("width", "height"),
    [(27, 28), (28, 29), (1, 1), (10_000, 10_000), (12_000, 12_000)],
)
def test_wrong_size_is_refused_before_a_pixel_is_decoded(width, height):
    assert refusal(io.BytesIO(png_header(width, height))) == (
        f"the image is {width}x{height}: this model takes 28x28 grayscale"
    )


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_huge_claims_are_refused(width, height):
    refusal(io.BytesIO(png_header(width, height)))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "JPEG"])
def test_truncated_image_is_refused(kind):
    content = encoded(GRAY, kind)
    for length in (0, 1, 8, 20, len(content) // 2):
        assert refusal(io.BytesIO(content[:length])) == "not an image, or a damaged one"


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"%PDF-1.7\n", bytes(784), png_header(28, 28)]
)
def test_what_is_not_an_image_is_refused(content):
    assert refusal(io.BytesIO(content)) == "not an image, or a damaged one"


def test_text_chunk_that_expands_is_refused():
    content = encoded(GRAY)
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(64 << 20)))
    after_header = 8 + 25
    content = content[:after_header] + bomb + content[after_header:]
    assert refusal(io.BytesIO(content)) == "not an image, or a damaged one"


def test_file_that_is_not_there(tmp_path):
    assert refusal(tmp_path / "absent.png") == "No such file or directory"


def test_folder(tmp_path):
    assert refusal(tmp_path) == "not a file"


def test_decoder_that_raises_an_error_of_its_own_kind():
    content = bytearray(encoded(GRAY.convert("P"), "BLP"))
    content[8] = 200  # an encoding that there is not: Pillow raises NotImplementedError
    assert refusal(io.BytesIO(content)) == "not an image, or a damaged one"


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(
    st.sampled_from([encoded(GRAY, k) for k in ("PNG", "GIF", "BMP", "TIFF", "JPEG")]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damaged_images_are_read_or_refused(content, changes):
    mutated = bytearray(content)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    try:
        found = read(bytes(mutated))
    except DataError:
        refusal(io.BytesIO(mutated))
        return
    assert (found.shape, found.dtype) == ((28, 28), np.uint8)
