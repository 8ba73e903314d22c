"""The training loop: reproducible, honest about what it saves, and it loses nothing."""

from dataclasses import replace

import numpy as np
import pytest

from fmnist_fast import train
from fmnist_fast.data.augment import flip_rows, hflip
from fmnist_fast.errors import ArgumentError
from fmnist_fast.models.load import load_model
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.nn.labels import smooth_labels
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.progress import Progress
from fmnist_fast.training.run import TrainingRun
from fmnist_fast.training.train_data import resolve_config, split
from fmnist_fast.training.trainer import TrainingDiverged, TrainingInterrupted

FAST = {"epochs": 2, "hidden": (16,), "backend": "numpy", "threads": 1}


def test_same_seed_gives_the_same_bytes(small_dataset):
    one, two = (train(small_dataset, **FAST) for _ in range(2))
    assert one.model.to_bytes() == two.model.to_bytes()
    for ours, theirs in zip(one.history, two.history):
        assert replace(ours, seconds=0, samples_per_second=0) == replace(
            theirs, seconds=0, samples_per_second=0
        )


def test_another_seed_gives_other_weights(small_dataset):
    one, two = (train(small_dataset, seed=seed, **FAST) for seed in (0, 1))
    assert one.model.to_bytes() != two.model.to_bytes()


def test_how_an_epoch_is_cut_into_ranges_changes_no_bit(small_dataset, monkeypatch):
    import sys

    whole = train(small_dataset, **FAST).model.to_bytes()
    # The clock decides the ranges; without any time to spend, every range is one step.
    monkeypatch.setattr(sys.modules["fmnist_fast.training.run"], "RANGE_SECONDS", 0.0)
    assert train(small_dataset, **FAST).model.to_bytes() == whole


def test_split_parts_the_rows():
    train_rows, held_back = split(100, 30)
    assert len(held_back) == 30
    assert sorted([*train_rows, *held_back]) == list(range(100))
    assert not np.array_equal(held_back, np.arange(30))
    assert train_rows.dtype == held_back.dtype == np.int32


def test_rows_held_back_are_not_trained_on(small_dataset):
    """Garbage in the held-back rows' pixels must not move a weight."""
    _, held_back = split(600, 50)
    spoiled = small_dataset.x_train.copy()
    spoiled[held_back] = 255
    options = {**FAST, "epochs": 1, "validation": 50}  # one epoch: which one is best cannot differ
    one = train(small_dataset, **options)
    two = train(replace(small_dataset, x_train=spoiled), **options)
    assert one.history[0].train_loss == two.history[0].train_loss
    assert one.history[0].validation_loss != two.history[0].validation_loss
    for ours, theirs in zip(one.model.network.params, two.model.network.params):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_the_test_set_decides_nothing(small_dataset):
    other = replace(small_dataset, x_test=small_dataset.x_test[::-1])
    one, two = train(small_dataset, **FAST), train(other, **FAST)
    assert one.test_accuracy != two.test_accuracy
    assert one.history[-1].validation_loss == two.history[-1].validation_loss
    assert one.best_epoch == two.best_epoch


def test_the_model_is_the_best_epoch_on_validation(small_dataset):
    result = train(
        small_dataset, epochs=8, hidden=(16,), lr=0.03, schedule="constant", validation=100
    )
    accuracies = [record.validation_accuracy for record in result.history]
    best = max(accuracies)
    assert accuracies[result.best_epoch - 1] == best
    assert best not in accuracies[result.best_epoch :]  # the later of equals
    _, held_back = split(600, 100)
    guesses = result.model.predict(small_dataset.x_train[held_back])
    assert (guesses == small_dataset.y_train[held_back]).mean() == best


def test_without_validation_the_last_epoch_is_the_model(small_dataset):
    result = train(small_dataset, validation=0, **FAST)
    assert result.best_epoch == 2
    assert [record.validation_accuracy for record in result.history] == [None, None]


