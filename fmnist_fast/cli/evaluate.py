"""The command `evaluate`."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.corruptions import CORRUPTIONS, corrupt_images
from ..data.datasets import DATASET_NAMES, Dataset, load_dataset
from ..errors import UserError
from ..models.ensemble import Ensemble
from ..models.load import PRETRAINED, load_model
from ..models.model import Model
from ..nn import metrics
from ..nn.network import check_labels
from .outputs import check_outputs
from .plots import plot_confusion, plot_misclassified
from .report import class_table, confusion_table, corruption_table, percent
from .terminal import make_console, print_json

__all__ = ["evaluate"]


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
    path = model or PRETRAINED
    check_outputs({"plot": plot, "misclassified": misclassified}, path)
    loaded = load_model(path, backend, threads)
    data = _load_test_data(loaded, path, dataset, data_dir)
    if misclassified and data.x_test.ndim != 3:
        raise UserError(f"--misclassified draws images, and {data.name} has rows of features")
    labels_n = check_labels(data.y_test, len(data.x_test), len(data.class_names), "y_test")
    probability_nk = loaded.predict_proba(data.x_test)
    selective = None
    if loaded.threshold is not None:
        selective = metrics.selective_accuracy(probability_nk, labels_n, loaded.threshold)
    result = _Result(
        model=path,
        data=data,
        evaluation=metrics.evaluate(probability_nk, labels_n),
        selective_accuracy=selective,
        corruptions=list(_evaluate_corruptions(loaded, data, labels_n)),
    )
    if plot:
        plot_confusion(result.evaluation, data.class_names, plot)
    if misclassified:
        plot_misclassified(data.x_test, probability_nk, labels_n, data.class_names, misclassified)
    if as_json:
        print_json(result.to_json())
    else:
        result.print()


def _load_test_data(
    model: Model | Ensemble, path: Path, dataset: str | None, data_dir: Path | None
) -> Dataset:
    """Load the data set, by default that of the training; raise UserError if it does not fit."""
    unknown = UserError(
        f"{path} was trained on {model.dataset_name}, which is not a data set that this "
        "installation has: name it with --dataset"
    )
    if dataset is None and model.dataset_name not in DATASET_NAMES:
        raise unknown
    data = load_dataset(dataset or model.dataset_name, data_dir)
    if dataset is None and data.checksum != model.dataset_checksum:
        raise unknown
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


@dataclass(frozen=True)
class _Result:
    """Output of the command."""

    model: Path
    data: Dataset
    evaluation: metrics.Evaluation
    selective_accuracy: metrics.SelectiveAccuracy | None
    corruptions: list[dict[str, Any]]

    def print(self) -> None:
        names, evaluation, console = self.data.class_names, self.evaluation, make_console()
        tables = [class_table(evaluation, names), confusion_table(evaluation, names)]
        if self.corruptions:
            tables.append(corruption_table(self.corruptions, evaluation.accuracy))
        for table in tables:
            console.print(table)
            console.print()
        if self.selective_accuracy:
            console.print(
                f"confident in {percent(self.selective_accuracy.coverage)} of the predictions "
                f"(probability at least {percent(self.selective_accuracy.threshold)}): "
                f"{percent(self.selective_accuracy.accuracy)} of them are correct"
            )
        console.print(
            f"{self.model} on the {len(self.data.x_test):,} test rows of {self.data.name}: "
            f"accuracy {percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
            f"calibration error {percent(evaluation.calibration_error)}"
        )

    def to_json(self) -> dict[str, Any]:
        evaluation = self.evaluation
        return {
            "model": str(self.model),
            "dataset": self.data.name,
            "rows": len(self.data.x_test),
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
                for label, name in enumerate(self.data.class_names)
            ],
            "confusion": evaluation.confusion_kk.tolist(),
            "selective_accuracy": self.selective_accuracy and asdict(self.selective_accuracy),
            "corruptions": self.corruptions,
        }
