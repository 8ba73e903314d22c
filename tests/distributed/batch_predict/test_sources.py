"""Inputs: invalid files are rejected before prediction."""

import os
import struct

import numpy as np
import pytest
from batch_inputs import blocks_of, idx, npy, table, write
from messages import assert_one_line

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
        (lambda path, x: path.write_bytes(idx(x)[:-1]), "its header promises"),
        (lambda path, x: path.write_bytes(idx(x[:, :9])), "has rows of shape (9, 28)"),
        (
            lambda path, x: path.write_bytes(idx(x.reshape(-1, 14, 56))),
            "has rows of shape (14, 56)",
        ),
        (lambda path, x: np.save(path.open("wb"), x.astype(bool)), "has dtype bool"),
        (lambda path, x: np.save(path.open("wb"), np.array([{}])), "Python objects"),
        (lambda path, x: path.write_bytes(npy(x)[:-1]), "its header promises"),
        (lambda path, x: np.savez(path.open("wb"), a=x, b=x), "several, a, b: name it with"),
        (lambda path, x: np.savez(path.open("wb"), a=x[:, 1:]), "none of a"),
        (lambda path, x: table(path, a=[1, 2]), "it has 1 of numbers"),
        (lambda path, x: table(path, a=[b"x"], b=[b"y"]), "a, b: name one with --column"),
        (lambda path, x: path.write_bytes(b"PAR1 and more"), "not a Parquet file that can be read"),
        (lambda path, x: path.mkdir(), "is a folder without images"),
    ],
)
def test_sources_invalid_file_is_one_line_error(images, tmp_path, write_it, part):
    write_it(tmp_path / "input", images)
    with pytest.raises(DataError) as caught:
        blocks_of(tmp_path / "input")
    assert_one_line(str(caught.value), part)
