"""The page Train: choose, watch, stop, and use what comes out."""

import streamlit as st

from fmnist_fast._cpu import usable_cores
from fmnist_fast.data.datasets import Dataset
from fmnist_fast.errors import UserError
from fmnist_fast.nn.backend import BACKEND_NAMES, backend_name, get_backend, unavailable_reason
from fmnist_fast.training.presets import DEFAULT, PRESETS, measured_results

from . import charts, session
from .jobs import Job, State
from .training_monitor import Choice, Trained, View, Watched, widths

__all__ = ["collect", "mention", "show"]

# Seconds between two looks at a training, on this page and on the others.
REFRESH, GLANCE = 0.5, 2.0

MOST_EPOCHS = 200

# Where this session's training is kept: the job, what can be seen of it, the name of its model.
JOB, WATCHED, MODEL_NAME = "training_job", "training_watched", "training_model"


def show() -> None:
    """Draw the page."""
    st.title("Train a network")
    dataset = session.local_dataset()
    if dataset is None:
        return
    st.write(_what_it_learns(dataset))
    job: Job[Trained] | None = st.session_state.get(JOB)
    with st.container(border=True):
        choice = _choose(dataset)
        busy = job is not None and not job.ended
        if st.button("Train", type="primary", disabled=busy or choice is None) and choice:
            _start(dataset, choice)
            st.rerun()
    if job is None:
        st.caption("Nothing has been trained here yet. With the preset fast it takes seconds.")
    elif job.ended:
        collect()  # it may have ended since the frame looked
        _show_end(job)
    else:
        _watch()


def collect() -> None:
    """Offer the model of a training that has ended; every page does this, whichever is open."""
    job: Job[Trained] | None = st.session_state.get(JOB)
    if job is None:
        return
    session.QUEUE.position(job)
    if job.state is not State.DONE or job.result is None or MODEL_NAME in st.session_state:
        return
    preset = st.session_state[WATCHED].choice.preset
    accuracy = 100 * job.result.result.test_accuracy
    label = f"{preset}, {accuracy:.2f} %"
    st.session_state[MODEL_NAME] = session.keep_model(job.result.result.model, label)


def mention() -> None:
    """On the other pages: say that a training is under way, and bring in its model when it ends."""
    job: Job[Trained] | None = st.session_state.get(JOB)
    if job is None:
        return
    if not job.ended:
        _mention()
    elif job.result is not None and MODEL_NAME not in st.session_state:
        st.rerun()  # it ended while the page was drawn: the frame brings its model in


@st.fragment(run_every=GLANCE)
def _mention() -> None:
    job: Job[Trained] = st.session_state[JOB]
    position = session.place_of(job)
    view: View = st.session_state[WATCHED].view
    st.caption(f"Your training: {_how_far(view) if view.epochs else session.turn(position)}")


def _what_it_learns(dataset: Dataset) -> str:
    rows = f"{len(dataset.x_train):,} images of {len(dataset.class_names)} kinds of clothes"
    if dataset.name == "synthetic":
        return (
            f"It learns from garments, {rows} drawn by this package: Fashion-MNIST is not on this "
            "machine. `fmnist-fast data fetch` gets it. Accuracies on garments say nothing about "
            "Fashion-MNIST."
        )
    return f"It learns from {dataset.name}: {rows}."


def _choose(dataset: Dataset) -> Choice | None:
    """What the widgets say; None if that cannot be trained, which is then said."""
    left, right = st.columns(2)
    preset = left.selectbox(
        "Preset", list(PRESETS), list(PRESETS).index(DEFAULT), help=_about_presets()
    )
    there = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
    fastest = backend_name(get_backend())
    backend = right.selectbox(
        "Backend",
        there,
        there.index(fastest),
        help="The same network three times. cython is the fastest, numpy the one to read.",
    )
    config = PRESETS[preset]
    # A key for each preset: whoever changes the preset sees its numbers, and finds theirs again.
    text = left.text_input(
        "Hidden layers",
        ", ".join(map(str, config.hidden)),
        key=f"hidden {preset}",
        max_chars=60,
        help="Widths, separated by commas. Empty for none.",
    )
    epochs = right.number_input("Epochs", 1, MOST_EPOCHS, config.epochs, key=f"epochs {preset}")
    lr = left.number_input(
        "Learning rate",
        1e-5,
        1.0,
        config.lr,
        step=5e-4,
        format="%.5f",
        key=f"lr {preset}",
        help="The largest of the run: it rises at first, then falls.",
    )
    cores = usable_cores()
    threads = right.number_input("Threads", 1, cores, cores, disabled=cores == 1)
    try:
        hidden = widths(text, dataset.x_train[0].size, len(dataset.class_names))
    except UserError as error:
        st.error(str(error))
        return None
    return Choice(preset, backend, int(threads), hidden, int(epochs), float(lr))


