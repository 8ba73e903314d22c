"""IDX reader: exact arrays or one-line errors, in bounded memory."""

import gzip
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from idx_sets import idx_bytes

from fmnist_fast.data.idx import READ_BYTES, read_idx
from fmnist_fast.errors import DataError

IMAGES = np.arange(30, dtype=np.uint8).reshape(2, 3, 5)
VALID = idx_bytes(IMAGES)
PACKINGS = {"plain": bytes, "gzip": gzip.compress}

reproducible = settings(derandomize=True, database=None, deadline=None, max_examples=300)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("idx") / "some-idx3-ubyte"


@pytest.fixture(params=PACKINGS.values(), ids=PACKINGS.keys())
def pack(request):
    return request.param


def error_message(path, dimensions=3) -> str:
    """Return the error message; check that it is one line and names the file."""
    with pytest.raises(DataError) as caught:
        read_idx(path, dimensions)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 1), (7, 28, 28), (1, 300, 2), (9,), (1,)])
def test_read_idx_round_trip(path, pack, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path.write_bytes(pack(idx_bytes(array)))
    found = read_idx(path, len(shape))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


def test_read_idx_reads_several_chunks(path, pack):
    array = np.resize(np.arange(251, dtype=np.uint8), (3, READ_BYTES // 2, 1))
    path.write_bytes(pack(idx_bytes(array)))
    assert np.array_equal(read_idx(path, 3), array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file"),
        (b"\0\0\x0d\x03" + VALID[4:], "type 0x0d: only uint8"),
        (b"\0\0\x08\x01" + VALID[4:], "has 1 dimensions, not 3"),
        (b"\0\0\x08\xff" + VALID[4:], "has 255 dimensions, not 3"),
        (VALID[:15], "ends within its header"),
        (VALID[:16], "has fewer than the 30 bytes"),
        (VALID[:-1], "has fewer than the 30 bytes"),
        (VALID + b"\0", "has more than the 30 bytes"),
        (VALID + VALID, "has more than the 30 bytes"),
        (idx_bytes(np.empty((0, 28, 28), np.uint8)), "empty"),
        (VALID[:4] + b"\xff" * 12, "more than 4 GiB"),
    ],
)
def test_read_idx_rejects_invalid_header_or_length(path, pack, content, words):
    path.write_bytes(pack(content))
    assert words in error_message(path)


def test_read_idx_rejects_images_as_labels(path):
    path.write_bytes(VALID)
    assert "mixed up" in error_message(path, dimensions=1)


def test_read_idx_rejects_truncated_gzip(path):
    packed = gzip.compress(VALID)
    for length in range(len(packed)):
        path.write_bytes(packed[:length])
        error_message(path)


@pytest.mark.parametrize("place", [-1, -5, 12])
def test_read_idx_rejects_gzip_with_wrong_checksum(path, place):
    packed = bytearray(gzip.compress(VALID))
    packed[place] ^= 0xFF
    path.write_bytes(packed)
    assert "damaged" in error_message(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(VALID) * 2, "has more than"),
        (gzip.compress(VALID) + b"tail", "damaged"),
        (gzip.compress(gzip.compress(VALID)), "not an IDX file"),
    ],
    ids=["concatenated", "followed by something", "packed twice"],
)
def test_read_idx_rejects_gzip_with_other_content(path, content, words):
    path.write_bytes(content)
    assert words in error_message(path)


def test_read_idx_rejects_missing_file(tmp_path):
    assert "No such file" in error_message(tmp_path / "absent")


def test_read_idx_rejects_folder(tmp_path):
    assert "cannot be read" in error_message(tmp_path)


def peak_memory_of_error(path) -> int:
    tracemalloc.start()
    try:
        error_message(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_read_idx_checks_header_size_before_allocation(path, pack):
    path.write_bytes(pack(b"\0\0\x08\x03" + struct.pack(">3I", 1, 65535, 65535) + b"few bytes"))
    assert peak_memory_of_error(path) < 4 * READ_BYTES


def test_read_idx_does_not_unpack_gzip_bomb(path):
    path.write_bytes(gzip.compress(VALID + bytes(32 * READ_BYTES), compresslevel=1))
    assert peak_memory_of_error(path) < 4 * READ_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="the limit works on Linux only")
def test_read_idx_rejects_file_larger_than_memory(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", 1, 1 << 15, 1 << 15))
        file.truncate(16 + (1 << 30))  # sparse: occupies no disk space
    code = """
import resource, sys
from pathlib import Path
from fmnist_fast.errors import DataError
from fmnist_fast.data.idx import read_idx
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    read_idx(Path(sys.argv[1]), 3)
except DataError as error:
    print(error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{path} does not fit in memory\n"


def check_array_or_error(path, content: bytes, dimensions: int) -> None:
    """Check that `read_idx` returns the array of `content` or raises a one-line error."""
    path.write_bytes(content)
    try:
        found = read_idx(path, dimensions)
    except DataError:
        error_message(path, dimensions)
        return
    plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    assert found.ndim == dimensions
    assert idx_bytes(found) == plain


@reproducible
@given(st.binary(max_size=200), st.sampled_from([1, 3]))
@example(VALID, 3)
def test_read_idx_arbitrary_bytes_give_array_or_error(path, content, dimensions):
    check_array_or_error(path, content, dimensions)
    check_array_or_error(path, gzip.compress(content), dimensions)
    check_array_or_error(path, b"\x1f\x8b\x08" + content, dimensions)


@reproducible
@given(
    st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**32 - 1)), min_size=1, max_size=4),
    st.binary(max_size=70),
    st.sampled_from([1, 3]),
)
@example([2, 3], bytes(6), 3)
def test_read_idx_arbitrary_headers_give_array_or_error(path, shape, data, dimensions):
    content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data
    check_array_or_error(path, content, dimensions)
    check_array_or_error(path, gzip.compress(content), dimensions)


@reproducible
@given(
    st.sampled_from([VALID, gzip.compress(VALID, mtime=0)]),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=4),
    st.integers(0, 70),
    st.binary(max_size=3),
)
@example(VALID, [], 70, b"")
def test_read_idx_mutated_files_give_array_or_error(path, content, changes, length, tail):
    mutated = bytearray(content)
    for place, value in changes:
        mutated[place % len(mutated)] = value
    check_array_or_error(path, bytes(mutated[:length]) + tail, 3)
