"""Blocks as JSON."""

import os
from dataclasses import replace

from batch_inputs import blocks_of, write

from fmnist_fast.distributed.batch_predict.blocks import ImageFiles, from_json, to_json


def test_blocks_survive_json(tmp_path, images):
    write("npz", tmp_path / "x.npz", images)
    write("lists", tmp_path / "x.parquet", images)
    blocks = blocks_of(tmp_path / "x.npz", tmp_path / "x.parquet")
    blocks.append(ImageFiles((os.fsdecode(b"\xff.png"), "b.png"), (12, -1)))
    assert [from_json(to_json(block)) for block in blocks] == blocks
    assert replace(blocks[0], begin=1) != blocks[0]
