"""Checks of parameters, rows and weights."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from messages import raises_containing
from numpy.testing import assert_array_equal

from fmnist_fast import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("container", ["fortran", "read-only", "memmap", "pandas", "polars"])
def test_check_rows_takes_every_container(container, digits, tmp_path):
    x_ni, y_n = digits
    expected = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, y_n)
    if container == "memmap":
        np.save(tmp_path / "x.npy", x_ni)
    names = [f"pixel {i}" for i in range(64)]
    rows = {
        "fortran": lambda: np.asfortranarray(x_ni),
        "read-only": lambda: np.frombuffer(x_ni.tobytes()).reshape(x_ni.shape),
        "memmap": lambda: np.load(tmp_path / "x.npy", mmap_mode="r"),
        "pandas": lambda: pd.DataFrame(x_ni, columns=names),
        "polars": lambda: pl.DataFrame(x_ni, schema=names),
    }[container]()
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(rows, y_n)
    assert_array_equal(model.predict_proba(rows), expected.predict_proba(x_ni))
    if container in ("pandas", "polars"):
        assert model.feature_names_in_.tolist() == names
        with raises_containing(ValueError, "feature names should match"):
            model.predict(rows[names[::-1]])


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_check_weights_rejects_invalid_class_weight(digits, weight):
    with raises_containing(ValueError, "class_weight", str(weight), "negative", "NaN"):
        MLPClassifier((4,), class_weight={0: weight}).fit(*digits)


def test_check_weights_class_weight_equals_sample_weight(digits):
    x_ni, y_n = digits
    weighted = MLPClassifier((8,), max_iter=5, random_state=0, class_weight={0: 3.0, 7: 0.5})
    weights = np.where(y_n == 0, 3.0, np.where(y_n == 7, 0.5, 1.0))
    plain = MLPClassifier((8,), max_iter=5, random_state=0)
    assert_array_equal(weighted.fit(x_ni, y_n).coefs_[0], plain.fit(x_ni, y_n, weights).coefs_[0])
    assert plain.set_params(class_weight="balanced").fit(x_ni, y_n).n_iter_ == 5


@pytest.mark.parametrize(
    ("parameters", "parts"),
    [
        ({"alpha": -1}, ("'alpha' parameter", "must be a float in the range")),
        ({"solver": "sdg"}, ("'solver' parameter", "must be a str among")),
        ({"backend": "fpga"}, ("'backend' parameter", "must be a str among")),
        ({"dropout": 1.0}, ("'dropout' parameter", "must be a float")),
        ({"hidden_layer_sizes": (3, 0)}, ("hidden_layer_sizes", "> 0", "[3, 0]")),
    ],
)
def test_fit_names_invalid_parameter(parameters, parts, digits):
    with raises_containing(ValueError, *parts):
        MLPClassifier(**parameters).fit(*digits)


def test_check_rows_rejects_wrong_rows(digits):
    model = MLPClassifier((4,), max_iter=2).fit(*digits)
    with raises_containing(ValueError, "X has 63 features, but MLPClassifier is expecting 64"):
        model.predict(digits[0][:, :63])
    broken = digits[0].copy()
    broken[3, 4] = np.nan
    for call in (model.predict, model.predict_proba, lambda x: model.fit(x, digits[1])):
        with raises_containing(ValueError, "Input X contains NaN"):
            call(broken)
