"""Runs that survive: killed anywhere and gone on with, they end with the same bytes."""

import json
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
from fmnist_fast.errors import CheckpointError
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.training.checkpoint import CheckpointFolder, Checkpoints, Snapshot
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.trainer import TrainingInterrupted

FAST = {"epochs": 4, "hidden": (16,), "threads": 1}
TAUGHT = Distillation(TrainingConfig(hidden=(24,), epochs=2), n_teachers=2)
PHOTOS = replace(TAUGHT.teacher, augment="photos")


class StopAfter:
    """Stops a training after so many of its ranges of steps."""

    def __init__(self, ranges: int) -> None:
        self.left = ranges

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def trained_in_pieces(dataset, folder, ranges, **options):
    """Interrupted after every few ranges, and gone on with, until it is done."""
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
        {"distillation": TAUGHT},
        {"distillation": replace(TAUGHT, teacher=PHOTOS), "augment": "photos"},
    ],
)
def test_interrupted_between_any_two_steps_it_ends_with_the_same_bytes(
    small_dataset, tmp_path, monkeypatch, name, extra
):
    if unavailable_reason(name):
        pytest.skip(str(unavailable_reason(name)))
    monkeypatch.setattr(
        sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0
    )  # ranges of one step
    options = {**FAST, "backend": name, **extra}
    clothes = replace(small_dataset, class_names=CLASS_NAMES)  # which imitations must know
    whole = train(clothes, **options)
    result, pieces = trained_in_pieces(clothes, tmp_path / "run", 7, **options)
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
def test_taught_by_a_model_that_is_given_it_ends_with_the_same_bytes(
    small_dataset, tmp_path, monkeypatch, name, extra
):
    """Whatever backend the teacher was loaded with, it computes with the run's."""
    monkeypatch.setattr(sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0)
    clothes = replace(small_dataset, class_names=CLASS_NAMES)
    how = {"epochs": 2, "hidden": (24,), "threads": 1, "augment": extra.get("augment")}
    teacher = Ensemble(tuple(train(clothes, seed=seed, **how).model for seed in (1, 2)))
    teacher.save(tmp_path / "teacher.safetensors")
    options = {**FAST, "backend": name, **extra}
    whole = train(clothes, teacher=teacher, **options)
    again = load_model(tmp_path / "teacher.safetensors", "numpy", 1)
    result, pieces = trained_in_pieces(clothes, tmp_path / "run", 7, teacher=again, **options)
    assert pieces > 4
    assert result.model.to_bytes() == whole.model.to_bytes()


def test_another_teacher_is_refused(small_dataset, tmp_path):
    one, other = (train(small_dataset, seed=seed, **FAST).model for seed in (1, 2))
    taught, alone = tmp_path / "taught", tmp_path / "alone"
    first = train(small_dataset, checkpoint=taught, teacher=one, **FAST)
    train(small_dataset, checkpoint=alone, **FAST)

    def go_on(folder, **options):
        return train(small_dataset, checkpoint=folder, resume=True, **options)

    with pytest.raises(CheckpointError, match=r"has the teacher sha256:.*, not sha256:"):
        go_on(taught, teacher=other)
    with pytest.raises(CheckpointError, match=r"has the teacher .*: give it again"):
        go_on(taught)
    with pytest.raises(CheckpointError, match="has no external teacher: resume it without"):
        go_on(alone, teacher=one)
    with pytest.raises(CheckpointError, match=r"has hidden \[16\]"):
        go_on(taught, teacher=one, hidden=(17,))
    assert go_on(taught, teacher=one, **FAST).model.to_bytes() == first.model.to_bytes()


def test_a_finished_run_gives_its_model_again(small_dataset, tmp_path):
    first = train(small_dataset, checkpoint=tmp_path / "run", **FAST)
    again = train(small_dataset, checkpoint=tmp_path / "run", resume=True)
    assert again.model.to_bytes() == first.model.to_bytes()


