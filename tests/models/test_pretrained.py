"""Pretrained model: its size, configuration, accuracy and model card."""

import importlib
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmnist_fast import load_model
from fmnist_fast.cli.main import main
from fmnist_fast.data.fashion_mnist import CHECKSUM
from fmnist_fast.models.load import PRETRAINED
from fmnist_fast.training.config import TrainingConfig
from fmnist_fast.training.presets import PRESETS
from fmnist_fast.training.train_data import resolve_config

ROOT = Path(__file__).parents[2]


def test_pretrained_is_small_and_complete(small_dataset):
    assert PRETRAINED.stat().st_size < 500_000
    model = load_model()
    assert model.network.spec.sizes == (784, 128, 64, 10)
    assert model.dataset_checksum == CHECKSUM
    assert model.threshold is not None


def test_pretrained_config_is_that_of_preset(real_dataset):
    training = dict(load_model().training)
    assert training.pop("backend") == "cython"
    training.pop("instruction_set")
    config = TrainingConfig.from_dict(training)
    assert config.difference(resolve_config(PRESETS["best"], real_dataset)) is None


def test_pretrained_accuracy_matches_model_card(real_folder, capsys, monkeypatch, tmp_path):
    picture = tmp_path / "wrong.png"
    options = ["--json", "--data-dir", str(real_folder), "--misclassified", str(picture)]
    assert main(["evaluate", *options]) == 0
    measured_results = json.loads(capsys.readouterr().out)
    assert measured_results["accuracy"] >= 0.896
    assert measured_results["calibration_error"] <= 0.015
    assert measured_results["selective_accuracy"]["accuracy"] >= 0.97
    assert measured_results["selective_accuracy"]["coverage"] > 0.7
    assert picture.stat().st_size > 50_000
    by_level = {(c["kind"], c["level"]): c["accuracy"] for c in measured_results["corruptions"]}
    assert len(by_level) == 16
    assert by_level["shift", "1 pixels"] > by_level["shift", "4 pixels"]

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    markdown, card = (importlib.import_module(n) for n in ("markdown_tables", "model_card"))
    page = markdown.MODEL_CARD.read_text(encoding="utf-8")
    digest = sha256(PRETRAINED.read_bytes()).hexdigest()
    assert digest in page
    # Last bits differ between instruction sets, and so may the class of a borderline image.
    shown = [float(word) for word in page.split("accuracy ")[1].split()[:1]]
    assert shown[0] == pytest.approx(100 * measured_results["accuracy"], abs=0.03)
    if load_model().training["instruction_set"] == instruction_set():
        block = card.block(load_model(), measured_results)
        assert markdown.replace_block(page, block) == page


def instruction_set():
    from fmnist_fast.nn.backend import get_backend, instruction_set_of, unavailable_reason

    return None if unavailable_reason("cython") else instruction_set_of(get_backend("cython"))


def test_predict_reports_confidence_of_pretrained(real_dataset, tmp_path, capsys):
    model, paths = load_model(), []
    for row in range(30):
        paths.append(tmp_path / f"{row}.png")
        Image.fromarray(real_dataset.x_test[row]).save(paths[-1])
    assert main(["predict", "--json", *map(str, paths)]) == 0
    predictions = json.loads(capsys.readouterr().out)
    probability_nk = model.predict_proba(real_dataset.x_test[:30])
    for prediction, p_k in zip(predictions, probability_nk):
        assert prediction["label"] == p_k.argmax()
        assert prediction["confident"] == (p_k.max() >= model.threshold)
    assert {p["confident"] for p in predictions} == {True, False}
    assert main(["predict", *map(str, paths)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [": not confident: " in line for line in lines] == [
        not p["confident"] for p in predictions
    ]


def test_pretrained_probabilities_use_temperature(small_dataset):
    from fmnist_fast.nn.calibration import apply_temperature

    model = load_model()
    raw_nk = model.network.predict_proba(small_dataset.x_test)
    assert 0.3 < model.temperature < 3
    np.testing.assert_allclose(
        model.predict_proba(small_dataset.x_test),
        apply_temperature(raw_nk, model.temperature),
        atol=2e-5,
    )
