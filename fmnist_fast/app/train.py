"""The page Train: set options, follow the training, stop it, and use the model."""

from functools import partial
from typing import Any

import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.errors import UserError
from fmnist_fast.nn.backend import BACKEND_NAMES, backend_name, get_backend, unavailable_reason
from fmnist_fast.training.presets import DEFAULT, PRESETS, measured_results
from fmnist_fast.training.progress import Epoch
from fmnist_fast.training.trainer import TrainingResult

from . import charts, elements, session
from .jobs import Job, State
from .training_monitor import TrainingMonitor, parse_hidden_sizes

# Seconds between updates of a running training on the other pages.
STATUS_SECONDS = 2.0

MAX_EPOCHS = 200

# Key of the session state.
JOB = "training_job"


def show() -> None:
    """Draw the page."""
    st.title("Train a network")
    dataset = session.local_dataset()
    st.write(_describe(dataset))
    with st.container(border=True):
        options = _options(dataset)
        collect = session.model_collector()
        make = partial(TrainingMonitor, dataset, options, collect) if options else None
        job = elements.job_button("Train", JOB, make)
    if job is None:
        st.caption("Nothing has been trained here yet. With the preset fast it takes seconds.")
    elif job.ended:
        _show_end(job)
    else:
        elements.show_progress(job, _show_progress)


@st.fragment(run_every=STATUS_SECONDS)
def show_status(job: Job) -> None:
    """On the other pages: show the state of a running training, and rerun when it has ended."""
    message = session.queue_message(job)
    st.caption(f"Your training: {job.work.phase.capitalize() or message}")


def _describe(dataset: Dataset) -> str:
    rows = f"{len(dataset.x_train):,} images of {len(dataset.class_names)} classes"
    if dataset.name == "synthetic":
        return (
            f"Training set: synthetic, {rows} drawn by this package. Fashion-MNIST is not on this "
            "machine: `fmnist-fast data fetch` downloads it. Accuracies on synthetic images say "
            "nothing about Fashion-MNIST."
        )
    return f"Training set: {dataset.name}, {rows}."


def _options(dataset: Dataset) -> dict[str, Any] | None:
    """Draw the form; return options of `train`, or None, with an error shown, for invalid ones."""
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
    return {
        "preset": preset,
        "backend": backend,
        "threads": threads,
        "hidden": hidden,
        "epochs": epochs,
        "lr": lr,
    }


def _presets_help() -> str:
    lines = [
        f"- {name}: {100 * result.accuracy:.1f} % of Fashion-MNIST's test set, "
        f"{max(result.seconds):.0f} s on a quiet machine of two cores"
        for name, result in measured_results().items()
    ]
    return "A complete configuration; the fields below override parts of it.\n\n" + "\n".join(lines)


def _show_progress(monitor: TrainingMonitor) -> None:
    history = monitor.history
    if not history:
        return
    last = history[-1]
    metrics = {
        "Samples a second": f"{last.samples_per_second:,.0f}",
        "Training loss": f"{last.train_loss:.3f}",
    }
    if last.validation_accuracy is not None:
        metrics["Validation accuracy"] = f"{100 * last.validation_accuracy:.2f} %"
    elements.show_metrics(metrics)
    _show_curves(monitor, history)


def _show_curves(monitor: TrainingMonitor, history: tuple[Epoch, ...]) -> None:
    config, palette = PRESETS[monitor.options["preset"]], session.palette()
    st.markdown("**Loss**")
    st.altair_chart(charts.loss_curve(history, monitor.epochs, palette), key="loss curve")
    if config.label_smoothing or config.distillation:
        st.caption(
            "The training loss is that of soft targets, whose minimum is above zero: it is higher "
            "than the validation loss."
        )
    if history[-1].validation_accuracy is not None:
        st.markdown("**Validation accuracy**")
        st.altair_chart(
            charts.accuracy_curve(history, monitor.epochs, palette), key="accuracy curve"
        )


def _show_end(job: Job) -> None:
    """Draw the result."""
    if job.state is State.STOPPED:
        st.info("Stopped before the first model was ready.")
        return
    if job.state is State.FAILED:
        st.error(job.error)
        return
    monitor: TrainingMonitor = job.work
    result: TrainingResult = job.result
    if monitor.warning:
        st.warning(monitor.warning)
    speed = max((epoch.samples_per_second for epoch in result.history), default=0.0)
    elements.show_metrics(
        {
            "Test accuracy": f"{100 * result.test_accuracy:.2f} %",
            "Seconds": f"{result.seconds:.1f}",
            "Samples a second, at best": f"{speed:,.0f}",
        }
    )
    sizes = "-".join(map(str, result.model.network.spec.sizes))
    st.write(
        f"The model **{monitor.name}** is {sizes}, with the weights of epoch {result.best_epoch}. "
        "It is on the pages Classify and Explore now, until this browser tab is closed."
    )
    content = result.model.to_bytes()
    st.download_button("Download the model", content, "model.safetensors", on_click="ignore")
    if result.history:
        _show_curves(monitor, result.history)
