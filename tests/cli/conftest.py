"""Fixtures of the command-line tests: a folder to work in, and trained models."""

import pytest
from cli_runs import FAST

from fmnist_fast import Ensemble, load_model
from fmnist_fast.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command in this process; returns exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def trained(folder, run, small_npz):
    """A model file in the folder."""
    code, _, _ = run("train", "--dataset", small_npz, "--quiet", *FAST)
    assert code == 0
    return folder / "model.safetensors"


@pytest.fixture
def ensemble(trained, run, small_npz):
    """A file of two models beside it, which differ in width and seed."""
    more = ["--hidden", "12,6", "--seed", "1", "--out", "more.safetensors", "--quiet"]
    assert run("train", "--dataset", small_npz, *FAST, *more)[0] == 0
    path = trained.with_name("ensemble.safetensors")
    Ensemble((load_model(trained), load_model("more.safetensors"))).save(path)
    return path
