"""The page Train: set options, follow the training, stop it, and use the model."""

import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.errors import UserError
from fmnist_fast.nn.backend import BACKEND_NAMES, backend_name, get_backend, unavailable_reason
from fmnist_fast.training.presets import DEFAULT, PRESETS, measured_results

from . import charts, session
from .jobs import Job, State
from .training_monitor import (
    FinishedTraining,
    TrainingMonitor,
    TrainingOptions,
    TrainingProgress,
    parse_hidden_sizes,
)

__all__ = ["collect_model", "show", "show_status"]

# Seconds between updates of a running training, on this page and on the others.
REFRESH_SECONDS, STATUS_SECONDS = 0.5, 2.0

MAX_EPOCHS = 200

# Keys of the session state.
JOB, MONITOR, MODEL_NAME = "training_job", "training_monitor", "training_model"


def show() -> None:
    """Draw the page."""
    st.title("Train a network")
    dataset = session.local_dataset()
    if dataset is None:
        return
    st.write(_describe(dataset))
    job: Job[FinishedTraining] | None = st.session_state.get(JOB)
    with st.container(border=True):
        options = _options(dataset)
        busy = job is not None and not job.ended
        if st.button("Train", type="primary", disabled=busy or options is None) and options:
            _start(dataset, options)
            st.rerun()
    if job is None:
        st.caption("Nothing has been trained here yet. With the preset fast it takes seconds.")
    elif job.ended:
        collect_model()  # it may have ended since main.show() called this
        _show_end(job)
    else:
        _show_progress()


def collect_model() -> None:
    """Add the model of a finished training to the session; called on every page."""
    job: Job[FinishedTraining] | None = st.session_state.get(JOB)
    if job is None:
        return
    session.QUEUE.position(job)
    if job.state is not State.DONE or job.result is None or MODEL_NAME in st.session_state:
        return
    preset = st.session_state[MONITOR].options.preset
    accuracy = 100 * job.result.result.test_accuracy
    label = f"{preset}, {accuracy:.2f} %"
    st.session_state[MODEL_NAME] = session.add_model(job.result.result.model, label)


def show_status() -> None:
    """On the other pages: show the state of a running training, and rerun when it has ended."""
    job: Job[FinishedTraining] | None = st.session_state.get(JOB)
    if job is None:
        return
    if not job.ended:
        _show_status()
    elif job.result is not None and MODEL_NAME not in st.session_state:
        st.rerun()  # it ended while the page was drawn: main.show() collects its model


@st.fragment(run_every=STATUS_SECONDS)
def _show_status() -> None:
    job: Job[FinishedTraining] = st.session_state[JOB]
    position = session.queue_position(job)
    progress: TrainingProgress = st.session_state[MONITOR].progress
    text = _progress_text(progress) if progress.epochs else session.queue_message(position)
    st.caption(f"Your training: {text}")


def _describe(dataset: Dataset) -> str:
    rows = f"{len(dataset.x_train):,} images of {len(dataset.class_names)} classes"
    if dataset.name == "synthetic":
        return (
            f"Training set: synthetic, {rows} drawn by this package. Fashion-MNIST is not on this "
            "machine: `fmnist-fast data fetch` downloads it. Accuracies on synthetic images say "
            "nothing about Fashion-MNIST."
        )
    return f"Training set: {dataset.name}, {rows}."


def _options(dataset: Dataset) -> TrainingOptions | None:
    """Draw the form and return its options; None, with an error shown, if they are invalid."""
    left, right = st.columns(2)
    preset = left.selectbox(
        "Preset", list(PRESETS), list(PRESETS).index(DEFAULT), help=_presets_help()
    )
    available = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
    fastest = backend_name(get_backend())
    backend = right.selectbox(
        "Backend",
        available,
        available.index(fastest),
        help="The same network three times. cython is the fastest, numpy the one to read.",
    )
    config = PRESETS[preset]
    # A key for each preset: a change of the preset shows its values, and going back restores edits.
    text = left.text_input(
        "Hidden layers",
        ", ".join(map(str, config.hidden)),
        key=f"hidden {preset}",
        max_chars=60,
        help="Layer sizes, separated by commas. Empty for none.",
    )
    epochs = right.number_input("Epochs", 1, MAX_EPOCHS, config.epochs, key=f"epochs {preset}")
    lr = left.number_input(
        "Learning rate",
        1e-5,
        1.0,
        config.lr,
        step=5e-4,
        format="%.5f",
        key=f"lr {preset}",
        help="Maximum learning rate: it warms up to this, then decays.",
    )
    cores = usable_cores()
    threads = right.number_input("Threads", 1, cores, cores, disabled=cores == 1)
    try:
        hidden = parse_hidden_sizes(text, dataset.x_train[0].size, len(dataset.class_names))
    except UserError as error:
        st.error(str(error))
        return None
    return TrainingOptions(
        preset=preset,
        backend=backend,
        threads=int(threads),
        hidden=hidden,
        epochs=int(epochs),
        lr=float(lr),
    )


