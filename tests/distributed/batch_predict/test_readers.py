"""Readers: only the files that the command named are read."""

import pytest
from batch_inputs import blocks_of, png, write
from messages import assert_one_line

from fmnist_fast.distributed.batch_predict.readers import LocalReader, read
from fmnist_fast.errors import DataError


def test_read_rejects_changed_file_of_same_name(images, tmp_path):
    write("folder", tmp_path / "f", images[:2])
    _, block = blocks_of(tmp_path / "f")
    assert len(list(read(block, str(tmp_path), 784))) == 1
    (tmp_path / "f" / "0001.png").write_bytes(png(images[2]) + b"more")
    with pytest.raises(DataError) as caught:
        list(read(block, str(tmp_path), 784))
    assert_one_line(str(caught.value), "0001.png has changed meanwhile")
    ((encoded,),) = LocalReader(str(tmp_path), 784).read(block)
    assert encoded.content.endswith(b"more")
