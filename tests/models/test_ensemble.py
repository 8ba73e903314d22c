"""Ensembles: predictions, file format, recognition."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import raises_containing
from safetensors.numpy import load, save

from fmnist_fast import Ensemble, Model, load_model, train
from fmnist_fast.errors import ArgumentError, BackendUnavailable, ModelFileError, UserError
from fmnist_fast.models.ensemble import members_of, single_member
from fmnist_fast.models.metadata import FORMAT_VERSION
from fmnist_fast.models.safetensors_io import check_replaceable
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.calibration import confidence_threshold
from fmnist_fast.vision.image_io import Picture
from fmnist_fast.vision.recognizer import Recognizer, saliency_map

BACKENDS = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


@pytest.fixture(scope="module")
def models(small_dataset) -> tuple[Model, ...]:
    """Three networks of different sizes and seeds."""
    options = {"epochs": 2, "backend": "numpy", "threads": 1}
    one = train(small_dataset, hidden=(9,), seed=1, **options).model
    two = train(small_dataset, hidden=(12, 7), seed=2, **options).model
    three = train(small_dataset, hidden=(), seed=3, **options).model
    return replace(one, temperature=1.3, threshold=0.9), replace(two, temperature=0.8), three


@pytest.fixture(scope="module")
def ensemble(models) -> Ensemble:
    return Ensemble(models, threshold=0.75, metrics={"test_accuracy": 0.5})


@pytest.fixture
def saved(ensemble, tmp_path):
    path = tmp_path / "e.safetensors"
    ensemble.save(path)
    return path


def softmax(logits_nk):
    p_nk = np.exp(logits_nk - logits_nk.max(axis=1, keepdims=True))
    return p_nk / p_nk.sum(axis=1, keepdims=True)


def by_hand(model, x):
    """Calibrated probabilities in float64."""
    h = x.reshape(len(x), -1) * model.network.scale
    weights, biases = (
        [array.astype(np.float64) for array in arrays] for arrays in model.network.params
    )
    for w_io, b_o in zip(weights[:-1], biases[:-1]):
        h = np.maximum(h @ w_io + b_o, 0)
    return softmax((h @ weights[-1] + biases[-1]) / model.temperature)


def test_ensemble_predicts_mean_of_members(ensemble, models, small_dataset):
    x = small_dataset.x_test
    found_nk = ensemble.predict_proba(x)
    assert found_nk.dtype == np.float32
    probabilities = [model.predict_proba(x).astype(np.float64) for model in models]
    expected_nk = ((probabilities[0] + probabilities[1] + probabilities[2]) / 3).astype(np.float32)
    assert np.array_equal(found_nk, expected_nk)
    np.testing.assert_allclose(found_nk, sum(by_hand(m, x) for m in models) / 3, atol=1e-5)
    assert np.array_equal(ensemble.predict(x), expected_nk.argmax(axis=1))
    assert any((ensemble.predict(x) != model.predict(x)).any() for model in models)


def test_ensemble_has_widest_dtype_of_members(models, small_dataset):
    wide = train(small_dataset, epochs=1, hidden=(5,), dtype="float64", threads=1).model
    x = small_dataset.x_test[:9]
    found_nk = Ensemble((models[0], wide)).predict_proba(x)
    assert found_nk.dtype == np.float64
    assert np.array_equal(found_nk, (models[0].predict_proba(x) + wide.predict_proba(x)) / 2)


def test_ensemble_of_one_predicts_like_its_member(models, small_dataset):
    alone = Ensemble(models[:1])
    x = small_dataset.x_test
    assert np.array_equal(alone.predict_proba(x), models[0].predict_proba(x))
    assert alone.threshold is None


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "numpy"])
def test_ensemble_bits_do_not_depend_on_threads(saved, small_dataset, name):
    one, three = (load_model(saved, name, threads) for threads in (1, 3))
    x = small_dataset.x_test
    assert np.array_equal(one.predict_proba(x), three.predict_proba(x))


def test_ensemble_has_attributes_of_model(ensemble, models):
    for name in ("class_names", "input_shape", "dataset_name", "dataset_checksum"):
        assert getattr(ensemble, name) == getattr(models[0], name)
    assert ensemble.metrics == {"test_accuracy": 0.5}
    assert members_of(ensemble) == models
    assert members_of(models[0]) == models[:1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_names": tuple("abcdefghij")},
            "member 2 of an ensemble has another class_names than",
        ),
        ({"input_shape": (784,)}, "member 2 of an ensemble has another input_shape than"),
        ({"dataset_checksum": "1" * 64}, "member 2 of an ensemble has another dataset_checksum"),
    ],
)
def test_ensemble_rejects_mismatched_members(models, changes, message):
    with pytest.raises(ArgumentError, match=message):
        Ensemble((models[0], replace(models[1], **changes)))


def test_ensemble_rejects_members_other_than_models(models, ensemble):
    with pytest.raises(ArgumentError, match="has no members: give one model or more"):
        Ensemble(())
    with pytest.raises(ArgumentError, match="member 2 is Ensemble: give models"):
        Ensemble((models[0], ensemble))


def test_ensemble_with_threshold_fits_given_rows(models, small_dataset):
    x, y = small_dataset.x_test, small_dataset.y_test
    bare = Ensemble(models, metrics={"a": 1})
    fitted = bare.with_threshold(x, y, 0.5)
    probability_nk = bare.predict_proba(x)
    hit_n = probability_nk.argmax(axis=1) == y
    assert fitted.threshold == confidence_threshold(probability_nk.max(axis=1), hit_n, 0.5)
    assert fitted.threshold is not None
    assert (fitted.members, fitted.metrics) == (models, {"a": 1})
    assert bare.threshold is None
    with pytest.raises(ArgumentError, match="labels has shape"):
        bare.with_threshold(x, y[:5])


def test_save_and_load_round_trip(ensemble, models, saved, small_dataset):
    loaded = load_model(saved, "numpy")
    assert isinstance(loaded, Ensemble)
    assert loaded.metadata() == ensemble.metadata()
    assert (loaded.threshold, loaded.metrics) == (0.75, {"test_accuracy": 0.5})
    x = small_dataset.x_test
    assert np.array_equal(loaded.predict_proba(x), ensemble.predict_proba(x))
    for ours, theirs in zip(loaded.members, models):
        assert ours.to_bytes() == theirs.to_bytes()  # nothing of a member is lost


def test_ensemble_bytes_are_deterministic(ensemble, models, saved):
    assert saved.read_bytes() == ensemble.to_bytes() == load_model(saved).to_bytes()
    assert Ensemble(models[::-1]).to_bytes() != Ensemble(models).to_bytes()


def test_ensemble_file_metadata(ensemble, saved):
    """The file has the format version and the data set, which `load_model` and `save` check."""
    (length,) = struct.unpack("<Q", saved.read_bytes()[:8])
    header = json.loads(saved.read_bytes()[8 : 8 + length])
    text = header["__metadata__"]["fmnist_fast"]
    description = json.loads(text)
    assert text == json.dumps(description, sort_keys=True)
    assert description["format_version"] == FORMAT_VERSION
    assert description["dataset"] == {"name": "small", "checksum": "0" * 64}
    assert [member["format_version"] for member in description["members"]] == [FORMAT_VERSION] * 3


def write_with(path, ensemble, tensors=None, **changes):
    """The file of the ensemble with parts of its description replaced; None removes a part."""
    description = {**ensemble.metadata(), **changes}
    description = {name: value for name, value in description.items() if value is not None}
    arrays = {**load(ensemble.to_bytes()), **(tensors or {})}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    path.write_bytes(save(arrays, {"fmnist_fast": json.dumps(description)}))
    return path


def members_with(ensemble, **changes):
    """Descriptions of the members, the second one changed."""
    one, two, *others = ensemble.metadata()["members"]
    return [one, {**two, **changes}, *others]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": None}, "it has no 'architecture'"),
        ({"members": []}, "an ensemble has no members"),
        ({"members": {}}, "a part of its metadata has the wrong type"),
        ({"members": "abc"}, "a part of its metadata has the wrong type"),
        ({"members": ["a", "b", "c"]}, "a part of its metadata has the wrong type"),
        ({"calibration": None}, "it has no 'calibration'"),
        ({"calibration": {"threshold": 1.5}}, r"threshold 1\.5"),
        ({"calibration": {"threshold": float("nan")}}, "its metadata holds NaN"),
        ({"class_names": ["a"]}, "its class_names is not that of its members"),
        ({"dataset": {"name": "x", "checksum": "1" * 64}}, "its dataset is not that of its"),
        ({"input": {"shape": [784]}}, "its input is not that of its members"),
        ({"input": None}, "it has no 'input'"),
        ({"metrics": 3}, "is damaged"),
        ({"format_version": 2}, "is damaged"),
    ],
)
def test_load_rejects_invalid_metadata(ensemble, tmp_path, changes, message):
    path = write_with(tmp_path / "bad.safetensors", ensemble, **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 7}, "member 2 has format version 7"),
        ({"format_version": None}, "member 2 has format version None"),
        ({"class_names": ["a"] * 10}, "member 2 of an ensemble has another class_names than"),
        (
            {"dataset": {"name": "x", "checksum": "1" * 64}},
            "has another dataset_checksum than member 1",
        ),
        ({"calibration": {"temperature": -1, "threshold": None}}, r"temperature -1\.0"),
        ({"architecture": {}}, "it has no 'sizes'"),
    ],
)
def test_load_rejects_invalid_member(ensemble, tmp_path, changes, message):
    members = members_with(ensemble, **changes)
    path = write_with(tmp_path / "bad.safetensors", ensemble, members=members)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layers.0.weight": np.zeros(3)}, "tensors of other members than its 3"),
        ({"members.3.layers.0.weight": np.zeros(3)}, "tensors of other members than its 3"),
        ({"members.1.layers.9.weight": np.zeros(3)}, "it holds the tensors"),
        ({"members.1.layers.0.bias": None}, "it holds the tensors"),
        ({"members.1.layers.0.bias": np.zeros(12)}, r"layers\.0\.bias is float64 \(12,\)"),
        (
            {"members.1.layers.0.bias": np.full(12, np.nan, np.float32)},
            r"layers\.0\.bias holds NaN or infinite values",
        ),
    ],
)
def test_load_rejects_invalid_tensors(ensemble, tmp_path, tensors, message):
    path = write_with(tmp_path / "bad.safetensors", ensemble, tensors)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_load_rejects_truncated_file(saved):
    content = saved.read_bytes()
    for length in [*range(0, 4000, 197), *range(4000, len(content), 4999), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="is damaged or not a safetensors file"):
            load_model(saved)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_load_mutated_file_gives_model_or_error(saved, ensemble, data):
    content = bytearray(ensemble.to_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 8 + length))] = data.draw(st.integers(0, 255))
    saved.write_bytes(content)
    try:
        loaded = load_model(saved)
    except (ModelFileError, BackendUnavailable) as error:
        message = str(error)
    else:
        message = ""
        assert loaded.predict_proba(np.zeros((1, 784), np.uint8)).shape == (1, 10)
    assert "\n" not in message


def test_save_keeps_ensemble_of_another_data_set(ensemble, models, saved):
    other = replace(models[0], dataset_name="other", dataset_checksum="1" * 64)
    before = saved.read_bytes()
    with pytest.raises(ModelFileError, match=r"holds a model trained on small, .*--force"):
        check_replaceable(saved, "other", "1" * 64)
    for one in (other, Ensemble((other,))):
        with pytest.raises(ModelFileError, match=r"holds a model trained on small, .*--force"):
            one.save(saved)
    assert saved.read_bytes() == before
    models[0].save(saved)  # of the same data set
    ensemble.save(saved)
    Ensemble((other,)).save(saved, force=True)
    assert load_model(saved).dataset_name == "other"
    thesis = saved.with_name("thesis.txt")
    thesis.write_text("years of work")
    with pytest.raises(ModelFileError, match="is not a model of fmnist-fast"):
        ensemble.save(thesis)


def test_single_member_rejects_several(ensemble, models):
    with pytest.raises(UserError) as caught:
        single_member(ensemble, "e.safetensors", "export")
    assert str(caught.value) == (
        "e.safetensors is an ensemble of 3 models, and export needs one network: "
        "distil it with 'fmnist-fast train --teacher e.safetensors'"
    )
    assert single_member(models[0], "m", "export") is models[0]
    assert single_member(Ensemble(models[:1]), "e", "export") is models[0]


def test_recognizer_predicts_with_ensemble(ensemble, small_dataset):
    pixels = small_dataset.x_test[0]
    picture = Picture(np.stack([pixels] * 3, axis=2), None, (28, 28), gray=True)
    recognition = Recognizer(ensemble).recognize(picture)
    expected_k = ensemble.predict_proba(pixels[None])[0]
    assert np.array_equal(recognition.probability_k, expected_k)
    assert recognition.is_confident is bool(expected_k.max() >= 0.75)


def test_saliency_map_is_mean_of_calibrated_logits(ensemble, models, small_dataset):
    pixels = small_dataset.x_test[3]
    found = saliency_map(ensemble, pixels, 4)
    expected = sum(saliency_map(m, pixels, 4) / m.temperature for m in models) / 3
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.array_equal(
        saliency_map(Ensemble(models[2:]), pixels, 4), saliency_map(models[2], pixels, 4)
    )


def test_ensemble_names_invalid_arguments(ensemble, small_dataset):
    for members in (None, 5, ensemble.members[0], [ensemble.members[0], 5]):
        with raises_containing(ArgumentError, "member"):
            Ensemble(members)
    x, labels = small_dataset.x_test, small_dataset.y_test
    for precision in ("a", 2.0):
        with raises_containing(ArgumentError, f"target_precision is {precision!r}"):
            ensemble.with_threshold(x, labels, precision)
    with raises_containing(ArgumentError, "x has no rows"):
        ensemble.with_threshold(x[:0], labels[:0])
    with raises_containing(ArgumentError, "x is no array"):
        ensemble.predict_proba([[1, 2], [3]])
