"""The command train --teacher."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from messages import assert_one_line

from fmnist_fast import Ensemble, load_dataset, load_model, train
from fmnist_fast.cli.main import main

FAST = {"epochs": 2, "hidden": (16,), "threads": 1}
COMMAND = ["--epochs", "2", "--hidden", "8", "--threads", "1", "--quiet"]


@pytest.fixture(scope="module")
def teacher(small_dataset) -> Ensemble:
    """Two models with different temperatures."""
    options = {"epochs": 3, "hidden": (24,), "threads": 1, "backend": "numpy"}
    one, two = (train(small_dataset, seed=seed, **options).model for seed in (10, 11))
    return Ensemble((replace(one, temperature=1.4), replace(two, temperature=0.7)))


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, small_npz):
    """Runs train --dataset in a folder that has teacher.safetensors."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    train(load_dataset(small_npz), **FAST).model.save("teacher.safetensors")

    def run(*arguments):
        code = main(["train", "--dataset", str(small_npz), *COMMAND, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_train_command_with_teacher_equals_function(run, small_npz):
    for out in ("a.safetensors", "b.safetensors"):
        code, _, err = run("--teacher", "teacher.safetensors", "--out", out)
        assert (code, err) == (0, "")
    expected = train(
        load_dataset(small_npz),
        teacher=load_model("teacher.safetensors"),
        **{**FAST, "hidden": (8,)},
    ).model
    a, b = (Path(name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert a == b == expected.to_bytes()
    assert run("--out", "c.safetensors")[0] == 0
    assert Path("c.safetensors").read_bytes() != a


def test_train_command_names_teacher(run, small_npz, capsys):
    arguments = [argument for argument in COMMAND if argument != "--quiet"]
    command = ["train", "--dataset", str(small_npz), *arguments]
    assert main([*command, "--teacher", "teacher.safetensors"]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "teacher teacher.safetensors"


def test_train_command_resume_finds_teacher(run, tmp_path, monkeypatch, capsys):
    """From another folder, and from a new path that `--teacher` gives."""
    teacher_options = ["--teacher", "teacher.safetensors"]
    assert run(*teacher_options, "--checkpoint", "run", "--out", "a.safetensors")[0] == 0
    work, first = Path.cwd(), Path("a.safetensors").read_bytes()

    def resume(*arguments):
        code = main(["train", "--resume", str(work / "run"), "--quiet", *map(str, arguments)])
        return code, capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    (work / "a.safetensors").unlink()
    assert resume() == (0, "")
    assert (work / "a.safetensors").read_bytes() == first
    os.rename(work / "teacher.safetensors", "moved.safetensors")
    code, err = resume()
    assert code == 2
    assert_one_line(err, f"there is no teacher {work / 'teacher.safetensors'}", "--teacher")
    assert resume("--teacher", "moved.safetensors") == (0, "")
    code, err = resume("--teacher", work / "a.safetensors", "--out", "b.safetensors")
    assert code == 2
    assert "has the teacher sha256:" in err
    assert "give it again (--teacher)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "missing"], "there is no teacher missing"),
        (["--teacher", "."], "'.' is a directory"),
        (["--teacher", "thesis"], "thesis is damaged or not a safetensors file"),
        (["--teacher", "teacher.safetensors", "--out", "teacher.safetensors"], "is also another"),
        (["--teacher", "five.safetensors"], "the teacher has 5 inputs and 10 classes"),
    ],
)
def test_train_command_teacher_errors_are_one_line(run, small_dataset, arguments, message):
    Path("thesis").write_text("years of work")
    five = replace(
        small_dataset,
        x_train=small_dataset.x_train[:, 3, 9:14],
        x_test=small_dataset.x_test[:, 3, 9:14],
    )
    train(five, **FAST).model.save("five.safetensors")
    before = Path("teacher.safetensors").read_bytes()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("fmnist-fast: ")
    assert err.count("\n") == 1
    assert Path("teacher.safetensors").read_bytes() == before
    assert not Path("model.safetensors").exists()


def test_train_command_warns_of_teacher_of_other_data_set(run, teacher):
    teacher.save("other.safetensors")
    code, _, err = run("--teacher", "other.safetensors")
    assert code == 0
    assert err == "fmnist-fast: warning: the teacher was trained on another data set (small)\n"
