"""The command `train` when it is interrupted, diverges, or the disk is full: no model is lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_runs import FAST
from messages import assert_contains, assert_one_line

from fmnist_fast import _files as files
from fmnist_fast import load_model
from fmnist_fast.cli import train as command
from fmnist_fast.kernels import reference


def start_training(folder, npz, *arguments, prefix=()):
    """Start a long training in a process, and wait until its first epoch is printed."""
    command = [*prefix, sys.executable, "-u", "-m", "fmnist_fast", "train", "--dataset", str(npz)]
    process = subprocess.Popen(
        [*command, "--epochs", "100000", "--hidden", "8", "--threads", "1", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not process.stdout.readline().startswith("    1  "):
        assert process.poll() is None, process.stderr.read()
    return process


def test_train_ctrl_c_saves_best_model_beside_target(folder, small_npz, trained):
    before = trained.read_bytes()
    for name in ("model.unfinished.safetensors", "model.unfinished-2.safetensors"):
        process = start_training(folder, small_npz)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in out + err
        assert_contains(err, f"is saved in {name}")
        assert err.count("\n") == 1
        assert load_model(folder / name).metrics["validation_accuracy"] > 0
        assert trained.read_bytes() == before


def test_train_repeated_ctrl_c_does_not_prevent_saving(folder, small_npz):
    process = start_training(folder, small_npz)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert_contains(err, "is saved in model.unfinished.safetensors")
    assert load_model(folder / "model.unfinished.safetensors").metrics["validation_accuracy"] > 0


def test_train_closed_terminal_saves_best_model(folder, small_npz):
    """Without its terminal, the process gets SIGHUP, and printing fails."""
    master, slave = os.openpty()
    terminal = os.ttyname(slave)
    take_terminal = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
    )
    train = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz)]
    process = subprocess.Popen(
        [sys.executable, "-c", take_terminal, terminal, *train, "--epochs", "100000"],
        cwd=folder,
        start_new_session=True,  # whose first terminal is the one that it opens
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    while b"    1  " not in shown:  # the line of the first epoch
        shown += os.read(master, 1024)
    os.close(master)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert load_model(folder / "model.unfinished.safetensors").metrics["validation_accuracy"] > 0
    assert (folder / "model.unfinished" / "run.json").exists()


def test_train_under_nohup_ignores_hangup(folder, small_npz):
    process = start_training(folder, small_npz, prefix=["nohup"])
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_train_ctrl_c_during_save_completes_it(folder, run, small_npz, monkeypatch):
    true_replace = os.replace

    def replace(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        true_replace(*arguments)

    monkeypatch.setattr(files.os, "replace", replace)
    code, out, _ = run("train", "--dataset", small_npz, *FAST, "--quiet")
    assert code == 0
    assert out.startswith("saved model.safetensors")


def test_train_divergence_saves_best_model_beside_target(folder, run, small_npz, monkeypatch):
    true_steps, calls = reference.train_steps, []

    def diverging(*arguments):
        calls.append(arguments)
        losses = true_steps(*arguments)
        return losses if arguments[5] or len(calls) < 5 else losses * np.nan

    monkeypatch.setattr(reference, "train_steps", diverging)
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--epochs", "9", "--quiet")
    assert code == 2
    assert_contains(err, "training diverged at step")
    assert_contains(err, "is saved in model.unfinished.safetensors")
    assert not Path("model.safetensors").exists()


def test_train_full_disk_saves_model_elsewhere(folder, run, small_npz, monkeypatch):
    """A limit on file sizes, lowered after the checks, simulates a full disk."""
    true_write = files.write_atomically

    def write(path, content):
        if path.name == "model.safetensors" and path.parent != folder / "refuge":
            raise OSError(28, "No space left on device")
        true_write(path, content)

    (folder / "refuge").mkdir()
    monkeypatch.setattr(files, "write_atomically", write)
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(folder / "refuge"))
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--quiet")
    assert code == 2
    assert_contains(err, "model.safetensors could not be written; the trained model is saved in")
    assert load_model(folder / "refuge" / "model.safetensors").dataset_name == "small"


def test_train_full_disk_for_metrics_keeps_model(folder, run, small_npz):
    target = Path("/dev/full")
    if not target.exists():
        pytest.skip("this system has no /dev/full")
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--metrics", "m.jsonl")
    assert code == 0
    Path("m.jsonl").unlink()
    Path("m.jsonl").symlink_to(target)
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--metrics", "m.jsonl")
    assert code == 2
    assert_contains(err, "No space left on device; the model is saved in model.safetensors")


def test_train_closed_pipe_does_not_end_training(folder, small_npz):
    command = f"{sys.executable} -m fmnist_fast train --dataset {small_npz} --epochs 30 | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ran.stdout.startswith("784-128-64-10 on small")
    assert ran.stderr == ""
    assert load_model("model.safetensors").training["epochs"] == 30


def test_train_full_disk_for_stdout_keeps_model(folder, small_npz):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz), *FAST]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 2
    assert_one_line(
        ran.stderr,
        "standard output: No space left on device",
        "the model is saved in model.safetensors",
    )
    assert load_model("model.safetensors").dataset_name == "small"


def test_train_keeps_model_created_during_training(
    folder, run, trained, small_npz, tmp_path, monkeypatch
):
    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    before = trained.read_bytes()
    # The file is not there at the first check, before training; the second finds it.
    monkeypatch.setattr(command, "check_replaceable", lambda *_: None)
    code, _, err = run("train", "--dataset", tmp_path / "other.npz", "--quiet", *FAST)
    assert code == 2
    assert_contains(err, "holds a model trained on small")
    assert_contains(err, "is saved in model.unfinished.safetensors")
    assert trained.read_bytes() == before
    assert load_model("model.unfinished.safetensors").dataset_name == "other"
