"""MLPClassifier beside scikit-learn's: same numbers, same semantics, same errors."""

import pickle
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fmnist_fast import MLPClassifier
from fmnist_fast.errors import ArgumentError, BackendUnavailable, UserError
from fmnist_fast.estimators.lbfgs import loss_and_gradient
from fmnist_fast.estimators.networks import build_network
from fmnist_fast.estimators.solvers import Solver
from fmnist_fast.kernels import reference
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.network import Network

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    x_ni, y_n = load_digits(return_X_y=True)
    return x_ni[:600] / 16, y_n[:600]


def targets_of(kind, y_n):
    ones = np.eye(10, dtype=int)
    return {
        "multiclass": y_n,
        "binary": y_n % 2,
        "strings": np.array(["nought", "one", "two", "three"])[y_n % 4],
        "multilabel": ones[y_n] | ones[(y_n + 3) % 10],
    }[kind]


def both(kind, digits, weights=None, backend="numpy", **parameters):
    """scikit-learn's and ours, fit to the same rows."""
    x_ni, y_n = digits
    parameters = {"max_iter": 20, "random_state": 3, **parameters}
    theirs = neural_network.MLPClassifier((20, 10), **parameters)
    ours = MLPClassifier((20, 10), backend=backend, **parameters)
    return (model.fit(x_ni, targets_of(kind, y_n), weights) for model in (theirs, ours))


def agree(theirs, ours, x_ni, bound=1e-6, loss_bound=1e-6):
    """loss_bound : of the losses, in part of themselves."""
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            assert a.dtype == b.dtype
            assert np.abs(a - b).max() <= bound
    for name in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(theirs, name) == getattr(ours, name)
    assert_array_equal(theirs.classes_, ours.classes_)
    assert_array_equal(theirs.predict(x_ni), ours.predict(x_ni))
    assert np.abs(theirs.predict_proba(x_ni) - ours.predict_proba(x_ni)).max() <= bound
    assert theirs.loss_ == pytest.approx(ours.loss_, abs=bound, rel=loss_bound)
    if theirs.solver == "lbfgs":
        return
    assert_allclose(theirs.loss_curve_, ours.loss_curve_, atol=bound, rtol=loss_bound)
    assert theirs.t_ == ours.t_
    assert theirs.validation_scores_ == ours.validation_scores_
    assert theirs.best_validation_score_ == ours.best_validation_score_
    if theirs.best_loss_ is None:
        assert ours.best_loss_ is None
    else:
        assert theirs.best_loss_ == pytest.approx(ours.best_loss_, abs=bound, rel=loss_bound)


