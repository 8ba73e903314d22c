"""Many inputs into one file: the same answers from any kind of file, and nothing is ever lost."""

import gzip
import io
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("distributed", reason="Dask is not installed")
pytest.importorskip("pyarrow", reason="Arrow is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
from clusters import dask_scheduler, dask_worker, wait_for_workers

from fmnist_fast import load_model
from fmnist_fast.cli.main import main
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.distributed.batch_predict import array_inputs as arrays
from fmnist_fast.distributed.batch_predict.job import (
    model_name,
    model_to_workers,
    score_all,
    workers_identity,
)
from fmnist_fast.distributed.batch_predict.output import write_answers
from fmnist_fast.distributed.batch_predict.readers import Reader, read
from fmnist_fast.distributed.batch_predict.result_store import Partial, open_partial
from fmnist_fast.distributed.batch_predict.sources import Inputs
from fmnist_fast.distributed.batch_predict.worker import Scoring
from fmnist_fast.distributed.worker_pool import open_fleet
from fmnist_fast.errors import ArgumentError, DataError
from fmnist_fast.nn.backend import backend_name

ROWS = 500


class Unseen:
    """A view that calls back."""

    def __init__(self, at_update=lambda partial: None):
        self.at_update, self.notes = at_update, []

    def update(self, partial, fleet):
        self.at_update(partial)

    def note(self, message):
        self.notes.append(message)


@pytest.fixture(scope="module")
def images():
    return draw_synthetic(train=10, test=ROWS)[2]


@pytest.fixture(scope="module")
def model():
    return load_model(backend="cython", threads=1)


@pytest.fixture(scope="module")
def identity(model):
    return workers_identity(model)


@pytest.fixture(scope="module")
def fleet(identity):
    """Two processes of this machine."""
    prepare = model_to_workers(None, "cython")
    with open_fleet(None, 2, identity, prepare) as two:
        two.look(now=True)
        assert two.slots == 2
        yield two


@pytest.fixture
def small_blocks(monkeypatch):
    """A hundred rows of bytes a block, read in two parts."""
    monkeypatch.setattr(arrays, "BLOCK_BYTES", 100 * 784)
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 50 * 784)


def scored(inputs, fleet, folder, out="answers.parquet", field=None, **options):
    """The table of answers to all inputs; view, should_stop and invert may be given."""
    view = options.get("view", Unseen())
    how = Scoring(
        model_name(None, "cython"), str(folder), "auto", options.get("invert", False), True
    )
    partial_path = folder / f"{out}.partial"
    with open_partial(partial_path, {}, Inputs(inputs).blocks((28, 28), field)) as partial:
        whole = score_all(partial, how, 784, fleet, view, options.get("should_stop", lambda: False))
        if not whole:
            return None
        names = load_model().class_names
        write_answers(partial, folder / out, names, how.probabilities, lambda rows: None)
        partial.remove()
    assert list(folder.glob("*.partial*")) == []
    return pq.read_table(folder / out) if out.endswith("parquet") else (folder / out).read_text()


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def idx(pixels):
    return struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()


def npy(pixels):
    content = io.BytesIO()
    np.save(content, pixels)
    return content.getvalue()


def table(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=120)


def write(kind, path, x):
    flat = x.reshape(len(x), -1)
    match kind:
        case "idx":
            path.write_bytes(idx(x))
        case "idx.gz":
            path.write_bytes(gzip.compress(idx(x)))
        case "npy":
            np.save(path.open("wb"), x)
        case "big-endian floats":
            np.save(path.open("wb"), (x / 255).astype(">f8"))
        case "npz":
            np.savez(path.open("wb"), labels=np.zeros(3), x=x, more=x[:, :3])
        case "compressed npz":
            np.savez_compressed(path.open("wb"), labels=np.zeros(3), x=x)
        case "lists":
            table(path, label=np.zeros(len(x), np.int64), image=pa.array(list(flat)))
        case "lists of lists":
            table(path, image=pa.array([image.tolist() for image in x]))
        case "columns":
            columns = {f"pixel{i}": flat[:, i].astype(np.int64) for i in range(784)}
            table(path, label=np.zeros(len(x), np.int64), **columns)
        case "pictures":
            table(path, image=pa.array([png(image) for image in x]))
        case "pictures of a hub":
            entries = [{"bytes": png(image), "path": None} for image in x]
            table(path, image=pa.array(entries), label=np.zeros(len(x), np.int64))
        case "folder":
            path.mkdir()
            for number, image in enumerate(x):
                (path / f"{number:04}.png").write_bytes(png(image))


