"""The command `evaluate`."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.corruptions import CORRUPTIONS, corrupt_images
from ..data.datasets import DATASET_NAMES, Dataset, load_dataset
from ..errors import UserError
from ..models.ensemble import Ensemble
from ..models.load import load_model
from ..models.model import Model
from ..nn import metrics
from ..nn.network import check_labels
from .outputs import check_outputs, model_or_pretrained
from .plots import plot_confusion, plot_misclassified
from .report import class_table, confusion_table, corruption_table, percent
from .terminal import make_console, print_json


def evaluate(
    *,
    model: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    backend: str,
    threads: int | None,
    plot: Path | None,
    misclassified: Path | None,
    as_json: bool,
) -> None:
    """Run the command."""
    path, name = model_or_pretrained(model)
    check_outputs({"plot": plot, "misclassified": misclassified}, path)
    loaded = load_model(path, backend, threads)
    data = _load_test_data(loaded, path, dataset, data_dir)
    if misclassified and data.x_test.ndim != 3:
        raise UserError(f"--misclassified draws images, and {data.name} has rows of features")
    labels_n = check_labels(data.y_test, len(data.x_test), len(data.class_names), "y_test")
    probability_nk = loaded.predict_proba(data.x_test)
    evaluation = metrics.evaluate(probability_nk, labels_n)
    selective = None
    if loaded.threshold is not None:
        selective = metrics.selective_accuracy(probability_nk, labels_n, loaded.threshold)
    if plot:
        plot_confusion(evaluation, data.class_names, plot)
    if misclassified:
        plot_misclassified(data.x_test, probability_nk, labels_n, data.class_names, misclassified)
    document = {
        "model": str(path),
        "dataset": data.name,
        "rows": len(data.x_test),
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "calibration_error": evaluation.calibration_error,
        "classes": [
            {
                "label": label,
                "name": name,
                "precision": float(evaluation.precision_k[label]),
                "recall": float(evaluation.recall_k[label]),
                "f1": float(evaluation.f1_k[label]),
                "rows": int(evaluation.confusion_kk[label].sum()),
            }
            for label, name in enumerate(data.class_names)
        ],
        "confusion": evaluation.confusion_kk.tolist(),
        "selective_accuracy": selective and asdict(selective),
        "corruptions": list(_evaluate_corruptions(loaded, data, labels_n)),
    }
    if as_json:
        print_json(document)
    else:
        _print(name, document, evaluation, data.class_names)


def _load_test_data(
    model: Model | Ensemble, path: Path, dataset: str | None, data_dir: Path | None
) -> Dataset:
    """Load the data set, by default that of the training; raise UserError if it does not fit."""
    known = dataset is not None or model.dataset_name in DATASET_NAMES
    data = load_dataset(dataset or model.dataset_name, data_dir) if known else None
    if data is None or (dataset is None and data.checksum != model.dataset_checksum):
        raise UserError(
            f"{path} was trained on {model.dataset_name}, which is not a data set that this "
            "installation has: name it with --dataset"
        )
    expected = prod(model.input_shape), len(model.class_names)
    found = prod(data.x_test.shape[1:]), len(data.class_names)
    if found != expected:
        raise UserError(
            f"{path} has {expected[0]} inputs and {expected[1]} classes; {data.name} has "
            f"{found[0]} and {found[1]}: name another --dataset"
        )
    if data.checksum != model.dataset_checksum:
        warnings.warn(
            f"the model was trained on another data set ({model.dataset_name})", stacklevel=1
        )
    return data


def _evaluate_corruptions(
    model: Model | Ensemble, data: Dataset, labels_n: NDArray[np.int32]
) -> Iterator[dict[str, Any]]:
    """Yield the accuracy under every corruption; nothing for data other than uint8 images."""
    if data.x_test.ndim != 3 or data.x_test.dtype != "uint8":
        return
    for kind in CORRUPTIONS:
        for level in kind.levels:
            predicted_n = model.predict(corrupt_images(data.x_test, kind, level))
            accuracy = float((predicted_n == labels_n).mean())
            yield {"kind": kind.name, "level": kind.label(level), "accuracy": accuracy}


def _print(
    model: str, document: dict[str, Any], evaluation: metrics.Evaluation, names: tuple[str, ...]
) -> None:
    console, selective = make_console(), document["selective_accuracy"]
    tables = [class_table(evaluation, names), confusion_table(evaluation, names)]
    if document["corruptions"]:
        tables.append(corruption_table(document["corruptions"], evaluation.accuracy))
    for table in tables:
        console.print(table)
        console.print()
    if selective:
        coverage, threshold = percent(selective["coverage"]), percent(selective["threshold"])
        console.print(
            f"confident in {coverage} of the predictions (probability at least {threshold}): "
            f"{percent(selective['accuracy'])} of them are correct"
        )
    console.print(
        f"{model} on the {document['rows']:,} test rows of {document['dataset']}: "
        f"accuracy {percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
        f"calibration error {percent(evaluation.calibration_error)}"
    )
