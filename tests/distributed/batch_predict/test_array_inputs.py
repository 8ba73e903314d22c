"""Array inputs: damaged and unknown archives."""

import numpy as np
import pytest
from batch_inputs import Observer, blocks_of, predict_into, write
from messages import assert_one_line


@pytest.mark.parametrize("kind", ["idx.gz", "compressed npz", "lists"])
@pytest.mark.usefixtures("small_blocks")
def test_array_inputs_damage_beyond_header_is_an_error_of_its_rows(images, pool, tmp_path, kind):
    path, other = tmp_path / "input", tmp_path / "other.npy"
    write(kind, path, images)
    write("npy", other, images[:9])
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    observer = Observer()
    found = predict_into(tmp_path, pool, [str(path), str(other)], observer=observer)
    errors = found["error"].to_pylist()
    assert errors[500:] == [None] * 9
    damaged = [error for error in errors if error]
    assert_one_line(damaged[0], str(path))
    assert damaged[0] in observer.notes
    assert found["label"].null_count == len(damaged)


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
    with pytest.warns(UserWarning, match=part):
        (block,) = blocks_of(path)
    assert_one_line(block.error, "cannot be unpacked: ", part, "; save it again")
