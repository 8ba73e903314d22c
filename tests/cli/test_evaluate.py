"""The command `evaluate`, and the plots of `train` and `evaluate`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_runs import FAST
from messages import assert_contains, assert_one_line

from fmnist_fast import load_model


def test_evaluate_prints_tables_and_json(run, trained, small_npz):
    code, out, err = run("evaluate", trained, "--dataset", small_npz)
    assert (code, err) == (0, "")
    assert "precision" in out
    assert "calibration error" in out
    code, out, _ = run("evaluate", trained, "--dataset", small_npz, "--json")
    figures = json.loads(out)
    confusion = np.array(figures["confusion"])
    assert confusion.sum() == figures["rows"] == 200
    assert figures["accuracy"] == confusion.trace() / 200
    assert [entry["rows"] for entry in figures["classes"]] == confusion.sum(axis=1).tolist()


def test_evaluate_warns_about_another_data_set(run, trained, small_npz, tmp_path):
    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    code, out, err = run("evaluate", trained, "--dataset", tmp_path / "other.npz", "--json")
    assert code == 0
    assert json.loads(out)["dataset"] == "other"
    assert_one_line(err, "warning: the model was trained on another data set (small)")


def test_evaluate_ensemble_like_a_model(run, trained, ensemble, small_npz, small_dataset):
    one, several = (
        run("evaluate", path, "--dataset", small_npz, "--json") for path in (trained, ensemble)
    )
    assert (several[0], several[2]) == (0, "")
    figures = json.loads(several[1])
    assert figures.keys() == json.loads(one[1]).keys()
    guess_n = load_model(ensemble).predict(small_dataset.x_test)
    assert figures["accuracy"] == (guess_n == small_dataset.y_test).mean()
    assert figures["selective_accuracy"] is None
    replace(load_model(ensemble), threshold=0.2).save(ensemble)
    figures = json.loads(run("evaluate", ensemble, "--dataset", small_npz, "--json")[1])
    assert figures["selective_accuracy"]["threshold"] == 0.2
    code, out, err = run("evaluate", ensemble, "--dataset", small_npz)
    assert (code, err) == (0, "")
    assert_contains(out, "confident in ", " of them are correct")


def test_evaluate_rejects_data_that_do_not_fit(run, trained, tmp_path):
    arrays = {
        f"{a}_{p}": np.zeros((9, 5) if a == "x" else 9, np.uint8)
        for a in "xy"
        for p in ("train", "test")
    }
    np.savez(tmp_path / "five.npz", **arrays)
    code, _, err = run("evaluate", trained, "--dataset", tmp_path / "five.npz")
    assert code == 2
    assert_contains(err, "784 inputs and 10 classes", "five has 5 and 1")
    code, _, err = run("evaluate", trained)
    assert code == 2
    assert_contains(err, "was trained on small, which is not a data set that this installation has")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_train_and_evaluate_write_plots(folder, run, small_npz, trained, suffix):
    assert run("train", "--dataset", small_npz, *FAST, "--plot", f"c.{suffix}")[0] == 0
    assert run("evaluate", trained, "--dataset", small_npz, "--plot", f"m.{suffix}")[0] == 0
    assert Path(f"c.{suffix}").stat().st_size > 1000
    assert Path(f"m.{suffix}").stat().st_size > 1000
