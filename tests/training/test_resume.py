"""Interrupted and killed trainings end with the same bytes when they are resumed."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from fmnist_fast import Ensemble, load_dataset, load_model, train
from fmnist_fast.data.fashion_mnist import CLASS_NAMES
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.trainer import TrainingInterrupted

FAST = {"epochs": 4, "hidden": (16,), "threads": 1}
COMMAND = [sys.executable, "-m", "fmnist_fast", "train"]
DISTILLED = Distillation(TrainingConfig(hidden=(24,), epochs=2), n_teachers=2)
PHOTOS = replace(DISTILLED.teacher, augment="photos")


class StopAfter:
    """Stop a training after this number of ranges of steps."""

    def __init__(self, ranges: int) -> None:
        self.left = ranges

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def train_in_pieces(dataset, folder, ranges, **options):
    """Train; interrupt after every few ranges and resume, until it is done."""
    resume, pieces = False, 0
    while True:
        pieces += 1
        assert pieces < 200
        try:
            result = train(
                dataset,
                checkpoint=folder,
                resume=resume,
                should_stop=StopAfter(ranges),
                **options,
            )
        except TrainingInterrupted:
            resume = True
        else:
            return result, pieces


@pytest.mark.parametrize("name", BACKEND_NAMES)
@pytest.mark.parametrize(
    "extra",
    [
        {"dropout": 0.3},
        {"hflip": True, "patience": 2},
        {"distillation": DISTILLED},
        {"distillation": replace(DISTILLED, teacher=PHOTOS), "augment": "photos"},
    ],
)
def test_resume_between_any_steps_is_byte_identical(
    small_dataset, tmp_path, monkeypatch, name, extra
):
    if unavailable_reason(name):
        pytest.skip(str(unavailable_reason(name)))
    monkeypatch.setattr(
        sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0
    )  # ranges of one step
    options = {**FAST, "backend": name, **extra}
    clothes = replace(small_dataset, class_names=CLASS_NAMES)  # required by augment="photos"
    whole = train(clothes, **options)
    result, pieces = train_in_pieces(clothes, tmp_path / "run", 7, **options)
    assert pieces > 4
    assert result.model.to_bytes() == whole.model.to_bytes()
    ours, theirs = (
        [replace(r, seconds=0, samples_per_second=0) for r in x.history] for x in (result, whole)
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "name", [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
)
@pytest.mark.parametrize("extra", [{"hflip": True}, {"augment": "photos"}])
def test_resume_with_given_teacher_is_byte_identical(
    small_dataset, tmp_path, monkeypatch, name, extra
):
    """The teacher computes with the backend of the run, not with the one it was loaded with."""
    monkeypatch.setattr(sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0)
    clothes = replace(small_dataset, class_names=CLASS_NAMES)
    how = {"epochs": 2, "hidden": (24,), "threads": 1, "augment": extra.get("augment")}
    teacher = Ensemble(tuple(train(clothes, seed=seed, **how).model for seed in (1, 2)))
    teacher.save(tmp_path / "teacher.safetensors")
    options = {**FAST, "backend": name, **extra}
    whole = train(clothes, teacher=teacher, **options)
    again = load_model(tmp_path / "teacher.safetensors", "numpy", 1)
    result, pieces = train_in_pieces(clothes, tmp_path / "run", 7, teacher=again, **options)
    assert pieces > 4
    assert result.model.to_bytes() == whole.model.to_bytes()


@pytest.mark.parametrize(
    ("preset", "min_kills"),
    [
        (["--epochs", "60"], 20),
        pytest.param(["--preset", "best", "--epochs", "60"], 8, marks=pytest.mark.slow),
        pytest.param(
            ["--epochs", "60", "--teacher", "teacher.safetensors"], 8, marks=pytest.mark.slow
        ),
    ],
)
def test_resume_after_kills_is_byte_identical(
    small_dataset, tmp_path, monkeypatch, preset, min_kills
):
    """SIGKILL, from before the first step to after the last."""
    monkeypatch.chdir(tmp_path)
    rows = 2000 if preset[0] == "--epochs" else 300
    x_train = np.concatenate([small_dataset.x_train] * 4)[:rows]
    y_train = np.concatenate([small_dataset.y_train] * 4)[:rows]
    npz = tmp_path / "small.npz"
    np.savez(
        npz,
        x_train=x_train,
        y_train=y_train,
        x_test=small_dataset.x_test,
        y_test=small_dataset.y_test,
    )
    train(load_dataset(npz), **FAST).model.save("teacher.safetensors")
    begin = [*COMMAND, "--dataset", str(npz), *preset, "--threads", "1", "--quiet"]
    start = time.perf_counter()
    out = tmp_path / "whole.safetensors"
    subprocess.run([*begin, "--out", str(out)], check=True, capture_output=True)
    duration, expected = time.perf_counter() - start, out.read_bytes()

    draws, kills, runs = random.Random(0), 0, 0
    while kills < min_kills:
        runs += 1
        folder, out = tmp_path / f"run-{runs}", tmp_path / f"{runs}.safetensors"
        while not out.exists():
            arguments = (
                [*COMMAND, "--resume", str(folder), "--threads", "1", "--quiet"]
                if (folder / "run.json").exists()
                else [*begin, "--checkpoint", str(folder), "--out", str(out)]
            )
            process = subprocess.Popen(
                [*arguments, "--checkpoint-every", "1"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                _, err = process.communicate(timeout=draws.uniform(0.2, 1.1) * duration)
                assert process.returncode == 0, err
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
        assert out.read_bytes() == expected
        assert load_model(out).training["epochs"] == 60
    print(f"{kills} kills in {runs} runs")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_train_command_signals_save_resumable_checkpoint(small_npz, tmp_path, number):
    """Also without --checkpoint."""
    out = tmp_path / "model.safetensors"
    # The lines of so many epochs fill the pipe: training cannot end before the signal.
    arguments = ["--dataset", str(small_npz), "--epochs", "1500", "--hidden", "8", "--threads", "1"]
    whole = tmp_path / "whole.safetensors"
    subprocess.run([*COMMAND, *arguments, "--out", str(whole), "--quiet"], check=True)
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while not process.stdout.readline().startswith("    1  "):
        assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert err.count("\n") == 1
    assert load_model(tmp_path / "model.unfinished.safetensors").training["epochs"] == 1500
    assert "resume with 'fmnist-fast train --resume " in err
    folder = err.rstrip().rstrip("'").rpartition("--resume ")[2]
    assert not out.exists()
    subprocess.run([*COMMAND, "--resume", folder, "--quiet"], check=True, capture_output=True)
    assert out.read_bytes() == whole.read_bytes()
