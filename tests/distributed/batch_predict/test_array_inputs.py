"""Array inputs: damaged and unknown archives."""

import numpy as np
import pytest
from batch_inputs import blocks_of, predict_into, write
from messages import assert_one_line

from fmnist_fast.errors import DataError


@pytest.mark.parametrize("kind", ["idx.gz", "compressed npz"])
@pytest.mark.usefixtures("small_blocks")
def test_array_inputs_damaged_archive_is_an_error(images, pool, tmp_path, kind):
    path = tmp_path / "input"
    write(kind, path, images)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    with pytest.raises(DataError, match=r"damaged|truncated"):
        predict_into(tmp_path, pool, [str(path)])


@pytest.mark.parametrize(
    ("place", "value", "part"), [(6, 1, "encrypted"), (8, 97, "compression method")]
)
def test_array_inputs_unsupported_archive_is_an_error(images, tmp_path, place, value, part):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=images)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + place] = value  # before the member
    content[content.index(b"PK\x01\x02") + place + 2] = value  # in the central directory
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        blocks_of(path)
    assert_one_line(str(caught.value), "cannot be unpacked: ", part, "; save it again")
