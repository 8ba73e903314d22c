"""The page Compare: the backends train the same network, measured in turn."""

from functools import partial

import pandas as pd
import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.rounds import CHECKED_STEPS, MAX_LOAD

from . import charts, elements, session
from .backend_race import REFERENCE, BackendRace, RaceEntry
from .jobs import Job, State

MAX_EPOCHS = 10

# Key of the session state.
JOB = "race_job"


def show() -> None:
    """Draw the page."""
    st.title("One network, three backends")
    st.write(
        "Each backend trains 784-128-64-10 from the same weights, on the same images, in the same "
        "order. They alternate, an epoch each, so that other load on this machine slows all of "
        "them equally."
    )
    dataset = session.local_dataset()
    with st.container(border=True):
        left, right = st.columns(2)
        epochs = left.number_input("Epochs each", 1, MAX_EPOCHS, 3)
        cores = usable_cores()
        threads = right.number_input("Threads each", 1, cores, cores, disabled=cores == 1)
        make_race = partial(BackendRace, dataset, epochs, threads)
        job = elements.job_button("Start the race", JOB, make_race)
    if job is None:
        st.caption(
            "No race has been run here yet. It takes some ten seconds, and some more where Numba "
            "compiles for the first time."
        )
    elif job.ended:
        _show_end(job)
    else:
        elements.show_progress(job, _show_bars)


def _show_end(job: Job) -> None:
    race: BackendRace = job.work
    if job.state is State.FAILED:
        st.error(job.error)
    elif job.state is State.STOPPED:
        st.info("The race was stopped.")
        _show_bars(race)
    else:
        _show_summary(race)
        _show_bars(race)
        _show_table(race)


def _show_summary(race: BackendRace) -> None:
    st.subheader(_headline(race))
    fastest = max(race.available, key=lambda entry: entry.speedup or 0.0)
    differences = [entry.first_steps_difference for entry in race.available]
    metrics = {"Samples a second": f"{fastest.samples_per_second or 0:,.0f}"}
    if fastest.of_peak:
        metrics["Of the roofline"] = f"{100 * fastest.of_peak:.0f} %"
    difference = f"Weight difference, {CHECKED_STEPS} steps"
    metrics[difference] = f"{max(differences):.0e}"
    help_text = "The maximum absolute difference of any weight of any backend from NumPy's."
    elements.show_metrics(metrics, {difference: help_text})
    if race.load is not None and race.load > MAX_LOAD:
        text = f"This machine was busy before the race: its load was {race.load:.1f}."
        if race.threads > 1:
            text += " NumPy's threads suffer most: compare with one thread each."
        st.warning(text)


def _headline(race: BackendRace) -> str:
    others = [entry for entry in race.available if entry.name != REFERENCE]
    if not others:
        return "NumPy is the only backend here."
    fastest = max(others, key=lambda entry: entry.speedup or 0.0)
    return f"{fastest.name} trains {fastest.speedup:.1f} times as fast as NumPy"


def _show_bars(race: BackendRace) -> None:
    st.altair_chart(charts.speed_bars(race, session.palette()), key="speed bars")
    text = "Bars are medians, ticks are single epochs."
    if race.roofline:
        text += (
            " The dashed line is the speed of a dense network of these sizes if every multiply-add "
            "ran at this processor's peak, measured between the epochs; skipping the pixels that "
            "are zero can exceed it."
        )
    st.caption(text)
    for entry in race.entries.values():
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
        "of the roofline": elements.percent(entry.of_peak, 0) if entry.of_peak else "not measured",
        "test accuracy": elements.percent(entry.accuracy, 2),
        f"weight difference, {CHECKED_STEPS} steps": _difference(
            entry, entry.first_steps_difference
        ),
        "weight difference, at the end": _difference(entry, entry.difference),
    }


def _difference(entry: RaceEntry, difference: float) -> str:
    if entry.name == REFERENCE:
        return ""
    return f"{difference:.1e}" if difference else "0"
