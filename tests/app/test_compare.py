"""The page Compare: the backend race and its presentation."""

from threading import Event

import numpy as np
import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import button, metrics, open_page, run_until, texts

from fmnist_fast.app import backend_race, charts
from fmnist_fast.app.backend_race import BackendRace, max_difference
from fmnist_fast.app.jobs import State
from fmnist_fast.bench import rounds
from fmnist_fast.bench.peers import FmnistFast
from fmnist_fast.bench.rounds import CHECKED_STEPS
from fmnist_fast.kernels.interface import Params
from fmnist_fast.nn.backend import BACKEND_NAMES, backend_name, unavailable_reason
from fmnist_fast.training.loop import StopRequested
from fmnist_fast.training.trainer import train

AVAILABLE = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


@pytest.fixture(autouse=True)
def no_settling(monkeypatch):
    """No pauses between measurements, whose values do not matter here."""
    monkeypatch.setattr(rounds, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def without_numba(monkeypatch):
    known = backend_race.unavailable_reason
    missing = {"numba": "cannot be loaded: No module named 'numba'"}
    monkeypatch.setattr(
        backend_race, "unavailable_reason", lambda name: missing.get(name) or known(name)
    )


def ended(app):
    return app.session_state["race_job"].ended


def test_race_backends_train_the_same_network(small_dataset):
    race = BackendRace(small_dataset, epochs=2, threads=1, seed=3)
    race(lambda: False)
    config = {"preset": "fast", "epochs": 2, "validation": 0, "seed": 3, "threads": 1}
    for entry in race.available:
        alone = train(small_dataset, backend=entry.name, **config)
        assert entry.accuracy == alone.test_accuracy
        assert len(entry.seconds) == 2
        assert entry.epochs_done == 2
        assert entry.first_steps_difference < 1e-5
        assert entry.difference < 1e-3
    assert race.done == 1
    numpy = race.entries["numpy"]
    assert (numpy.first_steps_difference, numpy.difference, numpy.speedup) == (0, 0, 1)


def test_race_shows_difference_of_a_wrong_backend(small_dataset, monkeypatch):
    class Wrong(FmnistFast):
        def train(self, order_n):
            super().train(order_n)
            if backend_name(self.network.backend) == "cython":
                self.state.params.weights[0][5, 3] += 0.01

    monkeypatch.setattr(backend_race, "FmnistFast", Wrong)
    race = BackendRace(small_dataset, epochs=1, threads=1)
    race(lambda: False)
    found = {entry.name: entry.first_steps_difference for entry in race.available}
    assert "cython" not in found or found["cython"] == pytest.approx(0.01, rel=1e-2)
    assert found["numpy"] == 0


def test_race_interleaves_epochs(small_dataset):
    race, phases = BackendRace(small_dataset, epochs=3, threads=1), []

    def record_phase():
        if not phases or phases[-1] != race.phase:
            phases.append(race.phase)
        return False

    race(record_phase)
    expected = [f"epoch {number} of 3: {name}" for number in (1, 2, 3) for name in AVAILABLE]
    assert [phase for phase in phases if phase.startswith("epoch")] == expected


def test_race_stops_within_an_epoch(small_dataset):
    race = BackendRace(small_dataset, epochs=1000, threads=1)
    with pytest.raises(StopRequested):
        race(lambda: race.phase.startswith("epoch 2"))
    assert {len(entry.seconds) for entry in race.available} == {1}


def test_max_difference_covers_weights_and_biases():
    params = Params((np.zeros((2, 3)), np.ones((3, 2))), (np.zeros(3), np.zeros(2)))
    others = Params((np.zeros((2, 3)), np.ones((3, 2))), (np.zeros(3), np.array([0, -0.5])))
    assert max_difference(params, params) == 0
    assert max_difference(params, others) == 0.5


def test_race_speedup_is_median_of_ratios_within_rounds(small_dataset):
    race = BackendRace(small_dataset, epochs=3, threads=1)
    race.entries["numpy"].seconds = [1.0, 10.0, 2.0]
    race.entries["cython"].seconds = [0.5, 1.0, 0.5]
    race.summarize()
    assert race.entries["cython"].speedup == 4
    assert race.entries["cython"].samples_per_second == 600 / 0.5
    assert race.entries["numba"].samples_per_second is None
    race.peak_gflops = 100.0
    # 2 x 227,200 operations a sample, of a network 784-128-64-10
    assert race.roofline == pytest.approx(100e9 / (2 * 227_200), rel=0.05)


def test_page_shows_race_and_result(app_data):
    app = open_page("compare")
    assert "No race has been run here yet" in texts(app)
    app.number_input[0].set_value(2).run()
    app.number_input[1].set_value(1).run()
    button(app, "Start the race").click().run()
    run_until(app, ended)
    app.run()
    assert app.session_state["race_job"].state is State.DONE
    race = app.session_state["race_job"].work
    table = app.table[0].value
    assert [column.split()[0] for column in table.columns] == AVAILABLE
    for name, column in zip(AVAILABLE, table.columns):
        entry = race.entries[name]
        assert table[column]["test accuracy"] == f"{100 * entry.accuracy:.2f}\N{NO-BREAK SPACE}%"
        assert float(table[column]["times NumPy"]) == round(entry.speedup, 2)
    difference = max(entry.first_steps_difference for entry in race.available)
    assert metrics(app)[f"Weight difference, {CHECKED_STEPS} steps"] == f"{difference:.0e}"
    assert "times as fast as NumPy" in texts(app)


def test_page_names_missing_backend_with_reason(app_data, without_numba):
    app = open_page("compare")
    app.number_input[0].set_value(1).run()
    button(app, "Start the race").click().run()
    run_until(app, ended)
    app.run()
    assert "numba is not in this race: it cannot be loaded: No module named 'numba'." in texts(app)
    assert not [column for column in app.table[0].value.columns if "numba" in column]


def test_race_waits_for_trainings_and_can_be_stopped(app_data, app_queue):
    begun, go = Event(), Event()

    def training(should_stop):
        begun.set()
        go.wait(20)

    app_queue.submit(training, lambda: True)
    assert begun.wait(20)
    app = open_page("compare")
    button(app, "Start the race").click().run()
    assert "One training is before this one" in texts(app)
    button(app, "Stop").click().run()
    app.run()
    assert "The race was stopped." in texts(app)
    go.set()


@pytest.mark.parametrize("peak", [None, 200.0])
def test_speed_bars_show_backends_and_known_roofline(small_dataset, peak):
    race = BackendRace(small_dataset, epochs=1, threads=1)
    charts.speed_bars(race, charts.DARK).to_dict()  # before anything was measured
    for entry in race.available:
        entry.seconds = [0.5]
    race.peak_gflops = peak
    race.summarize()
    chart = charts.speed_bars(race, charts.LIGHT).to_dict()
    values = [row for data in chart["datasets"].values() for row in data]
    assert {row["backend"] for row in values if "backend" in row} == set(AVAILABLE)
    assert any(row.get("text") == "dense roofline" for row in values) == (peak is not None)