@pytest.fixture(autouse=True)
def backend_is_there(request):
    """A test of a backend that is missing is skipped, unless all were asked for: conftest.py."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    reason = unavailable_reason(params["backend"]) if "backend" in params else None
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "strings", "multilabel"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"activation": "tanh", "batch_size": 7},
        {"activation": "logistic", "early_stopping": True},
        {"activation": "identity", "shuffle": False, "alpha": 1.0},
        {"solver": "sgd"},
        {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
        {"solver": "sgd", "momentum": 0.0, "early_stopping": True},
        {"solver": "lbfgs"},
        {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3, "learning_rate_init": 0.01},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
@pytest.mark.parametrize("backend", BACKEND_NAMES)
def test_agrees_with_scikit_learn(kind, parameters, backend, digits):
    agree(*both(kind, digits, backend=backend, **parameters), digits[0])


@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}, {"solver": "lbfgs"}])
def test_agrees_with_sample_weights(parameters, digits):
    weights = np.random.default_rng(0).integers(0, 3, 600) / 2 + 0.01
    agree(*both("multiclass", digits, weights, **parameters), digits[0])


def test_agrees_where_training_ends_early(digits):
    parameters = {"tol": 0.5, "n_iter_no_change": 2, "max_iter": 50}
    theirs, ours = both("multiclass", digits, **parameters)
    assert ours.n_iter_ < 50
    agree(theirs, ours, digits[0])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"activation": "tanh", "batch_size": 7},
        {"solver": "sgd", "early_stopping": True},
        {"solver": "sgd", "nesterovs_momentum": False, "alpha": 1.0},
        {"solver": "lbfgs"},
    ],
    ids=lambda parameters: "-".join(map(str, parameters.values())),
)
@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_agrees_on_sparse_rows(kind, parameters, backend, digits):
    x_ni, y_n = sparse.csr_array(digits[0]), digits[1]
    agree(*both(kind, (x_ni, y_n), backend=backend, **parameters), x_ni)


def test_agrees_over_partial_fits_and_warm_starts(digits):
    x_ni, y_n = digits
    theirs = neural_network.MLPClassifier((20,), random_state=1, warm_start=True, max_iter=3)
    ours = MLPClassifier((20,), random_state=1, warm_start=True, max_iter=3, backend="numpy")
    for model in (theirs, ours):
        model.fit(x_ni, y_n).fit(x_ni, y_n)
    agree(theirs, ours, x_ni)
    assert len(ours.loss_curve_) == 6
    for model in (theirs, ours):
        model.set_params(warm_start=False)
        for first in range(0, 600, 100):
            model.partial_fit(x_ni[first : first + 100], y_n[first : first + 100])
    agree(theirs, ours, x_ni)


def test_draws_from_a_random_state_as_scikit_learn_does(digits):
    states = [np.random.RandomState(5), np.random.RandomState(5)]
    models = (neural_network.MLPClassifier, MLPClassifier)
    theirs, ours = (
        model((5,), max_iter=4, random_state=state).fit(*digits)
        for model, state in zip(models, states)
    )
    assert states[0].randint(2**31) == states[1].randint(2**31)
    assert_allclose(theirs.loss_curve_, ours.loss_curve_, atol=1e-6)


def test_the_comparison_sees_another_penalty(digits):
    x_ni, y_n = digits
    theirs, _ = both("multiclass", digits)
    other = MLPClassifier((20, 10), alpha=1e-3, max_iter=20, random_state=3, backend="numpy")
    with pytest.raises(AssertionError):
        agree(theirs, other.fit(x_ni, y_n), x_ni)


@parametrize_with_checks(
    [
        MLPClassifier(),
        MLPClassifier(backend="numpy", solver="sgd", learning_rate_init=0.05),
    ]
)
def test_the_checks_of_scikit_learn(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(estimator)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64", "bool"])
def test_what_it_computes_in(dtype, digits):
    x_ni = (digits[0] * 16).astype(dtype)
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, digits[1])
    expected = "float32" if dtype in ("uint8", "float32") else "float64"
    assert {array.dtype.name for array in (*model.coefs_, *model.intercepts_)} == {expected}
    assert model.predict_proba(x_ni).dtype == expected
    assert_array_equal(model.predict(x_ni.tolist()), model.predict(x_ni))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_can_be_chosen(dtype, digits):
    model = MLPClassifier((8,), max_iter=2, dtype=dtype).fit(*digits)
    assert model.coefs_[0].dtype == dtype


def test_bytes_are_computed_with_as_they_are(digits):
    """uint8 is not rescaled: 16 means 16."""
    x_ni = (digits[0] * 16).astype(np.uint8)
    models = [
        MLPClassifier((8,), max_iter=5, random_state=0, dtype="float32").fit(rows, digits[1])
        for rows in (x_ni, x_ni.astype(np.float32))
    ]
    assert_allclose(models[0].loss_curve_, models[1].loss_curve_, rtol=1e-5)


def test_bytes_are_not_copied_to_floats(digits, monkeypatch):
    seen = []

    def spy(self, network):
        seen.append(network.spec.dtype)
        return original(self, network)

    original = Solver.state
    monkeypatch.setattr(Solver, "state", spy)
    x_ni = np.ascontiguousarray((digits[0] * 16).astype(np.uint8))
    trained = []
    train_steps = reference.train_steps
    monkeypatch.setattr(
        reference, "train_steps", lambda *a: trained.append(a[1].x_ni) or train_steps(*a)
    )
    MLPClassifier((8,), max_iter=1, backend="numpy").fit(x_ni, digits[1])
    assert seen == ["float32"]
    assert np.shares_memory(trained[0], x_ni)


@pytest.mark.parametrize("container", ["fortran", "read-only", "memmap", "pandas", "polars"])
def test_rows_in_every_container(container, digits, tmp_path):
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
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(rows[names[::-1]])


def test_sparse_rows_never_become_dense(digits, monkeypatch):
    for kind in (sparse.csr_array, sparse.csr_matrix):
        for method in ("toarray", "todense"):
            monkeypatch.setattr(kind, method, lambda *a, **k: pytest.fail("it became dense"))
    x_ni = sparse.csr_array(digits[0])
    model = MLPClassifier((8,), max_iter=5, random_state=0).fit(x_ni, digits[1])
    dense = MLPClassifier((8,), max_iter=5, random_state=0).fit(*digits)
    assert_allclose(model.predict_proba(x_ni), dense.predict_proba(digits[0]), atol=1e-6)
    early = MLPClassifier((8,), max_iter=5, early_stopping=True, solver="adam")
    early.fit(sparse.csc_array(digits[0]), digits[1])
    MLPClassifier((8,), max_iter=5, solver="lbfgs").fit(x_ni, digits[1])


def test_a_pickle_predicts_and_goes_on(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_proba(digits[0]), model.predict_proba(digits[0]))
    for one in (model, again):
        one.partial_fit(*digits)
    assert_array_equal(again.coefs_[0], model.coefs_[0])


def test_a_clone_is_as_new():
    model = MLPClassifier((3,), backend="numpy", dropout=0.1, time_budget=1.0)
    assert clone(model).get_params() == model.get_params()


def test_in_a_pipeline_and_a_search_over_processes(digits):
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=60, random_state=0))
    grid = {"mlpclassifier__alpha": [1e-4, 1e-1], "mlpclassifier__dtype": ["float32", "float64"]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(*digits)
    assert search.best_score_ > 0.8
    assert cross_val_score(search.best_estimator_, *digits, cv=2).min() > 0.7


def test_sample_weights_are_routed(digits):
    weights = np.arange(600) % 2
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier((8,), max_iter=5, random_state=0).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model).fit(*digits, sample_weight=weights)
        scaled = StandardScaler().fit_transform(digits[0])
        direct = clone(model).fit(scaled, digits[1], weights)
    assert_array_equal(pipeline[-1].coefs_[0], direct.coefs_[0])


def test_set_output_leaves_arrays(digits):
    model = MLPClassifier((4,), max_iter=2).fit(*digits)
    assert not hasattr(model, "set_output")  # it is for transformers, in scikit-learn's too


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_a_class_weight_that_is_none_is_refused(digits, weight):
    with pytest.raises(ValueError, match=r"class_weight is .*no weight may be negative or NaN"):
        MLPClassifier((4,), class_weight={0: weight}).fit(*digits)


def test_class_weights_are_sample_weights(digits):
    x_ni, y_n = digits
    weighted = MLPClassifier((8,), max_iter=5, random_state=0, class_weight={0: 3.0, 7: 0.5})
    weights = np.where(y_n == 0, 3.0, np.where(y_n == 7, 0.5, 1.0))
    plain = MLPClassifier((8,), max_iter=5, random_state=0)
    assert_array_equal(weighted.fit(x_ni, y_n).coefs_[0], plain.fit(x_ni, y_n, weights).coefs_[0])
    assert plain.set_params(class_weight="balanced").fit(x_ni, y_n).n_iter_ == 5


def test_validation_rows_of_the_users_own(digits):
    x_ni, y_n = digits
    model = MLPClassifier((30,), max_iter=30, random_state=0, learning_rate_init=0.01)
    model.fit(x_ni[:400], y_n[:400], X_val=x_ni[400:], y_val=y_n[400:])
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.validation_scores_[-1] == model.score(x_ni[400:], y_n[400:])
    log_p_nk = model.predict_log_proba(x_ni[400:])
    expected = -log_p_nk[np.arange(200), y_n[400:]].mean()
    assert model.validation_loss_curve_[-1] == pytest.approx(expected)
    model.set_params(early_stopping=True, n_iter_no_change=3, max_iter=200)
    model.fit(x_ni[:400], y_n[:400], X_val=x_ni[400:], y_val=y_n[400:])
    assert model.n_iter_ < 200
    assert model.score(x_ni[400:], y_n[400:]) == model.best_validation_score_
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        model.fit(x_ni, y_n, X_val=x_ni)
    with pytest.raises(ValueError, match=r"`y_val` has classes that `y` has not: \[99\]"):
        model.fit(x_ni, y_n, X_val=x_ni[:2], y_val=[1, 99])


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_other_targets_than_before_are_refused(kind, backend, digits):
    x_ni, y_n = digits
    model = MLPClassifier((5,), max_iter=2, backend=backend).fit(x_ni, targets_of(kind, y_n))
    with pytest.raises(ValueError, match="not fitted with multilabel input"):
        model.partial_fit(x_ni, np.eye(len(model.classes_), dtype=int)[y_n % len(model.classes_)])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("yes_and_no", [(0, 255), (-1, 1), (0, 2)])
def test_several_labels_in_other_numbers_than_0_and_1(yes_and_no, solver, digits):
    x_ni, y_n = digits
    several_nk = np.array(yes_and_no)[targets_of("multilabel", y_n)]
    models = [
        kind((5,), max_iter=3, solver=solver, random_state=0).fit(x_ni, several_nk)
        for kind in (neural_network.MLPClassifier, MLPClassifier)
    ]
    agree(*models, x_ni, loss_bound=1e-3)


@pytest.mark.parametrize("lowest", [2**53 - 1, 2**60, 2**63 - 3, 2**63 + 5])
def test_labels_that_float64_does_not_tell_apart(lowest, digits):
    x_ni, y_n = digits
    labels_n = y_n.astype(np.uint64) + np.uint64(lowest)
    plain, far = (
        MLPClassifier((20,), max_iter=5, random_state=0).fit(x_ni, y) for y in (y_n, labels_n)
    )
    assert far.classes_.dtype == np.uint64
    assert_array_equal(far.coefs_[0], plain.coefs_[0])
    expected_n = plain.predict(x_ni).astype(np.uint64) + np.uint64(lowest)
    assert_array_equal(far.predict(x_ni), expected_n)


@pytest.mark.parametrize(
    ("columns", "classes"),
    [(3, range(3)), (2, [0, 1, 2]), (3, [-5, 0, 1, 2, 9]), (3, [0.0, 1.0, 2.0])],
)
def test_several_labels_and_their_classes_in_partial_fits(columns, classes, digits):
    x_ni, y_n = digits
    several_nk = targets_of("multilabel", y_n)[:, :columns].tolist()
    models = [
        kind((5,), random_state=0).partial_fit(x_ni, several_nk, classes=classes)
        for kind in (neural_network.MLPClassifier, MLPClassifier)
    ]
    theirs, ours = (model.partial_fit(x_ni, several_nk, classes=classes) for model in models)
    assert_array_equal(theirs.classes_, ours.classes_)
    assert theirs.classes_.dtype == ours.classes_.dtype
    assert theirs.loss_ == pytest.approx(ours.loss_, rel=1e-9)


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize(
    "parameters",
    [
        {"tol": 3e-2, "n_iter_no_change": 3},
        {"tol": 3e-2, "n_iter_no_change": 3, "solver": "sgd", "learning_rate": "adaptive"},
        {"solver": "sgd", "learning_rate": "invscaling", "max_iter": 30},
        {"n_iter_no_change": np.inf, "max_iter": 30, "batch_size": 77},
    ],
)
def test_epochs_of_one_call_are_those_of_several(backend, parameters, digits, monkeypatch):
    """One at a time where rows of the user's own are looked at after each; else many at once."""
    calls, as_usual = [], Network.train_steps

    def counted(*arguments):
        calls.append(arguments)
        return as_usual(*arguments)

    monkeypatch.setattr(Network, "train_steps", counted)
    many, one = (
        MLPClassifier((20,), random_state=0, backend=backend, **parameters) for _ in range(2)
    )
    many.fit(*digits)
    in_few_calls = len(calls)
    one.fit(*digits, X_val=digits[0][:50], y_val=digits[1][:50])
    assert in_few_calls < one.n_iter_ == len(calls) - in_few_calls
    assert many.loss_curve_ == one.loss_curve_
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(many, name), getattr(one, name), strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_schedule_runs_to_its_end(schedule, digits):
    model = MLPClassifier(
        (16,), max_iter=25, random_state=0, schedule=schedule, tol=10.0, n_iter_no_change=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(*digits)
    assert model.n_iter_ == 25


@pytest.mark.alone
def test_a_time_budget_is_kept(digits):
    model = MLPClassifier((16,), random_state=0, time_budget=0.5, schedule="onecycle")
    start = time.perf_counter()
    model.fit(*digits)
    assert 0.25 < time.perf_counter() - start < 0.7
    assert model.score(*digits) > 0.9


def test_dropout_and_smoothing_change_what_is_learned_and_stay_reproducible(digits):
    def fitted(**parameters):
        return MLPClassifier((64,), max_iter=30, random_state=0, **parameters).fit(*digits)

    plain = fitted()
    for parameters in ({"dropout": 0.3}, {"label_smoothing": 0.1}):
        first, second = fitted(**parameters), fitted(**parameters)
        assert_array_equal(first.coefs_[0], second.coefs_[0])
        assert not np.array_equal(first.coefs_[0], plain.coefs_[0])
        assert first.score(*digits) > 0.5
    assert len({tuple(fitted(dropout=0.3).loss_curve_), tuple(plain.loss_curve_)}) == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1}, "The 'alpha' parameter of MLPClassifier must be a float in the range"),
        ({"solver": "sdg"}, "The 'solver' parameter of MLPClassifier must be a str among"),
        ({"backend": "fpga"}, "The 'backend' parameter of MLPClassifier must be a str among"),
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier must be a float"),
        ({"hidden_layer_sizes": (3, 0)}, "hidden_layer_sizes must be > 0, got \\[3, 0\\]"),
    ],
)
def test_wrong_parameters_say_what_is_right(parameters, message, digits):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**parameters).fit(*digits)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel", "strings"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_export_says_what_the_classifier_says(kind, dtype, digits, tmp_path):
    x_ni, y_n = digits[0].astype(dtype), targets_of(kind, digits[1])
    model = MLPClassifier((9,), "tanh", max_iter=5, random_state=0).fit(x_ni, y_n)
    model.export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (said_nk,) = session.run(None, {"x": x_ni})
    assert np.abs(said_nk - model.predict_proba(x_ni)).max() <= 1e-5
    model.export(tmp_path / "model.npz")
    with pytest.raises(UserError, match="exists"):
        model.export(tmp_path / "model.npz")
    with pytest.raises(ArgumentError, match="ends with none of"):
        model.export(tmp_path / "model.pt")