KINDS = (
    *("idx", "idx.gz", "npy", "big-endian floats", "npz", "compressed npz", "lists"),
    *("lists of lists", "columns", "pictures", "pictures of a hub", "folder"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_every_kind_of_file_gives_what_the_model_says(kind, images, model, fleet, tmp_path):
    write(kind, tmp_path / "input", images)
    found = scored([str(tmp_path / "input")], fleet, tmp_path)
    x = images / 255 if kind == "big-endian floats" else images
    probability_nk = model.predict_proba(x)
    label_n = probability_nk.argmax(axis=1)
    assert found["label"].to_pylist() == label_n.tolist()
    assert found["name"].to_pylist() == [model.class_names[label] for label in label_n]
    assert np.array_equal(found["probability"].to_numpy(), probability_nk.max(axis=1))
    assert (
        found["confident"].to_pylist() == (probability_nk.max(axis=1) >= model.threshold).tolist()
    )
    for label, name in enumerate(model.class_names):
        assert np.array_equal(found[f"p_{name}"].to_numpy(), probability_nk[:, label])
    assert set(found["error"].to_pylist()) == {None}
    if kind == "folder":
        assert found["path"].to_pylist() == sorted(map(str, (tmp_path / "input").iterdir()))
    else:
        assert found["row"].to_pylist() == list(range(ROWS))
        assert set(found["path"].to_pylist()) == {str(tmp_path / "input")}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("out", ["a.parquet", "a.csv"])
def test_a_stop_and_another_number_of_workers_change_no_byte(
    images, fleet, identity, tmp_path, out
):
    folder, packed = tmp_path / "folder", tmp_path / "x.gz"
    write("folder", folder, images[:100])
    write("idx.gz", packed, images)
    inputs = [str(packed), str(folder)]
    scored(inputs, fleet, tmp_path, f"whole-{out}")
    with open_fleet(None, 1, identity, model_to_workers(None, "cython")) as one:
        scored(inputs, one, tmp_path, f"one-{out}")

    done = []
    view = Unseen(lambda partial: done.append(partial.done))
    stop = {"view": view, "should_stop": lambda: bool(done) and done[-1] > 0}
    assert scored(inputs, fleet, tmp_path, out, **stop) is None
    assert 0 < done[-1] < ROWS + 100
    assert not (tmp_path / out).exists()
    gone_on = []
    view = Unseen(lambda partial: gone_on.append(partial.done))
    scored(inputs, fleet, tmp_path, out, view=view)
    assert gone_on[0] >= done[-1]
    whole = (tmp_path / f"whole-{out}").read_bytes()
    assert whole == (tmp_path / out).read_bytes() == (tmp_path / f"one-{out}").read_bytes()


def test_rows_can_be_inverted(images, model, fleet, tmp_path):
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "dark.npy", 255 - images)
    bright = scored([str(tmp_path / "x.npy")], fleet, tmp_path)
    dark = scored([str(tmp_path / "dark.npy")], fleet, tmp_path, "dark.parquet", invert=True)
    assert bright.drop_columns("path") == dark.drop_columns("path")


def test_rows_that_no_network_takes_have_a_reason(images, fleet, tmp_path):
    x = (images[:20] / 255).astype(np.float32)
    x[3, 0, 0], x[7, 5, 5] = np.nan, 2
    np.save(tmp_path / "x.npy", x)
    found = scored([str(tmp_path / "x.npy")], fleet, tmp_path)
    errors = found["error"].to_pylist()
    assert [n for n, why in enumerate(errors) if why] == [3, 7]
    assert errors[3] == "it holds numbers outside of 0..1"
    for column in ("label", "name", "probability", "confident", "p_Dress"):
        assert [n for n, value in enumerate(found[column].to_pylist()) if value is None] == [3, 7]


def test_whole_numbers_that_are_no_pixels_cost_no_other_row_its_answer(images, fleet, tmp_path):
    flat = images[:20].reshape(20, 784).astype(np.int64)
    write("lists", tmp_path / "bytes.parquet", images[:20])
    table(tmp_path / "wide.parquet", image=pa.array(list(flat)))
    flat[3, 0], flat[7, 9] = 256, -1
    table(tmp_path / "wrong.parquet", image=pa.array(list(flat)))
    rows, wide, wrong = (
        scored([str(tmp_path / f"{name}.parquet")], fleet, tmp_path, f"{name}-answers.parquet")
        for name in ("bytes", "wide", "wrong")
    )
    answers = rows.drop_columns("path").to_pylist()
    assert wide.drop_columns("path").to_pylist() == answers
    errors = dict.fromkeys((3, 7), "it holds numbers outside of 0..255")
    assert {n: why for n, why in enumerate(wrong["error"].to_pylist()) if why} == errors
    kept = wrong.drop_columns("path").to_pylist()
    assert [kept[n] for n in range(20) if n not in errors] == [
        answers[n] for n in range(20) if n not in errors
    ]


@pytest.mark.parametrize("dtype", ["int64", "u2", ">i4", "i1", "f2", ">f8"])
def test_numbers_of_any_width_have_answers(dtype, images, model, fleet, tmp_path):
    x = images[:20] // 2  # which int8 has, too
    taken = x if np.dtype(dtype).kind in "iu" else (x / 255).astype(dtype).astype(np.float32)
    np.save(tmp_path / "x.npy", (taken if taken is x else x / 255).astype(dtype))
    found = scored([str(tmp_path / "x.npy")], fleet, tmp_path)
    assert found["label"].to_pylist() == model.predict(taken).tolist()
    assert found["error"].null_count == 20


@pytest.mark.parametrize(
    "flaw", ["no list", "short", "long", "gap", "ragged", "missing", "nothing else"]
)
def test_rows_of_a_table_that_lack_numbers_have_a_reason(flaw, images, model, fleet, tmp_path):
    x, path = images[:20], tmp_path / "x.parquet"
    flat, absent = x.reshape(20, 784).tolist(), [3, 7]
    match flaw:
        case "no list":
            flat[3] = flat[7] = None
        case "short":
            flat[3], flat[7] = flat[3][:783], []
        case "long":  # as many numbers as all rows have
            flat[3], flat[7] = flat[3][:700], flat[7] + [0] * 84
        case "gap":
            flat[3][0] = flat[7][783] = None
        case "ragged":
            flat = x.tolist()
            flat[3][5], flat[7] = flat[3][5][:27], flat[7][:27]
        case "nothing else":
            flat, absent = [None] * 20, list(range(20))
    if flaw == "missing":
        columns = {f"pixel{i}": x[:, i // 28, i % 28].tolist() for i in range(784)}
        columns["pixel0"][3] = columns["pixel9"][7] = columns["pixel783"][7] = None
        table(path, **{name: pa.array(column, pa.int64()) for name, column in columns.items()})
    else:
        kind = pa.list_(pa.list_(pa.uint8())) if flaw == "ragged" else pa.list_(pa.uint8())
        table(path, image=pa.array(flat, kind))
    found = scored([str(path)], fleet, tmp_path)
    whys = dict.fromkeys(absent, "it has not 784 numbers")
    assert {n: why for n, why in enumerate(found["error"].to_pylist()) if why} == whys
    expected = model.predict(x).tolist()
    labels = [None if n in absent else label for n, label in enumerate(expected)]
    assert found["label"].to_pylist() == labels


def test_pictures_that_cannot_be_read_have_a_reason(images, fleet, tmp_path):
    write("folder", tmp_path / "f", images[:3])
    (tmp_path / "f" / "0001.png").write_bytes(b"no picture")
    gone = str(tmp_path / "gone.png")
    found = scored([str(tmp_path / "f"), gone], fleet, tmp_path)
    errors = found["error"].to_pylist()
    assert errors == [None, "not an image, or a damaged one", None, "No such file or directory"]
    assert found["path"].to_pylist()[-1] == gone


def test_a_worker_with_other_files_of_the_same_names_does_not_answer_for_ours(images, tmp_path):
    write("folder", tmp_path / "f", images[:2])
    _, block = Inputs([str(tmp_path / "f")]).blocks((28, 28), None)
    assert len(list(read(block, str(tmp_path), 784))) == 1
    (tmp_path / "f" / "0001.png").write_bytes(png(images[2]) + b"more")
    with pytest.raises(DataError, match=r"0001\.png has changed meanwhile"):
        list(read(block, str(tmp_path), 784))
    ((encoded,),) = Reader(str(tmp_path), 784).read(block)  # of whose files it is
    assert encoded.content.endswith(b"more")


def test_a_folder_that_cannot_be_read_is_not_left_out(images, tmp_path, monkeypatch):
    write("folder", tmp_path / "f", images[:2])
    (tmp_path / "f" / "secret").mkdir()
    scandir = os.scandir

    def refused(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        Inputs([str(tmp_path / "f")])


def test_groups_without_rows_are_no_blocks(images, fleet, tmp_path):
    rows = pa.table({"pixels": images[:9].reshape(9, -1).tolist()})
    with pq.ParquetWriter(tmp_path / "x.parquet", rows.schema) as writer:
        for part in (rows[:0], rows[:4], rows[:0], rows[4:], rows[:0]):
            writer.write_table(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fmnist_fast.distributed.batch_predict.table_inputs.BLOCK_BYTES", 1)
        blocks = list(Inputs([str(tmp_path / "x.parquet")]).blocks((28, 28), None))
        assert [block.rows for block in blocks] == [4, 5]
        assert scored([str(tmp_path / "x.parquet")], fleet, tmp_path).num_rows == 9


def test_another_backend_is_another_model_to_a_worker():
    from fmnist_fast.distributed.batch_predict.worker import _MODELS, keep_model

    for backend in ("numpy", "cython"):
        keep_model(model_name(None, backend), None, backend)
    asked = {name: _MODELS[name].data_model for name in list(_MODELS)[-2:]}
    assert [backend_name(m.network.backend) for m in asked.values()] == ["numpy", "cython"]


@pytest.mark.parametrize(
    ("error", "of_file"),
    [
        (DataError("damaged"), True),
        (ArgumentError("no such answers"), False),
        (MemoryError(), False),
    ],
)
def test_people_are_sent_to_mend_a_file_only_if_it_is_the_file(error, of_file, images, monkeypatch):
    from fmnist_fast.distributed.batch_predict import worker

    def fails(*arguments):
        raise error

    name = model_name(None, "cython")
    worker.keep_model(name, None, "cython")
    monkeypatch.setattr(worker, "_of_rows", fails)
    trouble = worker.score(None, [images[:2]], Scoring(name, ".", "auto", False, False))
    assert isinstance(trouble, worker.Trouble)
    assert trouble.of_file is of_file


def test_a_worker_that_cannot_keep_the_model_is_named(identity, monkeypatch):
    class FullDisk:
        def run(self, work, *arguments, workers, on_error):
            return {workers[0]: OSError(28, "No space left on device"), workers[1]: None}

    refused = model_to_workers(None, "cython")(FullDisk(), ["tcp://a:1", "tcp://b:2"])
    assert list(refused) == ["tcp://a:1"]
    assert "No space left on device" in refused["tcp://a:1"]


def test_what_a_worker_has_not_is_sent(images, tmp_path, fleet, identity):
    """A worker that sees no file of ours, as on another machine."""
    (tmp_path / "blind.py").write_text(
        "import fmnist_fast.distributed.batch_predict.worker as worker\n"
        "def read(*_):\n"
        "    raise FileNotFoundError(2, 'nothing here', 'x')\n"
        "worker.read = read\n"
    )
    write("folder", tmp_path / "f", images[:100])
    write("lists", tmp_path / "x.parquet", images)
    inputs = [str(tmp_path / "f"), str(tmp_path / "x.parquet"), str(tmp_path / "gone.png")]
    scored(inputs, fleet, tmp_path, "seen.parquet")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, "--preload", str(tmp_path / "blind.py")),
        open_fleet(address, 0, identity, model_to_workers(None, "cython")) as remote,
    ):
        wait_for_workers(remote, 1)
        scored(inputs, remote, tmp_path, "sent.parquet")
    assert (tmp_path / "seen.parquet").read_bytes() == (tmp_path / "sent.parquet").read_bytes()


def test_a_worker_killed_in_the_middle_costs_no_answer(images, tmp_path, fleet, identity):
    write("folder", tmp_path / "f", images)
    inputs = [str(tmp_path / "f")]
    scored(inputs, fleet, tmp_path, "whole.parquet")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address) as victim,
        dask_worker(address),
        open_fleet(address, 0, identity, model_to_workers(None, "cython")) as remote,
    ):
        wait_for_workers(remote, 2)
        killed = []

        def kill(partial):
            if partial.done and not killed:
                victim.kill()
                killed.append(partial.done)

        scored(inputs, remote, tmp_path, "killed.parquet", view=Unseen(kill))
    assert killed[0] < ROWS
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "killed.parquet").read_bytes()


