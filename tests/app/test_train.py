"""The page Train: what a person sees before, during and after a training."""

import time
from threading import Event

import numpy as np
import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import button, go_to, labels, metrics, open_page, run_until, texts
from streamlit.testing.v1 import AppTest

from fmnist_fast.app import explore, session
from fmnist_fast.app import training_monitor as live
from fmnist_fast.app.jobs import State
from fmnist_fast.app.training_monitor import Choice, Watched, widths
from fmnist_fast.errors import ArgumentError
from fmnist_fast.models.load import load_model
from fmnist_fast.training.trainer import train


def choose(app, **fields):
    """Fill in the form, by the names that its fields have."""
    for label, value in fields.items():
        boxes = [*app.selectbox, *app.text_input, *app.number_input]
        (box,) = (box for box in boxes if box.label == label.replace("_", " "))
        box.set_value(value).run()
        assert not app.exception
    return app


def finished(app):
    return bool(app.get("download_button"))


@pytest.fixture
def held(monkeypatch):
    """Trainings stop after their first epoch until the event is set."""
    go = Event()

    def slow(dataset, *, should_stop, **settings):
        def wait(state):
            while state.record.epoch == 1 and not go.wait(0.005) and not should_stop():
                pass

        return train(dataset, should_stop=should_stop, on_epoch_end=wait, **settings)

    monkeypatch.setattr(live, "train", slow)
    yield go
    go.set()


def test_a_training_ends_in_a_model_that_can_be_used_and_downloaded(app_data):
    app = open_page("train")
    assert "Nothing has been trained here yet" in texts(app)
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="16", Epochs=3, Threads=1)
    button(app, "Train").click().run()
    run_until(app, finished)
    ((name, model),) = app.session_state["trained_models"].items()
    assert name == f"1: fast, {metrics(app)['Test accuracy']}"
    assert model.network.spec.sizes == (784, 16, 10)
    assert "784-16-10" in texts(app)
    same = train(app_data, preset="fast", backend="numpy", threads=1, hidden=(16,), epochs=3).model
    assert model.to_bytes() == same.to_bytes()
    button(app, "Train").click().run()
    run_until(app, lambda app: len(app.session_state["trained_models"]) == 2)


def test_a_training_that_ends_while_the_page_is_drawn_is_shown(app_data):
    """The frame looks before the page does: here it never does."""
    app = AppTest.from_string("from fmnist_fast.app.train import show; show()").run()
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=1, Threads=1)
    button(app, "Train").click().run()
    run_until(app, finished)
    assert "Test accuracy" in metrics(app)


def test_a_person_can_watch_and_stop_and_keeps_the_best_so_far(app_data, held, tmp_path):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=50, Threads=1)
    button(app, "Train").click().run()
    run_until(app, lambda app: "Validation accuracy" in metrics(app))
    assert button(app, "Train").disabled
    assert app.get("progress")[0].proto.text == "Epoch 2 of 50"
    assert len(app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")) == 2
    assert float(metrics(app)["Samples a second"].replace(",", "")) > 0
    assert "trained_models" not in app.session_state or not app.session_state["trained_models"]
    button(app, "Stop").click().run()
    run_until(app, finished)
    assert "Stopped before the end." in texts(app)
    (model,) = app.session_state["trained_models"].values()
    (tmp_path / "m.safetensors").write_bytes(model.to_bytes())
    loaded = load_model(tmp_path / "m.safetensors", "numpy", 1)
    np.testing.assert_array_equal(
        loaded.predict_proba(app_data.x_test), model.predict_proba(app_data.x_test)
    )


def test_the_second_person_waits_and_is_told_so(app_data, held):
    first, second = open_page("train"), open_page("train")
    for app in (first, second):
        choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
        button(app, "Train").click().run()
    run_until(first, lambda app: "Training loss" in metrics(app))
    second.run()
    assert "One training is before this one" in texts(second)
    assert second.session_state["training_job"].state is State.WAITING
    held.set()
    run_until(first, finished)
    run_until(second, finished)


def test_the_model_is_there_on_other_pages_before_the_person_comes_back(app_data):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    go_to(app, "explore")
    run_until(app, lambda app: bool(app.session_state["trained_models"]))
    app.run()
    (box,) = (box for box in app.selectbox if box.label == "Model")
    assert box.options == ["The model in the box", *app.session_state["trained_models"]]


def test_other_pages_say_how_far_it_is(app_data, held):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=9, Threads=1)
    button(app, "Train").click().run()
    go_to(app, "explore")
    run_until(app, lambda app: "Your training: Epoch 2 of 9" in texts(app))
    held.set()
    run_until(app, lambda app: "Your training" not in texts(app))
    assert list(app.session_state["trained_models"])