def spoilt(model, how):
    """Somebody has changed the weights so that they do not fit together."""
    if how == "fewer layers":
        model.coefs_ = model.coefs_[:1]
    elif how == "fewer biases":
        model.intercepts_[0] = np.zeros(1)
    elif how == "fewer inputs":
        model.coefs_[0] = np.ones((3, 8))
    elif how == "other hidden":
        model.coefs_[1] = np.ones((5000, 10))
    elif how == "other outputs":
        model.coefs_[1], model.intercepts_[1] = np.ones((8, 3)), np.ones(3)
    return model


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize(
    "how", ["fewer layers", "fewer biases", "fewer inputs", "other hidden", "other outputs"]
)
def test_weights_that_do_not_fit_are_refused(how, backend, digits):
    for call in ("predict_proba", "partial_fit"):
        model = MLPClassifier((8,), max_iter=1, backend=backend).fit(*digits)
        model.predict_proba(digits[0][:1])
        arguments = digits if call == "partial_fit" else digits[:1]
        with pytest.raises(ValueError, match="coefs_"):
            getattr(spoilt(model, how), call)(*arguments)


def test_other_weights_that_fit_predict_and_need_a_new_fit(digits):
    model = MLPClassifier((8,), max_iter=1).fit(*digits)
    model.coefs_ = [np.ones((64, 60)), np.ones((60, 10))]
    model.intercepts_ = [np.zeros(60), np.zeros(10)]
    assert_allclose(model.predict_proba(digits[0]), 0.1)
    with pytest.raises(ValueError, match="coefs_ have other shapes than in the last call: use fit"):
        model.partial_fit(*digits)
    assert model.fit(*digits).coefs_[0].shape == (64, 8)


