"""Fast path of predictions for few rows."""

import pickle
import threading

import numpy as np
import pytest
from estimator_parity import labels_of_type
from numpy.testing import assert_array_equal

from fmnist_fast import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_predict_during_refit_in_threads_is_safe(digits):
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


@pytest.mark.parametrize("kind", ["multiclass", "binary", "multilabel"])
def test_predict_cache_gives_same_predictions(kind, digits, monkeypatch):
    x_ni, y_n = digits[0], labels_of_type(kind, digits[1])
    model = MLPClassifier((8,), max_iter=3, random_state=0).fit(x_ni, y_n)
    expected = model.predict_proba(x_ni)
    labels = model.predict(x_ni)
    with monkeypatch.context() as context:
        # Calling it would fail: all of these predictions come from the cache.
        context.setattr("fmnist_fast.estimators.classifier.check_rows", None)
        for n in range(50):
            assert_array_equal(model.predict_proba(x_ni[n : n + 1]), expected[n : n + 1])
            assert_array_equal(model.predict(x_ni[n : n + 1]), labels[n : n + 1])
    huge = np.full((1, 64), 1e308)
    assert np.isfinite(model.predict_proba(huge)).all()  # the sum of the row overflows
    for broken in (np.full((1, 64), np.nan), np.full((1, 64), -np.inf), x_ni[:1, :63], x_ni[0]):
        with pytest.raises(ValueError):  # noqa: PT011 - the message is scikit-learn's
            model.predict_proba(broken)
    strided = np.repeat(x_ni[:4], 2, axis=1)[:, ::2]
    assert_array_equal(model.predict_proba(strided), expected[:4])


def test_predict_cache_ends_when_network_changes(digits):
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
