"""The command line as people meet it: what it prints, its exit codes, and what it never loses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import Ensemble, load_model
from fmnist_fast.cli.main import main

FAST = ["--epochs", "1", "--hidden", "8", "--threads", "1", "--backend", "numpy"]


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


def save_image(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_train_tells_people_how_it_goes(folder, run, small_npz):
    code, out, err = run("train", "--dataset", small_npz, *FAST, "--epochs", "3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "784-8-10 on small: 550 rows to train on, 50 to validate, 200 to test"
    assert lines[1].startswith("backend numpy, threads 1, batch 64, onecycle to 0.002, l2 0, ")
    assert lines[2].split("  ")[0] == "epoch"
    assert [line.split()[0] for line in lines[3:6]] == ["1", "2", "3"]
    assert len(lines[2]) == len(lines[3])
    assert lines[-1].startswith("saved model.safetensors: trained on small, test accuracy ")
    assert (folder / "model.safetensors").is_file()


def test_train_json_is_one_object_and_nothing_else(folder, run, small_npz):
    code, out, err = run("train", "--dataset", small_npz, *FAST, "--epochs", "2", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["backend"] == "numpy"
    assert result["dataset"] == "small"
    assert result["epochs"] == 2
    assert result["seed"] == 0
    assert result["threads"] == 1
    assert result["model"] == "model.safetensors"
    for name in ("seconds_per_epoch", "train_loss", "validation_accuracy"):
        assert len(result[name]) == 2
    model = load_model("model.safetensors")
    assert model.metrics["test_accuracy"] == result["test_accuracy"]
    assert "epoch" in err  # people still see how it goes


def test_quiet_prints_the_last_line_only(folder, run, small_npz):
    _, out, err = run("train", "--dataset", small_npz, *FAST, "--quiet")
    assert out.count("\n") == 1
    assert err == ""
    _, out, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--json")
    assert err == ""
    json.loads(out)


def test_the_same_command_writes_the_same_bytes_wherever_it_runs(tmp_path, small_npz):
    contents = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz), *FAST]
        subprocess.run([*command, "--out", f"{name}.st"], cwd=tmp_path / name, check=True)
        contents.append((tmp_path / name / f"{name}.st").read_bytes())
    assert contents[0] == contents[1]


def test_metrics_are_json_lines_from_start_to_end(folder, run, small_npz):
    for _ in range(2):
        run("train", "--dataset", small_npz, *FAST, "--epochs", "2", "--metrics", "m.jsonl")
    lines = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "epoch", "epoch", "end"] * 2
    assert lines[0]["dataset"] == lines[3]["dataset"] == "small"
    assert 0 < lines[3]["test_accuracy"] < 1


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plots(folder, run, small_npz, trained, suffix):
    assert run("train", "--dataset", small_npz, *FAST, "--plot", f"c.{suffix}")[0] == 0
    assert run("evaluate", trained, "--dataset", small_npz, "--plot", f"m.{suffix}")[0] == 0
    assert Path(f"c.{suffix}").stat().st_size > 1000
    assert Path(f"m.{suffix}").stat().st_size > 1000


def test_evaluate_prints_every_class_and_json_has_every_figure(run, trained, small_npz):
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


def test_evaluate_on_another_set_says_so(run, trained, small_npz, tmp_path):
    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    code, out, err = run("evaluate", trained, "--dataset", tmp_path / "other.npz", "--json")
    assert code == 0
    assert json.loads(out)["dataset"] == "other"
    assert err == "fmnist-fast: warning: the model was trained on another data set (small)\n"


def test_predict_keeps_the_order_and_reports_what_it_cannot_read(run, trained, small_dataset):
    good = save_image(trained.parent / "good.png", small_dataset.x_test[0])
    bad = trained.parent / "bad.png"
    bad.write_text("not an image")
    code, out, _ = run("predict", "--model", trained, "--json", good, bad, "missing.png", good)
    answers = json.loads(out)
    assert code == 1
    assert [answer["path"] for answer in answers] == [str(good), str(bad), "missing.png", str(good)]
    assert "error" in answers[1]
    assert answers[2]["error"] == "No such file or directory"
    assert answers[0] == answers[3]
    p_k = load_model(trained).predict_proba(small_dataset.x_test[:1])[0]
    assert answers[0]["label"] == p_k.argmax()
    assert answers[0]["name"] == str(p_k.argmax())
    assert answers[0]["probability"] == pytest.approx(float(p_k.max()))
    assert answers[0]["selective_accuracy"] is None
    assert [entry["label"] for entry in answers[0]["top"]] == p_k.argsort()[::-1][:3].tolist()


def test_predict_for_people(run, trained, small_dataset):
    good = save_image(trained.parent / "good.png", small_dataset.x_test[0])
    code, out, err = run("predict", "--model", trained, good)
    assert (code, err) == (0, "")
    assert out.startswith(f"{good}: ")
    assert out.count(" %") == 3
    code, out, err = run("predict", "--model", trained, "missing.png")
    assert (code, out, err) == (1, "", "missing.png: No such file or directory\n")


def test_an_ensemble_is_evaluated_as_a_model_is(run, trained, ensemble, small_npz, small_dataset):
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
    assert "sure of " in out


def test_an_ensemble_answers_what_is_on_a_picture(run, trained, ensemble, small_dataset):
    image = save_image(trained.parent / "x.png", small_dataset.x_test[0])
    one, several = (
        run("predict", "--model", path, "--json", image) for path in (trained, ensemble)
    )
    assert (several[0], several[2]) == (0, "")
    (answer,) = json.loads(several[1])
    assert answer.keys() == json.loads(one[1])[0].keys()
    p_k = load_model(ensemble).predict_proba(small_dataset.x_test[:1])[0]
    assert (answer["label"], answer["probability"]) == (p_k.argmax(), p_k.max())
    assert answer["model"] == "ensemble.safetensors"


def test_info_of_an_ensemble_is_what_its_members_say(run, ensemble):
    code, out, _ = run("info", ensemble, "--json")
    assert code == 0
    assert json.loads(out) == load_model(ensemble).metadata()
    code, out, err = run("info", ensemble)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["format_version", "3"]
    assert "architecture: sizes: 784 8 10" in lines[-2]
    assert "architecture: sizes: 784 12 6 10" in lines[-1]
    assert [line.count("class 3") for line in lines] == [0] * len(lines)  # a table has numbers
    assert sum("dataset" in line for line in lines) == 1  # of all alike, and said once


def test_an_ensemble_is_not_exported(run, ensemble):
    code, out, err = run("export", ensemble, "--to", "c", "--out", "x.c")
    assert (code, out) == (2, "")
    assert err == (
        f"fmnist-fast: {ensemble} is an ensemble of 2 models, and export needs one network: "
        f"distil it with 'fmnist-fast train --teacher {ensemble}'\n"
    )
    assert not Path("x.c").exists()


def test_info(run, trained):
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["backends"]["numpy"] == "available"
    assert facts["threads"] >= 1
    code, out, _ = run("info", trained, "--json")
    assert json.loads(out)["architecture"]["sizes"] == [784, 8, 10]
    for arguments in (["info"], ["info", trained]):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert out.count("\n") > 5


def test_data_commands_say_where_the_files_are(run, real_folder):
    assert run("data", "path", "--data-dir", real_folder) == (0, f"{real_folder}\n", "")
    code, out, err = run("data", "verify", "--data-dir", real_folder)
    assert (code, err) == (0, "")
    assert str(real_folder) in out
    assert run("data", "fetch", "--data-dir", real_folder)[0] == 0  # nothing is left to download


def test_data_path_without_data_says_what_to_do(run):
    code, out, err = run("data", "path")
    assert (code, out) == (2, "")
    assert "'fmnist-fast data fetch'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "'--epochs': 0 is not in the range x>=1"),
        (["--epochs", "many"], "'--epochs': 'many' is not a valid integer"),
        (["--hidden", "12,x"], "'12,x': give widths like 128,64, or none"),
        (["--hidden", "0"], "'0': give widths like 128,64, or none"),
        (["--lr", "0"], "'--lr': 0.0 is not in the range x>0"),
        (["--lr", "nan"], "lr is nan: give a number above 0"),
        (["--schedule", "linear"], "'linear' is not one of"),
        (["--backend", "jax"], "unknown backend 'jax': choose from auto, cython, numba, numpy"),
        (["--dataset", "mnist"], "there is no data set 'mnist'"),
        (["--dataset", "."], "has no train-images-idx3-ubyte.gz"),
        (["--data-dir", "nowhere"], "Directory 'nowhere' does not exist"),
        (["--out", "no/such/model"], "does not exist: create it"),
        (["--out", "."], "is a directory"),
        (["--out", "m" * 240], "the name is too long"),
        (["--metrics", "model.safetensors"], "is also another file of this command"),
        (["--out", "a.png", "--plot", "./a.png"], "is also another file of this command"),
        (["--hidden", "1000000000"], "'1000000000': give widths like 128,64"),
        (["--threads", "99999999999999999999"], "is not in the range"),
        (["--plot", "curves.doc"], "must end in .png, .svg, .pdf"),
        (["--plot", "no/such/curves.png"], "does not exist: create it"),
        (["--metrics", "no/such/metrics"], "does not exist: create it"),
        (["--validation", "600"], "the training set has only 600 rows"),
        (["--epoch", "3"], "No such option"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, folder, small_npz, arguments, message):
    code, out, err = run("train", "--dataset", small_npz, *FAST, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("fmnist-fast: ")
    assert err.count("\n") == 1
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "missing"], "there is no model file missing: train one"),
        (["predict", "--model", "missing", "a.png"], "there is no model file missing"),
        (["info", "missing"], "there is no model file missing"),
        (["no-such-command"], "No such command 'no-such-command'"),
    ],
)
def test_mistakes_with_other_commands(run, folder, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_model_asked_for_data_that_do_not_fit(run, trained, tmp_path):
    arrays = {
        f"{a}_{p}": np.zeros((9, 5) if a == "x" else 9, np.uint8)
        for a in "xy"
        for p in ("train", "test")
    }
    np.savez(tmp_path / "five.npz", **arrays)
    code, _, err = run("evaluate", trained, "--dataset", tmp_path / "five.npz")
    assert code == 2
    assert "takes 784 inputs and knows 10 classes; five has 5 and 1" in err
    code, _, err = run("evaluate", trained)
    assert code == 2
    assert "was trained on small, which is not a data set that this installation has" in err


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "predict", "export", "info", "data", "data fetch"]
)
def test_help_is_worth_reading(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert out.startswith("Usage: fmnist-fast")
    assert len(out.splitlines()) > 5


def test_a_model_of_another_set_stays_until_forced(run, trained, small_npz, tmp_path):
    before = trained.read_bytes()
    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    command = ["train", "--dataset", tmp_path / "other.npz", "--quiet", *FAST]
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert "model.safetensors holds a model trained on small" in err
    assert trained.read_bytes() == before
    assert run(*command, "--force")[0] == 0
    assert load_model(trained).dataset_name == "other"


def test_garments_is_what_a_machine_without_a_way_to_the_data_trains_on(folder):
    """Every proxy leads to a closed port, so nothing can be downloaded."""
    closed = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        "HTTPS_PROXY": closed,
        "HTTP_PROXY": closed,
        "https_proxy": closed,
        "http_proxy": closed,
        "NO_PROXY": "",
        "no_proxy": "",
    }
    command = [sys.executable, "-m", "fmnist_fast", "train", "--epochs", "2"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("fmnist-fast: warning: Fashion-MNIST could not be downloaded (")
    assert "trained on synthetic" in ran.stdout.splitlines()[-1]
    assert load_model("model.safetensors").dataset_name == "synthetic"
    ran = subprocess.run(
        [*command, "--dataset", "fashion-mnist"], env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "give the folder of its four files with --data-dir" in ran.stderr
    assert ran.stderr.count("\n") == 1


def start_training(folder, npz, *arguments):
    """A long training in a process of its own, and the first of its epochs has been printed."""
    command = [sys.executable, "-u", "-m", "fmnist_fast", "train", "--dataset", str(npz)]
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


def test_ctrl_c_saves_the_best_model_beside_the_target(folder, small_npz, trained):
    before = trained.read_bytes()
    for name in ("model.unfinished.safetensors", "model.unfinished-2.safetensors"):
        process = start_training(folder, small_npz)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        assert "Traceback" not in out + err
        assert f"is saved in {name}" in err
        assert err.count("\n") == 1
        assert load_model(folder / name).metrics["validation_accuracy"] > 0
        assert trained.read_bytes() == before


def test_more_ctrl_c_does_not_cost_what_the_first_saves(folder, small_npz):
    process = start_training(folder, small_npz)
    for _ in range(5):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "is saved in model.unfinished.safetensors" in err
    assert load_model(folder / "model.unfinished.safetensors").metrics["validation_accuracy"] > 0


def test_ctrl_c_while_the_model_is_saved_saves_it(folder, run, small_npz, monkeypatch):
    import fmnist_fast._files as files

    true_replace = os.replace

    def replace(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        true_replace(*arguments)

    monkeypatch.setattr(files.os, "replace", replace)
    code, out, _ = run("train", "--dataset", small_npz, *FAST, "--quiet")
    assert code == 0
    assert out.startswith("saved model.safetensors")


def test_divergence_saves_the_best_model_beside_the_target(folder, run, small_npz, monkeypatch):
    import fmnist_fast.kernels.reference as reference

    true_steps, calls = reference.train_steps, []

    def diverging(*arguments):
        calls.append(arguments)
        losses = true_steps(*arguments)
        return losses if arguments[5] or len(calls) < 5 else losses * np.nan

    monkeypatch.setattr(reference, "train_steps", diverging)
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--epochs", "9", "--quiet")
    assert code == 2
    assert "training diverged at step" in err
    assert "is saved in model.unfinished.safetensors" in err
    assert not Path("model.safetensors").exists()


def test_a_disk_that_fills_during_training_costs_nothing(folder, run, small_npz, monkeypatch):
    """The limit on file sizes stands for the full disk; it falls after the checks have passed."""
    import fmnist_fast._files as files

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
    assert "model.safetensors could not be written; the trained model is saved in" in err
    assert load_model(folder / "refuge" / "model.safetensors").dataset_name == "small"


def test_metrics_that_cannot_be_written_do_not_cost_the_training(folder, run, small_npz):
    target = Path("/dev/full")
    if not target.exists():
        pytest.skip("this system has no /dev/full")
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--metrics", "m.jsonl")
    assert code == 0
    Path("m.jsonl").unlink()
    Path("m.jsonl").symlink_to(target)
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--metrics", "m.jsonl")
    assert code == 2
    assert "No space left on device; the model is saved in model.safetensors" in err


def test_a_reader_that_stops_early_costs_nothing(folder, small_npz):
    command = f"{sys.executable} -m fmnist_fast train --dataset {small_npz} --epochs 30 | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ran.stdout.startswith("784-128-64-10 on small")
    assert ran.stderr == ""
    assert load_model("model.safetensors").training["epochs"] == 30


def test_a_full_disk_behind_standard_output_costs_nothing(folder, small_npz):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz), *FAST]
    with open("/dev/full", "w") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 2
    assert ran.stderr == (
        "fmnist-fast: standard output: No space left on device; "
        "the model is saved in model.safetensors\n"
    )
    assert load_model("model.safetensors").dataset_name == "small"


def test_the_command_alone_shows_its_help(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: fmnist-fast")
    assert err.count("\n") > 10


def test_a_model_that_came_while_we_trained_is_not_replaced(
    folder, run, trained, small_npz, tmp_path, monkeypatch
):
    import fmnist_fast.models.load as modelfile

    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    before, calls = trained.read_bytes(), []
    true_check = modelfile.check_replaceable

    def check(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            true_check(*arguments)

    monkeypatch.setattr(modelfile, "check_replaceable", check)
    code, _, err = run("train", "--dataset", tmp_path / "other.npz", "--quiet", *FAST)
    assert code == 2
    assert "holds a model trained on small" in err
    assert "is saved in model.unfinished.safetensors" in err
    assert trained.read_bytes() == before
    assert load_model("model.unfinished.safetensors").dataset_name == "other"


def test_metrics_do_not_go_into_a_file_of_another_kind(run, trained, small_npz):
    before = trained.read_bytes()
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--out", "x", "--metrics", trained)
    assert code == 2
    assert "is no file of JSON lines: name another" in err
    assert trained.read_bytes() == before


def test_a_file_called_like_a_built_in_set_is_not_taken_for_it(folder, run, small_npz):
    Path("synthetic.npz").write_bytes(small_npz.read_bytes())
    assert run("train", "--dataset", "synthetic.npz", "--quiet", *FAST)[0] == 0
    code, out, err = run("evaluate", "model.safetensors")
    assert (code, out) == (2, "")
    assert "was trained on synthetic, which is not a data set that this installation has" in err


def test_names_that_the_terminal_cannot_show_are_no_obstacle(folder, small_npz):
    Path("日本語$^$.npz").write_bytes(small_npz.read_bytes())
    command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", "日本語$^$.npz", *FAST]
    ran = subprocess.run(
        [*command, "--plot", "c.png"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert load_model("model.safetensors").dataset_name == "日本語$^$"


def test_python_m_is_the_same_command():
    ran = subprocess.run(
        [sys.executable, "-m", "fmnist_fast", "--version"], capture_output=True, text=True
    )
    assert ran.stdout.startswith("fmnist-fast, version ")


def test_real_fashion_mnist_is_learned(folder, run, real_folder):
    """Five epochs, one seed: a floor, not the figure; that is the mean of longer runs."""
    code, out, _ = run(
        "train", "--data-dir", real_folder, "--epochs", "5", "--threads", "1", "--json", "--quiet"
    )
    result = json.loads(out)
    assert code == 0
    assert result["dataset"] == "fashion-mnist"
    assert result["test_accuracy"] > 0.875
    code, out, _ = run("evaluate", "model.safetensors", "--data-dir", real_folder, "--json")
    assert json.loads(out)["accuracy"] == result["test_accuracy"]
