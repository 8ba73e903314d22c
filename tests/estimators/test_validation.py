"""Checks of parameters, rows and weights."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from messages import raises_containing
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.base import clone

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


def _damaged(kind, dtype, changes):
    """A CSR matrix of shape (3, 6), or CSC (6, 3), with some of its arrays replaced: SciPy does not
    check them.
    """
    eye = np.eye(3, 6, dtype=np.float32)
    x = sparse.csr_matrix(eye) if kind == "csr" else sparse.csc_matrix(eye.T)
    x.indices, x.indptr = x.indices.astype(dtype), x.indptr.astype(dtype)
    for name, values in changes.items():
        array = getattr(x, name)
        setattr(x, name, np.array(values, array.dtype) if isinstance(values, list) else values)
    return x


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, ">i4"])
@pytest.mark.parametrize(
    "changes",
    [
        {"indices": [0, 1, 6]},
        {"indices": [0, -5, 2]},
        {"indices": [0, 1, 2**31 - 1]},
        {"indices": np.array([0.0, 1.0, 2.0])},
        {"indices": [0]},
        {"data": [1]},
        {"indptr": [0, 1, 2, 4]},
        {"indptr": [0, 2, 1, 3]},
        {"indptr": [1, 1, 2, 3]},
        {"indptr": [0, 1, 2, -3]},
        {"indptr": [0, 1, 3]},
        {"indptr": [0, 1, 2, 2**31 - 1]},
        {"indptr": [0, 2**31 - 1, -(2**31), 3]},  # differences overflow
    ],
)
def test_estimator_rejects_indices_outside_of_matrix(kind, dtype, changes):
    """In fit, partial_fit and predict_proba; the kernels would read outside of the arrays."""
    x = _damaged(kind, dtype, changes)
    y = np.arange(x.shape[0]) % 2
    fitted = MLPClassifier((3,), max_iter=1).fit(np.eye(*x.shape, dtype=np.float32), y)
    for call in (lambda: clone(fitted).fit(x, y), lambda: fitted.predict_proba(x)):
        with raises_containing(ValueError, f"damaged {kind.upper()} matrix", "check_format"):
            call()
    with raises_containing(ValueError, "damaged"):
        clone(fitted).partial_fit(x, y, classes=[0, 1])


def test_estimator_accepts_valid_sparse_matrices_of_any_index_dtype():
    x = sparse.csr_matrix(np.eye(4, 6, dtype=np.float32))
    fitted = MLPClassifier((3,), max_iter=1).fit(x, [0, 1, 1, 0])
    expected = fitted.predict_proba(x)
    x.indices, x.indptr = x.indices.astype(np.int64), x.indptr.astype(np.int64)
    assert np.array_equal(fitted.predict_proba(x), expected)
    assert np.array_equal(fitted.predict_proba(x.tocsc()), expected)
    assert fitted.predict_proba(sparse.csr_matrix((2, 6), dtype=np.float32)).shape == (2, 2)


@pytest.mark.parametrize("sizes", [(1.5,), [[1]], (0,), 10**9, (2**16, 2**16)])
def test_estimator_rejects_invalid_hidden_sizes(sizes):
    x_ni, y_n = np.eye(8), [0, 1] * 4
    with raises_containing(ValueError, "hidden_layer_sizes"):
        MLPClassifier(sizes, max_iter=1).fit(x_ni, y_n)
