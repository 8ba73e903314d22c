"""scikit-learn's MLPClassifier and this project's, fitted to the same rows and compared."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import neural_network

from fmnist_fast import MLPClassifier


def labels_of_type(kind, y_n):
    """Return ten classes as labels of another type of target."""
    ones = np.eye(10, dtype=int)
    return {
        "multiclass": y_n,
        "binary": y_n % 2,
        "strings": np.array(["nought", "one", "two", "three"])[y_n % 4],
        "multilabel": ones[y_n] | ones[(y_n + 3) % 10],
    }[kind]


def fit_both(kind, digits, weights=None, backend="numpy", **parameters):
    """Fit scikit-learn's classifier and this project's to the same rows."""
    x_ni, y_n = digits
    parameters = {"max_iter": 20, "random_state": 3, **parameters}
    theirs = neural_network.MLPClassifier((20, 10), **parameters)
    ours = MLPClassifier((20, 10), backend=backend, **parameters)
    return (model.fit(x_ni, labels_of_type(kind, y_n), weights) for model in (theirs, ours))


def assert_agrees(theirs, ours, x_ni, bound=1e-6, loss_bound=1e-6):
    """Check that attributes and predictions agree.

    loss_bound : relative error of losses.
    """
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
