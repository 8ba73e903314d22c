"""State of a session: its jobs in the queue, its trained models, data set and theme."""

import os
from collections.abc import Callable
from itertools import count

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from fmnist_fast.data.datasets import Dataset, load_dataset
from fmnist_fast.errors import UserError
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.load import PRETRAINED, load_model
from fmnist_fast.models.model import Model

from .charts import DARK, LIGHT, Palette
from .jobs import Job, JobQueue, Work

# One for the process: two trainings at a time would share the cores.
QUEUE = JobQueue()

# Models that a session keeps in the memory of the server.
MAX_MODELS = 6


def enqueue(work: Work) -> Job:
    """Put work in the queue for this session; if it is full, show that and end the script."""
    context = get_script_run_ctx()
    session_id = context.session_id if context else ""

    def connected() -> bool:
        # A page in the background polls nothing, since browsers slow its clock.
        return runtime.exists() and runtime.get_instance().is_active_session(session_id)

    try:
        return QUEUE.submit(work, connected)
    except UserError as error:
        st.error(str(error))
        st.stop()


def queue_message(job: Job) -> str:
    """Describe the position of a job in the queue; rerun the page if the job has ended."""
    position = QUEUE.position(job)
    if job.ended:
        st.rerun()
    if position == 0:
        return "Starting."
    before = "One training is" if position == 1 else f"{position} trainings are"
    return f"{before} before this one, which starts automatically."


def local_dataset() -> Dataset:
    """Return Fashion-MNIST if it is on this machine, else the synthetic data set; download nothing.

    If it cannot be read, show the error and end the script.
    """
    try:
        return load_local_dataset(os.environ.get("FMNIST_FAST_DATA"))
    except UserError as error:
        st.error(f"The data set cannot be read: {error}")
        st.stop()


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


def model_collector() -> Callable[[Model, str], str]:
    """Return a function that, in any thread, offers a model on every page of this session.

    It returns the name of the model: its second argument, with a number.
    """
    models = trained_models()
    numbers = st.session_state.setdefault("model_numbers", count(1))

    def collect(model: Model, label: str) -> str:
        name = f"{next(numbers)}: {label}"
        models[name] = model
        for oldest in list(models)[:-MAX_MODELS]:
            del models[oldest]
        return name

    return collect


def palette() -> Palette:
    """Return the colours of the theme of this session."""
    return DARK if st.context.theme.type == "dark" else LIGHT
