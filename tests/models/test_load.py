"""Model files: deterministic bytes, and one-line errors for other files."""

import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from fmnist_fast import train
from fmnist_fast.errors import ArgumentError, BackendUnavailable, ModelFileError
from fmnist_fast.models.load import PRETRAINED, PRETRAINED_PHOTOS, load_model
from fmnist_fast.models.metadata import FORMAT_VERSION
from fmnist_fast.models.model import Model


@pytest.fixture(scope="module")
def model(small_dataset) -> Model:
    return train(small_dataset, epochs=1, hidden=(5,), backend="numpy", threads=1).model


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "m.safetensors"
    model.save(path)
    return path


def write_with(path, model, **changes):
    """The model's file with some parts of its description replaced; None removes a part."""
    description = {**model.metadata(), **changes}
    description = {name: value for name, value in description.items() if value is not None}
    params = model.network.params
    tensors = {f"layers.{d}.weight": w for d, w in enumerate(params.weights)}
    tensors |= {f"layers.{d}.bias": b for d, b in enumerate(params.biases)}
    path.write_bytes(save(tensors, {"fmnist_fast": json.dumps(description)}))


def test_save_and_load_round_trip(model, saved, small_dataset):
    loaded = load_model(saved, "numpy")
    assert loaded.metadata() == model.metadata()
    for ours, theirs in zip(loaded.network.params, model.network.params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))
    x = small_dataset.x_test
    assert np.array_equal(loaded.predict_proba(x), model.predict_proba(x))
    assert np.array_equal(loaded.predict(x), model.predict_proba(x).argmax(axis=1))


def test_model_bytes_are_deterministic(model, saved):
    assert saved.read_bytes() == model.to_bytes() == load_model(saved).to_bytes()


@pytest.mark.parametrize("path", [PRETRAINED, PRETRAINED_PHOTOS])
def test_pretrained_files_are_rewritten_to_same_bytes(path):
    assert load_model(path).to_bytes() == path.read_bytes()


def test_model_file_metadata(model, saved):
    (length,) = struct.unpack("<Q", saved.read_bytes()[:8])
    header = json.loads(saved.read_bytes()[8 : 8 + length])
    assert list(header["__metadata__"]) == ["fmnist_fast"]
    text = header["__metadata__"]["fmnist_fast"]
    description = json.loads(text)
    assert text == json.dumps(description, sort_keys=True)
    assert description["format_version"] == FORMAT_VERSION
    assert description["architecture"]["sizes"] == [784, 5, 10]
    assert description["input"] == {"shape": [28, 28], "scale": 1 / 255}
    assert description["dataset"] == {"name": "small", "checksum": "0" * 64}
    assert description["class_names"] == [f"class {k}" for k in range(10)]
    assert description["training"]["seed"] == 0
    assert 0 < description["metrics"]["test_accuracy"] < 1


def test_to_bytes_accepts_noncontiguous_weights(model, tmp_path):
    params = model.network.params
    transposed = params._replace(weights=tuple(np.asfortranarray(w) for w in params.weights))
    other = replace(model, network=replace(model.network, params=transposed))
    assert other.to_bytes() == model.to_bytes()


def test_load_rejects_newer_format(model, tmp_path):
    path = tmp_path / "new.safetensors"
    write_with(path, model, format_version=FORMAT_VERSION + 1)
    with pytest.raises(ModelFileError, match=r"format version 5, newer .*upgrade fmnist-fast"):
        load_model(path)


def test_load_rejects_number_beyond_float(model, tmp_path):
    path = tmp_path / "bad.safetensors"
    write_with(path, model, metrics={"loss": 12345.5})
    path.write_bytes(path.read_bytes().replace(b"12345.5", b"1e99999"))
    with pytest.raises(ModelFileError, match="is damaged: its metadata holds 1e99999"):
        load_model(path)


def architecture(model, **changes):
    return {**model.metadata()["architecture"], **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": None}, "no format version"),
        ({"format_version": "1"}, "no format version"),
        ({"architecture": None}, "it has no 'architecture'"),
        ({"architecture": []}, "is damaged"),
        ({"class_names": ["a"]}, "1 class names for 10 classes"),
        ({"class_names": [1] * 10}, "10 class names for 10 classes"),
        ({"input": {"shape": [28, 27], "scale": 1.0}}, r"input shape \(28, 27\) for 784 inputs"),
        ({"input": {"shape": [28, 28], "scale": float("nan")}}, "its metadata holds NaN"),
        ({"metrics": {"loss": float("inf")}}, "its metadata holds Infinity"),
        ({"input": {"shape": [28, 28], "scale": 0}}, "input scale 0"),
        ({"input": {"shape": [28, 28], "scale": 1e37}}, "overflow"),
        ({"calibration": {"temperature": 1e-44, "threshold": None}}, "overflow"),
        ({"dataset": None}, "it has no 'dataset'"),
        ({"metrics": 3}, "is damaged"),
    ],
)
def test_load_rejects_invalid_metadata(model, tmp_path, changes, message):
    path = tmp_path / "bad.safetensors"
    write_with(path, model, **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sizes", [[784], [784, 6, 10], [784, -5, 10], [784, 5.0, 10], "x", 3, [[]]]
)
def test_load_rejects_invalid_layer_sizes(model, tmp_path, sizes):
    path = tmp_path / "bad.safetensors"
    write_with(path, model, architecture=architecture(model, sizes=sizes))
    with pytest.raises(ModelFileError, match="is damaged"):
        load_model(path)


