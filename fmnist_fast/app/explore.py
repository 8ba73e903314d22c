"""The page Explore: metrics of a model, its mistakes, calibration and first layer."""

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from fmnist_fast.data.datasets import Dataset
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.model import Model
from fmnist_fast.nn.metrics import Evaluation, evaluate, reliability, selective_accuracy

from . import charts, elements, session

PRETRAINED = "Pretrained model"

# Images in one gallery.
MAX_IMAGES = 24

# Width of an image in CSS pixels: six fit beside each other, three on a phone.
IMAGE_WIDTH = 104

# Keys of the widgets that select a cell of the confusion matrix.
TRUTH, PREDICTION, CHART = "explore_truth", "explore_prediction", "confusion"


class _Predictions:
    """Predictions of a model for a test set, and their metrics."""

    def __init__(self, model: Model | Ensemble, dataset: Dataset) -> None:
        self.model, self.dataset = model, dataset
        self.labels_n, self.names = dataset.y_test, dataset.class_names
        self.probability_nk = model.predict_proba(dataset.x_test)
        self.predicted_n = self.probability_nk.argmax(axis=1)
        self.correct_n = self.predicted_n == self.labels_n
        self.evaluation = evaluate(self.probability_nk, self.labels_n)


def show() -> None:
    """Draw the page."""
    st.title("What a model knows")
    dataset = session.local_dataset()
    models = {PRETRAINED: session.pretrained_model(), **session.trained_models()}
    name = st.selectbox(
        "Model", list(models), help="Models trained on the page Train are added to this list."
    )
    predictions = _Predictions(models[name], dataset)
    _show_source(predictions)
    _show_metrics(predictions)
    tabs = {
        "Confusion": _show_confusion,
        "Classes": _show_classes,
        "Confident mistakes": _show_mistakes,
        "Calibration": _show_calibration,
        "First layer": _show_weights,
    }
    for tab, show_tab in zip(st.tabs(list(tabs)), tabs.values()):
        with tab:
            show_tab(predictions)


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
    evaluation, threshold = predictions.evaluation, predictions.model.threshold
    metrics = {
        "Accuracy": f"{100 * evaluation.accuracy:.2f} %",
        "Mistakes": f"{(~predictions.correct_n).sum():,}",
    }
    helps = {}
    if threshold is not None:
        selective = selective_accuracy(predictions.probability_nk, predictions.labels_n, threshold)
        metrics["Coverage"] = f"{100 * selective.coverage:.1f} %"
        helps["Coverage"] = (
            "Predictions above the confidence threshold, of which "
            f"{100 * selective.accuracy:.1f} % are correct."
        )
    metrics["Calibration error"] = f"{100 * evaluation.calibration_error:.2f} %"
    elements.show_metrics(metrics, helps)


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
        wrong_kk = _confusions(evaluation)
        truth, label = np.unravel_index(wrong_kk.argmax(), wrong_kk.shape)
        st.session_state[TRUTH], st.session_state[PREDICTION] = names[truth], names[label]
    left, right = st.columns(2)
    truth_name = left.selectbox("True class", names, key=TRUTH)
    predicted_name = right.selectbox("Prediction", names, key=PREDICTION)
    truth_n = predictions.labels_n == names.index(truth_name)
    found = np.flatnonzero(truth_n & (predictions.predicted_n == names.index(predicted_name)))
    if not len(found):
        st.info(f"No {truth_name} was classified as {predicted_name}.")
        return
    more = f"; the {MAX_IMAGES} most confident" if len(found) > MAX_IMAGES else ""
    st.markdown(f"**{len(found):,} of class {truth_name} classified as {predicted_name}**{more}")
    _show_images(predictions, found, with_names=False)


def select_cell() -> None:
    """Copy the cell that was clicked in the matrix to the boxes below it."""
    for point in st.session_state[CHART]["selection"].get("cell", []):
        st.session_state[TRUTH] = point["truth"]
        st.session_state[PREDICTION] = point["prediction"]