def test_refitting_while_others_predict_is_no_crash(digits):
    model = MLPClassifier((8,), max_iter=1).fit(*digits)
    stop, unexpected = threading.Event(), []

    def predict():
        while not stop.is_set():
            try:
                model.predict_proba(digits[0][:70])
            except (ValueError, IndexError, AttributeError):
                pass  # between two fits, as with scikit-learn's
            except Exception as error:
                unexpected.append(error)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for hidden in [(300, 3), (3, 300), (8,)] * 10:
        model.set_params(hidden_layer_sizes=hidden).fit(digits[0][:60], digits[1][:60])
    stop.set()
    for thread in threads:
        thread.join()
    assert unexpected == []


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_agrees_where_answers_are_surely_wrong(kind, solver, backend):
    """Rows as they come from the world: scikit-learn says of no answer that it costs more than
    -log(eps), and stops by what it says."""
    x_ni, y_n = load_wine(return_X_y=True)
    y_n = {"multiclass": y_n, "binary": y_n > 0, "multilabel": np.eye(3, dtype=int)[y_n]}[kind]
    for seed in range(3):
        theirs, ours = (
            model.fit(x_ni, y_n)
            for model in (
                neural_network.MLPClassifier((20,), solver=solver, random_state=seed, max_iter=30),
                MLPClassifier(
                    (20,), solver=solver, random_state=seed, max_iter=30, backend=backend
                ),
            )
        )
        if solver == "adam":
            # It takes the logarithm of 1 - p where p is rounded, to one of few numbers near 1.
            agree(theirs, ours, x_ni, loss_bound=1e-3 if kind == "multilabel" else 1e-6)
        else:  # where each step of a line search decides, rounding decides where it ends
            assert theirs.loss_ == pytest.approx(ours.loss_, rel=0.1)


