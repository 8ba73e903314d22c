"""The page Train before, during and after a training."""

from threading import Event

import numpy as np
import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import button, go_to, labels, metrics, open_page, run_until, texts
from conditions import wait_until
from messages import assert_one_line
from streamlit.testing.v1 import AppTest

from fmnist_fast.app import explore, session, training_monitor
from fmnist_fast.app.jobs import State
from fmnist_fast.app.training_monitor import TrainingMonitor, parse_hidden_sizes
from fmnist_fast.errors import ArgumentError
from fmnist_fast.models.load import load_model
from fmnist_fast.nn import backend
from fmnist_fast.training.trainer import train


def choose(app, **fields):
    """Fill in the form by labels, with spaces as underscores."""
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
    """Trainings wait after their first epoch until the event is set."""
    go = Event()

    def slow(dataset, *, should_stop, **settings):
        def wait(state):
            while state.record.epoch == 1 and not go.wait(0.005) and not should_stop():
                pass

        return train(dataset, should_stop=should_stop, callbacks=wait, **settings)

    monkeypatch.setattr(training_monitor, "train", slow)
    yield go
    go.set()


def test_page_training_ends_in_a_usable_model(app_data):
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


def test_page_shows_training_that_ends_while_drawing(app_data):
    """main.show(), which shows the state on the other pages, is not called here."""
    app = AppTest.from_string("from fmnist_fast.app.train import show; show()").run()
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=1, Threads=1)
    button(app, "Train").click().run()
    run_until(app, finished)
    assert "Test accuracy" in metrics(app)


def test_page_shows_progress_and_stop_keeps_best_model(app_data, held, tmp_path):
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


def test_page_shows_time_of_compilation(app_data, held, monkeypatch):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=50, Threads=1)
    button(app, "Train").click().run()
    monkeypatch.setattr(backend, "compiling_seconds", lambda: 7.3)
    text = "Compiling the Numba kernels, once: 7 s"
    run_until(app, lambda app: text in [bar.proto.text for bar in app.get("progress")])
    held.set()
    button(app, "Stop").click().run()


def test_page_of_second_session_shows_queue_position(app_data, held):
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


def test_page_trained_model_is_offered_on_other_pages(app_data):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    go_to(app, "explore")
    run_until(app, lambda app: bool(app.session_state["trained_models"]))
    app.run()
    (box,) = (box for box in app.selectbox if box.label == "Model")
    assert box.options == [explore.PRETRAINED, *app.session_state["trained_models"]]


def test_page_other_pages_show_progress(app_data, held):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=9, Threads=1)
    button(app, "Train").click().run()
    go_to(app, "explore")
    run_until(app, lambda app: "Your training: Epoch 2 of 9" in texts(app))
    held.set()
    run_until(app, lambda app: "Your training" not in texts(app))
    assert list(app.session_state["trained_models"])


def test_page_other_page_collects_finished_model(app_data, held, monkeypatch):
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    job = app.session_state["training_job"]

    def draw_until_done():
        held.set()
        wait_until(lambda: job.ended)

    monkeypatch.setattr(explore, "show", draw_until_done)
    go_to(app, "explore")
    assert job.state is State.DONE
    assert list(app.session_state["trained_models"])


@pytest.mark.parametrize("text", ["12a", "0", "128, -3", "64;32"])
def test_page_invalid_hidden_layers_is_one_line(app_data, text):
    app = choose(open_page("train"), Hidden_layers=text)
    (error,) = app.error
    assert_one_line(error.value, "hidden layers", repr(text), "positive integers")
    assert button(app, "Train").disabled


def test_parse_hidden_sizes_limits_weights():
    with pytest.raises(ArgumentError, match="at most 12 million"):
        parse_hidden_sizes("100000, 1000", 784, 10)
    for text, sizes in {"128-64": (128, 64), " 128, 64 ": (128, 64), "": (), "none": ()}.items():
        assert parse_hidden_sizes(text, 784, 10) == sizes


def test_page_diverged_training_shows_remedy(app_data, monkeypatch):
    def diverging(dataset, **settings):
        return train(dataset, **{**settings, "lr": 1e20})

    monkeypatch.setattr(training_monitor, "train", diverging)
    app = open_page("train")
    choose(app, Preset="fast", Backend="numpy", Hidden_layers="8", Epochs=2, Threads=1)
    button(app, "Train").click().run()
    run_until(app, lambda app: app.error or app.warning)
    assert "lower learning rate" in texts(app)
    assert "Traceback" not in texts(app)


def test_page_preset_sets_defaults(app_data):
    app = choose(open_page("train"), Preset="wide")
    assert app.text_input[0].value == "1536, 512"
    assert {box.label: box.value for box in app.number_input}["Epochs"] == 60


def test_monitor_distinguishes_teachers(small_dataset):
    seen = []

    class Recorder(TrainingMonitor):
        def begin(self, network, config, dataset):
            super().begin(network, config, dataset)
            seen.append((self.phase, network.spec.sizes))

    options = {"preset": "best", "backend": "numpy", "hidden": (8,), "epochs": 1, "lr": 1e-3}
    stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        Recorder(small_dataset, options, collect=None)(lambda: len(seen) >= stop_after)
    assert seen[0] == ("teacher 1 of 4: epoch 1 of 16", (784, 1024, 512, 10))


@pytest.mark.filterwarnings("ignore:Fashion-MNIST is not on this machine")
def test_page_names_synthetic_data_set(app_synthetic):
    app = open_page("train")
    assert "Fashion-MNIST is not on this machine" in texts(app)
    assert "`fmnist-fast data fetch` downloads it" in texts(app)
    assert labels(app) == {"Train"}


def test_page_damaged_data_set_is_one_line(monkeypatch, tmp_path, app_queue):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte.gz").write_bytes(b"not an IDX file")
    monkeypatch.setenv("FMNIST_FAST_DATA", str(tmp_path))
    session.load_local_dataset.clear()
    app = open_page("train")
    (error,) = app.error
    assert_one_line(error.value, "cannot be read", "Fashion-MNIST")
