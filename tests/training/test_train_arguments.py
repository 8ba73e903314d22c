"""Arguments of `train`: each mistake is one ArgumentError that names the argument."""

from dataclasses import replace

import numpy as np
import pytest
from messages import assert_one_line

from fmnist_fast import Dataset, load_model, train
from fmnist_fast.errors import ArgumentError
from fmnist_fast.training.config import Distillation

FAST = {"epochs": 1, "hidden": (8,), "threads": 1, "backend": "numpy"}
RAGGED = [[1, 2], [3]] * 300


def check_refused(parts, dataset, **arguments):
    with pytest.raises(ArgumentError) as caught:
        train(dataset, **{**FAST, **arguments})
    assert_one_line(str(caught.value), *parts)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("epoch", "did you mean epochs?"),
        ("hiden", "did you mean hidden?"),
        ("callbak", "did you mean callbacks?"),
        ("thread", "did you mean threads?"),
        ("learning_rate", "did you mean lr?"),
        ("dense", "choose from hidden, epochs, "),
    ],
)
def test_train_names_nearest_argument(small_dataset, name, nearest):
    check_refused([f"no argument {name!r}", nearest], small_dataset, **{name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "x"),
        ("callbacks", [print, 5]),
        ("callbacks", None),
        ("callbacks", "print"),
        ("checkpoint", 5),
        ("checkpoint", "a\0b"),
        ("checkpoint_every", 1),
        ("class_weight", np.ones(10)),
        ("class_weight", ((0, 1), (1,))),
        ("class_weight", {"a": 1, 2: 1}),
        ("distillation", "best"),
        ("dtype", np.array(["float32", "float64"])),
        ("epochs", 10**9),
        ("hidden", (10**9,)),
        ("hidden", b"x"),
        ("hidden", (True,)),
        ("hidden", None),
        ("preset", ["best"]),
        ("progress", print),
        ("resume", True),
        ("sample_weight", ["a"] * 600),
        ("sample_weight", RAGGED),
        ("sample_weight", np.zeros(600)),
        ("sample_weight", {}),
        ("schedule", 5),
        ("should_stop", True),
        ("teacher", "model.safetensors"),
    ],
)
def test_train_names_invalid_argument(small_dataset, name, value):
    check_refused([name], small_dataset, **{name: value})


@pytest.mark.parametrize("metadata", [5, {"when": object()}])
def test_train_refuses_metadata_that_is_not_json(small_dataset, tmp_path, metadata):
    check_refused(["metadata"], small_dataset, metadata=metadata, checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", [Distillation(5), Distillation("sha256:", alpha="x")])
def test_train_names_invalid_distillation(small_dataset, how):
    check_refused(["distillation: teacher is"], small_dataset, distillation=how)


@pytest.mark.parametrize("given", [None, 5, "auto", np.ones((5, 4)), (1, 2), [np.ones(3)] * 3])
def test_train_says_what_a_data_set_is(given):
    check_refused(["dataset is", "load_dataset", "x_train, y_train, x_test, y_test"], given)


def test_train_takes_four_arrays(small_dataset, tmp_path):
    """They are copied: later changes, also of another thread, have no effect."""
    data = small_dataset
    arrays = [data.x_train.copy(), data.y_train.tolist(), data.x_test, data.y_test]

    def change(state):
        arrays[0][:] = 0

    result = train(tuple(arrays), **{**FAST, "epochs": 3}, callbacks=change)
    expected = train(data, **{**FAST, "epochs": 3})
    assert result.history[-1].train_loss == expected.history[-1].train_loss
    assert not arrays[0].any()
    result.model.save(tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    assert (loaded.dataset_name, len(loaded.class_names)) == ("arrays", 10)


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        (0, RAGGED, ["inhomogeneous"]),
        (0, np.zeros((600, 9), complex), ["x_train has dtype complex128"]),
        (1, np.zeros(5, int), ["y_train has shape (5,)"]),
        (1, ["a"] * 600, ["y_train has dtype"]),
        (2, np.zeros((200, 5), np.uint8), ["the test rows"]),
    ],
)
def test_train_names_invalid_array(small_dataset, place, value, parts):
    data = small_dataset
    arrays = [data.x_train, data.y_train, data.x_test, data.y_test]
    arrays[place] = value
    check_refused(parts, tuple(arrays))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"x_train": None}, ["x_train is", "give an array of rows"]),
        ({"x_train": np.zeros(600)}, ["x_train has shape (600,)"]),
        ({"x_test": np.zeros((0, 28, 28)), "y_test": []}, ["x_test has no rows"]),
        ({"y_train": [0, 1]}, ["y_train has shape (2,)", "(600,)"]),
        ({"x_test": np.zeros((200, 14, 14))}, ["x_test has rows of shape (14, 14)", "(28, 28)"]),
        ({"class_names": ()}, ["class_names is ()"]),
        ({"class_names": 10}, ["class_names is 10"]),
        ({"x_train_with_flips": np.zeros((600, 28, 28))}, ["x_train_with_flips"]),
    ],
)
def test_dataset_parts_must_fit_together(small_dataset, changes, parts):
    assert isinstance(small_dataset, Dataset)
    with pytest.raises(ArgumentError) as caught:
        replace(small_dataset, **changes)
    assert_one_line(str(caught.value), *parts)
