"""Learning from a model that is given: what is asked of the student, and who may teach it."""

import json
import os
import warnings
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from fmnist_fast import Ensemble, load_dataset, load_model, train
from fmnist_fast.cli.main import main
from fmnist_fast.data.augment import hflip
from fmnist_fast.data.fashion_mnist import CLASS_NAMES
from fmnist_fast.errors import ArgumentError
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.calibration import apply_temperature
from fmnist_fast.nn.labels import mix_targets, smooth_labels
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.distillation import Teachers, teacher_id
from fmnist_fast.training.presets import PRESETS, preset
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config

FAST = {"epochs": 2, "hidden": (16,), "threads": 1}
BACKENDS = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


def same(ours, theirs):
    return all(np.array_equal(a, b) for pair in zip(ours, theirs) for a, b in zip(*pair))


@pytest.fixture(scope="module")
def teacher(small_dataset) -> Ensemble:
    """Two models of unlike calibration."""
    options = {"epochs": 3, "hidden": (24,), "threads": 1, "backend": "numpy"}
    one, two = (train(small_dataset, seed=seed, **options).model for seed in (10, 11))
    return Ensemble((replace(one, temperature=1.4), replace(two, temperature=0.7)))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_student_is_asked_for_what_its_teacher_answers(small_dataset, teacher, name):
    """Blended by hand, the bytes are the same."""
    options = {"hidden": (16,), "epochs": 2, "hflip": True, "seed": 5}
    student = train(small_dataset, teacher=teacher, backend=name, threads=1, **options)
    x = hflip(small_dataset.x_train)
    teachers = Teachers.from_model(teacher, Distillation(""), name, 1)
    said_nk = sum(apply_temperature(n.predict_proba(x), 2.0) / 2 for n in teachers.networks)
    asked_nk = smooth_labels(small_dataset.y_train.astype(np.int32), 10, 0.05, "float32")
    expected_nk = mix_targets(said_nk, np.concatenate([asked_nk, asked_nk]), 0.7)
    config = TrainingConfig(**options).with_teacher(teacher_id(teacher))
    run = TrainingRun(
        small_dataset, resolve_config(config, small_dataset), name, 1, teachers=teachers
    )
    np.testing.assert_array_equal(run.train_set.data.targets_n, expected_nk)
    run.train(Progress(), lambda: False)
    assert same(run.best_network().params, student.model.network.params)


def test_at_temperature_1_a_teacher_says_what_it_answers(small_dataset, teacher):
    for one in (teacher, teacher.members[0]):
        said_nk = Teachers.from_model(
            one, Distillation("", temperature=1.0), "numpy", 1
        ).predict_soft(small_dataset.x_test)
        np.testing.assert_allclose(said_nk, one.predict_proba(small_dataset.x_test), atol=1e-6)


def test_teachers_kept_and_given_teach_as_those_trained_first(small_dataset):
    """So few rows are held back that they are not calibrated."""
    taught_by = Distillation(
        TrainingConfig(hidden=(24,), epochs=2), n_teachers=2, temperature=3.0, alpha=0.6
    )
    options = {**FAST, "seed": 3}
    first = train(small_dataset, distillation=taught_by, **options).model
    kept = Ensemble(
        tuple(
            train(small_dataset, **{**FAST, "hidden": (24,), "seed": seed}).model for seed in (6, 7)
        )
    )
    given = train(small_dataset, distillation=taught_by, teacher=kept, **options).model
    assert same(given.network.params, first.network.params)
    alone = train(small_dataset, **options).model
    assert not same(given.network.params, alone.network.params)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_the_same_bits_for_any_number_of_threads(small_dataset, teacher, backend):
    options = {"hidden": (130, 20), "epochs": 2, "hflip": True, "backend": backend}
    one, three = (
        train(small_dataset, teacher=teacher, threads=threads, **options) for threads in (1, 3)
    )
    assert one.model.to_bytes() == three.model.to_bytes()