@pytest.mark.parametrize("option", ["dropout", "schedule", "X_val"])
def test_lbfgs_refuses_what_it_would_ignore(option, digits):
    settings = {"dropout": 0.5, "schedule": "cosine"}
    model = MLPClassifier((4,), solver="lbfgs")
    given = {}
    if option in settings:
        model.set_params(**{option: settings[option]})
    else:
        given = {"X_val": digits[0], "y_val": digits[1]}
    with pytest.raises(ValueError, match=f"{option} needs a stochastic solver"):
        model.fit(*digits, **given)


@pytest.mark.alone
def test_lbfgs_keeps_a_time_budget(digits):
    start = time.perf_counter()
    MLPClassifier((100,), solver="lbfgs", time_budget=0.2, max_iter=100_000, tol=0).fit(*digits)
    assert time.perf_counter() - start < 1.0


def test_another_dtype_is_taken_over_in_the_next_call(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    before = model.coefs_[0].copy()
    model.set_params(dtype="float32", learning_rate_init=1e-9).partial_fit(*digits)
    assert model.coefs_[0].dtype == np.float32
    assert_allclose(model.coefs_[0], before, atol=0.1)


def test_weights_that_are_read_only_can_be_trained_on(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    for array in (*model.coefs_, *model.intercepts_):
        array.setflags(write=False)
    before = model.coefs_[0].copy()
    assert not np.array_equal(model.partial_fit(*digits).coefs_[0], before)


def test_it_says_which_backend_computed(digits):
    assert MLPClassifier((4,), max_iter=1, backend="numpy").fit(*digits).backend_ == "numpy"
    if unavailable_reason("numba") is None:
        rows = sparse.csr_array(digits[0])
        with pytest.raises(BackendUnavailable, match=r"no input_format 'csr'.*'auto'"):
            MLPClassifier((4,), backend="numba").fit(rows, digits[1])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks_see_every_iteration_and_stop(solver, digits):
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    scores, ended = [], []

    class Stop:
        def setup(self, estimator, context):
            ended.append("setup")

        def teardown(self, estimator, context):
            ended.append("teardown")

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.task_name == "fit":
                ended.append("fit")
                return False
            scores.append(fitted_estimator.score(*digits))
            return len(scores) == 4

    model = MLPClassifier((9,), random_state=0, solver=solver).set_callbacks(Stop())
    model.fit(*digits)
    assert ended == ["setup", "fit", "teardown"]
    assert len(scores) == 4
    assert model.n_iter_ in (3, 4)
    assert scores[-1] == model.score(*digits)
    assert scores[0] != scores[-1]


def test_wrong_rows_are_refused(digits):
    model = MLPClassifier((4,), max_iter=2).fit(*digits)
    with pytest.raises(ValueError, match="X has 63 features, but MLPClassifier is expecting 64"):
        model.predict(digits[0][:, :63])
    broken = digits[0].copy()
    broken[3, 4] = np.nan
    for call in (model.predict, model.predict_proba, lambda x: model.fit(x, digits[1])):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            call(broken)


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_few_rows_go_a_short_way_to_the_same_answers(kind, digits, monkeypatch):
    x_ni, y_n = digits[0], targets_of(kind, digits[1])
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, y_n)
    expected = model.predict_proba(x_ni)
    labels = model.predict(x_ni)
    with monkeypatch.context() as without:
        without.setattr(
            "fmnist_fast.estimators.classifier.check_rows", None
        )  # nothing else is called
        for n in range(50):
            assert_array_equal(model.predict_proba(x_ni[n : n + 1]), expected[n : n + 1])
            assert_array_equal(model.predict(x_ni[n : n + 1]), labels[n : n + 1])
    huge = np.full((1, 64), 1e308)
    assert np.isfinite(model.predict_proba(huge)).all()  # its sum is not
    for broken in (np.full((1, 64), np.nan), np.full((1, 64), -np.inf), x_ni[:1, :63], x_ni[0]):
        with pytest.raises(ValueError):  # noqa: PT011 - what it says is scikit-learn's
            model.predict_proba(broken)
    strided = np.repeat(x_ni[:4], 2, axis=1)[:, ::2]
    assert_array_equal(model.predict_proba(strided), expected[:4])


def test_the_short_way_ends_where_the_network_changes(digits):
    x_ni, y_n = digits
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, y_n)
    row = x_ni[:1]
    before = model.predict_proba(row)
    assert_array_equal(model.predict_proba(row), before)
    model.coefs_[0] = np.zeros_like(model.coefs_[0])
    changed = model.predict_proba(row)
    assert not np.array_equal(changed, before)
    model.set_params(activation="tanh")
    assert not np.array_equal(model.predict_proba(row), changed)
    model.partial_fit(x_ni, y_n)
    assert_array_equal(model.predict_proba(row), model.predict_proba(x_ni)[:1])
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_proba(row), model.predict_proba(row))