def test_load_names_unsupported_activation(model, tmp_path):
    path = tmp_path / "gelu.safetensors"
    write_with(path, model, architecture=architecture(model, activation="gelu"))
    with pytest.raises(BackendUnavailable, match="has no activation 'gelu'"):
        load_model(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_load_rejects_nonfinite_weights(model, tmp_path, value):
    params = model.network.params
    spoiled = params.weights[0].copy()
    spoiled[3, 2] = value
    bad = replace(
        model,
        network=replace(
            model.network, params=params._replace(weights=(spoiled, *params.weights[1:]))
        ),
    )
    path = tmp_path / "bad.safetensors"
    bad.save(path)
    with pytest.raises(ModelFileError, match=r"layers\.0\.weight holds NaN or infinite"):
        load_model(path)


def test_load_rejects_truncated_file(saved):
    content = saved.read_bytes()
    for length in [*range(0, 2000, 97), *range(2000, len(content), 4999), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="is damaged or not a safetensors file"):
            load_model(saved)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_load_mutated_file_gives_model_or_error(saved, model, data):
    content = bytearray(model.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of the file is weights, where a flipped bit is another weight: aim at the header.
        content[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    saved.write_bytes(content)
    try:
        loaded = load_model(saved)
    except (ModelFileError, BackendUnavailable) as error:
        message = str(error)
    else:
        message = ""
        assert loaded.predict_proba(np.zeros((1, 784), np.uint8)).shape == (1, 10)
    assert "\n" not in message


def test_load_rejects_other_files(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.zeros(3)}, {"made by": "someone else"}))
    with pytest.raises(ModelFileError, match="safetensors file, but not one of fmnist-fast"):
        load_model(path)
    with pytest.raises(ModelFileError, match="there is no model file"):
        load_model(tmp_path / "missing")
    with pytest.raises(ModelFileError, match="is a folder: give a file"):
        load_model(tmp_path)


def test_save_keeps_model_of_another_data_set(model, saved):
    other = replace(model, dataset_name="other", dataset_checksum="1" * 64)
    before = saved.read_bytes()
    with pytest.raises(ModelFileError, match=r"trained on small, .*other.*--force"):
        other.save(saved)
    assert saved.read_bytes() == before
    other.save(saved, force=True)
    assert load_model(saved).dataset_name == "other"


def test_save_replaces_model_of_same_data_set(model, saved):
    renamed = replace(model, dataset_name="the same data under another name")
    renamed.save(saved)
    assert load_model(saved).dataset_name == renamed.dataset_name


def test_save_keeps_file_of_another_kind(model, tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(ModelFileError, match=r"is not a model of fmnist-fast.*--force"):
        model.save(path)
    assert path.read_text() == "years of work"


def test_load_names_pickle_without_opening(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was opened",))

    path = tmp_path / "model.joblib"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelFileError, match="is a pickle, which is never opened here"):
        load_model(path)


@pytest.mark.parametrize("path", [5, [], ""])
def test_load_names_argument_that_is_no_path(path):
    with pytest.raises(ArgumentError, match="path is"):
        load_model(path)


def test_load_does_not_blame_file_for_arguments(saved, monkeypatch):
    """Nor for the environment: the messages do not name the file."""
    for threads in (0, "two", 1.5):
        with pytest.raises(ArgumentError, match=r"^threads is"):
            load_model(saved, threads=threads)
    command = "from fmnist_fast import load_model; load_model()"
    environment = {**os.environ, "FMNIST_FAST_ISA": "bogus"}
    ran = subprocess.run([sys.executable, "-c", command], env=environment, stderr=-1, text=True)
    assert "ArgumentError: FMNIST_FAST_ISA is 'bogus'" in ran.stderr
    assert "damaged" not in ran.stderr


def test_load_name_too_long_is_a_missing_file():
    with pytest.raises(ModelFileError, match="there is no model file"):
        load_model("x" * 5000)