def test_figures_of_the_result_are_those_of_the_model(small_dataset):
    result = train(small_dataset, **FAST)
    guesses = result.model.predict(small_dataset.x_test)
    assert result.test_accuracy == (guesses == small_dataset.y_test).mean()
    assert result.model.metrics["test_accuracy"] == result.test_accuracy


def test_it_learns(small_dataset):
    assert train(small_dataset, epochs=10, threads=1).test_accuracy > 0.6


def test_small_sets_hold_back_a_twelfth():
    assert TrainingConfig().n_validation(60_000) == 5000
    assert TrainingConfig().n_validation(600) == 50
    assert TrainingConfig().n_validation(3) == 0
    assert TrainingConfig(validation=7).n_validation(600) == 7


def test_a_set_of_two_rows(small_dataset):
    tiny = replace(
        small_dataset, x_train=small_dataset.x_train[:2], y_train=small_dataset.y_train[:2]
    )
    assert len(train(tiny, **FAST).history) == 2


def test_tables_of_floats(small_dataset):
    def table(x):
        return x.reshape(len(x), -1).astype(np.float64) / 255

    floats = replace(
        small_dataset, x_train=table(small_dataset.x_train), x_test=table(small_dataset.x_test)
    )
    result = train(floats, dtype="float64", **FAST)
    assert result.model.input_shape == (784,)
    assert result.model.network.scale == 1.0
    assert result.model.predict_proba(floats.x_test).dtype == np.float64


def test_images_as_floats_make_a_model_for_images_as_bytes(small_dataset):
    floats = replace(
        small_dataset,
        x_train=(small_dataset.x_train / 255).astype(np.float32),
        x_test=(small_dataset.x_test / 255).astype(np.float32),
    )
    model = train(floats, **FAST).model
    np.testing.assert_allclose(
        model.predict_proba(small_dataset.x_test), model.predict_proba(floats.x_test), rtol=1e-4
    )


def test_ctrl_c_with_weights_that_are_no_numbers_carries_no_model(small_dataset, monkeypatch):
    import fmnist_fast.kernels.reference as reference

    def spoil(state, *_):
        state.params.weights[0][:] = np.nan
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "train_steps", spoil)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(small_dataset, **FAST)
    assert not isinstance(caught.value, TrainingInterrupted)


def test_sample_weights_choose_what_is_learned(small_dataset):
    """Rows of class 0 alone have weight: everything becomes class 0."""
    weight = (small_dataset.y_train == 0).astype(float)
    result = train(small_dataset, sample_weight=weight, validation=0, **FAST)
    assert (result.model.predict(small_dataset.x_test) == 0).mean() > 0.9


