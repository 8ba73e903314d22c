"""Scheduling loop of batch prediction: output is independent of workers, stops and failures."""

import numpy as np
import pytest
from batch_inputs import KINDS, ROWS, Observer, blocks_of, make_config, predict_into, write
from clusters import dask_scheduler, dask_worker, wait_for_workers
from messages import assert_one_line

from fmnist_fast.distributed.batch_predict.job import model_to_workers, predict_all
from fmnist_fast.distributed.batch_predict.result_store import open_results
from fmnist_fast.distributed.worker_pool import open_pool
from fmnist_fast.errors import DataError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_blocks")
def test_predict_all_equals_predict_proba_for_every_input(kind, images, model, pool, tmp_path):
    write(kind, tmp_path / "input", images)
    found = predict_into(tmp_path, pool, [str(tmp_path / "input")])
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
def test_predict_all_bytes_independent_of_stops_and_workers(images, pool, identity, tmp_path, out):
    folder, packed = tmp_path / "folder", tmp_path / "x.gz"
    write("folder", folder, images[:100])
    write("idx.gz", packed, images)
    inputs = [str(packed), str(folder)]
    predict_into(tmp_path, pool, inputs, f"whole-{out}")
    with open_pool(None, 1, identity, model_to_workers(None, "cython")) as one:
        predict_into(tmp_path, one, inputs, f"one-{out}")

    done = []
    observer = Observer(lambda store: done.append(store.done))
    stopped = predict_into(
        tmp_path, pool, inputs, out, observer=observer, should_stop=lambda: any(done)
    )
    assert stopped is None
    assert 0 < done[-1] < ROWS + 100
    assert not (tmp_path / out).exists()
    resumed = []
    observer = Observer(lambda store: resumed.append(store.done))
    predict_into(tmp_path, pool, inputs, out, observer=observer)
    assert resumed[0] >= done[-1]
    whole = (tmp_path / f"whole-{out}").read_bytes()
    assert whole == (tmp_path / out).read_bytes() == (tmp_path / f"one-{out}").read_bytes()


def test_predict_all_sends_files_missing_on_worker(images, tmp_path, pool, identity):
    """The worker cannot read files, as on another machine."""
    (tmp_path / "blind.py").write_text(
        "import fmnist_fast.distributed.batch_predict.worker as worker\n"
        "def read(*_):\n"
        "    raise FileNotFoundError(2, 'nothing here', 'x')\n"
        "worker.read = read\n"
    )
    write("folder", tmp_path / "f", images[:100])
    write("lists", tmp_path / "x.parquet", images)
    inputs = [str(tmp_path / "f"), str(tmp_path / "x.parquet"), str(tmp_path / "gone.png")]
    predict_into(tmp_path, pool, inputs, "seen.parquet")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address, "--preload", str(tmp_path / "blind.py")),
        open_pool(address, 0, identity, model_to_workers(None, "cython")) as remote,
    ):
        wait_for_workers(remote, 1)
        predict_into(tmp_path, remote, inputs, "sent.parquet")
    assert (tmp_path / "seen.parquet").read_bytes() == (tmp_path / "sent.parquet").read_bytes()


def test_predict_all_survives_killed_worker(images, tmp_path, pool, identity):
    write("folder", tmp_path / "f", images)
    inputs = [str(tmp_path / "f")]
    predict_into(tmp_path, pool, inputs, "whole.parquet")
    with (
        dask_scheduler(tmp_path) as (_, address),
        dask_worker(address) as victim,
        dask_worker(address),
        open_pool(address, 0, identity, model_to_workers(None, "cython")) as remote,
    ):
        wait_for_workers(remote, 2)
        killed = []

        def kill(store):
            if store.done and not killed:
                victim.kill()
                killed.append(store.done)

        predict_into(tmp_path, remote, inputs, "killed.parquet", observer=Observer(kill))
    assert killed[0] < ROWS
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "killed.parquet").read_bytes()


def test_predict_all_changed_file_is_an_error(images, pool, tmp_path):
    path = tmp_path / "x.idx"
    write("idx", path, images)
    blocks = blocks_of(path)
    write("idx", path, images[:100])
    config = make_config(tmp_path)
    with (
        open_results(tmp_path / "p", {}, blocks) as store,
        pytest.raises(DataError) as caught,
    ):
        predict_all(store, config, 784, pool, Observer(), lambda: False)
    assert_one_line(str(caught.value), "x.idx has changed meanwhile")


def test_model_to_workers_rejects_worker_with_load_error():
    class FullDisk:
        def run(self, work, *arguments, workers, on_error):
            return {workers[0]: OSError(28, "No space left on device"), workers[1]: None}

    rejected = model_to_workers(None, "cython")(FullDisk(), ["tcp://a:1", "tcp://b:2"])
    assert list(rejected) == ["tcp://a:1"]
    assert_one_line(rejected["tcp://a:1"], "No space left on device")