def test_partial_fit_wants_a_stochastic_solver(digits):
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(*digits, classes=np.arange(10))


def test_the_gradient_of_blocks_is_that_of_all_rows(digits, monkeypatch):
    x_ni, y_n = digits
    model = MLPClassifier((9,), max_iter=1, random_state=0, backend="numpy").fit(x_ni, y_n)
    network = build_network(model)
    data = network.data(x_ni, y_n.astype(np.int32), np.random.default_rng(0).random(600))
    whole = loss_and_gradient(network, data, 0.1)
    monkeypatch.setattr("fmnist_fast.estimators.lbfgs.BLOCK", 77)
    parts = loss_and_gradient(network, data, 0.1)
    # Sums of 600 products of numbers below 1, in another order.
    bound = 600 * np.finfo(np.float64).eps
    assert whole[0] == pytest.approx(parts[0], rel=bound)
    for a, b in zip((*whole[1].weights, *whole[1].biases), (*parts[1].weights, *parts[1].biases)):
        assert np.abs(a - b).max() <= bound


def test_without_scikit_learn_it_says_what_to_install():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import fmnist_fast; fmnist_fast.training.trainer\n"
        "from fmnist_fast import MLPClassifier"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "pip install 'fmnist-fast[sklearn]'" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("parameters", "last"),
    [
        ({"max_iter": 3, "early_stopping": True}, "Validation score"),
        ({"tol": 1.0, "n_iter_no_change": 2}, "Stopping."),
        (
            {
                "solver": "sgd",
                "learning_rate": "adaptive",
                "learning_rate_init": 2e-6,
                "tol": 1.0,
                "n_iter_no_change": 1,
            },
            "Learning rate too small. Stopping.",
        ),
    ],
)
def test_verbose_says_what_scikit_learn_says(parameters, last, digits, capsys):
    said = []
    for model in (neural_network.MLPClassifier, MLPClassifier):
        model((4,), random_state=0, verbose=True, **parameters).fit(*digits)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert last in said[1].splitlines()[-1]