def test_a_file_that_changes_meanwhile_ends_it(images, fleet, tmp_path):
    path = tmp_path / "x.idx"
    write("idx", path, images)
    blocks = list(Inputs([str(path)]).blocks((28, 28), None))
    write("idx", path, images[:100])
    how = Scoring(model_name(None, "cython"), str(tmp_path), "auto", False, False)
    with (
        open_partial(tmp_path / "p", {}, blocks) as partial,
        pytest.raises(DataError, match=r"x\.idx has changed meanwhile"),
    ):
        score_all(partial, how, 784, fleet, Unseen(), lambda: False)


@pytest.mark.parametrize(
    ("write_it", "said"),
    [
        (lambda path, x: path.write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 9) + b"123456789"), "1 "),
        (lambda path, x: path.write_bytes(idx(x)[:-1]), "its header promises"),
        (lambda path, x: path.write_bytes(idx(x[:, :9])), "has rows of shape (9, 28)"),
        (
            lambda path, x: path.write_bytes(idx(x.reshape(-1, 14, 56))),
            "has rows of shape (14, 56)",
        ),
        (lambda path, x: np.save(path.open("wb"), x.astype(bool)), "has dtype bool"),
        (lambda path, x: np.save(path.open("wb"), np.array([{}])), "Python objects"),
        (lambda path, x: path.write_bytes(npy(x)[:-1]), "its header promises"),
        (lambda path, x: np.savez(path.open("wb"), a=x, b=x), "several, a, b: name it with"),
        (lambda path, x: np.savez(path.open("wb"), a=x[:, 1:]), "none of a"),
        (lambda path, x: table(path, a=[1, 2]), "it has 1 of numbers"),
        (lambda path, x: table(path, a=[b"x"], b=[b"y"]), "a, b: name one with --column"),
        (lambda path, x: path.write_bytes(b"PAR1 and more"), "no Parquet file that can be read"),
        (lambda path, x: path.mkdir(), "is a folder without images"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is(images, tmp_path, write_it, said):
    write_it(tmp_path / "input", images)
    with pytest.raises(DataError) as raised:
        list(Inputs([str(tmp_path / "input")]).blocks((28, 28), None))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["idx.gz", "compressed npz"])
