"""How a training ends early: Ctrl-C, divergence, patience, callbacks."""

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.trainer import TrainingDiverged, TrainingInterrupted

FAST = {"epochs": 2, "hidden": (16,), "backend": "numpy", "threads": 1}


def test_train_ctrl_c_with_nan_weights_carries_no_model(small_dataset, monkeypatch):
    import fmnist_fast.kernels.reference as reference

    def spoil(state, *_):
        state.params.weights[0][:] = np.nan
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "train_steps", spoil)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(small_dataset, **FAST)
    assert not isinstance(caught.value, TrainingInterrupted)


class InterruptAt(Progress):
    """Raise KeyboardInterrupt in the middle of an epoch or at its end."""

    def __init__(self, epoch: int, *, middle: bool) -> None:
        self.number, self.middle = epoch, middle

    def steps(self, epoch, done, total):
        if self.middle and epoch == self.number:
            raise KeyboardInterrupt

    def epoch(self, record):
        if not self.middle and record.epoch == self.number:
            raise KeyboardInterrupt


@pytest.mark.parametrize("middle", [True, False])
def test_train_ctrl_c_carries_best_model_so_far(small_dataset, middle):
    options = {**FAST, "epochs": 6, "validation": 100}
    full = train(small_dataset, **options)
    with pytest.raises(TrainingInterrupted) as caught:
        train(small_dataset, progress=InterruptAt(4, middle=middle), **options)
    result = caught.value.result
    assert [r.train_loss for r in result.history] == [
        r.train_loss for r in full.history[: 3 if middle else 4]
    ]
    accuracies = [record.validation_accuracy for record in result.history]
    assert accuracies[result.best_epoch - 1] == max(accuracies)


def test_train_ctrl_c_in_first_epoch_carries_model(small_dataset):
    with pytest.raises(TrainingInterrupted) as caught:
        train(small_dataset, progress=InterruptAt(1, middle=True), **FAST)
    assert caught.value.result.history == ()
    assert caught.value.result.model.predict(small_dataset.x_test).shape == (200,)


def test_train_ctrl_c_error_is_keyboard_interrupt(small_dataset):
    with pytest.raises(KeyboardInterrupt):
        train(small_dataset, progress=InterruptAt(1, middle=False), **FAST)


def test_divergence_names_step_and_remedy(small_dataset):
    with pytest.raises(
        TrainingDiverged, match=r"at step \d+ \(epoch 1\).*lower learning rate than 1e\+30"
    ):
        train(small_dataset, lr=1e30, weight_decay=0, schedule="constant", **FAST)


def test_divergence_carries_best_model_before(small_dataset, monkeypatch):
    import fmnist_fast.kernels.reference as reference

    true_steps, calls = reference.train_steps, []

    def diverging(state, data, order_n, steps, spec, first, last, threads):
        losses = true_steps(state, data, order_n, steps, spec, first, last, threads)
        calls.append(first)
        if calls.count(0) == 3 and first == 0:
            losses[0] = np.nan
        return losses

    monkeypatch.setattr(reference, "train_steps", diverging)
    with pytest.raises(TrainingDiverged, match=r"diverged at step 19 \(epoch 3\)") as caught:
        train(small_dataset, **{**FAST, "epochs": 5, "validation": 50})  # 9 batches an epoch
    assert caught.value.result is not None
    assert len(caught.value.result.history) == 2


def test_divergence_in_last_step_is_detected(small_dataset, monkeypatch):
    import fmnist_fast.kernels.reference as reference

    true_steps = reference.train_steps

    def exploding(state, data, order_n, steps, spec, first, last, threads):
        losses = true_steps(state, data, order_n, steps, spec, first, last, threads)
        if last == 9:
            state.params.weights[0][0, 0] = np.inf
        return losses

    monkeypatch.setattr(reference, "train_steps", exploding)
    with pytest.raises(TrainingDiverged, match=r"diverged at step 9 \(epoch 1\)") as caught:
        train(small_dataset, **{**FAST, "validation": 50})
    assert caught.value.result is None


def test_train_patience_stops_without_improvement(small_dataset):
    result = train(small_dataset, epochs=200, hidden=(16,), validation=100, patience=3, threads=1)
    assert result.best_epoch + 3 == len(result.history) < 200
    accuracies = [record.validation_accuracy for record in result.history]
    assert accuracies[result.best_epoch - 1] == max(accuracies)
    assert result.model.metrics["validation_accuracy"] == max(accuracies)


def test_callbacks_receive_every_epoch_and_can_stop(small_dataset):
    seen = []

    def watch(state):
        seen.append((state.record.epoch, len(state.history), state.best_epoch))
        assert state.network.predict_proba(small_dataset.x_test[:2]).shape == (2, 10)
        assert state.config.epochs == 50

    def enough(state):
        return state.record.epoch == 4

    result = train(small_dataset, callbacks=[enough, watch], **{**FAST, "epochs": 50})
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4]
    assert [count for _, count, _ in seen] == [1, 2, 3, 4]
    assert len(result.history) == 4
    assert len(train(small_dataset, callbacks=enough, **{**FAST, "epochs": 3}).history) == 3


def test_divergence_of_finite_loss_is_detected(small_dataset):
    """The loss stays finite, but the model is useless."""
    with pytest.raises(TrainingDiverged, match=r"the loss has exploded; use a lower learning rate"):
        train(small_dataset, lr=30.0, schedule="constant", weight_decay=0.0, **FAST)


def test_divergence_is_not_reported_for_large_penalty(small_dataset):
    assert len(train(small_dataset, l2=1.0, **FAST).history) == 2