def test_equal_sample_weights_change_nothing(small_dataset):
    plain = train(small_dataset, **FAST)
    equal = train(small_dataset, sample_weight=np.ones(600), **FAST)
    assert plain.model.to_bytes() == equal.model.to_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"hidden": (16, 0)}, "hidden is 0"),
        ({"lr": 0.0}, "lr is 0.0: give a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"l2": -1.0}, "l2 is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"validation": 600}, "validation is 600, but the training set has only 600 rows"),
        ({"validation": -1}, "validation is -1"),
        ({"sample_weight": np.ones(3)}, r"sample_weight has shape \(3,\)"),
        ({"sample_weight": -np.ones(600)}, "sample_weight must be finite and not negative"),
        ({"threads": 0}, "threads is 0"),
        ({"epochs": "5"}, "epochs is '5': give an integer"),
        ({"seed": 1.5}, "seed is 1.5: give an integer"),
        ({"batch_size": 10**20}, "batch_size is 1.*: give at most 2,147,483,647"),
        ({"threads": 2.5}, "threads is 2.5: give an integer"),
        ({"hidden": 64}, r"hidden is 64: give the widths, like \(128, 64\)"),
        ({"lr": "1"}, "lr is '1': give a number"),
        ({"weight_decay": -1}, "weight_decay is -1.0: give 0 or more"),
        ({"weight_decay": 500.0}, "lr is 0.002 and weight_decay is 500: their product"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0: give less than 1"),
        ({"dropout": 1.0}, "dropout is 1.0: give less than 1"),
        ({"dropout": -0.1}, "dropout is -0.1: give 0 or more"),
        ({"dropout": "some"}, "dropout is 'some': give a number"),
        ({"hflip": 1}, "hflip is 1: give True, False or None"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said(small_dataset, options, message):
    with pytest.raises(ArgumentError, match=message):
        train(small_dataset, **options)


class InterruptAt(Progress):
    """Presses Ctrl-C: in the middle of an epoch, or at its end."""

    def __init__(self, epoch: int, *, middle: bool) -> None:
        self.number, self.middle = epoch, middle

    def steps(self, epoch, done, total):
        if self.middle and epoch == self.number:
            raise KeyboardInterrupt

    def epoch(self, record):
        if not self.middle and record.epoch == self.number:
            raise KeyboardInterrupt


@pytest.mark.parametrize("middle", [True, False])
def test_ctrl_c_carries_the_best_model_so_far(small_dataset, middle):
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


def test_ctrl_c_in_the_first_epoch_still_carries_a_model(small_dataset):
    with pytest.raises(TrainingInterrupted) as caught:
        train(small_dataset, progress=InterruptAt(1, middle=True), **FAST)
    assert caught.value.result.history == ()
    assert caught.value.result.model.predict(small_dataset.x_test).shape == (200,)


def test_ctrl_c_is_a_keyboard_interrupt(small_dataset):
    with pytest.raises(KeyboardInterrupt):
        train(small_dataset, progress=InterruptAt(1, middle=False), **FAST)


def test_divergence_names_the_step_and_what_to_do(small_dataset):
    with pytest.raises(
        TrainingDiverged, match=r"at step \d+ \(epoch 1\).*lower learning rate than 1e\+30"
    ):
        train(small_dataset, lr=1e30, weight_decay=0, schedule="constant", **FAST)


def test_divergence_carries_the_best_model_before(small_dataset, monkeypatch):
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


def test_weights_that_explode_in_the_last_step_are_noticed(small_dataset, monkeypatch):
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


def test_progress_is_told_everything_once(small_dataset):
    class Listener(Progress):
        def __init__(self):
            self.seen, self.done, self.epochs = [], {}, []

        def begin(self, network, config, dataset):
            self.seen.append((config.validation, dataset.name))

        def steps(self, epoch, done, total):
            assert self.done.get(epoch, 0) < done <= total
            self.done[epoch] = done

        def epoch(self, record):
            self.epochs.append(record.epoch)

    listener = Listener()
    train(small_dataset, progress=listener, **FAST)
    assert listener.seen == [(50, "small")]
    assert listener.done == {1: 9, 2: 9}
    assert listener.epochs == [1, 2]


def test_numbers_of_numpy_train_and_can_be_saved(small_dataset):
    plain = train(small_dataset, backend="numpy", threads=1, epochs=1, hidden=(7,), l2=0)
    numpys = train(
        small_dataset,
        backend="numpy",
        threads=np.int64(1),
        epochs=np.int64(1),
        hidden=np.array([7]),
        l2=np.float32(0),
    )
    assert numpys.model.to_bytes() == plain.model.to_bytes()


@pytest.mark.parametrize("name", BACKEND_NAMES)
def test_a_whole_number_will_do_for_l2(small_dataset, name):
    if unavailable_reason(name):
        pytest.skip(str(unavailable_reason(name)))
    train(small_dataset, backend=name, threads=1, epochs=1, hidden=(7,), l2=0)


def test_label_smoothing_asks_for_a_little_of_every_class(small_dataset):
    soft_nk = smooth_labels(np.array([2, 0], np.int32), 4, 0.1, "float64")
    np.testing.assert_allclose(
        soft_nk, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]]
    )
    sure, unsure = (
        train(small_dataset, label_smoothing=s, **{**FAST, "epochs": 8}) for s in (0.0, 0.3)
    )
    most_sure, least_sure = (
        r.model.predict_proba(small_dataset.x_test).max(axis=1).mean() for r in (sure, unsure)
    )
    assert least_sure < most_sure - 0.1


