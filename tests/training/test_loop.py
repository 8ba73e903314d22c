"""The training loop: ranges, losses, budget."""

import sys

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.kernels.interface import NetworkSpec
from fmnist_fast.nn.network import Network
from fmnist_fast.nn.optimizers import Adam
from fmnist_fast.nn.random_streams import epoch_order
from fmnist_fast.training.budget import Budget, StepBudget
from fmnist_fast.training.loop import EpochInputs, StopRequested, TrainingLoop

FAST = {"epochs": 2, "hidden": (16,), "backend": "numpy", "threads": 1}


def test_loop_ranges_do_not_change_bits(small_dataset, monkeypatch):
    whole = train(small_dataset, **FAST).model.to_bytes()
    # The clock decides the ranges; without any time to spend, every range is one step.
    monkeypatch.setattr(sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0)
    assert train(small_dataset, **FAST).model.to_bytes() == whole


def make_loop(rows=70, batch_size=8, **options):
    """A loop over random rows whose order depends on the epoch, and the epochs it began."""
    spec = NetworkSpec((5, 4, 3), dtype="float64")
    network = Network.random(spec, 0, 1.0, "numpy", 1)
    rng = np.random.default_rng(0)
    x_ni, y_n = rng.standard_normal((rows, 5)), rng.integers(0, 3, rows, dtype=np.int32)
    data, begun = network.data(x_ni, y_n, np.ones(rows)), []

    def start_epoch(epoch):
        begun.append(epoch)
        order_n = epoch_order(np.arange(rows, dtype=np.int32), 0, epoch)
        return EpochInputs(data, order_n, l2=1e-3 * epoch, lr=0.01 / epoch)

    options.setdefault("budget", Budget())
    loop = TrainingLoop(
        network,
        network.fresh_state(),
        Adam(),
        options.pop("budget"),
        start_epoch,
        rows=rows,
        batch_size=batch_size,
        **options,
    )
    return loop, begun


def test_loop_epochs_in_one_range_equal_single_epochs():
    one, _ = make_loop()
    several, begun = make_loop()
    losses = []
    for _ in range(3):
        one.train()
        losses.append(one.losses_t.copy())
        one.end_epoch()
    several.train(epochs=3)
    several.end_epoch()
    np.testing.assert_array_equal(several.losses_t, np.concatenate(losses))
    assert begun == [1, 2, 3]
    assert (one.epoch, one.steps_done) == (several.epoch, several.steps_done) == (4, 27)
    for ours, theirs in zip(one.state.params, several.state.params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_loop_ends_within_an_epoch_when_budget_is_spent():
    loop, _ = make_loop(budget=StepBudget("constant", 1.0, 13))
    loop.train()
    loop.end_epoch()
    assert not loop.ended
    loop.train()
    assert loop.ended
    loop.end_epoch()
    assert (loop.epoch, loop.step_in_epoch, loop.steps_done) == (2, 4, 13)


def test_loop_calls_should_stop_between_ranges():
    ranges = []
    loop, begun = make_loop(max_range_seconds=0.0)
    with pytest.raises(StopRequested):
        loop.train(
            should_stop=lambda: len(ranges) == 4,
            on_range=lambda: ranges.append(loop.step_in_epoch),
        )
    assert ranges == [1, 2, 3, 4]
    loop.train()
    assert begun == [1, 1]  # the inputs of the epoch are made again
    assert loop.step_in_epoch == 9


def test_loop_keep_best_copies_params():
    loop, _ = make_loop()
    loop.keep_best(1, 0.5, loop.state.params)
    before = loop.state.params.weights[0].copy()
    loop.train()
    assert np.array_equal(loop.best.params.weights[0], before)
    assert not np.array_equal(loop.state.params.weights[0], before)
