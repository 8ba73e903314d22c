"""Inputs: invalid files are rejected before prediction."""

import gzip
import os
import struct

import numpy as np
import pytest
from batch_inputs import blocks_of, idx, npy, npz, table, write
from messages import assert_one_line

from fmnist_fast.distributed.batch_predict.blocks import row_count
from fmnist_fast.errors import DataError


def test_sources_unreadable_subfolder_is_an_error(images, tmp_path, monkeypatch):
    write("folder", tmp_path / "f", images[:2])
    (tmp_path / "f" / "secret").mkdir()
    scandir = os.scandir

    def scandir_refused(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scandir_refused)
    with pytest.raises(PermissionError):
        blocks_of(tmp_path / "f")


@pytest.mark.parametrize(
    ("write_it", "part"),
    [
        (lambda path, x: path.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 9) + b"123456789"), "1 "),
        (lambda path, x: path.write_bytes(idx(x[:, :9])), "has rows of shape (9, 28)"),
        (
            lambda path, x: path.write_bytes(idx(x.reshape(-1, 14, 56))),
            "has rows of shape (14, 56)",
        ),
        (lambda path, x: np.save(path.open("wb"), x.astype(bool)), "has dtype bool"),
        (lambda path, x: np.save(path.open("wb"), np.full((2, 784), {})), "has dtype object"),
        (lambda path, x: np.save(path.open("wb"), 5), "has no rows"),
        (lambda path, x: np.savez(path.open("wb"), a=x, b=x), "several, a, b: name it with"),
        (lambda path, x: np.savez(path.open("wb"), a=x[:, 1:]), "none of a"),
        (lambda path, x: table(path, a=[1, 2]), "it has 1 of numbers"),
        (lambda path, x: table(path, a=[b"x"], b=[b"y"]), "a, b: name one with --column"),
        (lambda path, x: path.mkdir(), "is a folder without images"),
    ],
)
def test_sources_invalid_file_is_one_line_error(images, tmp_path, write_it, part):
    write_it(tmp_path / "input", images)
    with pytest.raises(DataError) as caught:
        blocks_of(tmp_path / "input")
    assert_one_line(str(caught.value), part)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (lambda x: idx(x)[:-1], "its header promises"),
        (lambda x: gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, 1 << 30, 28, 28)), "promises"),
        (lambda x: npy(x)[:-1], "its header promises"),
        (lambda x: npy(x).replace(b"'descr'", b'"""scr\''), "is damaged"),  # TokenError
        (lambda x: npy(x).replace(b"(500,", b"(-50,"), "shape"),
        (lambda x: npz(x).replace("é".encode(), b"\xff\xff"), "is damaged"),  # UnicodeDecodeError
        (lambda x: npz(x, (900, 28, 28)), "its header promises"),
        (lambda x: b"PAR1 and more", "is damaged"),
    ],
)
def test_sources_damaged_file_is_a_row_with_an_error(images, tmp_path, content, part):
    path, other = tmp_path / "input", tmp_path / "other.npy"
    path.write_bytes(content(images))
    write("npy", other, images)
    with pytest.warns(UserWarning, match="damaged") as caught:
        damaged, whole = blocks_of(path, other)
    assert_one_line(damaged.error, str(path), part)
    assert [str(warning.message) for warning in caught] == [damaged.error]
    assert (row_count(damaged), row_count(whole)) == (1, 500)


def test_sources_single_number_beside_array_is_ignored(images, tmp_path):
    np.savez(tmp_path / "x.npz", version=3, names=np.array(["a", None]), x=images)
    (block,) = blocks_of(tmp_path / "x.npz")
    assert block.member == "x.npy"
