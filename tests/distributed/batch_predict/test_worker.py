"""Prediction of a block: rows and images that are invalid have an error, and affect no other."""

import numpy as np
import pyarrow as pa
import pytest
from batch_inputs import make_config, predict_into, table, write

from fmnist_fast.distributed.batch_predict import worker
from fmnist_fast.distributed.batch_predict.job import model_name
from fmnist_fast.errors import ArgumentError, DataError
from fmnist_fast.nn.backend import backend_name


def test_worker_invert_equals_inverted_rows(images, model, pool, tmp_path):
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "dark.npy", 255 - images)
    bright = predict_into(tmp_path, pool, [str(tmp_path / "x.npy")])
    dark = predict_into(tmp_path, pool, [str(tmp_path / "dark.npy")], "dark.parquet", invert=True)
    assert bright.drop_columns("path") == dark.drop_columns("path")


def test_worker_invalid_floats_have_an_error(images, pool, tmp_path):
    x = (images[:20] / 255).astype(np.float32)
    x[3, 0, 0], x[7, 5, 5] = np.nan, 2
    np.save(tmp_path / "x.npy", x)
    found = predict_into(tmp_path, pool, [str(tmp_path / "x.npy")])
    errors = found["error"].to_pylist()
    assert [n for n, error in enumerate(errors) if error] == [3, 7]
    assert errors[3] == "it holds numbers outside of 0..1"
    for column in ("label", "name", "probability", "confident", "p_Dress"):
        assert [n for n, value in enumerate(found[column].to_pylist()) if value is None] == [3, 7]


def test_worker_invalid_integers_affect_no_other_row(images, pool, tmp_path):
    flat = images[:20].reshape(20, 784).astype(np.int64)
    write("lists", tmp_path / "bytes.parquet", images[:20])
    table(tmp_path / "wide.parquet", image=pa.array(list(flat)))
    flat[3, 0], flat[7, 9] = 256, -1
    table(tmp_path / "wrong.parquet", image=pa.array(list(flat)))
    rows, wide, wrong = (
        predict_into(tmp_path, pool, [str(tmp_path / f"{name}.parquet")], f"{name}-out.parquet")
        for name in ("bytes", "wide", "wrong")
    )
    predictions = rows.drop_columns("path").to_pylist()
    assert wide.drop_columns("path").to_pylist() == predictions
    errors = dict.fromkeys((3, 7), "it holds numbers outside of 0..255")
    assert {n: e for n, e in enumerate(wrong["error"].to_pylist()) if e} == errors
    rest = wrong.drop_columns("path").to_pylist()
    assert [rest[n] for n in range(20) if n not in errors] == [
        predictions[n] for n in range(20) if n not in errors
    ]


@pytest.mark.parametrize("dtype", ["int64", "u2", ">i4", "i1", "f2", ">f8"])
def test_worker_accepts_numbers_of_any_dtype(dtype, images, model, pool, tmp_path):
    x = images[:20] // 2  # which int8 has, too
    expected = x if np.dtype(dtype).kind in "iu" else (x / 255).astype(dtype).astype(np.float32)
    np.save(tmp_path / "x.npy", (expected if expected is x else x / 255).astype(dtype))
    found = predict_into(tmp_path, pool, [str(tmp_path / "x.npy")])
    assert found["label"].to_pylist() == model.predict(expected).tolist()
    assert found["error"].null_count == 20


def test_worker_unreadable_images_have_an_error(images, pool, tmp_path):
    write("folder", tmp_path / "f", images[:3])
    (tmp_path / "f" / "0001.png").write_bytes(b"no image")
    gone = str(tmp_path / "gone.png")
    found = predict_into(tmp_path, pool, [str(tmp_path / "f"), gone])
    errors = found["error"].to_pylist()
    assert errors == [None, "not an image, or a damaged one", None, "No such file or directory"]
    assert found["path"].to_pylist()[-1] == gone


def test_worker_model_name_depends_on_backend():
    names = [model_name(None, backend) for backend in ("numpy", "cython")]
    for name, backend in zip(names, ("numpy", "cython"), strict=True):
        worker.keep_model(name, None, backend)
    backends = [worker.MODELS[name].data_model.network.backend for name in names]
    assert list(map(backend_name, backends)) == ["numpy", "cython"]


@pytest.mark.parametrize(
    ("error", "of_file"),
    [
        (DataError("damaged"), True),
        (ArgumentError("no such prediction"), False),
        (MemoryError(), False),
    ],
)
def test_worker_block_error_names_file_of_data_errors_only(error, of_file, images, monkeypatch):
    class FailingModel:
        @property
        def size(self):
            raise error

    config = make_config(".")
    monkeypatch.setitem(worker.MODELS, config.model, FailingModel())
    result = worker.predict(None, [images[:2]], config)
    assert isinstance(result, worker.BlockError)
    assert result.of_file is of_file