@pytest.mark.usefixtures("small_blocks")
def test_a_damaged_archive_ends_it(images, fleet, tmp_path, kind):
    path = tmp_path / "input"
    write(kind, path, images)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(400) + content[half + 400 :])
    with pytest.raises(DataError, match=r"damaged|truncated"):
        scored([str(path)], fleet, tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "why"), [(6, 1, "encrypted"), (8, 97, "compression method")]
)
def test_an_archive_that_cannot_be_unpacked_is_not_damaged(images, tmp_path, place, value, why):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=images)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + place] = value  # before the member
    content[content.index(b"PK\x01\x02") + place + 2] = value  # in the table of contents
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"cannot be unpacked: .*{why}.*; save it again"):
        list(Inputs([str(path)]).blocks((28, 28), None))


def test_other_answers_are_never_mixed(tmp_path):
    block = list(Inputs(["a.png"]).blocks((28, 28), None))
    with open_partial(tmp_path / "p", {"model": "a"}, block) as partial:
        partial.keep(1, b"x", 1, 0)
        with (
            pytest.raises(ArgumentError, match="is in use"),
            open_partial(tmp_path / "p", {"model": "a"}, block),
        ):
            pass
    with (
        pytest.raises(ArgumentError, match="with other model"),
        open_partial(tmp_path / "p", {"model": "b"}, block),
    ):
        pass
    with open_partial(tmp_path / "p", {"model": "a"}, block) as partial:
        assert partial.done == 1
        with pytest.MonkeyPatch.context() as patch:  # as if it had looked a moment before
            patch.setattr(Path, "exists", lambda path: False)
            with (
                pytest.raises(ArgumentError, match="is in use"),
                open_partial(tmp_path / "p", {"model": "a"}, block),
            ):
                pass
        assert (tmp_path / "p").exists()
    with open_partial(tmp_path / "p", {"model": "b"}, block, force=True) as partial:
        assert partial.done == 0
    (tmp_path / "text").write_text("something else that is long enough to be a file" * 9)
    with (
        pytest.raises(ArgumentError, match="damaged, or none of ours"),
        open_partial(tmp_path / "text", {}, block),
    ):
        pass


