"""The page Explore: metrics of the model, and images of a cell of the confusion matrix."""

import numpy as np
import pytest

pytest.importorskip(
    "streamlit", reason="Streamlit is not installed: pip install 'fmnist-fast[app]'"
)

from app_pages import metrics, open_page, texts

from fmnist_fast.app import charts, explore
from fmnist_fast.models.ensemble import Ensemble
from fmnist_fast.models.load import load_model
from fmnist_fast.nn.metrics import ReliabilityBin, calibration_error, evaluate, reliability
from fmnist_fast.training.trainer import train


@pytest.fixture
def model(small_dataset):
    return train(small_dataset, preset="fast", epochs=3, hidden=(16,), threads=1).model


def box(app, label):
    (found,) = (box for box in app.selectbox if box.label == label)
    return found


def choose_model(app, model):
    app.session_state["trained_models"] = {"1: mine": model}
    app.run()
    box(app, "Model").set_value("1: mine").run()
    assert not app.exception
    return app


def images(app):
    return [image for element in app.image for image in element.proto.imgs]


def test_page_metrics_are_those_of_the_pretrained_model(app_data):
    app = open_page("explore")
    probability_nk = load_model().predict_proba(app_data.x_test)
    evaluation = evaluate(probability_nk, app_data.y_test)
    assert metrics(app)["Accuracy"] == f"{100 * evaluation.accuracy:.2f} %"
    assert metrics(app)["Calibration error"] == f"{100 * evaluation.calibration_error:.2f} %"
    assert "It was trained on fashion-mnist and predicts small here" in texts(app)


def test_page_explores_model_of_this_session(app_data, model):
    app = choose_model(open_page("explore"), model)
    wrong = int((model.predict(app_data.x_test) != app_data.y_test).sum())
    assert metrics(app)["Mistakes"] == f"{wrong:,}"
    assert "which it was not trained on" in texts(app)
    table = app.table[0].value
    evaluation = evaluate(model.predict_proba(app_data.x_test), app_data.y_test)
    assert list(table["recall"]) == [
        f"{100 * value:.1f}\N{NO-BREAK SPACE}%" for value in evaluation.recall_k
    ]


def test_page_ensemble_has_metrics_and_no_first_layer(app_data, model):
    both = Ensemble((model, train(app_data, epochs=1, hidden=(9,), threads=1).model))
    app = choose_model(open_page("explore"), both)
    wrong = int((both.predict(app_data.x_test) != app_data.y_test).sum())
    assert metrics(app)["Mistakes"] == f"{wrong:,}"
    assert "This is an ensemble: each of its models has its own first layer" in texts(app)
    assert "Each tile shows the weights of a unit" not in texts(app)


def test_page_boxes_select_images_of_a_cell(app_data, model):
    app = choose_model(open_page("explore"), model)
    confusion_kk = evaluate(model.predict_proba(app_data.x_test), app_data.y_test).confusion_kk
    wrong_kk = confusion_kk - np.diag(confusion_kk.diagonal())
    truth, label = np.unravel_index(wrong_kk.argmax(), wrong_kk.shape)
    names = app_data.class_names
    box(app, "True class").set_value(names[truth]).run()
    box(app, "Prediction").set_value(names[label]).run()
    count = confusion_kk[truth, label]
    assert count
    assert f"**{count} of class {names[truth]} classified as {names[label]}**" in texts(app)
    behind = [image for image in images(app) if image.caption.endswith(" %")]
    assert len(behind) == min(count, explore.MAX_IMAGES)
    truth, label = np.argwhere(confusion_kk == 0)[0]
    box(app, "True class").set_value(names[truth]).run()
    box(app, "Prediction").set_value(names[label]).run()
    assert f"No {names[truth]} was classified as {names[label]}." in texts(app)


def test_page_click_on_cell_sets_boxes(app_data, model, monkeypatch):
    names = app_data.class_names
    state = {"confusion": {"selection": {"cell": [{"truth": names[3], "prediction": names[7]}]}}}
    monkeypatch.setattr(explore.st, "session_state", state)
    explore.select_cell()
    assert (state[explore.TRUTH], state[explore.PREDICTION]) == (names[3], names[7])
    state["confusion"]["selection"] = {"cell": []}  # a click beside the cells
    explore.select_cell()
    assert state[explore.TRUTH] == names[3]


def test_page_accepts_model_without_errors(app_data, model, monkeypatch):
    class Perfect(type(model)):
        def predict_proba(self, x):
            return np.eye(10, dtype=np.float32)[app_data.y_test]

    app = choose_model(open_page("explore"), Perfect(**vars(model)))
    assert "It made no mistake." in texts(app)
    assert metrics(app)["Accuracy"] == "100.00 %"


@pytest.mark.filterwarnings("ignore:Fashion-MNIST is not on this machine")
def test_page_names_synthetic_data_set_without_download(app_synthetic):
    app = open_page("explore")
    assert "Fashion-MNIST is not on this machine" in app.warning[0].value
    assert metrics(app)["Accuracy"]


def test_reliability_bins_by_confidence():
    p_nk = np.array([[0.95, 0.05], [0.97, 0.03], [0.55, 0.45], [0.2, 0.8]])
    hit_n = np.array([True, False, True, True])
    bins = reliability(p_nk, hit_n)
    assert [b.rows for b in bins] == [1, 1, 2]
    assert bins[-1] == ReliabilityBin(2, pytest.approx(0.96), 0.5)
    gaps = (0.45 + 0.2 + 2 * 0.46) / 4
    assert calibration_error(p_nk, hit_n) == pytest.approx(gaps)
    assert reliability(np.array([[np.nan, 1.0]]), hit_n[:1]) == []


def test_confusion_matrix_has_all_pairs_and_selection(app_data, model):
    evaluation = evaluate(model.predict_proba(app_data.x_test), app_data.y_test)
    chart = charts.confusion_matrix(evaluation, app_data.class_names, charts.DARK).to_dict()
    (rows,) = chart["datasets"].values()
    found = {(row["truth"], row["prediction"]): row["images"] for row in rows}
    names = app_data.class_names
    assert len(found) == 100
    assert found[names[6], names[0]] == evaluation.confusion_kk[6, 0]
    assert [param["name"] for param in chart["params"]] == ["cell"]


def test_weight_tiles_sort_units_by_weight():
    w_io = np.zeros((6, 3))
    w_io[1, 0], w_io[2, 2] = -1.0, 5.0
    tiles = charts.weight_tiles(w_io, 2, 3, 2, charts.LIGHT)
    assert tiles.shape == (2 * 2 + charts.GAP, 2 * 3 + charts.GAP, 4)
    second = 3 + charts.GAP
    assert list(tiles[0, 2]) == [0xC8, 0x64, 0x2C, 255]  # unit 2: pixel 2 is above 0
    assert list(tiles[0, second + 1]) == [0x2A, 0x6F, 0x97, 255]  # unit 0: pixel 1 is below 0
    assert tiles[0, 0, 3] < 30
    assert not tiles[:, 3:second].any()
