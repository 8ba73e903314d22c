"""Command `sweep`: killed, interrupted, or misused; what it prints and saves."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

import optuna
from messages import assert_contains, assert_one_line
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from fmnist_fast import load_dataset, load_model
from fmnist_fast.cli.main import main
from fmnist_fast.distributed.sweep.space import BUILT_IN
from fmnist_fast.distributed.worker_pool import open_pool

COMMON = ["--sampler", "random", "--pruner", "none", "--workers", "2", "--study", "s.journal"]
RESUMES = " of 1000 trials are kept in s.journal: the same command resumes it"


@pytest.fixture
def space_file(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("lr = {low = 1e-3, high = 1e-2, log = true}\nepochs = 60\nhidden = [64, 64]\n")
    return path


@pytest.fixture
def quick_space(tmp_path):
    path = tmp_path / "quick.toml"
    path.write_text("lr = {low = 1e-3, high = 1e-2}\nepochs = 1\nhidden = [8]\n")
    return path


def command(small_npz, space_file, *more):
    return ["sweep", *COMMON, "--dataset", str(small_npz), "--space", str(space_file), *more]


def numbers_and_values(study):
    storage = JournalStorage(JournalFileBackend(str(study)))
    trials = optuna.load_study(storage=storage, study_name="fmnist-fast").trials
    return [(trial.number, trial.state.name, trial.params, trial.value) for trial in trials]


def test_sweep_resumes_after_kill_to_same_bytes(small_npz, space_file, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = command(small_npz, space_file, "--trials", "10", "--json")
    for folder in (whole, killed):
        folder.mkdir()
    program = [sys.executable, "-m", "fmnist_fast", *arguments]
    journal, kills = killed / "s.journal", 0
    for least in (3, 7):  # entries of trials that were completed
        process = subprocess.Popen(program, cwd=killed, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not journal.exists() or journal.read_text().count('"result":') < least:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 2
    ran = [
        subprocess.run(program, cwd=folder, capture_output=True, check=True)
        for folder in (killed, whole)
    ]
    documents = [json.loads(one.stdout) for one in ran]
    assert numbers_and_values(journal) == numbers_and_values(whole / "s.journal")
    assert [entry[:2] for entry in numbers_and_values(journal)] == [
        (number, "COMPLETE") for number in range(10)
    ]
    for document in documents:
        for entry in document["best"]:
            del entry["seconds"]
    assert documents[0] == documents[1]
    model = (killed / "model.safetensors").read_bytes()
    assert model == (whole / "model.safetensors").read_bytes()
    # And the command that it prints makes the same model once more.
    words = shlex.split(documents[0]["command"])
    assert words[:2] == ["fmnist-fast", "train"]
    again = [*words[1:-1], str(tmp_path / "again.safetensors"), "--quiet"]
    assert main(again) == 0
    assert (tmp_path / "again.safetensors").read_bytes() == model
    for plot in documents[0]["plots"]:
        assert (killed / plot).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_sweep_stopped_by_terminal_keeps_trials(small_npz, space_file, tmp_path, number):
    program = [sys.executable, "-m", "fmnist_fast"]
    process = subprocess.Popen(
        [*program, *command(small_npz, space_file, "--trials", "1000")],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "s.journal"
    while not journal.exists() or journal.read_text().count('"result":') < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does: to the workers as well
    _, message = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert_one_line(message, "fmnist-fast: stopped; ", RESUMES)
    states = [state for _, state, *_ in numbers_and_values(journal)]
    assert "RUNNING" not in states
    assert states.count("WAITING") >= 1


def test_sweep_ctrl_c_while_workers_start_stops(small_npz, space_file, tmp_path):
    arguments = command(small_npz, space_file, "--trials", "1000")
    process = subprocess.Popen(
        [sys.executable, "-m", "fmnist_fast", *arguments],
        cwd=tmp_path,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_process = psutil.Process(process.pid)
    while len(of_process.children()) < 3:  # two workers, and multiprocessing's own
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 130
    assert_one_line(message, RESUMES)


def test_sweep_prints_table_plots_and_command(small_npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = tmp_path / "space.toml"
    space.write_text("lr = {low = 1e-3, high = 1e-2}\nhidden = {choices = [[8], []]}\nepochs = 1")
    arguments = command(small_npz, space, "--trials", "12", "--seeds", "2")
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert_contains(
        out,
        "all trials are done: 12 complete, 0 pruned, 0 failed; kept in s.journal",
        "importance: ",
        "plots: s-history.png, s-parallel.png",
        "the same again: fmnist-fast train --preset standard --dataset",
    )
    assert re.search(r"best: trial \d+, \d\d\.\d\d %: epochs 1, hidden (8|none), lr 0\.00", out)
    assert len(re.findall(r"^ +\d+ +\d+\.\d\d % ± \d+\.\d\d ", out, flags=re.MULTILINE)) == 10
    assert re.search(r"saved model.safetensors: trial \d+, trained again on all 600 training", out)
    assert err == ""


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--workers", "0"], "give auto, or a number from 1"),
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "give only one"),
        (["--folds", "1"], "folds is 1: give 2 or more"),
        (["--space", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--study", "no/where"], "does not exist: create it"),
        (["--study", ""], "it is empty"),
        (["--study", "/"], "study / is not a file: name another"),
        (["--study", "sqlite:////no/where/x.db"], "the folder /no/where does not exist: create it"),
        (["--study", "sqlite://"], "would be lost with this command: name a file"),
        (["--study", "sqlite:///:memory:"], "would be lost with this command: name a file"),
        (["--study", "oracle9://me:secret@there/x"], "is of no kind that Optuna knows"),
        (["--study", "mysql://me:secret@there/x"], "cannot be opened: No module named"),
        (["--study", "drawn.journal"], "plot drawn-history.png exists, and no sweep drew it"),
        (["--scheduler", ""], "it is empty"),
        (["--workers", "1000"], "--workers 1000 is too many for"),
        (["--space", "wide.toml"], "model.safetensors takes"),
        (["--space", "negative.toml"], "negative.toml: lr is -1.0"),
        (["--out", "no/where.safetensors"], "does not exist: create it"),
        (["--out", "x.j", "--study", "x.j"], "model x.j is also another file of this command"),
        (["--time-budget", "0.1s"], "no trial ended before the time was over; 0 of 1"),
        (["--preset", "best"], "is not one of"),
        (["--backend", "fortran"], "unknown backend 'fortran'"),
        (["--time-budget", "soon"], "give a time like"),
    ],
)
def test_sweep_usage_error_is_one_line(more, part, small_npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("drawn-history.png").write_text("my notes")
    Path("wide.toml").write_text("hidden = {choices = [[2000000000]]}")
    Path("negative.toml").write_text("lr = {choices = [-1.0]}")
    assert main(["sweep", "--dataset", str(small_npz), "--trials", "1", *more]) == 2
    _, err = capsys.readouterr()
    assert_one_line(err, part)
    assert "secret" not in err
    assert not (tmp_path / "model.safetensors").exists()
    assert Path("drawn-history.png").read_text() == "my notes"


def test_sweep_starts_no_more_workers_than_trials(small_npz, quick_space, tmp_path, monkeypatch):
    started = []

    def counted(scheduler, workers, *others):
        started.append(workers)
        return open_pool(scheduler, workers, *others)

    monkeypatch.setattr("fmnist_fast.cli.sweep.open_pool", counted)
    monkeypatch.chdir(tmp_path)
    for trials in ("1", "3"):
        assert main([*command(small_npz, quick_space, "--trials", trials), "--quiet"]) == 0
    assert started == [1, 2]


def test_sweep_plots_are_named_after_study(small_npz, quick_space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for study in (["--study-name", "a/b"], [], []):
        assert main([*command(small_npz, quick_space, "--trials", "1", "--quiet"), *study]) == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "s-a_b-history.png",
        "s-a_b-parallel.png",
        "s-history.png",
        "s-parallel.png",
    ]


def test_show_space_prints_built_in_space(capsys):
    assert main(["sweep", "--show-space"]) == 0
    assert capsys.readouterr().out == BUILT_IN.read_text()


def test_sweep_without_optuna_names_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep"]) == 2
    assert_one_line(capsys.readouterr().err, "optuna", "pip install 'fmnist-fast[sweep]'")


def test_ensemble_of_best_trials_is_saved(small_npz, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(
        "epochs = 2\nlr = { low = 1e-3, high = 1e-2, log = true }\nhidden = [8]\n"
    )
    command = ["sweep", "--dataset", str(small_npz), "--trials", "3", "--workers", "1", "--json"]
    command += ["--space", "space.toml", "--sampler", "random", "--pruner", "none"]
    assert main([*command, "--ensemble", "5"]) == 0
    printed = capsys.readouterr()
    assert_contains(printed.err, "the ensemble has 3 networks, not 5")
    document = json.loads(printed.out)
    best, ensemble = load_model("model.safetensors"), load_model("model.ensemble.safetensors")
    assert document["ensemble"]["model"] == "model.ensemble.safetensors"
    assert document["ensemble"]["trials"] == [one["trial"] for one in document["best"]]
    assert ensemble.members[0].to_bytes() == best.to_bytes()
    first_weights = {
        member.network.params.weights[0][:, 0].tobytes() for member in ensemble.members
    }
    assert len(first_weights) == 3
    data = load_dataset(small_npz)
    accuracy = (ensemble.predict(data.x_test) == data.y_test).mean()
    assert accuracy == document["ensemble"]["test_accuracy"] == ensemble.metrics["test_accuracy"]
    assert main(["evaluate", "model.ensemble.safetensors", "--dataset", str(small_npz)]) == 0

    Path("other.ensemble.safetensors").write_text("not a model")
    assert main([*command, "--ensemble", "2", "--out", "other.safetensors"]) == 2
    assert_contains(capsys.readouterr().err, "other.ensemble.safetensors exists and is not a model")