def _presets_help() -> str:
    lines = [
        f"- {name}: {100 * result.accuracy:.1f} % of Fashion-MNIST's test set, "
        f"{max(result.seconds):.0f} s on a quiet machine of two cores"
        for name, result in measured_results().items()
    ]
    return "\n".join(
        ["A complete configuration; the fields below override parts of it.", "", *lines]
    )


def _start(dataset: Dataset, options: TrainingOptions) -> None:
    """Put the training in the queue."""
    monitor = TrainingMonitor(dataset, options)
    st.session_state[JOB] = session.enqueue(monitor)
    st.session_state[MONITOR] = monitor
    st.session_state.pop(MODEL_NAME, None)


@st.fragment(run_every=REFRESH_SECONDS)
def _show_progress() -> None:
    """Draw the running training, again and again, until it has ended."""
    job: Job[FinishedTraining] = st.session_state[JOB]
    position = session.queue_position(job)
    progress: TrainingProgress = st.session_state[MONITOR].progress
    if job.state is State.WAITING or not progress.epochs:
        st.info(session.queue_message(position))
    else:
        st.progress(min(progress.done, 1.0), _progress_text(progress))
        _show_metrics(progress)
        _show_curves(progress)
    st.button("Stop", on_click=job.stop, disabled=job.should_stop())


def _progress_text(progress: TrainingProgress) -> str:
    number = min(progress.epochs, len(progress.history) + 1)
    text = f"Epoch {number} of {progress.epochs}"
    if progress.teacher:
        return (
            f"Teacher {progress.teacher[0]} of {progress.teacher[1]}: {text[0].lower()}{text[1:]}"
        )
    return text


def _show_metrics(progress: TrainingProgress) -> None:
    if not progress.history:
        return
    last = progress.history[-1]
    with st.container(horizontal=True, gap="medium"):
        st.metric("Samples a second", f"{last.samples_per_second:,.0f}", width="content")
        st.metric("Training loss", f"{last.train_loss:.3f}", width="content")
        if last.validation_accuracy is not None:
            st.metric(
                "Validation accuracy", f"{100 * last.validation_accuracy:.2f} %", width="content"
            )


def _show_curves(progress: TrainingProgress) -> None:
    if not progress.history:
        return
    palette = session.palette()
    config = PRESETS[st.session_state[MONITOR].options.preset]
    st.markdown("**Loss**")
    st.altair_chart(charts.loss_curve(progress.history, progress.epochs, palette), key="loss curve")
    if config.label_smoothing or config.distillation:
        st.caption(
            "The training loss is that of soft targets, whose minimum is above zero: it is higher "
            "than the validation loss."
        )
    if progress.history[-1].validation_accuracy is not None:
        st.markdown("**Validation accuracy**")
        st.altair_chart(
            charts.accuracy_curve(progress.history, progress.epochs, palette), key="accuracy curve"
        )


def _show_end(job: Job[FinishedTraining]) -> None:
    """Draw the result."""
    if job.state is State.STOPPED:
        st.info("Stopped before the first model was ready.")
        return
    if job.result is None:
        st.error(job.error)
        return
    result, name = job.result.result, st.session_state[MODEL_NAME]
    if job.result.warning:
        st.warning(job.result.warning)
    with st.container(horizontal=True, gap="medium"):
        st.metric("Test accuracy", f"{100 * result.test_accuracy:.2f} %", width="content")
        st.metric("Seconds", f"{result.seconds:.1f}", width="content")
        speed = max((e.samples_per_second for e in result.history), default=0.0)
        st.metric("Samples a second, at best", f"{speed:,.0f}", width="content")
    sizes = "-".join(map(str, result.model.network.spec.sizes))
    st.write(
        f"The model **{name}** is {sizes}, with the weights of epoch {result.best_epoch}. It is on "
        "the pages Classify and Explore now, until this browser tab is closed."
    )
    st.download_button(
        "Download the model",
        result.model.to_bytes(),
        "model.safetensors",
        "application/octet-stream",
        on_click="ignore",
    )
    _show_curves(st.session_state[MONITOR].progress)
