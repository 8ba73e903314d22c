"""The page Explore: what a model gets right, where it is wrong, and what it has learned."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from fmnist_fast.data.datasets import Dataset
from fmnist_fast.kernels.interface import Floats
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.model import Model
from fmnist_fast.nn.metrics import Evaluation, evaluate, reliability, selective_accuracy
from fmnist_fast.nn.network import check_labels

from . import charts, session

__all__ = ["show"]

BOXED = "The model in the box"

# Images of one gallery.
MOST_IMAGES = 24

# Width of an image, in pixels of the page: six fill its width, and three that of a telephone.
IMAGE_WIDTH = 104

# Names of the widgets that say which cell of the confusion matrix is open.
TRUTH, ANSWER, CHART = "explore_truth", "explore_answer", "confusion"


@dataclass(frozen=True)
class _Answers:
    """What a model says of a test set."""

    model: Model | Ensemble
    dataset: Dataset
    labels_n: NDArray[np.int32]
    probability_nk: Floats

    @property
    def guess_n(self) -> NDArray[np.int64]:
        guess_n: NDArray[np.int64] = self.probability_nk.argmax(axis=1)
        return guess_n

    @property
    def names(self) -> tuple[str, ...]:
        return self.dataset.class_names


def show() -> None:
    """Draw the page."""
    st.title("What a model knows")
    dataset = session.local_dataset()
    if dataset is None:
        return
    models = {BOXED: session.shipped_model(), **session.trained_models()}
    name = st.selectbox("Model", list(models), help="Models that you train here join the list.")
    answers = _answers(models[name], dataset)
    _say_what_on(answers)
    evaluation = evaluate(answers.probability_nk, answers.labels_n)
    _show_figures(answers, evaluation)
    confusion, classes, mistakes, calibration, weights = st.tabs(
        ["Confusion", "Classes", "Surest mistakes", "Calibration", "First layer"]
    )
    with confusion:
        _show_confusion(answers, evaluation)
    with classes:
        _show_classes(answers, evaluation)
    with mistakes:
        _show_mistakes(answers)
    with calibration:
        _show_calibration(answers, evaluation)
    with weights:
        _show_weights(answers.model)


def _answers(model: Model | Ensemble, dataset: Dataset) -> _Answers:
    labels_n = check_labels(dataset.y_test, len(dataset.x_test), len(dataset.class_names), "y_test")
    return _Answers(model, dataset, labels_n, model.predict_proba(dataset.x_test))


def _say_what_on(answers: _Answers) -> None:
    model, dataset = answers.model, answers.dataset
    rows = f"{len(dataset.x_test):,} test images"
    if dataset.name == "synthetic":
        st.warning(
            f"Fashion-MNIST is not on this machine, so these are the {rows} of garments, drawn by "
            "this package. `fmnist-fast data fetch` gets the real ones."
        )
    if model.dataset_checksum == dataset.checksum:
        st.caption(f"Its answers to the {rows} of {dataset.name}, none of which it learned from.")
    else:
        st.caption(
            f"It was trained on {model.dataset_name} and answers for {dataset.name} here: its "
            "figures say how far the two are alike, not how good it is."
        )


def _show_figures(answers: _Answers, evaluation: Evaluation) -> None:
    wrong = int((answers.guess_n != answers.labels_n).sum())
    with st.container(horizontal=True, gap="medium"):
        st.metric("Accuracy", f"{100 * evaluation.accuracy:.2f} %", width="content")
        st.metric("Mistakes", f"{wrong:,}", width="content")
        if answers.model.threshold is not None:
            sure = selective_accuracy(
                answers.probability_nk, answers.labels_n, answers.model.threshold
            )
            st.metric(
                "Sure answers",
                f"{100 * sure.coverage:.1f} %",
                help=f"{100 * sure.accuracy:.1f} % of them are right.",
                width="content",
            )
        st.metric(
            "Calibration error", f"{100 * evaluation.calibration_error:.2f} %", width="content"
        )


def _palette() -> charts.Palette:
    return charts.DARK if session.is_dark() else charts.LIGHT


def _show_confusion(answers: _Answers, evaluation: Evaluation) -> None:
    names = answers.names
    st.caption("Rows are true classes, columns answers. Choose a cell to see its images.")
    st.altair_chart(
        charts.confusion_matrix(evaluation, names, _palette()),
        key=CHART,
        on_select=_take_cell,
        selection_mode="cell",
    )
    if st.session_state.get(TRUTH) not in names:  # at first, and after a set with other classes
        off_kk = evaluation.confusion_kk - np.diag(evaluation.confusion_kk.diagonal())
        truth, answer = np.unravel_index(off_kk.argmax(), off_kk.shape)
        st.session_state[TRUTH], st.session_state[ANSWER] = names[truth], names[answer]
    left, right = st.columns(2)
    truth_name = left.selectbox("True class", names, key=TRUTH)
    answer_name = right.selectbox("Prediction", names, key=ANSWER)
    chosen_n = (answers.labels_n == names.index(truth_name)) & (
        answers.guess_n == names.index(answer_name)
    )
    found = np.flatnonzero(chosen_n)
    if not len(found):
        st.info(f"No {truth_name} was taken for {answer_name}.")
        return
    what = "were recognised" if truth_name == answer_name else f"were taken for {answer_name}"
    more = f"; the surest {MOST_IMAGES}" if len(found) > MOST_IMAGES else ""
    st.markdown(f"**{len(found):,} of class {truth_name} {what}**{more}")
    _show_images(answers, found, with_names=False)


def _take_cell() -> None:
    """What was clicked in the matrix goes to the boxes beside it."""
    points = st.session_state[CHART]["selection"].get("cell", [])
    if points:
        st.session_state[TRUTH] = points[0]["truth"]
        st.session_state[ANSWER] = points[0]["answer"]


def _show_images(answers: _Answers, rows: NDArray[np.intp], *, with_names: bool) -> None:
    """Test images, the surest answers first."""
    sure_n = answers.probability_nk.max(axis=1)
    rows = rows[np.argsort(-sure_n[rows], kind="stable")][:MOST_IMAGES]
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            answer, truth = answers.guess_n[row], answers.labels_n[row]
            caption = f"{100 * sure_n[row]:.1f} %"
            if with_names:
                caption += f"  \n{answers.names[answer]},  \nis {answers.names[truth]}"
            with st.container(width=IMAGE_WIDTH, gap="small"):
                st.image(
                    _enlarged(answers.dataset.x_test[row]),
                    caption=caption,
                    width=IMAGE_WIDTH,
                    output_format="PNG",
                    alt=f"{answers.names[truth]}, taken for {answers.names[answer]}",
                )


def _enlarged(image: NDArray) -> NDArray:
    """Four times as wide and high, so that browsers do not blur what is 28 pixels wide."""
    return image.repeat(4, axis=0).repeat(4, axis=1)


def _show_classes(answers: _Answers, evaluation: Evaluation) -> None:
    table = pd.DataFrame(
        {
            "class": answers.names,
            "found": [_percent(share) for share in evaluation.recall_k],
            "right when said": [_percent(share) for share in evaluation.precision_k],
            "F1": [_percent(share) for share in evaluation.f1_k],
            "most often taken for": [
                _most_often(evaluation, answers.names, k) for k in range(len(answers.names))
            ],
        }
    ).set_index("class")
    st.table(table)
    st.caption(
        "Found: the share of a class that gets its name (recall). Right when said: the share of a "
        "name's answers that is right (precision). F1: their harmonic mean."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%" if share == share else "none"


def _most_often(evaluation: Evaluation, names: tuple[str, ...], k: int) -> str:
    wrong_k = evaluation.confusion_kk[k].copy()
    wrong_k[k] = 0
    return f"{names[wrong_k.argmax()]} ({wrong_k.max():,})" if wrong_k.any() else "nothing"


def _show_mistakes(answers: _Answers) -> None:
    wrong = np.flatnonzero(answers.guess_n != answers.labels_n)
    if not len(wrong):
        st.info("It made no mistake.")
        return
    st.caption(
        "Wrong answers of which it was surest: what it said, and what the label says. Some of the "
        "labels can be doubted."
    )
    _show_images(answers, wrong, with_names=True)


def _show_calibration(answers: _Answers, evaluation: Evaluation) -> None:
    bins = reliability(answers.probability_nk, answers.guess_n == answers.labels_n)
    st.caption(
        "Of the answers to which it gives 80 %, 80 % should be right: then the points lie on the "
        "dashed line. Larger points stand for more images."
    )
    st.altair_chart(charts.reliability_diagram(bins, _palette()), key="reliability")
    st.write(
        f"On average the two are {100 * evaluation.calibration_error:.2f} percentage points apart: "
        "the expected calibration error."
    )


def _show_weights(model: Model | Ensemble) -> None:
    if isinstance(model, Ensemble):
        st.info(
            "This is an ensemble: each of its models has a first layer of its own. `fmnist-fast "
            "train --teacher FILE` makes one network of it."
        )
        return
    if len(model.input_shape) != 2:
        st.info("This model learned from rows of numbers, not from images.")
        return
    height, width = model.input_shape
    w_io = model.network.params.weights[0]
    units = w_io.shape[1]
    which = f" The {charts.MOST_TILES} of {units:,} with the largest weights:"
    st.caption(
        "Each tile is a unit of the first layer, as the image that excites it most: orange pixels "
        "excite it, blue ones hold it back." + which * (units > charts.MOST_TILES)
    )
    tiles = charts.weight_tiles(w_io, height, width, 8, _palette())
    st.image(
        tiles.repeat(3, axis=0).repeat(3, axis=1),
        width="stretch",
        alt="Weights of the first layer",
    )
