"""Checkpoints: writing, retention, resuming, and rejected folders."""

import json
from dataclasses import replace

import numpy as np
import pytest
from messages import raises_containing

from fmnist_fast import train
from fmnist_fast.errors import CheckpointError
from fmnist_fast.training.checkpoint import CheckpointFolder, Checkpoints, RunIdentity, Snapshot
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.progress import Progress

FAST = {"epochs": 4, "hidden": (16,), "threads": 1}


def test_resume_rejects_other_teacher(small_dataset, tmp_path):
    one, other = (train(small_dataset, seed=seed, **FAST).model for seed in (1, 2))
    distilled, alone = tmp_path / "distilled", tmp_path / "alone"
    first = train(small_dataset, checkpoint=distilled, teacher=one, **FAST)
    train(small_dataset, checkpoint=alone, **FAST)

    def resume(folder, **options):
        return train(small_dataset, checkpoint=folder, resume=True, **options)

    with pytest.raises(CheckpointError, match=r"has the teacher sha256:.*: give it again"):
        resume(distilled, teacher=other)
    with pytest.raises(CheckpointError, match=r"has the teacher .*: give it again"):
        resume(distilled)
    with pytest.raises(CheckpointError, match="has no external teacher: resume it without"):
        resume(alone, teacher=one)
    with pytest.raises(CheckpointError, match=r"has hidden \[16\]"):
        resume(distilled, teacher=one, hidden=(17,))
    assert resume(distilled, teacher=one, **FAST).model.to_bytes() == first.model.to_bytes()


def test_resume_after_end_gives_same_model(small_dataset, tmp_path):
    first = train(small_dataset, checkpoint=tmp_path / "run", **FAST)
    again = train(small_dataset, checkpoint=tmp_path / "run", resume=True)
    assert again.model.to_bytes() == first.model.to_bytes()


def test_checkpoints_keep_last_two_and_skip_damaged_one(small_dataset, tmp_path):
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


def test_resume_without_snapshot_restarts(small_dataset, tmp_path):
    folder = tmp_path / "run"
    first = train(small_dataset, checkpoint=folder, **FAST)
    for path in folder.glob("step-*"):
        path.unlink()
    assert train(small_dataset, checkpoint=folder, resume=True).model.to_bytes() == (
        first.model.to_bytes()
    )


def test_resume_rejects_changed_config(small_dataset, tmp_path):
    folder = tmp_path / "run"
    weight = np.ones(600)
    weight[:300] = 2
    train(small_dataset, checkpoint=folder, backend="numpy", sample_weight=weight, **FAST)

    def resume(dataset=small_dataset, **options):
        return train(dataset, checkpoint=folder, resume=True, **options)

    with pytest.raises(CheckpointError, match=r"has hidden \[16\]: resume it without another"):
        resume(hidden=(17,))
    with pytest.raises(CheckpointError, match="has hidden"):
        resume(preset="wide")
    with pytest.raises(CheckpointError, match="is of the data set small, not of this one"):
        resume(replace(small_dataset, checksum="1" * 64))
    with pytest.raises(CheckpointError, match="made with other labels or weights"):
        resume()
    with pytest.raises(CheckpointError, match="already has checkpoints: resume from them"):
        train(small_dataset, checkpoint=folder, **FAST)
    resume(hidden=(16,), epochs=4, sample_weight=weight)


def test_resume_on_other_backend_requires_its_name(small_dataset, tmp_path, monkeypatch):
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
def test_resume_rejects_folder_without_checkpoints(small_dataset, tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        train(small_dataset, checkpoint=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("keys", "value", "part"),
    [
        (["backend"], None, "its backend is None"),
        (["threads"], "two", "threads is 'two'"),
        (["dataset"], [], "damaged"),
        (["dataset", "checksum"], 5, "its checksum is 5"),
        (["metadata"], "x", "damaged"),
        (["config"], {"epoch": 3}, "damaged"),
        (["config", "hidden"], None, "hidden is None"),
        (["config", "epochs"], "many", "epochs is 'many': give an integer"),
        (["config", "lr"], -1.0, "lr is -1.0"),
        (["config", "class_weight"], [1], "damaged"),
        (["config", "distillation"], {"alpha": 1}, "damaged"),
    ],
)
def test_resume_names_damaged_entry_of_run(small_dataset, tmp_path, keys, value, part):
    folder = tmp_path / "run"
    train(small_dataset, checkpoint=folder, **FAST)
    identity = json.loads((folder / "run.json").read_text())
    entry = identity
    for key in keys[:-1]:
        entry = entry[key]
    entry[keys[-1]] = value
    (folder / "run.json").write_text(json.dumps(identity))
    with raises_containing(CheckpointError, "run.json is damaged", part, "train anew"):
        train(small_dataset, checkpoint=folder, resume=True)
    del entry[keys[-1]]
    (folder / "run.json").write_text(json.dumps(identity))
    if keys[0] != "config" or len(keys) == 1:
        with raises_containing(CheckpointError, f"it has no {keys[-1]!r}"):
            train(small_dataset, checkpoint=folder, resume=True)


def test_checkpoint_rejects_folder_of_other_files(small_dataset, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"thesis.tex is not a folder"):
        train(small_dataset, checkpoint=tmp_path / "thesis.tex", **FAST)
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis.tex\)"):
        train(small_dataset, checkpoint=tmp_path, **FAST)


def test_checkpoint_folder_is_locked(small_dataset, tmp_path):
    class Second(Progress):
        def begin(self, *_):
            with pytest.raises(CheckpointError, match="another process is writing to"):
                train(small_dataset, checkpoint=tmp_path / "run", resume=True)

    train(small_dataset, checkpoint=tmp_path / "run", progress=Second(), **FAST)
    train(small_dataset, checkpoint=tmp_path / "run", resume=True)  # it let go


def test_checkpoint_full_disk_does_not_stop_training(small_dataset, tmp_path, monkeypatch):
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


def test_snapshot_round_trip(tmp_path):
    identity = RunIdentity(TrainingConfig(), {}, "numpy", None, "0", None, {})
    folder = CheckpointFolder.create(tmp_path / "run", identity, None)
    states = folder.checkpoints()
    assert states.latest() is None
    tensors = {"a": np.arange(6.0).reshape(2, 3)[:, ::-1], "b": np.array([np.nan], np.float32)}
    assert states.save(Snapshot(7, tensors, {"x": [1, 0.1, None]}))
    step, back, metadata = states.latest()
    assert (step, metadata) == (7, {"x": [1, 0.1, None]})
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
    folder.close()


def test_checkpoint_is_due_by_time_and_by_epochs(tmp_path, monkeypatch):
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