def _show_images(predictions: _Predictions, rows: NDArray[np.intp], *, with_names: bool) -> None:
    """Draw test images, the most confident predictions first."""
    labels_n, names = predictions.labels_n, predictions.names
    confidence_n = predictions.probability_nk.max(axis=1)
    rows = rows[np.argsort(-confidence_n[rows], kind="stable")][:MAX_IMAGES]
    with st.container(horizontal=True, gap="small"):
        for row in rows:
            label, truth = names[predictions.predicted_n[row]], names[labels_n[row]]
            caption = f"{100 * confidence_n[row]:.1f} %"
            if with_names:
                caption += f"  \n{label},  \nis {truth}"
            with st.container(width=IMAGE_WIDTH, gap="small"):
                st.image(
                    _enlarge(predictions.dataset.x_test[row], 4),
                    caption=caption,
                    width=IMAGE_WIDTH,
                    output_format="PNG",
                    alt=f"{truth}, classified as {label}",
                )


def _enlarge(image: NDArray, times: int) -> NDArray:
    """Repeat pixels each way, so that browsers do not blur them."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _show_classes(predictions: _Predictions) -> None:
    names, evaluation = predictions.names, predictions.evaluation
    table = pd.DataFrame(
        {"recall": evaluation.recall_k, "precision": evaluation.precision_k, "F1": evaluation.f1_k},
        index=pd.Index(names, name="class"),
    )
    table = table.map(elements.percent, na_action="ignore", digits=1).fillna("none")
    table["most often confused with"] = [
        f"{names[wrong_k.argmax()]} ({wrong_k.max():,})" if wrong_k.any() else "nothing"
        for wrong_k in _confusions(evaluation)
    ]
    st.table(table)
    st.caption(
        "Recall: the fraction of a class that is predicted as this class. Precision: the fraction "
        "of the predictions of a class that is correct. F1: their harmonic mean."
    )


def _confusions(evaluation: Evaluation) -> NDArray[np.int64]:
    """Return the confusion matrix with zeros on the diagonal."""
    counts_kk = evaluation.confusion_kk
    return counts_kk - np.diag(counts_kk.diagonal())


def _show_mistakes(predictions: _Predictions) -> None:
    wrong = np.flatnonzero(~predictions.correct_n)
    if not len(wrong):
        st.info("It made no mistake.")
        return
    st.caption(
        "The most confident wrong predictions, each with its label. Some of the labels are "
        "questionable."
    )
    _show_images(predictions, wrong, with_names=True)


def _show_calibration(predictions: _Predictions) -> None:
    bins = reliability(predictions.probability_nk, predictions.correct_n)
    st.caption(
        "Of the predictions with a confidence of 80 %, 80 % should be correct: then the points lie "
        "on the dashed line. Larger points stand for more images."
    )
    st.altair_chart(charts.reliability_diagram(bins, session.palette()), key="reliability")
    st.write(
        "Expected calibration error: on average the two differ by "
        f"{100 * predictions.evaluation.calibration_error:.2f} percentage points."
    )


def _show_weights(predictions: _Predictions) -> None:
    model = predictions.model
    if isinstance(model, Ensemble):
        st.info(
            "This is an ensemble: each of its models has its own first layer. `fmnist-fast train "
            "--teacher FILE` distills it into one network."
        )
        return
    height, width = model.input_shape
    w_io = model.network.params.weights[0]
    units = w_io.shape[1]
    text = (
        "Each tile shows the weights of a unit of the first layer: orange pixels increase its "
        "activation, blue ones decrease it."
    )
    if units > charts.MAX_TILES:
        text += f" Shown are the {charts.MAX_TILES} of {units:,} with the largest weights."
    st.caption(text)
    tiles = charts.weight_tiles(w_io, height, width, 8, session.palette())
    st.image(_enlarge(tiles, 3), width="stretch", alt="Weights of the first layer")
