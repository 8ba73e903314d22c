"""The page Compare: the race, and what is said of it."""

from threading import Event

import numpy as np
import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import button, metrics, open_page, run_until, texts

from fmnist_fast.app import backend_race as contest
from fmnist_fast.app import charts
from fmnist_fast.app.backend_race import CHECKED_STEPS, Contest, difference
from fmnist_fast.app.jobs import State
from fmnist_fast.kernels.interface import Params
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason
from fmnist_fast.training.loop import StopRequested
from fmnist_fast.training.trainer import train

THERE = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """No waiting for other threads: nothing is measured here."""
    monkeypatch.setattr(contest, "SETTLE", 0.0)


@pytest.fixture
def without_numba(monkeypatch):
    known = contest.unavailable_reason
    missing = {"numba": "cannot be loaded: No module named 'numba'"}
    monkeypatch.setattr(contest, "unavailable", lambda name: missing.get(name) or known(name))


def ended(app):
    return app.session_state["race_job"].ended


def test_all_train_the_same_network(small_dataset):
    race = Contest(small_dataset, epochs=2, threads=1, seed=3)
    assert race(lambda: False) is race
    config = {"preset": "fast", "epochs": 2, "validation": 0, "seed": 3, "threads": 1}
    for racer in race.racers:
        if racer.missing is not None:
            continue
        alone = train(small_dataset, backend=racer.name, **config)
        assert racer.accuracy == alone.test_accuracy
        assert len(racer.seconds) == 2
        assert racer.done == 1
        assert racer.early < 1e-5
        assert racer.late < 1e-3
    (numpy,) = (racer for racer in race.racers if racer.name == "numpy")
    assert (numpy.early, numpy.late, race.speedup(numpy)) == (0, 0, 1)


def test_a_backend_that_computes_something_else_is_seen(small_dataset, monkeypatch):
    right = contest.first_steps

    def wrong(run):
        weights, biases = right(run)
        if contest.name_of(run.network.backend) == "cython":
            weights[0][5, 3] += 0.01
        return Params(weights, biases)

    monkeypatch.setattr(contest, "first_steps", wrong)
    race = Contest(small_dataset, epochs=1, threads=1)
    race(lambda: False)
    found = {racer.name: racer.early for racer in race.racers}
    assert found["cython"] is None or found["cython"] == pytest.approx(0.01, rel=1e-2)
    assert found["numpy"] == 0


def test_they_take_turns_an_epoch_each(small_dataset):
    race, turns = Contest(small_dataset, epochs=3, threads=1), []

    def note():
        if not turns or turns[-1] != race.phase:
            turns.append(race.phase)
        return False

    race(note)
    expected = [f"epoch {number} of 3: {name}" for number in (1, 2, 3) for name in THERE]
    assert [turn for turn in turns if turn.startswith("epoch")] == expected


def test_a_race_stops_within_an_epoch(small_dataset):
    race = Contest(small_dataset, epochs=1000, threads=1)
    with pytest.raises(StopRequested):
        race(lambda: race.phase.startswith("epoch 2"))
    assert {len(racer.seconds) for racer in race.racers if not racer.missing} == {1}


def test_difference_is_the_largest_of_any_weight_or_bias():
    params = Params((np.zeros((2, 3)), np.ones((3, 2))), (np.zeros(3), np.zeros(2)))
    others = Params((np.zeros((2, 3)), np.ones((3, 2))), (np.zeros(3), np.array([0, -0.5])))
    assert difference(params, params) == 0
    assert difference(params, others) == 0.5


def test_speed_is_the_median_of_ratios_within_a_round(small_dataset):
    race = Contest(small_dataset, epochs=3, threads=1)
    race._set("numpy", seconds=(1.0, 10.0, 2.0))
    race._set("cython", seconds=(0.5, 1.0, 0.5))
    by_name = {racer.name: racer for racer in race.racers}
    assert race.speedup(by_name["cython"]) == 4
    assert race.samples_per_second(by_name["cython"]) == 600 / 0.5
    assert race.samples_per_second(by_name["numba"]) is None
    race.peak = 100.0
    # 2 x 227,200 operations a sample, of a network 784-128-64-10
    assert race.roofline == pytest.approx(100e9 / (2 * 227_200), rel=0.05)


def test_the_page_shows_the_race_and_its_result(app_data):
    app = open_page("compare")
    assert "No race has been run here yet" in texts(app)
    app.number_input[0].set_value(2).run()
    app.number_input[1].set_value(1).run()
    button(app, "Start the race").click().run()
    run_until(app, ended)
    app.run()
    assert app.session_state["race_job"].state is State.DONE
    race = app.session_state["race_contest"]
    table = app.table[0].value
    assert [column.split()[0] for column in table.columns] == THERE
    for name, column in zip(THERE, table.columns):
        (racer,) = (racer for racer in race.racers if racer.name == name)
        assert table[column]["test accuracy"] == f"{100 * racer.accuracy:.2f}\N{NO-BREAK SPACE}%"
        assert float(table[column]["times NumPy"]) == round(race.speedup(racer), 2)
    apart = max(racer.early for racer in race.racers if racer.missing is None)
    assert metrics(app)[f"Weights apart, {CHECKED_STEPS} steps"] == f"{apart:.0e}"
    assert "times as fast as NumPy" in texts(app)


def test_a_backend_that_is_not_there_is_named_with_the_reason(app_data, without_numba):
    app = open_page("compare")
    app.number_input[0].set_value(1).run()
    button(app, "Start the race").click().run()
    run_until(app, ended)
    app.run()
    assert "numba is not in this race: it cannot be loaded: No module named 'numba'." in texts(app)
    assert not [column for column in app.table[0].value.columns if "numba" in column]


def test_a_race_waits_for_trainings_and_can_be_stopped(app_data, app_queue):
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
def test_its_chart_has_a_bar_for_each_and_the_roofline_if_known(small_dataset, peak):
    race = Contest(small_dataset, epochs=1, threads=1)
    charts.speed_bars(race, charts.DARK).to_dict()  # before anything was measured
    for racer in race.racers:
        race._set(racer.name, seconds=(0.5,))
    race.peak = peak
    chart = charts.speed_bars(race, charts.LIGHT).to_dict()
    values = [row for data in chart["datasets"].values() for row in data]
    assert {row["backend"] for row in values if "backend" in row} == set(THERE)
    assert any(row.get("text") == "dense roofline" for row in values) == (peak is not None)