def test_blocks_go_through_text(tmp_path, images):
    from fmnist_fast.distributed.batch_predict.blocks import PictureFiles, block_of, text_of

    write("npz", tmp_path / "x.npz", images)
    write("lists", tmp_path / "x.parquet", images)
    blocks = list(
        Inputs([str(tmp_path / "x.npz"), str(tmp_path / "x.parquet")]).blocks((28, 28), None)
    )
    blocks.append(PictureFiles((os.fsdecode(b"\xff.png"), "b.png"), (12, -1)))
    assert [block_of(text_of(block)) for block in blocks] == blocks
    assert replace(blocks[0], begin=1) != blocks[0]


def command(*arguments):
    return [sys.executable, "-m", "fmnist_fast", "predict", "--workers", "2", *arguments]


def test_the_command_killed_in_the_middle_goes_on(images, tmp_path):
    write("folder", tmp_path / "f", np.concatenate([images] * 6))
    (tmp_path / "list.txt").write_text("f\n\nf/0000.png\n")
    arguments = command("--inputs-from", "list.txt", "--out", "a.csv", "--backend", "cython")
    process = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "a.csv.partial-wal", time.monotonic() + 60
    while not log.exists() or log.stat().st_size < 400_000:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "a.csv").exists()
    ran = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "answers are there already" in ran.stderr
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == '"path","row","label","name","probability","confident","error"'
    assert len(lines) == 6 * ROWS + 2
    assert lines[-1] == lines[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "f", "list.txt"]