def test_the_model_says_who_taught_it(small_dataset, teacher, tmp_path):
    student = train(small_dataset, teacher=teacher, **FAST).model
    teacher.save(tmp_path / "t.safetensors")
    digest = sha256((tmp_path / "t.safetensors").read_bytes()).hexdigest()
    assert student.training["distillation"] == {
        "teacher": f"sha256:{digest}",
        "n_teachers": 1,
        "temperature": 2.0,
        "alpha": 0.7,
    }
    student.save(tmp_path / "s.safetensors")
    assert load_model(tmp_path / "s.safetensors").training == student.training


def test_it_takes_the_place_of_a_presets_teachers(small_dataset, teacher):
    name = teacher_id(teacher)
    for key, how in (("best", (2.0, 0.7)), ("wide", (1.0, 0.8)), ("fast", (2.0, 0.7))):
        config = preset(key).with_teacher(name)
        assert config.difference(PRESETS[key]) == "distillation"
        assert config.distillation == Distillation(name, 1, *how)
        assert config.external_teacher == name
        assert config.with_teacher(name) == config
        assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert preset("best").external_teacher is preset("fast").external_teacher is None

    class Nobody(Progress):
        def teacher(self, number, of):
            pytest.fail("a teacher is trained")

    options = {**FAST, "progress": Nobody()}
    result = train(small_dataset, preset="best", teacher=teacher, **options)
    assert result.config.external_teacher == name


def test_a_student_hears_what_is_said_of_every_epochs_images(small_dataset):
    clothes = replace(small_dataset, class_names=CLASS_NAMES)
    teacher = train(clothes, augment="photos", **FAST).model
    how = Distillation(teacher_id(teacher), 1)
    config = resolve_config(
        TrainingConfig(augment="photos", distillation=how, hidden=(16,), epochs=2), clothes
    )
    run = TrainingRun(
        clothes, config, "numpy", 1, teachers=Teachers.from_model(teacher, how, "numpy", 1)
    )
    asked_nk, heard = run.train_set.label_targets_n, []

    class Listening(Progress):
        def epoch(self, record):
            rows_n, networks = run.train_set.rows_n, run.train_set.teachers.networks
            said_nk = apply_temperature(networks[0].predict_proba(run.train_set.data.x_ni), 2.0)
            expected_nk = mix_targets(said_nk, asked_nk, 0.7)
            assert np.array_equal(run.train_set.data.targets_n[rows_n], expected_nk[rows_n])
            heard.append(expected_nk)

    run.train(Listening(), lambda: False)
    assert not np.array_equal(*heard)
    by_train = train(clothes, augment="photos", teacher=teacher, backend="numpy", **FAST).model
    assert same(by_train.network.params, run.best_network().params)


def test_a_time_budget_is_the_students_alone(small_dataset, teacher):
    result = train(small_dataset, teacher=teacher, hidden=(16,), time_budget=0.6, threads=1)
    assert result.seconds == pytest.approx(0.6, abs=0.1)
    assert len(result.history) > 2


def with_training(model, **changes):
    return replace(model, training={**model.training, **changes})