def _about_presets() -> str:
    lines = [
        f"- {name}: {100 * result.accuracy:.1f} % of Fashion-MNIST's test set, "
        f"{max(result.seconds):.0f} s on a quiet machine of two cores"
        for name, result in measured_results().items()
    ]
    return "\n".join(["A whole recipe; what is below it changes parts.", "", *lines])


def _start(dataset: Dataset, choice: Choice) -> None:
    """Put the training in the queue."""
    watched = Watched(dataset, choice)
    st.session_state[JOB] = session.enqueue(watched)
    st.session_state[WATCHED] = watched
    st.session_state.pop(MODEL_NAME, None)


@st.fragment(run_every=REFRESH)
def _watch() -> None:
    """How the training goes; drawn again and again by itself, until it has ended."""
    job: Job[Trained] = st.session_state[JOB]
    position = session.place_of(job)
    view: View = st.session_state[WATCHED].view
    if job.state is State.WAITING or not view.epochs:
        st.info(session.turn(position))
    else:
        st.progress(min(view.done, 1.0), _how_far(view))
        _show_figures(view)
        _show_curves(view)
    st.button("Stop", on_click=job.stop, disabled=job.should_stop())


def _how_far(view: View) -> str:
    number = min(view.epochs, len(view.history) + 1)
    text = f"Epoch {number} of {view.epochs}"
    if view.teacher:
        return f"Teacher {view.teacher[0]} of {view.teacher[1]}: {text[0].lower()}{text[1:]}"
    return text


def _show_figures(view: View) -> None:
    if not view.history:
        return
    last = view.history[-1]
    with st.container(horizontal=True, gap="medium"):
        st.metric("Samples a second", f"{last.samples_per_second:,.0f}", width="content")
        st.metric("Training loss", f"{last.train_loss:.3f}", width="content")
        if last.validation_accuracy is not None:
            st.metric(
                "Validation accuracy", f"{100 * last.validation_accuracy:.2f} %", width="content"
            )


def _show_curves(view: View) -> None:
    if not view.history:
        return
    palette = charts.DARK if session.is_dark() else charts.LIGHT
    config = PRESETS[st.session_state[WATCHED].choice.preset]
    st.markdown("**Loss**")
    st.altair_chart(charts.loss_curve(view.history, view.epochs, palette), key="loss curve")
    if config.label_smoothing or config.distillation:
        st.caption(
            "The training loss counts from soft targets, which no network meets exactly: it lies "
            "above the validation loss."
        )
    if view.history[-1].validation_accuracy is not None:
        st.markdown("**Validation accuracy**")
        st.altair_chart(
            charts.accuracy_curve(view.history, view.epochs, palette), key="accuracy curve"
        )


def _show_end(job: Job[Trained]) -> None:
    """What came out."""
    if job.state is State.STOPPED:
        st.info("Stopped before there was a model.")
        return
    if job.result is None:
        st.error(job.error)
        return
    trained, name = job.result, st.session_state[MODEL_NAME]
    result = trained.result
    if trained.remark:
        st.warning(trained.remark)
    with st.container(horizontal=True, gap="medium"):
        st.metric("Test accuracy", f"{100 * result.test_accuracy:.2f} %", width="content")
        st.metric("Seconds", f"{result.seconds:.1f}", width="content")
        speed = max((e.samples_per_second for e in result.history), default=0.0)
        st.metric("Samples a second, at best", f"{speed:,.0f}", width="content")
    sizes = "-".join(map(str, result.model.network.spec.sizes))
    st.write(
        f"The model **{name}** is {sizes}, with the weights of epoch {result.best_epoch}. It is on "
        "the pages Classify and Explore now, until this page is closed."
    )
    st.download_button(
        "Download the model",
        result.model.to_bytes(),
        "model.safetensors",
        "application/octet-stream",
        on_click="ignore",
    )
    _show_curves(st.session_state[WATCHED].view)