def test_ctrl_c_keeps_what_was_scored(images, tmp_path):
    write("folder", tmp_path / "f", np.concatenate([images] * 6))
    process = subprocess.Popen(
        command("f", "--out", "a.csv"),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log, deadline = tmp_path / "a.csv.partial-wal", time.monotonic() + 60
    while not log.exists() or log.stat().st_size < 400_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "answers are kept in a.csv.partial: the same command goes on" in said
    assert (tmp_path / "a.csv.partial").exists()
    assert not (tmp_path / "a.csv").exists()


def test_files_that_changed_are_not_mixed_with_answers_to_the_old(
    images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write("folder", tmp_path / "f", images[:3])
    arguments = ["predict", "--workers", "1", "--out", "a.csv"]

    def interrupted(reached):
        """A command that ended with the answers of one block, or with none."""
        with monkeypatch.context() as patch:
            patch.setattr(Partial, "to_do", lambda partial: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                main([*arguments, "f"])
        if reached:
            with closing(sqlite3.connect("a.csv.partial")) as kept, kept:
                kept.execute("UPDATE blocks SET answers = 'x' WHERE number = 1")

    def changes():
        yield (tmp_path / "f" / "new.png").write_bytes(png(images[7]))
        yield (tmp_path / "f" / "0000.png").write_bytes(png(images[8]))
        yield (tmp_path / "f" / "new.png").unlink()

    interrupted(reached=True)
    for _ in changes():
        assert main([*arguments, "f"]) == 2
        said = capsys.readouterr().err
        assert "with other inputs, or files that were changed meanwhile," in said
        assert said.count("\n") == 1
    Path("a.csv.partial").unlink()
    interrupted(reached=False)
    (tmp_path / "f" / "new.png").write_bytes(png(images[7]))
    assert main([*arguments, "f"]) == 0  # there is nothing to lose
    assert len(Path("a.csv").read_text().splitlines()) == 1 + 4


@pytest.mark.parametrize("way", ["a file", "standard input", "a pipe"])
def test_a_list_may_come_from_anywhere_that_is_read_once(way, images, tmp_path):
    write("folder", tmp_path / "f", images[:2])
    names = b"\xef\xbb\xbff/0001.png\r\n\r\nf/0000.png"
    (tmp_path / "list.txt").write_bytes(names)
    given = {"a file": "list.txt", "standard input": "-", "a pipe": "/dev/fd/0"}[way]
    ran = subprocess.run(
        command("--inputs-from", given, "--out", "a.csv"),
        **{"cwd": tmp_path, "capture_output": True, "input": names},
    )
    assert ran.returncode == 0, ran.stderr
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ['"f/0001.png"', '"f/0000.png"']


def test_ctrl_c_while_there_is_nothing_yet_ends_it_at_once(tmp_path, monkeypatch, capsys):
    """Names of millions of files take their time."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a.png\n" * 100)
    listed = []

    def interrupted(block):
        listed.append(block)
        signal.raise_signal(signal.SIGINT)
        return len(block.paths)

    monkeypatch.setattr(
        "fmnist_fast.distributed.batch_predict.result_store.number_of_rows", interrupted
    )
    assert main(["predict", "--inputs-from", "list.txt", "--out", "a.csv"]) == 130
    assert len(listed) == 1
    assert "stopped" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.png", "--out", "a.txt"], "give --out a name in .parquet or .csv"),
        (["a.png", "--workers", "2"], "--workers needs --out"),
        (["a.png", "--out", "a.csv", "--threads", "2"], "give --workers"),
        (["a.png", "--out", "a.csv", "--workers", "2", "--scheduler", "tcp://x:1"], "only one"),
        (["a.png", "--out", "there.csv"], "there.csv exists already"),
        (["empty", "--out", "a.csv"], "empty is a folder without images"),
        (["--inputs-from", "blank.txt", "--out", "a.csv"], "give images or folders, or a list"),
        (["--inputs-from", "blank.txt"], "give images or folders, or a list"),
        (["--inputs-from", "nul.txt", "--out", "a.csv"], "line 2 of the list is no path"),
        (["a.png", "--out", "busy.csv"], "busy.csv.partial is not a file"),
        (["a.png", "--out", "a.csv", "--workers", "999"], "--workers 999 is too many"),
        (["a.png", "--out", "a.csv", "--scheduler", ""], "it is empty"),
        (["cut.gz", "--out", "a.csv"], "mend that file or leave it out, and begin anew"),
        (["flipped.gz", "--out", "a.csv"], "flipped.gz is damaged: CRC check failed"),
        (["there.csv", "--out", "there.csv", "--force"], "is also another file of this command"),
        ([], "give images or folders, or a list of them with --inputs-from"),
        (["a.png", "--out", "a.csv", "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler"),
    ],
)
def test_mistakes_are_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("mine")
    Path("empty").mkdir()
    Path("busy.csv.partial").mkdir()
    Path("blank.txt").write_text("\n\n")
    Path("nul.txt").write_bytes(b"a.png\na.png\0b.png\n")
    header = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28)
    packed = bytearray(gzip.compress(header + bytes(28 * 28 * 2)))
    Path("cut.gz").write_bytes(packed[:-9])
    packed[-8] ^= 1
    Path("flipped.gz").write_bytes(packed)
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not Path("a.csv").exists()
    assert Path("there.csv").read_text() == "mine"


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["predict", "a.png", "--out", str(tmp_path / "a.csv")]) == 2
    assert "pip install 'fmnist-fast[sweep]'" in capsys.readouterr().err
