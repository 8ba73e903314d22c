"""Networks built from the attributes of an estimator, also after the user changed them."""

import numpy as np
import pytest
from messages import raises_containing
from numpy.testing import assert_allclose
from scipy import sparse

from fmnist_fast import MLPClassifier
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_fit_does_not_rescale_uint8_rows(digits):
    x_ni = (digits[0] * 16).astype(np.uint8)
    models = [
        MLPClassifier((8,), max_iter=5, random_state=0, dtype="float32").fit(rows, digits[1])
        for rows in (x_ni, x_ni.astype(np.float32))
    ]
    assert_allclose(models[0].loss_curve_, models[1].loss_curve_, rtol=1e-5)


def with_changed_weights(model, how):
    """Change the weights of the model so that their shapes do not fit together."""
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
def test_build_network_rejects_inconsistent_shapes(how, backend, digits):
    for call in ("predict_proba", "partial_fit"):
        model = MLPClassifier((8,), max_iter=1, backend=backend).fit(*digits)
        model.predict_proba(digits[0][:1])
        arguments = digits if call == "partial_fit" else digits[:1]
        with raises_containing(ValueError, "coefs_"):
            getattr(with_changed_weights(model, how), call)(*arguments)


def test_predict_uses_replaced_weights_partial_fit_rejects(digits):
    model = MLPClassifier((8,), max_iter=1).fit(*digits)
    model.coefs_ = [np.ones((64, 60)), np.ones((60, 10))]
    model.intercepts_ = [np.zeros(60), np.zeros(10)]
    assert_allclose(model.predict_proba(digits[0]), 0.1)
    with raises_containing(ValueError, "coefs_", "other shapes", "use fit"):
        model.partial_fit(*digits)
    assert model.fit(*digits).coefs_[0].shape == (64, 8)


def test_partial_fit_converts_weights_to_new_dtype(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    before = model.coefs_[0].copy()
    model.set_params(dtype="float32", learning_rate_init=1e-9).partial_fit(*digits)
    assert model.coefs_[0].dtype == np.float32
    assert_allclose(model.coefs_[0], before, atol=0.1)


def test_partial_fit_copies_read_only_weights(digits):
    model = MLPClassifier((8,), random_state=0).partial_fit(*digits, classes=np.arange(10))
    for array in (*model.coefs_, *model.intercepts_):
        array.setflags(write=False)
    before = model.coefs_[0].copy()
    assert not np.array_equal(model.partial_fit(*digits).coefs_[0], before)


def test_fit_sets_backend_attribute(digits):
    assert MLPClassifier((4,), max_iter=1, backend="numpy").fit(*digits).backend_ == "numpy"
    if unavailable_reason("numba") is None:
        rows = sparse.csr_array(digits[0])
        model = MLPClassifier((4,), max_iter=1, backend="numba").fit(rows, digits[1])
        assert model.backend_ == "numba"
