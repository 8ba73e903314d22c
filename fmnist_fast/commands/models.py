"""The commands `evaluate` and `predict`."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .options import BACKEND, DATA_DIR, DATASETS, FILE, JSON, THREADS
from .outputs import check_outputs
from .terminal import console_of, number_or_none

if TYPE_CHECKING:
    from ..data import Dataset
    from ..metrics import Evaluation
    from ..modelfile import Model

__all__ = ["evaluate", "predict"]


@click.command()
@click.argument("model", type=FILE)
@click.option(
    "--dataset", help=f"What to measure it on: {DATASETS}.  [default: what it was trained on]"
)
@DATA_DIR
@BACKEND
@THREADS
@click.option("--plot", type=FILE, help="Draw the confusion matrix: a .png, .svg or .pdf file.")
@JSON
def evaluate(
    model: Path,
    dataset: str | None,
    data_dir: Path | None,
    backend: str,
    threads: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure MODEL on a test set.

    Accuracy; precision, recall and F1 of every class; the confusion matrix; and the expected
    calibration error, which is how far the model's confidence is from its accuracy.
    """
    from ..data import NAMES, load_dataset
    from ..metrics import evaluate as measure
    from ..modelfile import load_model
    from ..network import check_labels
    from ..report import class_table, confusion_table, percent

    check_outputs(None, None, plot, model)
    loaded = load_model(model, backend, threads)
    if dataset is None and loaded.dataset_name not in NAMES:
        raise _unknown_data(loaded, model)
    data = load_dataset(dataset or loaded.dataset_name, data_dir)
    if dataset is None and data.checksum != loaded.dataset_checksum:
        raise _unknown_data(loaded, model)
    _check_fits(loaded, model, data)
    labels_n = check_labels(data.y_test, len(data.x_test), len(data.class_names), "y_test")
    evaluation = measure(loaded.predict_proba(data.x_test), labels_n)
    if plot:
        from ..plots import plot_confusion

        plot_confusion(evaluation, data.class_names, plot)
    if as_json:
        click.echo(json.dumps(_evaluation_json(evaluation, model, data)))
        return
    console = console_of()
    console.print(class_table(evaluation, data.class_names))
    console.print()
    console.print(confusion_table(evaluation, data.class_names))
    console.print()
    console.print(
        f"{model} on the {len(data.x_test):,} test rows of {data.name}: "
        f"accuracy {percent(evaluation.accuracy)}, loss {evaluation.loss:.4f}, "
        f"calibration error {percent(evaluation.calibration_error)}"
    )


@click.command()
@click.option("--model", required=True, type=FILE, help="A file that 'fmnist-fast train' wrote.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@BACKEND
@THREADS
@JSON
def predict(
    model: Path, images: tuple[str, ...], backend: str, threads: int | None, as_json: bool
) -> int:
    """Say what is on each IMAGE.

    An image is a file of the size that the model was trained on, 28x28 for Fashion-MNIST, in
    grayscale: the garment bright, on black. The exit code is 1 if any image could not be read.
    """
    from ..modelfile import load_model
    from ..report import percent

    loaded = load_model(model, backend, threads)
    answers = [_answer(loaded, path) for path in images]
    if as_json:
        click.echo(json.dumps(answers))
    else:
        for answer in answers:
            if "error" in answer:
                click.echo(f"{answer['path']}: {answer['error']}", err=True)
                continue
            top = ", ".join(f"{entry['name']} {percent(entry['p'])}" for entry in answer["top"])
            click.echo(f"{answer['path']}: {top}")
    return 1 if any("error" in answer for answer in answers) else 0


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


def _unknown_data(model: "Model", path: Path) -> UserError:
    return UserError(
        f"{path} was trained on {model.dataset_name}, which is not a data set that this "
        "installation has: say with --dataset where it is"
    )


def _check_fits(model: "Model", path: Path, data: "Dataset") -> None:
    from math import prod

    inputs, classes = model.network.spec.sizes[0], model.network.spec.sizes[-1]
    if prod(data.x_test.shape[1:]) != inputs or len(data.class_names) != classes:
        raise UserError(
            f"{path} takes {inputs} inputs and knows {classes} classes; {data.name} has "
            f"{prod(data.x_test.shape[1:])} and {len(data.class_names)}: name another --dataset"
        )
    if data.checksum != model.dataset_checksum:
        warnings.warn(
            f"the model was trained on another data set ({model.dataset_name})", stacklevel=1
        )


def _answer(model: "Model", path: str) -> dict[str, Any]:
    """One entry of predict's output."""
    from ..errors import DataError
    from ..photo import read_gray

    if len(model.input_shape) != 2:
        raise UserError(f"this model takes rows of shape {model.input_shape}, not images")
    height, width = model.input_shape
    try:
        pixels = read_gray(Path(path), height, width)
    except DataError as error:
        return {"path": path, "error": str(error)}
    probability_k = model.predict_proba(pixels[None])[0]
    top = [
        {"label": int(k), "name": model.class_names[k], "p": float(probability_k[k])}
        for k in probability_k.argsort()[::-1][:3]
    ]
    return {
        "path": path,
        "label": top[0]["label"],
        "name": top[0]["name"],
        "probability": top[0]["p"],
        "top": top,
        "sure": None,
    }
