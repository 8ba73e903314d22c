"""The page Explore: metrics of a model, its mistakes, calibration and first layer."""

from dataclasses import dataclass
from functools import cached_property

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

__all__ = ["select_cell", "show"]

PRETRAINED = "Pretrained model"

# Images in one gallery.
MAX_IMAGES = 24

# Width of an image in CSS pixels: six fit beside each other, three on a phone.
IMAGE_WIDTH = 104

# Keys of the widgets that select a cell of the confusion matrix.
TRUTH, PREDICTION, CHART = "explore_truth", "explore_prediction", "confusion"


@dataclass(frozen=True)
class _Predictions:
    """Predictions of a model for a test set."""

    model: Model | Ensemble
    dataset: Dataset
    labels_n: NDArray[np.int32]
    probability_nk: Floats

    @cached_property
    def predicted_n(self) -> NDArray[np.int64]:
        predicted_n: NDArray[np.int64] = self.probability_nk.argmax(axis=1)
        return predicted_n

    @cached_property
    def evaluation(self) -> Evaluation:
        return evaluate(self.probability_nk, self.labels_n)

    @property
    def names(self) -> tuple[str, ...]:
        return self.dataset.class_names


def show() -> None:
    """Draw the page."""
    st.title("What a model knows")
    dataset = session.local_dataset()
    if dataset is None:
        return
    models = {PRETRAINED: session.pretrained_model(), **session.trained_models()}
    name = st.selectbox(
        "Model", list(models), help="Models trained on the page Train are added to this list."
    )
    predictions = _predict(models[name], dataset)
    _show_source(predictions)
    _show_metrics(predictions)
    confusion, classes, mistakes, calibration, weights = st.tabs(
        ["Confusion", "Classes", "Confident mistakes", "Calibration", "First layer"]
    )
    with confusion:
        _show_confusion(predictions)
    with classes:
        _show_classes(predictions)
    with mistakes:
        _show_mistakes(predictions)
    with calibration:
        _show_calibration(predictions)
    with weights:
        _show_weights(predictions.model)


def _predict(model: Model | Ensemble, dataset: Dataset) -> _Predictions:
    labels_n = check_labels(dataset.y_test, len(dataset.x_test), len(dataset.class_names), "y_test")
    return _Predictions(model, dataset, labels_n, model.predict_proba(dataset.x_test))


def _show_source(predictions: _Predictions) -> None:
    model, dataset = predictions.model, predictions.dataset
    rows = f"{len(dataset.x_test):,} test images"
    if dataset.name == "synthetic":
        st.warning(
            f"Fashion-MNIST is not on this machine, so these are {rows} of the synthetic data set. "
            "`fmnist-fast data fetch` downloads the real ones."
        )
    if model.dataset_checksum == dataset.checksum:
        st.caption(f"Predictions for the {rows} of {dataset.name}, which it was not trained on.")
    else:
        st.caption(
            f"It was trained on {model.dataset_name} and predicts {dataset.name} here: the metrics "
            "show how similar the two are, not how good the model is."
        )


def _show_metrics(predictions: _Predictions) -> None:
    evaluation = predictions.evaluation
    wrong = int((predictions.predicted_n != predictions.labels_n).sum())
    with st.container(horizontal=True, gap="medium"):
        st.metric("Accuracy", f"{100 * evaluation.accuracy:.2f} %", width="content")
        st.metric("Mistakes", f"{wrong:,}", width="content")
        if predictions.model.threshold is not None:
            selective = selective_accuracy(
                predictions.probability_nk, predictions.labels_n, predictions.model.threshold
            )
            st.metric(
                "Coverage",
                f"{100 * selective.coverage:.1f} %",
                help="Predictions above the confidence threshold, of which "
                f"{100 * selective.accuracy:.1f} % are correct.",
                width="content",
            )
        st.metric(
            "Calibration error", f"{100 * evaluation.calibration_error:.2f} %", width="content"
        )


def _show_confusion(predictions: _Predictions) -> None:
    names, evaluation = predictions.names, predictions.evaluation
    st.caption("Rows are true classes, columns predictions. Choose a cell to see its images.")
    st.altair_chart(
        charts.confusion_matrix(evaluation, names, session.palette()),
        key=CHART,
        on_select=select_cell,
        selection_mode="cell",
    )
    if st.session_state.get(TRUTH) not in names:  # at first, and after a set with other classes
        wrong_kk = evaluation.confusion_kk - np.diag(evaluation.confusion_kk.diagonal())
        truth, label = np.unravel_index(wrong_kk.argmax(), wrong_kk.shape)
        st.session_state[TRUTH], st.session_state[PREDICTION] = names[truth], names[label]
    left, right = st.columns(2)
    truth_name = left.selectbox("True class", names, key=TRUTH)
    predicted_name = right.selectbox("Prediction", names, key=PREDICTION)
    selected_n = (predictions.labels_n == names.index(truth_name)) & (
        predictions.predicted_n == names.index(predicted_name)
    )
    found = np.flatnonzero(selected_n)
    if not len(found):
        st.info(f"No {truth_name} was classified as {predicted_name}.")
        return
    more = f"; the {MAX_IMAGES} most confident" if len(found) > MAX_IMAGES else ""
    st.markdown(f"**{len(found):,} of class {truth_name} classified as {predicted_name}**{more}")
    _show_images(predictions, found, with_names=False)


