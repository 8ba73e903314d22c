"""Callbacks of scikit-learn 1.9."""

import pytest

from fmnist_fast import MLPClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_callbacks_receive_every_epoch_and_stop_fit(solver, digits):
    pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")
    scores, events = [], []

    class Stop:
        def setup(self, estimator, context):
            events.append("setup")

        def teardown(self, estimator, context):
            events.append("teardown")

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context, *, fitted_estimator):
            if context.task_name == "fit":
                events.append("fit")
                return False
            scores.append(fitted_estimator.score(*digits))
            return len(scores) == 4

    model = MLPClassifier((9,), random_state=0, solver=solver).set_callbacks(Stop())
    model.fit(*digits)
    assert events == ["setup", "fit", "teardown"]
    assert len(scores) == 4
    assert model.n_iter_ in (3, 4)
    assert scores[-1] == model.score(*digits)
    assert scores[0] != scores[-1]
