"""The command `export`: output files and error messages."""

import os
import sys

import numpy as np
import pytest
from exports import SMALL, by_onnx, drawn
from messages import assert_one_line

from fmnist_fast.cli.main import main
from fmnist_fast.models.model import Model
from fmnist_fast.nn.network import Network


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `export` in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["export", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_export_of_table_model(run, tmp_path):
    network = Network.random(SMALL, 0, 1.0, "numpy", 1)
    Model(network, ("a", "b", "c"), (4,), "flowers", "0" * 64).save("flowers.safetensors")
    code, out, err = run("flowers.safetensors", "--to", "onnx", "--out", "net.onnx")
    assert (code, err) == (0, "")
    assert_one_line(out, "saved net.onnx", "4 numbers", "3 probabilities")
    x_ni = drawn(SMALL, pixels=False)[1]
    got_nk = by_onnx("net.onnx", x_ni, SMALL)
    np.testing.assert_allclose(got_nk, network.predict_proba(x_ni), rtol=0, atol=1e-5)


def test_export_keeps_existing_file_unless_forced(run, tmp_path):
    (tmp_path / "fashion-mnist.npz").write_text("mine")
    code, out, err = run("--to", "npz")
    assert (code, out) == (2, "")
    assert err == (
        "fmnist-fast: fashion-mnist.npz exists: name another file, or use force (--force) to "
        "replace it\n"
    )
    assert (tmp_path / "fashion-mnist.npz").read_text() == "mine"
    assert run("--to", "npz", "--force")[0] == 0
    assert (tmp_path / "fashion-mnist.npz").stat().st_size > 400_000


def test_export_never_replaces_model(run, tmp_path):
    model = tmp_path / "model.npz"
    model.write_bytes(b"a model")
    code, _, err = run(model, "--to", "npz", "--force")
    assert code == 2
    assert "is also another file of this command" in err
    assert model.read_bytes() == b"a model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--to'"),
        (["--to", "pickle"], "'pickle' is not one of 'onnx', 'npz', 'python', 'c'"),
        (["--to", "c", "--out", "."], "is a directory"),
        (["--to", "c", "--out", "no/such/file.c"], "does not exist: create it"),
        (["missing", "--to", "c"], "there is no model file missing"),
        ([__file__, "--to", "c"], "is damaged or not a safetensors file"),
    ],
)
def test_export_usage_errors_are_one_line(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_export_without_onnx_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run("--to", "onnx") == (
        2,
        "",
        "fmnist-fast: ONNX needs the package onnx: pip install 'fmnist-fast[export]'\n",
    )
    assert os.listdir(tmp_path) == []
    assert run("--to", "c")[0] == 0