def select_cell() -> None:
    """Copy the cell that was clicked in the matrix to the boxes below it."""
    points = st.session_state[CHART]["selection"].get("cell", [])
    if points:
        st.session_state[TRUTH] = points[0]["truth"]
        st.session_state[PREDICTION] = points[0]["prediction"]


def _show_images(predictions: _Predictions, rows: NDArray[np.intp], *, with_names: bool) -> None:
    """Draw test images, the most confident predictions first."""
    confidence_n = predictions.probability_nk.max(axis=1)
    rows = rows[np.argsort(-confidence_n[rows], kind="stable")][:MAX_IMAGES]
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            label = predictions.names[predictions.predicted_n[row]]
            truth = predictions.names[predictions.labels_n[row]]
            caption = f"{100 * confidence_n[row]:.1f} %"
            if with_names:
                caption += f"  \n{label},  \nis {truth}"
            with st.container(width=IMAGE_WIDTH, gap="small"):
                st.image(
                    _enlarge(predictions.dataset.x_test[row]),
                    caption=caption,
                    width=IMAGE_WIDTH,
                    output_format="PNG",
                    alt=f"{truth}, classified as {label}",
                )


def _enlarge(image: NDArray) -> NDArray:
    """Repeat pixels four times each way, so that browsers do not blur them."""
    return image.repeat(4, axis=0).repeat(4, axis=1)


def _show_classes(predictions: _Predictions) -> None:
    names, evaluation = predictions.names, predictions.evaluation
    table = pd.DataFrame(
        {
            "class": names,
            "recall": [_percent(value) for value in evaluation.recall_k],
            "precision": [_percent(value) for value in evaluation.precision_k],
            "F1": [_percent(value) for value in evaluation.f1_k],
            "most often confused with": [
                _most_frequent_confusion(evaluation, names, k) for k in range(len(names))
            ],
        }
    ).set_index("class")
    st.table(table)
    st.caption(
        "Recall: the fraction of a class that is predicted as this class. Precision: the fraction "
        "of the predictions of a class that is correct. F1: their harmonic mean."
    )


def _percent(fraction: float) -> str:
    return "none" if np.isnan(fraction) else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def _most_frequent_confusion(evaluation: Evaluation, names: tuple[str, ...], k: int) -> str:
    wrong_k = evaluation.confusion_kk[k].copy()
    wrong_k[k] = 0
    return f"{names[wrong_k.argmax()]} ({wrong_k.max():,})" if wrong_k.any() else "nothing"


def _show_mistakes(predictions: _Predictions) -> None:
    wrong = np.flatnonzero(predictions.predicted_n != predictions.labels_n)
    if not len(wrong):
        st.info("It made no mistake.")
        return
    st.caption(
        "The most confident wrong predictions, each with its label. Some of the labels are "
        "questionable."
    )
    _show_images(predictions, wrong, with_names=True)


def _show_calibration(predictions: _Predictions) -> None:
    correct_n = predictions.predicted_n == predictions.labels_n
    bins = reliability(predictions.probability_nk, correct_n)
    st.caption(
        "Of the predictions with a confidence of 80 %, 80 % should be correct: then the points lie "
        "on the dashed line. Larger points stand for more images."
    )
    st.altair_chart(charts.reliability_diagram(bins, session.palette()), key="reliability")
    st.write(
        "Expected calibration error: on average the two differ by "
        f"{100 * predictions.evaluation.calibration_error:.2f} percentage points."
    )


def _show_weights(model: Model | Ensemble) -> None:
    if isinstance(model, Ensemble):
        st.info(
            "This is an ensemble: each of its models has its own first layer. `fmnist-fast train "
            "--teacher FILE` distills it into one network."
        )
        return
    if len(model.input_shape) != 2:
        st.info("This model was trained on tables, not on images.")
        return
    height, width = model.input_shape
    w_io = model.network.params.weights[0]
    units = w_io.shape[1]
    selection = f" Shown are the {charts.MAX_TILES} of {units:,} with the largest weights."
    st.caption(
        "Each tile shows the weights of a unit of the first layer: orange pixels increase its "
        "activation, blue ones decrease it." + selection * (units > charts.MAX_TILES)
    )
    tiles = charts.weight_tiles(w_io, height, width, 8, session.palette())
    st.image(
        tiles.repeat(3, axis=0).repeat(3, axis=1),
        width="stretch",
        alt="Weights of the first layer",
    )
