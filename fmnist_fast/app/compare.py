"""The page Compare: the backends train the same network, measured in turn."""

import pandas as pd
import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.rounds import CHECKED_STEPS, MAX_LOAD
from fmnist_fast.data.datasets import Dataset

from . import charts, session
from .backend_race import REFERENCE, BackendRace, RaceEntry
from .jobs import Job, State

__all__ = ["show"]

# Seconds between updates of a running race.
REFRESH_SECONDS = 0.5

MAX_EPOCHS = 10

# Keys of the session state.
JOB, RACE = "race_job", "race"


def show() -> None:
    """Draw the page."""
    st.title("One network, three backends")
    st.write(
        "Each backend trains 784-128-64-10 from the same weights, on the same images, in the same "
        "order. They alternate, an epoch each, so that other load on this machine slows all of "
        "them equally."
    )
    dataset = session.local_dataset()
    if dataset is None:
        return
    job: Job[BackendRace] | None = st.session_state.get(JOB)
    with st.container(border=True):
        left, right = st.columns(2)
        epochs = left.number_input("Epochs each", 1, MAX_EPOCHS, 3)
        cores = usable_cores()
        threads = right.number_input("Threads each", 1, cores, cores, disabled=cores == 1)
        busy = job is not None and not job.ended
        if st.button("Start the race", type="primary", disabled=busy):
            _start(dataset, int(epochs), int(threads))
            st.rerun()
    if job is None:
        st.caption(
            "No race has been run here yet. It takes some ten seconds, and some more where Numba "
            "compiles for the first time."
        )
    elif job.ended:
        _show_end(job)
    else:
        _show_progress()


def _start(dataset: Dataset, epochs: int, threads: int) -> None:
    """Put the race in the queue."""
    race = BackendRace(dataset, epochs, threads)
    st.session_state[JOB] = session.enqueue(race)
    st.session_state[RACE] = race


@st.fragment(run_every=REFRESH_SECONDS)
def _show_progress() -> None:
    """Draw the running race, again and again, until it has ended."""
    job: Job[BackendRace] = st.session_state[JOB]
    position = session.queue_position(job)
    race: BackendRace = st.session_state[RACE]
    if job.state is State.WAITING or not race.phase:
        st.info(session.queue_message(position))
    else:
        done = sum(entry.done for entry in race.available) / len(race.available)
        st.progress(min(done, 1.0), race.phase[0].upper() + race.phase[1:])
        _show_bars(race)
    st.button("Stop", on_click=job.stop, disabled=job.should_stop())


def _show_end(job: Job[BackendRace]) -> None:
    race: BackendRace = st.session_state[RACE]
    if job.result is not None:
        _show_summary(race)
        _show_bars(race)
        _show_table(race)
    elif job.state is State.STOPPED:
        st.info("The race was stopped.")
        _show_bars(race)
    else:
        st.error(job.error)


def _show_summary(race: BackendRace) -> None:
    st.subheader(_headline(race))
    fastest = max(race.available, key=lambda entry: entry.speedup or 0.0)
    speed = fastest.samples_per_second
    differences = [entry.first_steps_difference or 0.0 for entry in race.available]
    with st.container(horizontal=True, gap="medium"):
        st.metric("Samples a second", f"{speed or 0:,.0f}", width="content")
        if fastest.of_peak:
            st.metric("Of the roofline", f"{100 * fastest.of_peak:.0f} %", width="content")
        st.metric(
            f"Weight difference, {CHECKED_STEPS} steps",
            f"{max(differences):.0e}",
            help="The maximum absolute difference of any weight of any backend from NumPy's.",
            width="content",
        )
    if race.load is not None and race.load > MAX_LOAD:
        advice = (
            " NumPy's threads wait for each other and suffer most: compare with one thread each."
        )
        st.warning(
            f"This machine was busy before the race: its load was {race.load:.1f}."
            + advice * (race.threads > 1)
        )


def _headline(race: BackendRace) -> str:
    others = [entry for entry in race.available if entry.name != REFERENCE]
    if not others:
        return "NumPy is the only backend here."
    fastest = max(others, key=lambda entry: entry.speedup or 0.0)
    return f"{fastest.name} trains {fastest.speedup:.1f} times as fast as NumPy"


def _show_bars(race: BackendRace) -> None:
    st.altair_chart(charts.speed_bars(race, session.palette()), key="speed bars")
    st.caption(
        "Bars are medians, ticks are single epochs."
        + (
            " The dashed line is the speed of a dense network of these sizes if every multiply-add "
            "ran at this processor's peak, measured between the epochs; skipping the pixels that "
            "are zero can exceed it."
            if race.roofline
            else ""
        )
    )
    for entry in race.entries:
        if entry.missing is not None:
            st.info(f"{entry.name} is not in this race: it {entry.missing}.")


def _show_table(race: BackendRace) -> None:
    rows = [_row(entry) for entry in race.available]
    st.table(pd.DataFrame(rows).set_index("backend").T)
    st.write(
        f"Before anything is timed, all take the same {CHECKED_STEPS} steps: what their weights "
        "differ by then is rounding. Later a sum that is zero but for rounding may fall on the "
        "other side of a ReLU, and from there two equally correct runs diverge. The tests of the "
        "kernels hold every operation to bounds derived from the arithmetic."
    )


def _row(entry: RaceEntry) -> dict[str, str]:
    """Return the figures of one backend as text."""
    instruction_set = f" ({entry.instruction_set})" if entry.instruction_set else ""
    return {
        "backend": entry.name + instruction_set,
        "samples a second": f"{entry.samples_per_second:,.0f}",
        "seconds an epoch": f"{entry.seconds_median:.3f}",
        "times NumPy": f"{entry.speedup:.2f}",
        "of the roofline": _percent(entry.of_peak, ".0f") if entry.of_peak else "not measured",
        "test accuracy": _percent(entry.accuracy, ".2f"),
        f"weight difference, {CHECKED_STEPS} steps": _difference(
            entry, entry.first_steps_difference
        ),
        "weight difference, at the end": _difference(entry, entry.difference),
    }


def _percent(fraction: float | None, form: str) -> str:
    return f"{100 * (fraction or 0.0):{form}}\N{NO-BREAK SPACE}%"


def _difference(entry: RaceEntry, difference: float | None) -> str:
    if entry.name == REFERENCE or difference is None:
        return ""
    return "0" if difference == 0 else f"{difference:.1e}"
