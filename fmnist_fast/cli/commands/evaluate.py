"""Options of the command `evaluate`."""

import click

from ..lazy import deferred
from ..options import BACKEND, DATA_DIR, DATASETS, FILE, JSON, THREADS

__all__ = ["evaluate"]


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option(
    "--dataset", help=f"What to measure it on: {DATASETS}.  [default: what it was trained on]"
)
@DATA_DIR
@BACKEND
@THREADS
@click.option("--plot", type=FILE, help="Draw the confusion matrix: a .png, .svg or .pdf file.")
@click.option(
    "--misclassified",
    type=FILE,
    help="Draw the surest of the wrong answers: a .png, .svg or .pdf file.",
)
@JSON
@deferred("evaluate:evaluate")
def evaluate() -> None:
    """Measure MODEL, or else the model that comes with the package, on a test set.

    MODEL is a file of one network or of an ensemble.

    Accuracy; precision, recall and F1 of every class; the confusion matrix; the expected
    calibration error, which is how far the model's confidence is from its accuracy; how many
    answers are sure, and how many of those are right; and for images, how the accuracy falls when
    they are shifted, turned, noisy, blurred, dark or inverted.
    """