def test_flips_show_half_of_the_rows_in_the_mirror():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    both = hflip(images)
    assert np.array_equal(both[:2], images)
    assert np.array_equal(both[2:, :, ::-1], images)
    order_n = np.random.default_rng(0).permutation(1000).astype(np.int32)
    flipped = flip_rows(order_n, 1000, 0, 1)
    assert flipped.dtype == np.int32
    assert np.array_equal(flipped % 1000, order_n)
    assert 400 < (flipped >= 1000).sum() < 600
    # What happens to a row does not depend on its place, but on seed and epoch.
    again = flip_rows(np.sort(order_n), 1000, 0, 1)
    assert set(again) == set(flipped)
    assert set(flip_rows(order_n, 1000, 0, 2)) != set(flipped)
    assert set(flip_rows(order_n, 1000, 1, 1)) != set(flipped)


@pytest.mark.parametrize(
    "backend", [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
)
def test_what_a_recipe_uses_in_every_backend(small_dataset, backend):
    config = {
        "hflip": True,
        "label_smoothing": 0.1,
        "weight_decay": 20.0,
        "dropout": 0.3,
        "epochs": 3,
    }
    result = train(small_dataset, backend=backend, threads=2, hidden=(32,), **config)
    truth = train(
        small_dataset, backend="numpy", threads=1, hidden=(32,), dtype="float64", **config
    )
    got, expected = (r.model.predict_proba(small_dataset.x_test) for r in (result, truth))
    # That options arrive, not how exact they are: leaving one out moves the loss by ten times as
    # much, as seen below, and test_equivalence.py has the bounds, from the arithmetic.
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.97
    assert result.history[-1].train_loss == pytest.approx(truth.history[-1].train_loss, rel=1e-3)
    for option in ("hflip", "label_smoothing", "weight_decay", "dropout"):
        rest = {name: value for name, value in config.items() if name != option}
        without = train(small_dataset, backend=backend, threads=2, hidden=(32,), **rest)
        assert without.history[-1].train_loss != pytest.approx(
            truth.history[-1].train_loss, rel=1e-2
        )


def test_dropout_is_not_part_of_what_a_model_says(small_dataset, tmp_path):
    model = train(small_dataset, dropout=0.5, **FAST).model
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors", backend="numpy", threads=1)
    assert loaded.training["dropout"] == 0.5
    assert np.array_equal(
        loaded.predict_proba(small_dataset.x_test), model.predict_proba(small_dataset.x_test)
    )


def test_flips_are_for_images(small_dataset):
    rows = replace(
        small_dataset,
        x_train=small_dataset.x_train.reshape(600, -1),
        x_test=small_dataset.x_test.reshape(200, -1),
    )
    with pytest.raises(ArgumentError, match="hflip needs images"):
        train(rows, hflip=True, **FAST)


def test_folds_are_all_rows_once_each():
    held_back = [split(103, 0, (number, 4)) for number in range(4)]
    assert sorted(np.concatenate([held for _, held in held_back])) == list(range(103))
    for rows, held in held_back:
        assert len(held) in (25, 26)
        assert sorted(np.concatenate([rows, held])) == list(range(103))
        assert (np.diff(rows) > 0).all()


def test_mirror_images_that_are_there_give_the_same_network(small_dataset):
    config = resolve_config(TrainingConfig(epochs=1, hidden=(8,), hflip=True), small_dataset)
    ready = replace(small_dataset, x_train_with_flips=hflip(small_dataset.x_train))
    losses = []
    for dataset in (small_dataset, ready):
        run = TrainingRun(dataset, config, "numpy", 1)
        run.train(Progress(), lambda: False)
        losses.append(run.history[0].train_loss)
    assert losses[0] == losses[1]
    assert np.shares_memory(run.train_set.data.x_ni, ready.x_train_with_flips)
