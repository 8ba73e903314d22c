"""The command `evaluate`."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .outputs import check_outputs
from .terminal import console_of, number_or_none

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..data.datasets import Dataset
    from ..models.ensemble import Ensemble
    from ..models.model import Model
    from ..nn.metrics import Evaluation, SelectiveAccuracy

__all__ = ["evaluate"]


def evaluate(
    model: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    backend: str,
    threads: int | None,
    plot: Path | None,
    misclassified: Path | None,
    as_json: bool,
) -> None:
    from ..data.datasets import DATASET_NAMES, load_dataset
    from ..models.load import PRETRAINED, load_model
    from ..nn.metrics import evaluate as measure
    from ..nn.metrics import selective_accuracy
    from ..nn.network import check_labels

    path = model or PRETRAINED
    check_outputs({"plot": plot, "misclassified": misclassified}, path)
    loaded = load_model(path, backend, threads)
    if dataset is None and loaded.dataset_name not in DATASET_NAMES:
        raise _unknown_data(loaded, path)
    data = load_dataset(dataset or loaded.dataset_name, data_dir)
    if dataset is None and data.checksum != loaded.dataset_checksum:
        raise _unknown_data(loaded, path)
    _check_fits(loaded, path, data)
    if misclassified and data.x_test.ndim != 3:
        raise UserError(f"--misclassified draws images, and {data.name} has rows of numbers")
    labels_n = check_labels(data.y_test, len(data.x_test), len(data.class_names), "y_test")
    probability_nk = loaded.predict_proba(data.x_test)
    result = _Measured(
        path,
        data,
        measure(probability_nk, labels_n),
        None
        if loaded.threshold is None
        else selective_accuracy(probability_nk, labels_n, loaded.threshold),
        list(_when_corrupted(loaded, data, labels_n)),
    )
    if plot:
        from .plots import plot_confusion

        plot_confusion(result.evaluation, data.class_names, plot)
    if misclassified:
        from .plots import plot_misclassified

        plot_misclassified(data.x_test, probability_nk, labels_n, data.class_names, misclassified)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        result.show()


def _when_corrupted(
    model: "Model | Ensemble", data: "Dataset", labels_n: "NDArray[np.int32]"
) -> Iterator[tuple[str, str, float]]:
    """(kind, level, accuracy) of every corruption; nothing for data that are no uint8 images."""
    from ..data.corruptions import CORRUPTIONS, corrupt_images

    if data.x_test.ndim != 3 or data.x_test.dtype != "uint8":
        return
    for kind in CORRUPTIONS:
        for level in kind.levels:
            guess_n = model.predict(corrupt_images(data.x_test, kind, level))
            yield kind.name, kind.label(level), float((guess_n == labels_n).mean())


@dataclass(frozen=True)
class _Measured:
    """What evaluate has to say."""

    path: Path
    data: "Dataset"
    evaluation: "Evaluation"
    selective_accuracy: "SelectiveAccuracy | None"
    corrupted: list[tuple[str, str, float]]

    def show(self) -> None:
        """For people."""
        from .report import class_table, confusion_table, corruption_table, percent

        names, evaluation, console = self.data.class_names, self.evaluation, console_of()
        console.print(class_table(evaluation, names))
        console.print()
        console.print(confusion_table(evaluation, names))
        console.print()
        if self.corrupted:
            console.print(corruption_table(self.corrupted, evaluation.accuracy))
            console.print()
        if self.selective_accuracy:
            console.print(
                f"confident in {percent(self.selective_accuracy.coverage)} of the predictions "
                f"(probability at least {percent(self.selective_accuracy.threshold)}): "
                f"{percent(self.selective_accuracy.accuracy)} of them are correct"
            )
        console.print(
            f"{self.path} on the {len(self.data.x_test):,} test rows of {self.data.name}: "
            f"accuracy {percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
            f"calibration error {percent(evaluation.calibration_error)}"
        )

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            **_evaluation_json(self.evaluation, self.path, self.data),
            "selective_accuracy": None
            if self.selective_accuracy is None
            else {
                "threshold": self.selective_accuracy.threshold,
                "coverage": self.selective_accuracy.coverage,
                "accuracy": number_or_none(self.selective_accuracy.accuracy),
            },
            "corruptions": [
                {"kind": kind, "level": level, "accuracy": accuracy}
                for kind, level, accuracy in self.corrupted
            ],
        }


def _evaluation_json(evaluation: "Evaluation", model: Path, data: "Dataset") -> dict[str, Any]:
    return {
        "model": str(model),
        "dataset": data.name,
        "rows": len(data.x_test),
        "accuracy": evaluation.accuracy,
        "loss": number_or_none(evaluation.loss),
        "calibration_error": number_or_none(evaluation.calibration_error),
        "classes": [
            {
                "label": label,
                "name": name,
                "precision": number_or_none(evaluation.precision_k[label]),
                "recall": number_or_none(evaluation.recall_k[label]),
                "f1": number_or_none(evaluation.f1_k[label]),
                "rows": int(evaluation.confusion_kk[label].sum()),
            }
            for label, name in enumerate(data.class_names)
        ],
        "confusion": evaluation.confusion_kk.tolist(),
    }


def _unknown_data(model: "Model | Ensemble", path: Path) -> UserError:
    return UserError(
        f"{path} was trained on {model.dataset_name}, which is not a data set that this "
        "installation has: say with --dataset where it is"
    )


def _check_fits(model: "Model | Ensemble", path: Path, data: "Dataset") -> None:
    from math import prod

    inputs, classes = prod(model.input_shape), len(model.class_names)
    if prod(data.x_test.shape[1:]) != inputs or len(data.class_names) != classes:
        raise UserError(
            f"{path} takes {inputs} inputs and knows {classes} classes; {data.name} has "
            f"{prod(data.x_test.shape[1:])} and {len(data.class_names)}: name another --dataset"
        )
    if data.checksum != model.dataset_checksum:
        warnings.warn(
            f"the model was trained on another data set ({model.dataset_name})", stacklevel=1
        )
