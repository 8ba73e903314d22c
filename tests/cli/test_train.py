"""The command `train`: output, metrics, options that are rejected."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from cli_runs import FAST
from conditions import wait_until
from messages import assert_contains, assert_one_line
from rich.console import Console

from fmnist_fast import load_model
from fmnist_fast.cli import outputs
from fmnist_fast.cli import train as command
from fmnist_fast.cli.report import CombinedProgress, TrainingReport, measuring_bar
from fmnist_fast.nn import backend
from fmnist_fast.training.progress import Progress


def test_train_prints_a_line_per_epoch(folder, run, small_npz):
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


def test_train_json_is_one_object(folder, run, small_npz):
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


def test_train_quiet_prints_the_last_line_only(folder, run, small_npz):
    _, out, err = run("train", "--dataset", small_npz, *FAST, "--quiet")
    assert out.count("\n") == 1
    assert err == ""
    _, out, err = run("train", "--dataset", small_npz, *FAST, "--quiet", "--json")
    assert err == ""
    json.loads(out)


def test_train_writes_the_same_bytes_in_any_folder(tmp_path, small_npz):
    contents = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz), *FAST]
        subprocess.run([*command, "--out", f"{name}.st"], cwd=tmp_path / name, check=True)
        contents.append((tmp_path / name / f"{name}.st").read_bytes())
    assert contents[0] == contents[1]


def test_train_metrics_are_json_lines(folder, run, small_npz):
    for _ in range(2):
        run("train", "--dataset", small_npz, *FAST, "--epochs", "2", "--metrics", "m.jsonl")
    lines = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "epoch", "epoch", "end"] * 2
    assert lines[0]["dataset"] == lines[3]["dataset"] == "small"
    assert 0 < lines[3]["test_accuracy"] < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "'--epochs': 0 is not in the range x>=1"),
        (["--epochs", "many"], "'--epochs': 'many' is not a valid integer"),
        (["--hidden", "12,x"], "'12,x': give widths like 128,64, or none"),
        (["--hidden", "0"], "'0': give widths like 128,64, or none"),
        (["--lr", "0"], "'--lr': 0.0 is not in the range x>0"),
        (["--lr", "nan"], "lr is nan: give more than 0"),
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
        (["--validation", "600"], "validation is 600: give less than all 600 rows"),
        (["--epoch", "3"], "No such option"),
    ],
)
def test_train_rejects_bad_options_in_one_line(run, folder, small_npz, arguments, message):
    code, out, err = run("train", "--dataset", small_npz, *FAST, *arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, "fmnist-fast: ", message)
    assert os.listdir(folder) == []


def test_train_keeps_model_of_another_set_unless_forced(run, trained, small_npz, tmp_path):
    before = trained.read_bytes()
    with np.load(small_npz) as arrays:
        np.savez(tmp_path / "other.npz", **{**arrays, "x_train": 255 - arrays["x_train"]})
    command = ["train", "--dataset", tmp_path / "other.npz", "--quiet", *FAST]
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert_contains(err, "model.safetensors holds a model trained on small")
    assert trained.read_bytes() == before
    assert run(*command, "--force")[0] == 0
    assert load_model(trained).dataset_name == "other"


def test_train_keeps_better_earlier_model(folder, run, trained, small_npz):
    """Also one without a validation accuracy; a worse one, or the same bytes, are replaced."""
    more = [*FAST, "--epochs", "9", "--quiet"]
    train = ["train", "--dataset", small_npz]
    assert run(*train, *more)[0] == 0
    assert os.listdir(folder) == ["model.safetensors"]  # the first model was worse
    better = trained.read_bytes()
    code, out, err = run(*train, *FAST, "--quiet")
    assert (code, err) == (0, "")
    assert_one_line(
        out, "saved model.safetensors", "the earlier model", "model.previous.safetensors"
    )
    previous = folder / "model.previous.safetensors"
    assert previous.read_bytes() == better
    assert (
        load_model(trained).metrics["validation_accuracy"]
        < (load_model(previous).metrics["validation_accuracy"])
    )
    assert run(*train, *FAST)[0] == 0  # the same bytes
    assert run(*train, *more, "--validation", "0")[0] == 0
    _, out, _ = run(*train, *more, "--validation", "0", "--seed", "1", "--json")
    assert json.loads(out)["previous_model"] == "model.previous-3.safetensors"
    assert run(*train, *FAST, "--force")[0] == 0
    assert len(os.listdir(folder)) == 4


def test_train_full_disk_for_earlier_model_saves_new_one_elsewhere(
    folder, run, trained, small_npz, monkeypatch
):
    better = Path("better.safetensors")
    run("train", "--dataset", small_npz, *FAST, "--epochs", "9", "--out", better)
    true_write, saved = outputs.write_atomically, better.read_bytes()

    def write(path, content):
        if "previous" in path.name:
            raise OSError(28, "No space left on device")
        true_write(path, content)

    monkeypatch.setattr(outputs, "write_atomically", write)
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--out", better)
    assert code == 2
    assert_one_line(err, "No space left", "saved in better.unfinished.safetensors")
    assert better.read_bytes() == saved


def test_train_says_that_fastest_backend_is_missing(folder, run, small_npz, monkeypatch):
    monkeypatch.setattr(command, "unavailable_reason", lambda name: f"cannot be loaded: no {name}")
    options = ["--epochs", "1", "--hidden", "8", "--quiet"]
    code, _, err = run("train", "--dataset", small_npz, *options)
    assert code == 0
    assert_one_line(err, "warning: the fastest backend, cython, cannot be loaded: no cython")
    assert run("train", "--dataset", small_npz, *options, "--backend", "numpy")[2] == ""


def test_train_resume_of_finished_run_says_so(folder, run, small_npz):
    options = ["--dataset", small_npz, *FAST, "--epochs", "3", "--checkpoint", "run"]
    assert run("train", *options)[0] == 0
    before = Path("model.safetensors").read_bytes()
    code, out, _ = run("train", "--resume", "run", "--metrics", "m.jsonl")
    assert code == 0
    rest = out.partition(TrainingReport.HEAD)[2]
    assert rest.split("\n")[1] == "finished before, after 3 epochs"
    assert "    1  " not in rest
    assert os.listdir(folder).count("model.previous.safetensors") == 0
    assert Path("model.safetensors").read_bytes() == before
    events = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert [e["ended"] for e in events if e["event"] == "resume"] == [True]


def test_train_falls_back_to_synthetic_data_offline(folder):
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
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert_one_line(ran.stderr, "still no Fashion-MNIST here: falling back to synthetic")
    evaluate = [sys.executable, "-m", "fmnist_fast", "evaluate", "model.safetensors"]
    ran = subprocess.run(evaluate, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = subprocess.run(
        [*command, "--dataset", "fashion-mnist"], env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "give the folder of its four files with --data-dir" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_train_metrics_do_not_overwrite_another_file(run, trained, small_npz):
    before = trained.read_bytes()
    code, _, err = run("train", "--dataset", small_npz, *FAST, "--out", "x", "--metrics", trained)
    assert code == 2
    assert_contains(err, "is no file of JSON lines: name another")
    assert trained.read_bytes() == before


def test_train_file_named_like_a_built_in_set(folder, run, small_npz):
    Path("synthetic.npz").write_bytes(small_npz.read_bytes())
    assert run("train", "--dataset", "synthetic.npz", "--quiet", *FAST)[0] == 0
    code, out, err = run("evaluate", "model.safetensors")
    assert (code, out) == (2, "")
    assert_contains(
        err, "was trained on synthetic, which is not a data set that this installation has"
    )


def test_train_prints_unencodable_names(folder, small_npz):
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


def test_train_reaches_accuracy_on_fashion_mnist(folder, run, real_folder):
    """Lower bound for five epochs and one seed; the documented accuracy is of longer runs."""
    code, out, _ = run(
        "train", "--data-dir", real_folder, "--epochs", "5", "--threads", "1", "--json", "--quiet"
    )
    result = json.loads(out)
    assert code == 0
    assert result["dataset"] == "fashion-mnist"
    assert result["test_accuracy"] > 0.875
    code, out, _ = run("evaluate", "model.safetensors", "--data-dir", real_folder, "--json")
    assert json.loads(out)["accuracy"] == result["test_accuracy"]


def test_combined_progress_passes_on_every_event():
    events = {name for name in vars(Progress) if not name.startswith("_")}
    assert events <= set(vars(CombinedProgress))


def test_progress_bar_shows_time_of_compilation(monkeypatch):
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with measuring_bar(console) as show:
        monkeypatch.setattr(backend, "compiling_seconds", lambda: 7.3)
        show("epoch 1 of 5", 0, 5)
        wait_until(lambda: "compiling the Numba kernels, once: 7 s" in console.file.getvalue())
