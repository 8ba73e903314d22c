"""MLPClassifier as an estimator: checks, tools of scikit-learn, dtypes, export."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import onnxruntime
import pytest
import sklearn
from estimator_parity import labels_of_type
from messages import raises_containing
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fmnist_fast import MLPClassifier
from fmnist_fast.errors import ArgumentError, UserError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks(
    [
        MLPClassifier(),
        MLPClassifier(backend="numpy", solver="sgd", learning_rate_init=0.05),
    ]
)
def test_classifier_passes_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(estimator)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "bool"])
def test_fit_dtype_auto_follows_rows(dtype, digits):
    x_ni = (digits[0] * 16).astype(dtype)
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, digits[1])
    expected = "float32" if dtype in ("uint8", "float32") else "float64"
    assert {array.dtype.name for array in (*model.coefs_, *model.intercepts_)} == {expected}
    assert model.predict_proba(x_ni).dtype == expected
    assert_array_equal(model.predict(x_ni.tolist()), model.predict(x_ni))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_dtype_sets_dtype_of_weights(dtype, digits):
    model = MLPClassifier((8,), max_iter=2, dtype=dtype).fit(*digits)
    assert model.coefs_[0].dtype == dtype


def test_classifier_pickle_predicts_and_resumes(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))
    for one in (model, again):
        one.partial_fit(*digits)
    assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_classifier_clone_has_same_parameters():
    model = MLPClassifier((3,), backend="numpy", dropout=0.1, time_budget=1.0)
    assert clone(model).get_params() == model.get_params()


def test_classifier_in_grid_search_and_pipeline(digits):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=60, random_state=0))
    grid = {"mlpclassifier__alpha": [1e-4, 1e-1], "mlpclassifier__dtype": ["float32", "float64"]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(*digits)
    assert search.best_score_ > 0.8
    assert cross_val_score(search.best_estimator_, *digits, cv=2).min() > 0.7


def test_classifier_metadata_routing_passes_sample_weight(digits):
    weights = np.arange(600) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier((8,), max_iter=5, random_state=0).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(*digits, sample_weight=weights)
        scaled = StandardScaler().fit_transform(digits[0])
        direct = clone(model).fit(scaled, digits[1], weights)
    assert_array_equal(pipeline[-1].coefs_[0], direct.coefs_[0])


def test_classifier_has_no_set_output(digits):
    model = MLPClassifier((4,), max_iter=2).fit(*digits)
    assert not hasattr(model, "set_output")  # it is for transformers, in scikit-learn's too


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "strings"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_classifier_export_predicts_same_probabilities(kind, dtype, digits, tmp_path):
    x_ni, y_n = digits[0].astype(dtype), labels_of_type(kind, digits[1])
    model = MLPClassifier((9,), "tanh", max_iter=5, random_state=0).fit(x_ni, y_n)
    model.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (exported_nk,) = session.run(None, {"x": x_ni})
    assert np.abs(exported_nk - model.predict_proba(x_ni)).max() <= 1e-5
    model.export(tmp_path / "model.npz")
    with raises_containing(UserError, "exists"):
        model.export(tmp_path / "model.npz")
    with raises_containing(ArgumentError, "ends with none of"):
        model.export(tmp_path / "model.pt")


def test_partial_fit_needs_stochastic_solver(digits):
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with raises_containing(ValueError, "does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(*digits, classes=np.arange(10))


def test_classifier_import_without_scikit_learn_names_extra():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import fmnist_fast; fmnist_fast.train\n"
        "from fmnist_fast import MLPClassifier"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'fmnist-fast[sklearn]'" in ran.stderr.splitlines()[-1]
