"""What a session of the app has: a place in the queue, models of its own, a data set."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from fmnist_fast.data.datasets import Dataset, load_dataset
from fmnist_fast.errors import UserError
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.load import PRETRAINED, load_model
from fmnist_fast.models.model import Model

from .jobs import Job, JobQueue

__all__ = [
    "QUEUE",
    "enqueue",
    "is_dark",
    "keep_model",
    "local_dataset",
    "place_of",
    "presence",
    "shipped_model",
    "trained_models",
    "turn",
]

Result = TypeVar("Result")

# One for the process: two trainings at a time would share the same cores.
QUEUE = JobQueue()

# A session's models stay in the memory of the server.
MOST_MODELS = 6


def presence() -> Callable[[], bool]:
    """Tells, from any thread, whether this session's browser is connected.

    A page in the background asks for nothing, since browsers slow its clock, but stays connected.
    """
    context = get_script_run_ctx()
    session_id = context.session_id if context else ""

    def present() -> bool:
        return runtime.exists() and bool(runtime.get_instance().is_active_session(session_id))

    return present


def enqueue(work: Callable[[Callable[[], bool]], Result]) -> Job[Result]:
    """Put work in the queue for this session; if that is full, say so and draw no further."""
    try:
        return QUEUE.submit(work, presence())
    except UserError as error:
        st.error(str(error))
        st.stop()


def place_of(job: Job[Any]) -> int:
    """How many jobs come before it; one that has ended is shown by a page that is drawn anew."""
    position = QUEUE.position(job)
    if job.ended:
        st.rerun()
    return position


def turn(position: int) -> str:
    """What to say to somebody before whom so many jobs are."""
    if position == 0:
        return "Starting."
    if position == 1:
        return "One training is before this one. It starts by itself."
    return f"{position} trainings are before this one. It starts by itself."


def local_dataset() -> Dataset | None:
    """Fashion-MNIST if it is on this machine, else the drawn garments; it is never downloaded.

    None if it cannot be read; then the page says why.
    """
    try:
        return _dataset_of(os.environ.get("FMNIST_FAST_DATA"))
    except UserError as error:
        st.error(f"The data set cannot be read: {error}")
        return None


@st.cache_resource(show_spinner="Reading the data set.")
def _dataset_of(folder: str | None) -> Dataset:
    """folder : what FMNIST_FAST_DATA says; the loader looks there by itself."""
    return load_dataset("auto", download=False)


@st.cache_resource(show_spinner=False)
def shipped_model() -> Model | Ensemble:
    """The model that comes with the package."""
    return load_model(PRETRAINED)


def trained_models() -> dict[str, Model]:
    """Models trained in this session, by the names that pages show; the newest last."""
    models: dict[str, Model] = st.session_state.setdefault("trained_models", {})
    return models


def keep_model(model: Model, label: str) -> str:
    """Offer a model on every page of this session; returns its name, the label with a number."""
    state: Any = st.session_state
    state["models_trained"] = state.get("models_trained", 0) + 1
    name = f"{state['models_trained']}: {label}"
    models = trained_models()
    models[name] = model
    for oldest in list(models)[:-MOST_MODELS]:
        del models[oldest]
    return name


def is_dark() -> bool:
    """Whether this session sees the dark theme."""
    return bool(st.context.theme.type == "dark")
