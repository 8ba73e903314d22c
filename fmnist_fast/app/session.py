"""State of a session: its jobs in the queue, its trained models, data set and theme."""

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

from .charts import DARK, LIGHT, Palette
from .jobs import Job, JobQueue

__all__ = [
    "QUEUE",
    "add_model",
    "connection_check",
    "enqueue",
    "load_local_dataset",
    "local_dataset",
    "palette",
    "pretrained_model",
    "queue_message",
    "queue_position",
    "trained_models",
]

Result = TypeVar("Result")

# One for the process: two trainings at a time would share the cores.
QUEUE = JobQueue()

# Models that a session keeps in the memory of the server.
MAX_MODELS = 6


def connection_check() -> Callable[[], bool]:
    """Return a function that tells, in any thread, whether this session's browser is connected.

    A page in the background polls nothing, since browsers slow its clock, but stays connected.
    """
    context = get_script_run_ctx()
    session_id = context.session_id if context else ""

    def connected() -> bool:
        return runtime.exists() and bool(runtime.get_instance().is_active_session(session_id))

    return connected


def enqueue(work: Callable[[Callable[[], bool]], Result]) -> Job[Result]:
    """Put work in the queue for this session; if it is full, show that and end the script."""
    try:
        return QUEUE.submit(work, connection_check())
    except UserError as error:
        st.error(str(error))
        st.stop()


def queue_position(job: Job[Any]) -> int:
    """Return the number of jobs before it; rerun the page if it has ended."""
    position = QUEUE.position(job)
    if job.ended:
        st.rerun()
    return position


def queue_message(position: int) -> str:
    """Describe a position in the queue."""
    if position == 0:
        return "Starting."
    if position == 1:
        return "One training is before this one, which starts automatically."
    return f"{position} trainings are before this one, which starts automatically."


def local_dataset() -> Dataset | None:
    """Return Fashion-MNIST if it is on this machine, else the synthetic data set; download nothing.

    None, with the error shown on the page, if it cannot be read.
    """
    try:
        return load_local_dataset(os.environ.get("FMNIST_FAST_DATA"))
    except UserError as error:
        st.error(f"The data set cannot be read: {error}")
        return None


@st.cache_resource(show_spinner="Reading the data set.")
def load_local_dataset(folder: str | None) -> Dataset:
    """Load it once. folder : value of FMNIST_FAST_DATA, which the loader reads itself."""
    return load_dataset("auto", download=False)


@st.cache_resource(show_spinner=False)
def pretrained_model() -> Model | Ensemble:
    """Return the pretrained model for images of the data set."""
    return load_model(PRETRAINED)


def trained_models() -> dict[str, Model]:
    """Return the models trained in this session by their names, the newest last."""
    models: dict[str, Model] = st.session_state.setdefault("trained_models", {})
    return models


def add_model(model: Model, label: str) -> str:
    """Offer a model on every page of this session; return its name, the label with a number."""
    state: Any = st.session_state
    state["models_trained"] = state.get("models_trained", 0) + 1
    name = f"{state['models_trained']}: {label}"
    models = trained_models()
    models[name] = model
    for oldest in list(models)[:-MAX_MODELS]:
        del models[oldest]
    return name


def palette() -> Palette:
    """Return the colours of the theme of this session."""
    return DARK if st.context.theme.type == "dark" else LIGHT
