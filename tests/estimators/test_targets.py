"""Labels of all types as targets."""

import numpy as np
import pytest
from estimator_parity import assert_agrees, labels_of_type
from messages import raises_containing
from numpy.testing import assert_array_equal
from sklearn import neural_network

from fmnist_fast import MLPClassifier
from fmnist_fast.nn.backend import BACKEND_NAMES

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("backend", BACKEND_NAMES)
@pytest.mark.parametrize("kind", ["multiclass", "binary"])
def test_encode_rejects_multilabel_after_single_label(kind, backend, digits):
    x_ni, y_n = digits
    model = MLPClassifier((5,), max_iter=2, backend=backend).fit(x_ni, labels_of_type(kind, y_n))
    with raises_containing(ValueError, "not fitted with multilabel input"):
        model.partial_fit(x_ni, np.eye(len(model.classes_), dtype=int)[y_n % len(model.classes_)])


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("two_values", [(0, 255), (-1, 1), (0, 2)])
def test_encode_multilabel_of_any_two_values(two_values, solver, digits):
    x_ni, y_n = digits
    indicators_nk = np.array(two_values)[labels_of_type("multilabel", y_n)]
    models = [
        kind((5,), max_iter=3, solver=solver, random_state=0).fit(x_ni, indicators_nk)
        for kind in (neural_network.MLPClassifier, MLPClassifier)
    ]
    assert_agrees(*models, x_ni, loss_bound=1e-3)


@pytest.mark.parametrize("lowest", [2**53 - 1, 2**60, 2**63 - 3, 2**63 + 5])
def test_encode_integers_beyond_float64_precision(lowest, digits):
    x_ni, y_n = digits
    labels_n = y_n.astype(np.uint64) + np.uint64(lowest)
    small, large = (
        MLPClassifier((20,), max_iter=5, random_state=0).fit(x_ni, y) for y in (y_n, labels_n)
    )
    assert large.classes_.dtype == np.uint64
    assert_array_equal(large.coefs_[0], small.coefs_[0])
    expected_n = small.predict(x_ni).astype(np.uint64) + np.uint64(lowest)
    assert_array_equal(large.predict(x_ni), expected_n)


@pytest.mark.parametrize(
    ("columns", "classes"),
    [(3, range(3)), (2, [0, 1, 2]), (3, [-5, 0, 1, 2, 9]), (3, [0.0, 1.0, 2.0])],
)
def test_partial_fit_multilabel_with_classes(columns, classes, digits):
    x_ni, y_n = digits
    indicators_nk = labels_of_type("multilabel", y_n)[:, :columns].tolist()
    models = [
        kind((5,), random_state=0).partial_fit(x_ni, indicators_nk, classes=classes)
        for kind in (neural_network.MLPClassifier, MLPClassifier)
    ]
    theirs, ours = (model.partial_fit(x_ni, indicators_nk, classes=classes) for model in models)
    assert_array_equal(theirs.classes_, ours.classes_)
    assert theirs.classes_.dtype == ours.classes_.dtype
    assert theirs.loss_ == pytest.approx(ours.loss_, rel=1e-9)