def test_what_makes_figures_doubtful_is_said(small_dataset, teacher):
    member = teacher.members[0]

    def warned(one, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(small_dataset, teacher=one, **{**FAST, **options})
        return [str(warning.message) for warning in caught]

    assert warned(teacher) == []
    strange = replace(member, dataset_name="mine", dataset_checksum="1" * 64)
    assert warned(strange) == ["the teacher was trained on another data set (mine)"]
    said = "the teacher was trained on {} of the {} validation rows: validation accuracy and"
    assert warned(with_training(member, validation=0))[0].startswith(said.format(50, 50))
    assert warned(Ensemble((member, with_training(member, validation=20))))[0].startswith(
        said.format(30, 50)
    )
    assert warned(member, validation=80)[0].startswith(said.format(30, 80))
    assert warned(member, validation=0) == warned(member, validation=30) == []
    assert warned(replace(member, training={})) == []
    assert warned(with_training(member, augment="photos"))[0].startswith(
        "the teacher was trained with augment 'photos', and the student is trained with None"
    )


def test_a_teacher_that_held_back_as_many_rows_has_seen_none_of_them():
    """What the warning relies on."""
    from fmnist_fast.training.train_data import split

    learned, _ = split(600, 50)
    for validation in (20, 50):
        assert not set(split(600, validation)[1]) & set(learned)
    assert len(set(split(600, 80)[1]) & set(learned)) == 30


def test_who_cannot_teach_is_refused(small_dataset, teacher):
    flat = replace(
        small_dataset,
        x_train=small_dataset.x_train[:, :20],
        x_test=small_dataset.x_test[:, :20],
        checksum="2" * 64,
    )
    with pytest.raises(ArgumentError, match="has 784 inputs and 10 classes; small has 560"):
        train(flat, teacher=teacher, **FAST)
    more = replace(small_dataset, class_names=tuple("abcdefghijk"), checksum="2" * 64)
    with pytest.raises(ArgumentError, match="10 classes; small has 784 and 11"):
        train(more, teacher=teacher, **FAST)
    with pytest.raises(ArgumentError, match=r"teacher is 'x\.safetensors': give a model"):
        train(small_dataset, teacher="x.safetensors", **FAST)
    with pytest.raises(ArgumentError, match=r"'best': give a TrainingConfig, or a trained model"):
        train(small_dataset, distillation=Distillation("best"), **FAST)
    name = teacher_id(teacher)
    with pytest.raises(ArgumentError, match=r"sha256:\w{8}\.\.\., must be given"):
        train(small_dataset, distillation=Distillation(name), **FAST)


# The command line.

COMMAND = ["--epochs", "2", "--hidden", "8", "--threads", "1", "--quiet"]


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


def test_the_command_gives_the_bytes_of_the_function(run, small_npz):
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


def test_people_see_which_teacher_it_is(run, small_npz, capsys):
    arguments = [argument for argument in COMMAND if argument != "--quiet"]
    command = ["train", "--dataset", str(small_npz), *arguments]
    assert main([*command, "--teacher", "teacher.safetensors"]) == 0
    digest = sha256(Path("teacher.safetensors").read_bytes()).hexdigest()
    assert capsys.readouterr().out.splitlines()[2] == f"taught by sha256:{digest}"


def test_a_run_finds_its_teacher_again(run, tmp_path, monkeypatch, capsys):
    """From another folder; and where it was moved, once that is said."""
    taught = ["--teacher", "teacher.safetensors"]
    assert run(*taught, "--checkpoint", "run", "--out", "a.safetensors")[0] == 0
    work, first = Path.cwd(), Path("a.safetensors").read_bytes()

    def go_on(*arguments):
        code = main(["train", "--resume", str(work / "run"), "--quiet", *map(str, arguments)])
        return code, capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    (work / "a.safetensors").unlink()
    assert go_on() == (0, "")
    assert (work / "a.safetensors").read_bytes() == first
    os.rename(work / "teacher.safetensors", "moved.safetensors")
    code, err = go_on()
    assert code == 2
    assert err == (
        f"fmnist-fast: there is no teacher {work / 'teacher.safetensors'}: "
        "say with --teacher where it is\n"
    )
    assert go_on("--teacher", "moved.safetensors") == (0, "")
    code, err = go_on("--teacher", work / "a.safetensors", "--out", "b.safetensors")
    assert code == 2
    assert "has the teacher sha256:" in err
    assert "give the same one" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "missing"], "there is no teacher missing: say with --teacher where it is"),
        (["--teacher", "."], "'.' is a directory"),
        (["--teacher", "thesis"], "thesis is damaged or not a safetensors file"),
        (["--teacher", "teacher.safetensors", "--out", "teacher.safetensors"], "is also another"),
        (["--teacher", "five.safetensors"], "the teacher has 5 inputs and 10 classes"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, small_dataset, arguments, message):
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


def test_a_teacher_of_another_data_set_is_a_warning(run, teacher):
    teacher.save("other.safetensors")
    code, _, err = run("--teacher", "other.safetensors")
    assert code == 0
    assert err == "fmnist-fast: warning: the teacher was trained on another data set (small)\n"
