"""Elements that pages share: rows of metrics, and jobs."""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from fmnist_fast.nn.backend import phase_or_compilation

from . import session
from .jobs import Job, Work

# Seconds between updates of a running job.
REFRESH_SECONDS = 0.5


def show_metrics(metrics: Mapping[str, str], helps: Mapping[str, str] = {}) -> None:
    """Draw metrics beside each other. metrics : value by label. helps : tooltip by label."""
    with st.container(horizontal=True, gap="medium"):
        for label, value in metrics.items():
            st.metric(label, value, help=helps.get(label), width="content")


def percent(fraction: float, digits: int) -> str:
    """Format a fraction as a percentage that is not wrapped."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def job_button(label: str, key: str, make_work: Callable[[], Work] | None) -> Job | None:
    """Draw the button that starts a job; return the job of this session, if there is any.

    key : of the job in the session state. make_work : None disables the button.
    """
    job: Job | None = st.session_state.get(key)
    busy = job is not None and not job.ended
    if st.button(label, type="primary", disabled=busy or make_work is None) and make_work:
        st.session_state[key] = session.enqueue(make_work())
        st.rerun()
    return job


@st.fragment(run_every=REFRESH_SECONDS)
def show_progress(job: Job, draw: Callable[[Any], None]) -> None:
    """Draw the progress of a job, again and again, until it has ended.

    draw : called with its work, once that has begun: it has a phase.
    """
    message, work = session.queue_message(job), job.work
    if work.phase:
        phase = phase_or_compilation(work.phase)
        st.progress(min(work.done, 1.0), phase[0].upper() + phase[1:])
        draw(work)
    else:
        st.info(message)
    st.button("Stop", on_click=job.stop, disabled=job.should_stop())