def test_the_last_two_are_kept_and_a_damaged_one_is_passed_over(small_dataset, tmp_path):
    folder = tmp_path / "run"
    first = train(small_dataset, checkpoint=folder, checkpoint_every=1, **FAST)
    kept = sorted(folder.glob("step-*"))
    assert [int(path.name[5:14]) for path in kept] == [27, 36]  # 9 batches an epoch
    content = bytearray(kept[-1].read_bytes())
    content[-100] ^= 1
    kept[-1].write_bytes(content)
    with pytest.warns(UserWarning, match=r"is damaged: resuming from the one before"):
        again = train(small_dataset, checkpoint=folder, resume=True)
    assert again.model.to_bytes() == first.model.to_bytes()


def test_without_any_whole_state_it_begins_again(small_dataset, tmp_path):
    folder = tmp_path / "run"
    first = train(small_dataset, checkpoint=folder, **FAST)
    for path in folder.glob("step-*"):
        path.unlink()
    assert train(small_dataset, checkpoint=folder, resume=True).model.to_bytes() == (
        first.model.to_bytes()
    )


def test_what_differs_is_refused_with_a_reason(small_dataset, tmp_path):
    folder = tmp_path / "run"
    weight = np.ones(600)
    weight[:300] = 2
    train(small_dataset, checkpoint=folder, backend="numpy", sample_weight=weight, **FAST)

    def go_on(dataset=small_dataset, **options):
        return train(dataset, checkpoint=folder, resume=True, **options)

    with pytest.raises(CheckpointError, match=r"has hidden \[16\]: resume it without another"):
        go_on(hidden=(17,))
    with pytest.raises(CheckpointError, match="has hidden"):
        go_on(preset="wide")
    with pytest.raises(CheckpointError, match="is of the data set small, not of this one"):
        go_on(replace(small_dataset, checksum="1" * 64))
    with pytest.raises(CheckpointError, match="made with other labels or weights"):
        go_on()
    with pytest.raises(CheckpointError, match="already has checkpoints: resume from them"):
        train(small_dataset, checkpoint=folder, **FAST)
    go_on(hidden=(16,), epochs=4, sample_weight=weight)


