"""The page Compare: the backends race on the same training."""

import pandas as pd
import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.bench.measurement import BUSY_LOAD
from fmnist_fast.data.datasets import Dataset

from . import charts, session
from .backend_race import CHECKED_STEPS, MEASURE, Contest, Racer
from .jobs import Job, State

__all__ = ["show"]

# Seconds between two looks at a race.
REFRESH = 0.5

MOST_EPOCHS = 10

JOB, CONTEST = "race_job", "race_contest"


def show() -> None:
    """Draw the page."""
    st.title("One network, three backends")
    st.write(
        "Each backend trains 784-128-64-10 from the same weights, on the same images, in the same "
        "order. They take turns, an epoch each, so that whatever else this machine does slows all "
        "of them alike."
    )
    dataset = session.local_dataset()
    if dataset is None:
        return
    job: Job[Contest] | None = st.session_state.get(JOB)
    with st.container(border=True):
        left, right = st.columns(2)
        epochs = left.number_input("Epochs each", 1, MOST_EPOCHS, 3)
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
        _watch()


def _start(dataset: Dataset, epochs: int, threads: int) -> None:
    """Put the race in the queue."""
    contest = Contest(dataset, epochs, threads)
    st.session_state[JOB] = session.enqueue(contest)
    st.session_state[CONTEST] = contest


@st.fragment(run_every=REFRESH)
def _watch() -> None:
    """How the race goes; drawn again and again by itself, until it has ended."""
    job: Job[Contest] = st.session_state[JOB]
    position = session.place_of(job)
    contest: Contest = st.session_state[CONTEST]
    if job.state is State.WAITING or not contest.phase:
        st.info(session.turn(position))
    else:
        racing = [racer for racer in contest.racers if racer.missing is None]
        done = sum(racer.done for racer in racing) / len(racing)
        st.progress(min(done, 1.0), contest.phase[0].upper() + contest.phase[1:])
        _show_bars(contest)
    st.button("Stop", on_click=job.stop, disabled=job.should_stop())


def _show_end(job: Job[Contest]) -> None:
    if job.state is State.STOPPED:
        st.info("The race was stopped.")
    elif job.result is None:
        st.error(job.error)
        return
    contest: Contest = st.session_state[CONTEST]
    if job.result is not None:
        _show_result(contest)
    _show_bars(contest)
    if job.result is not None:
        _show_table(contest)


def _show_result(contest: Contest) -> None:
    """The point of it in one line of figures."""
    st.subheader(_headline(contest))
    racing = [racer for racer in contest.racers if racer.missing is None]
    fastest = max(racing, key=lambda racer: contest.speedup(racer) or 0.0)
    speed, apart = contest.samples_per_second(fastest), [r.early or 0.0 for r in racing]
    with st.container(horizontal=True, gap="medium"):
        st.metric("Samples a second", f"{speed:,.0f}", width="content")
        if contest.roofline and speed:
            st.metric("Of the roofline", f"{100 * speed / contest.roofline:.0f} %", width="content")
        st.metric(
            f"Weights apart, {CHECKED_STEPS} steps",
            f"{max(apart):.0e}",
            help="The largest absolute difference of any weight of any backend from NumPy's.",
            width="content",
        )
    if contest.load is not None and contest.load > BUSY_LOAD:
        advice = (
            " NumPy's threads wait for each other and suffer most; one thread each is the fairer "
            "race then."
        )
        st.warning(
            f"This machine was busy before the race: its load was {contest.load:.1f}."
            + advice * (contest.threads > 1)
        )


def _headline(contest: Contest) -> str:
    """The result in one sentence."""
    others = [r for r in contest.racers if r.missing is None and r.name != MEASURE]
    if not others:
        return "NumPy ran alone."
    fastest = max(others, key=lambda racer: contest.speedup(racer) or 0.0)
    return f"{fastest.name} trains {contest.speedup(fastest):.1f} times as fast as NumPy"


def _show_bars(contest: Contest) -> None:
    palette = charts.DARK if session.is_dark() else charts.LIGHT
    st.altair_chart(charts.speed_bars(contest, palette), key="speed bars")
    st.caption(
        "Bars are medians, ticks are single epochs."
        + (
            " The dashed line is where a network of these sizes would be if every multiply-add ran "
            "at this processor's peak, measured between the epochs; skipping the pixels that are "
            "zero can go beyond."
            if contest.roofline
            else ""
        )
    )
    for racer in contest.racers:
        if racer.missing is not None:
            st.info(f"{racer.name} is not in this race: it {racer.missing}.")


def _show_table(contest: Contest) -> None:
    racing = [racer for racer in contest.racers if racer.missing is None]
    table = pd.DataFrame([_row(contest, racer) for racer in racing]).set_index("backend").T
    st.table(table)
    st.write(
        f"Before anything is timed, all take the same {CHECKED_STEPS} steps: what their weights "
        "differ by then is rounding. Later a sum that is zero but for rounding may fall on the "
        "other side of a ReLU, and from there two runs that are equally right go apart. The tests "
        "of the kernels hold every operation to bounds derived from the arithmetic."
    )


def _row(contest: Contest, racer: Racer) -> dict[str, str]:
    """The figures of one backend, as a person reads them."""
    speed = contest.samples_per_second(racer) or 0.0
    speedup, roofline = contest.speedup(racer) or 0.0, contest.roofline
    return {
        "backend": racer.name + (f" ({racer.instruction_set})" if racer.instruction_set else ""),
        "samples a second": f"{speed:,.0f}",
        "seconds an epoch": f"{contest.rows / speed:.3f}",
        "times NumPy": f"{speedup:.2f}",
        "of the roofline": f"{100 * speed / roofline:.0f}\N{NO-BREAK SPACE}%"
        if roofline
        else "not measured",
        "test accuracy": f"{100 * (racer.accuracy or 0.0):.2f}\N{NO-BREAK SPACE}%",
        f"weights off NumPy's, {CHECKED_STEPS} steps": _apart(racer.name, racer.early),
        "weights off NumPy's, at the end": _apart(racer.name, racer.late),
    }


def _apart(name: str, difference: float | None) -> str:
    if name == MEASURE or difference is None:
        return ""
    return "0" if difference == 0 else f"{difference:.1e}"