def test_a_training_that_ends_while_another_page_is_drawn_brings_its_model(
    app_data, held, monkeypatch
):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    job = app.session_state["training_job"]

    def drawn_slowly():
        held.set()
        end = time.monotonic() + 60
        while not job.ended and time.monotonic() < end:
            time.sleep(0.01)

    monkeypatch.setattr(explore, "show", drawn_slowly)
    go_to(app, "explore")
    assert job.state is State.DONE
    assert list(app.session_state["trained_models"])


@pytest.mark.parametrize("text", ["12a", "0", "128, -3", "64;32"])
def test_layers_that_are_none_are_one_friendly_line(app_data, text):
    app = choose(open_page("train"), Hidden_layers=text)
    assert [error.value for error in app.error] == [
        f"Hidden layers are widths like 128, 64; {text!r} is not."
    ]
    assert button(app, "Train").disabled


def test_a_network_that_is_too_large_for_a_shared_server_is_refused():
    with pytest.raises(ArgumentError, match="at most 12 million"):
        widths("100000, 1000", 784, 10)
    assert widths("128-64", 784, 10) == widths(" 128, 64 ", 784, 10) == (128, 64)
    assert widths("", 784, 10) == widths("none", 784, 10) == ()


def test_a_training_that_diverges_says_what_to_do(app_data, monkeypatch):
    def diverging(dataset, **settings):
        return train(dataset, **{**settings, "lr": 1e20})

    monkeypatch.setattr(live, "train", diverging)
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    run_until(app, lambda app: app.error or app.warning)
    assert "lower learning rate" in texts(app)
    assert "Traceback" not in texts(app)


def test_the_preset_fills_in_the_form(app_data):
    app = choose(open_page("train"), Preset="wide")
    assert app.text_input[0].value == "1536, 512"
    assert {box.label: box.value for box in app.number_input}["Epochs"] == 60


def test_teachers_are_told_from_the_network_they_teach(small_dataset):
    seen = []

    class Noting(Watched):
        def begin(self, network, config, dataset):
            super().begin(network, config, dataset)
            seen.append((self.view.teacher, self.view.sizes, self.view.epochs))

    choice = Choice("best", "numpy", 1, (8,), 1, 1e-3)
    stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        Noting(small_dataset, choice)(lambda: len(seen) >= stop_after)
    assert seen[0] == ((1, 4), (784, 1024, 512, 10), 16)


@pytest.mark.filterwarnings("ignore:Fashion-MNIST is not on this machine")
def test_without_the_real_data_set_it_says_so(app_synthetic):
    app = open_page("train")
    assert "Fashion-MNIST is not on this machine" in texts(app)
    assert "`fmnist-fast data fetch` gets it" in texts(app)
    assert labels(app) == {"Train"}


def test_a_damaged_data_set_is_one_line(monkeypatch, tmp_path, app_queue):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"not what it says")
    monkeypatch.setenv("FMNIST_FAST_DATA", str(tmp_path))
    session._dataset_of.clear()
    app = open_page("train")
    (error,) = app.error
    assert "is not Fashion-MNIST's" in error.value
