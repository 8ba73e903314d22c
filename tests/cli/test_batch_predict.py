"""Command `predict --out`: killed, interrupted, or misused."""

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed", reason="Dask is not installed")
pytest.importorskip("pyarrow", reason="Arrow is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
from batch_inputs import ROWS, idx, png, table, write
from messages import assert_contains, assert_one_line

from fmnist_fast.cli.main import main
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.distributed.batch_predict.result_store import ResultStore


@pytest.fixture(scope="module")
def images():
    return draw_synthetic(train=10, test=ROWS)[2]


def command(*arguments):
    return [sys.executable, "-m", "fmnist_fast", "predict", "--workers", "2", *arguments]


def test_predict_resumes_after_kill(images, tmp_path):
    write("folder", tmp_path / "f", np.concatenate([images] * 6))
    (tmp_path / "list.txt").write_text("f\n\nf/0000.png\n")
    arguments = command("--inputs-from", "list.txt", "--out", "a.csv", "--backend", "cython")
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "a.csv.partial-wal", time.monotonic() + 300
    while not log.exists() or log.stat().st_size < 400_000:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.csv").exists()
    ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert_contains(ran.stderr, "predictions are there already")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == '"path","row","label","name","probability","confident","error"'
    assert len(lines) == 6 * ROWS + 2
    assert lines[-1] == lines[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "f", "list.txt"]


def test_predict_ctrl_c_keeps_predictions(images, tmp_path):
    write("folder", tmp_path / "f", np.concatenate([images] * 6))
    process = subprocess.Popen(
        command("f", "--out", "a.csv"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log, deadline = tmp_path / "a.csv.partial-wal", time.monotonic() + 300
    while not log.exists() or log.stat().st_size < 400_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, message = process.communicate(timeout=300)
    assert process.returncode == 130
    assert_contains(message, "predictions are kept in a.csv.partial: the same command resumes it")
    assert (tmp_path / "a.csv.partial").exists()
    assert not (tmp_path / "a.csv").exists()


def test_predict_rejects_resume_with_changed_files(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("folder", tmp_path / "f", images[:3])
    arguments = ["predict", "--workers", "1", "--out", "a.csv"]

    def interrupt(with_predictions):
        """End a command that has the predictions of one block, or none."""
        with monkeypatch.context() as patch:
            patch.setattr(ResultStore, "blocks_left", lambda store: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                main([*arguments, "f"])
        if with_predictions:
            with closing(sqlite3.connect("a.csv.partial")) as kept, kept:
                kept.execute("UPDATE blocks SET predictions = 'x' WHERE number = 1")

    def changes():
        yield (tmp_path / "f" / "new.png").write_bytes(png(images[7]))
        yield (tmp_path / "f" / "0000.png").write_bytes(png(images[8]))
        yield (tmp_path / "f" / "new.png").unlink()

    interrupt(with_predictions=True)
    for _ in changes():
        assert main([*arguments, "f"]) == 2
        assert_one_line(
            capsys.readouterr().err, "with other inputs, or files that were changed meanwhile:"
        )
    Path("a.csv.partial").unlink()
    interrupt(with_predictions=False)
    (tmp_path / "f" / "new.png").write_bytes(png(images[7]))
    assert main([*arguments, "f"]) == 0  # no prediction is lost
    assert len(Path("a.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("way", ["a file", "standard input", "a pipe"])
def test_predict_reads_inputs_from_file_stdin_or_pipe(way, images, tmp_path):
    write("folder", tmp_path / "f", images[:2])
    names = b"\xef\xbb\xbff/0001.png\r\n\r\nf/0000.png"
    (tmp_path / "list.txt").write_bytes(names)
    given = {"a file": "list.txt", "standard input": "-", "a pipe": "/dev/fd/0"}[way]
    ran = subprocess.run(
        command("--inputs-from", given, "--out", "a.csv"),
        cwd=tmp_path,
        capture_output=True,
        input=names,
    )
    assert ran.returncode == 0, ran.stderr
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ['"f/0001.png"', '"f/0000.png"']


def test_predict_ctrl_c_while_listing_stops_at_once(tmp_path, monkeypatch, capsys):
    """Listing millions of files takes a while."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a.png\n" * 100)
    listed = []

    def interrupted(block):
        listed.append(block)
        signal.raise_signal(signal.SIGINT)
        return len(block.paths)

    monkeypatch.setattr("fmnist_fast.distributed.batch_predict.result_store.row_count", interrupted)
    assert main(["predict", "--inputs-from", "list.txt", "--out", "a.csv"]) == 130
    assert len(listed) == 1
    assert_contains(capsys.readouterr().err, "stopped")
    assert [p.name for p in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["a.png", "--out", "a.txt"], "give --out a name in .parquet or .csv"),
        (["a.png", "--workers", "2"], "--workers needs --out"),
        (["a.png", "--out", "a.csv", "--threads", "2"], "give --workers"),
        (["a.png", "--out", "a.csv", "--workers", "2", "--scheduler", "tcp://x:1"], "only one"),
        (["a.png", "--out", "there.csv"], "there.csv exists already"),
        (["empty", "--out", "a.csv"], "empty is a folder without images"),
        (["--inputs-from", "blank.txt", "--out", "a.csv"], "give images or folders, or a list"),
        (["--inputs-from", "blank.txt"], "give images or folders, or a list"),
        (["--inputs-from", "nul.txt", "--out", "a.csv"], "line 2 of the list is not a path"),
        (["a.png", "--out", "busy.csv"], "busy.csv.partial is not a file"),
        (["a.png", "--out", "a.csv", "--workers", "999"], "--workers 999 is too many"),
        (["a.png", "--out", "a.csv", "--scheduler", ""], "it is empty"),
        (["there.csv", "--out", "there.csv", "--force"], "is also another file of this command"),
        ([], "give images or folders, or a list of them with --inputs-from"),
        (["a.png", "--out", "a.csv", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler"),
    ],
)
def test_predict_usage_error_is_one_line(arguments, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    Path("empty").mkdir()
    Path("busy.csv.partial").mkdir()
    Path("blank.txt").write_text("\n\n")
    Path("nul.txt").write_bytes(b"a.png\na.png\0b.png\n")
    assert main(["predict", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, part)
    assert not Path("a.csv").exists()
    assert Path("there.csv").read_text() == "mine"


def test_predict_damaged_files_are_lines_and_errors(tmp_path, monkeypatch, capsys):
    """Files that are not damaged are predicted."""
    monkeypatch.chdir(tmp_path)
    whole = idx(np.zeros((2, 28, 28), np.uint8))
    flipped = bytearray(gzip.compress(whole))
    flipped[-8] ^= 1
    Path("flipped.gz").write_bytes(flipped)
    Path("cut.idx").write_bytes(whole[:-1])
    Path("whole.idx").write_bytes(whole)
    names = ["flipped.gz", "cut.idx", "whole.idx"]
    assert main(["predict", *names, "--out", "a.csv", "--workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert_contains(out, "saved a.csv: 5 rows", "3 without a prediction: see the column error")
    cut, flipped = err.splitlines()
    assert_contains(cut, "warning: cut.idx is damaged: its header promises")
    assert_contains(flipped, "flipped.gz is damaged: CRC check failed")
    rows = [line.split(",") for line in Path("a.csv").read_text().splitlines()[1:]]
    paths = ["flipped.gz", "flipped.gz", "cut.idx", "whole.idx", "whole.idx"]
    assert [row[0].strip('"') for row in rows] == paths
    assert [row[2] == "" for row in rows] == [True] * 3 + [False] * 2


def test_predict_out_accepts_names_beyond_the_encoding(tmp_path):
    """In the C locale, names are bytes beyond ASCII; pyarrow takes none of these."""
    folder = tmp_path / "é"
    folder.mkdir()
    np.save(folder / "ï.npy", np.zeros((1, 784), np.uint8))
    table(folder / "ï.parquet", image=pa.array([[0] * 784]))
    inputs = [str(folder / "ï.npy"), str(folder / "ï.parquet")]
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for out in ("ö.csv", "ö.parquet"):
        ran = subprocess.run(
            command(*inputs, "--out", str(folder / out), "--workers", "1"),
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
    assert pq.read_table(folder / "ö.parquet")["path"].to_pylist() == inputs


def test_predict_without_pyarrow_names_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["predict", "a.png", "--out", str(tmp_path / "a.csv")]) == 2
    assert_one_line(capsys.readouterr().err, "pyarrow", "pip install 'fmnist-fast[sweep]'")