def test_another_backend_must_be_asked_for_by_name(small_dataset, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(small_dataset, checkpoint=folder, backend="numpy", **FAST)
    identity = json.loads((folder / "run.json").read_text())
    for change in ({"backend": "cuda"}, {"instruction_set": "neon"}, {"fmnist_fast": "0.0.1"}):
        (folder / "run.json").write_text(json.dumps({**identity, **change}))
        with pytest.raises(CheckpointError, match="pass --backend"):
            train(small_dataset, checkpoint=folder, resume=True)
        train(small_dataset, checkpoint=folder, resume=True, backend="numpy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no checkpoints to resume from: write some with --checkpoint"),
        ("{", "run.json is damaged"),
        ("[]", "run.json is damaged"),
        ('{"format_version": 99}', "has checkpoints of format 99"),
    ],
)
def test_a_folder_without_a_run(small_dataset, tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        train(small_dataset, checkpoint=tmp_path, resume=True)


def test_a_folder_of_other_files_is_left_alone(small_dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis.tex is not a folder"):
        train(small_dataset, checkpoint=tmp_path / "thesis.tex", **FAST)
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis.tex\)"):
        train(small_dataset, checkpoint=tmp_path, **FAST)


def test_a_second_run_in_one_folder_is_refused(small_dataset, tmp_path):
    class Second(Progress):
        def begin(self, *_):
            with pytest.raises(CheckpointError, match="another process is writing to"):
                train(small_dataset, checkpoint=tmp_path / "run", resume=True)

    train(small_dataset, checkpoint=tmp_path / "run", progress=Second(), **FAST)
    train(small_dataset, checkpoint=tmp_path / "run", resume=True)  # it let go


def test_a_full_disk_costs_neither_the_training_nor_what_was_saved(
    small_dataset, tmp_path, monkeypatch
):
    import fmnist_fast.training.checkpoint as checkpoint

    true_write, folder = checkpoint.write_atomically, tmp_path / "run"
    whole = train(small_dataset, **FAST)

    def write(path, content):
        if path.name.startswith("step-") and int(path.name[5:14]) > 18:
            raise OSError(28, "No space left on device")
        true_write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", write)
    with pytest.warns(UserWarning, match="No space left on device; training continues"):
        result = train(small_dataset, checkpoint=folder, checkpoint_every=1, **FAST)
    assert result.model.to_bytes() == whole.model.to_bytes()
    assert [int(path.name[5:14]) for path in sorted(folder.glob("step-*"))] == [9, 18]
    monkeypatch.undo()
    again = train(small_dataset, checkpoint=folder, resume=True)
    assert again.model.to_bytes() == whole.model.to_bytes()


def test_what_is_written_comes_back(tmp_path):
    folder = CheckpointFolder.create(tmp_path / "run", {"config": {}}, None)
    states = folder.checkpoints()
    assert states.latest() is None
    tensors = {"a": np.arange(6.0).reshape(2, 3)[:, ::-1], "b": np.array([np.nan], np.float32)}
    assert states.save(Snapshot(7, tensors, {"x": [1, 0.1, None]}))
    step, back, metadata = states.latest()
    assert (step, metadata) == (7, {"x": [1, 0.1, None]})
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
    folder.close()


def test_how_often_by_itself(tmp_path, monkeypatch):
    import fmnist_fast.training.checkpoint as checkpoint

    now = [100.0]
    monkeypatch.setattr(checkpoint, "perf_counter", lambda: now[0])
    states = Checkpoints(tmp_path, None)
    assert not states.due(1)
    now[0] += 1.1
    assert states.due(1)
    assert states.due(None)

    def slow(path, content):
        now[0] += 0.5

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    states.save(Snapshot(1, {"a": np.zeros(1)}, {}))
    now[0] += 9.9  # half a second is a twentieth of ten
    assert not states.due(1)
    now[0] += 0.2
    assert states.due(1)
    every_third = Checkpoints(tmp_path, 3)
    assert [every_third.due(epoch) for epoch in (1, 2, 3, None)] == [False, False, True, False]


COMMAND = [sys.executable, "-m", "fmnist_fast", "train"]


@pytest.mark.parametrize(
    ("preset", "least"),
    [
        (["--epochs", "60"], 20),
        pytest.param(["--preset", "best", "--epochs", "60"], 8, marks=pytest.mark.slow),
        pytest.param(
            ["--epochs", "60", "--teacher", "teacher.safetensors"], 8, marks=pytest.mark.slow
        ),
    ],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    small_dataset, tmp_path, monkeypatch, preset, least
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
    while kills < least:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_say_how_to_go_on(small_npz, tmp_path, number):
    """Also without --checkpoint."""
    out = tmp_path / "model.safetensors"
    arguments = ["--dataset", str(small_npz), "--epochs", "400", "--hidden", "8", "--threads", "1"]
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
    assert load_model(tmp_path / "model.unfinished.safetensors").training["epochs"] == 400
    assert "go on with 'fmnist-fast train --resume " in err
    folder = err.rstrip().rstrip("'").rpartition("--resume ")[2]
    assert not out.exists()
    subprocess.run([*COMMAND, "--resume", folder, "--quiet"], check=True, capture_output=True)
    assert out.read_bytes() == whole.read_bytes()


def test_every_preset_comes_back_from_json():
    for config in PRESETS.values():
        changed = replace(config, class_weight={3: 2.0, 1: 0.5}, time_budget=1, patience=2)
        for one in (config, changed):
            assert TrainingConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one
            assert one.difference(one) is None
    assert PRESETS["fast"].difference(PRESETS["standard"]) == "epochs"
