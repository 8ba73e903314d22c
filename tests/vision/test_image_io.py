"""Image reader: exact pixels, or a one-line error for every other file."""

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
from fmnist_fast.vision.image_io import read_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
GRAY = Image.fromarray(PIXELS)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def read(content: bytes):
    """Return the pixels of a gray image."""
    picture = read_picture(io.BytesIO(content))
    assert picture.gray
    return picture.rgb[..., 0]


def error_message(source) -> str:
    """Return the error message; check that it is one short line without warnings."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(DataError) as caught:
            read_picture(source)
    assert seen == []
    message = str(caught.value)
    assert "\n" not in message
    assert 0 < len(message) < 160
    return message


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with a header of this size and no decodable pixels."""
    size = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"?") + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_read_picture_gray_is_exact_in_every_mode(mode):
    found = read(encoded(GRAY.convert(mode)))
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS)


def test_read_picture_looks_up_palette():
    image = Image.fromarray(255 - PIXELS).convert("P")
    image.putpalette([level for k in range(256) for level in [255 - k] * 3])
    assert np.array_equal(read(encoded(image)), PIXELS)


def test_read_picture_maps_1_bit_pixels_to_0_and_255():
    found = read(encoded(Image.fromarray(PIXELS > 99)))
    assert np.array_equal(found, np.where(PIXELS > 99, 255, 0))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM"])
def test_read_picture_detects_format_by_content(tmp_path, kind):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(GRAY, kind))
    assert np.array_equal(read_picture(path).rgb[..., 0], PIXELS)


def test_read_picture_one_coloured_pixel_is_not_gray():
    image = GRAY.convert("RGB")
    image.putpixel((13, 7), (10, 10, 11))
    assert not read_picture(io.BytesIO(encoded(image))).gray


def test_read_picture_coloured_palette_entry_is_not_gray():
    image = GRAY.convert("P")
    palette = [level for level in range(256) for _ in range(3)]
    palette[3 * int(PIXELS[0, 0])] ^= 1
    image.putpalette(palette)
    assert not read_picture(io.BytesIO(encoded(image))).gray


@pytest.mark.parametrize(
    ("image", "kind", "note"),
    [
        (Image.fromarray(PIXELS.astype(np.uint16) * 257), "PNG", "more than 8 bits"),
        (Image.fromarray(PIXELS.astype(np.int32) * 257), "TIFF", "more than 8 bits"),
        (Image.fromarray(PIXELS.astype(np.float32)), "TIFF", "more than 8 bits"),
        (GRAY.convert("CMYK"), "TIFF", "CMYK colours were converted"),
    ],
    ids=["16 bits", "32 bits", "floats", "CMYK"],
)
def test_read_picture_converts_other_modes_with_note(image, kind, note):
    picture = read_picture(io.BytesIO(encoded(image, kind)))
    assert note in picture.notes[0]
    assert np.abs(picture.rgb[..., 0].astype(int) - PIXELS).max() <= 1


def test_read_picture_takes_first_frame_of_animation():
    content = encoded(GRAY, "GIF", save_all=True, append_images=[Image.new("L", (28, 28))])
    picture = read_picture(io.BytesIO(content))
    assert np.array_equal(picture.rgb[..., 0], PIXELS)
    assert "several frames" in picture.notes[0]


def test_read_picture_transparent_pixels_become_white():
    alpha = np.zeros((28, 28), np.uint8)
    alpha[5:20, 7:15] = 255
    image = Image.fromarray(np.dstack([PIXELS] * 3 + [alpha]))
    picture = read_picture(io.BytesIO(encoded(image)))
    assert np.array_equal(picture.opaque, alpha > 0)
    assert (picture.rgb[alpha == 0] == 255).all()
    assert np.array_equal(picture.rgb[..., 0][alpha > 0], PIXELS[alpha > 0])
    opaque = read_picture(io.BytesIO(encoded(GRAY.convert("RGBA"))))
    assert opaque.opaque is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_picture_applies_exif_orientation(orientation):
    from PIL import ImageOps

    upright = Image.fromarray(np.dstack([PIXELS] * 3)[:20])
    upright.putpixel((3, 4), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(upright, exif=exif)
    picture = read_picture(io.BytesIO(content))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert picture.size == expected.size == picture.rgb.shape[1::-1]
    assert np.array_equal(picture.rgb, np.asarray(expected))


def test_read_picture_downscales_and_records_size():
    content = encoded(Image.new("RGB", (3000, 1500), "red"), "JPEG")
    picture = read_picture(io.BytesIO(content), max_side=300)
    assert picture.rgb.shape == (150, 300, 3)
    assert picture.size == (3000, 1500)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (15, 40), (1, 10_000), (100, 900)])
def test_read_picture_rejects_narrow_images_undecoded(width, height):
    message = error_message(io.BytesIO(png_header(width, height)))
    assert message.startswith(f"the image is too small or too narrow ({width}x{height})")


def test_read_picture_accepts_given_small_size():
    content = encoded(GRAY.resize((8, 8)))
    assert read_picture(io.BytesIO(content), accepted=(8, 8)).rgb.shape == (8, 8, 3)


def test_read_picture_rejects_over_25_megapixels_undecoded():
    assert "at most 25 megapixels" in error_message(io.BytesIO(png_header(5001, 5000)))
    assert "damaged" in error_message(io.BytesIO(png_header(5000, 5000)))


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 2**31 - 1)])
def test_read_picture_rejects_huge_header_sizes(width, height):
    error_message(io.BytesIO(png_header(width, height)))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "JPEG"])
def test_read_picture_rejects_truncated_image(kind):
    content = encoded(GRAY, kind)
    for length in (0, 1, 8, 20, len(content) // 2):
        assert error_message(io.BytesIO(content[:length])) == "not an image, or a damaged one"


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b"%PDF-1.7\n", bytes(784), png_header(28, 28)]
)
def test_read_picture_rejects_other_files(content):
    assert error_message(io.BytesIO(content)) == "not an image, or a damaged one"


def test_read_picture_rejects_text_chunk_bomb():
    content = encoded(GRAY)
    bomb = chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(64 << 20)))
    after_header = 8 + 25
    content = content[:after_header] + bomb + content[after_header:]
    assert error_message(io.BytesIO(content)) == "not an image, or a damaged one"


def test_read_picture_rejects_missing_file(tmp_path):
    assert error_message(tmp_path / "absent.png") == "No such file or directory"


def test_read_picture_rejects_folder(tmp_path):
    assert error_message(tmp_path) == "not a file"


def test_read_picture_converts_errors_of_decoder():
    content = bytearray(encoded(GRAY.convert("P"), "BLP"))
    content[8] = 200  # an unknown encoding: Pillow raises NotImplementedError
    assert error_message(io.BytesIO(content)) == "not an image, or a damaged one"


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(
    st.sampled_from([encoded(GRAY, k) for k in ("PNG", "GIF", "BMP", "TIFF", "JPEG")]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_read_picture_mutated_files_give_pixels_or_error(content, changes):
    mutated = bytearray(content)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    try:
        found = read_picture(io.BytesIO(mutated), max_side=100).rgb
    except DataError:
        error_message(io.BytesIO(mutated))
        return
    assert found.dtype == np.uint8
    assert 1 <= min(found.shape[:2]) <= max(found.shape[:2]) <= 100
