"""Options of the command `evaluate`."""

import click

from ..lazy import deferred
from ..options import BACKEND, DATA_DIR, DATASETS, FILE, JSON, THREADS, plot_option


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option(
    "--dataset", help=f"Data set to evaluate on: {DATASETS}.  [default: that of the training]"
)
@DATA_DIR
@BACKEND
@THREADS
@plot_option("the confusion matrix")
@click.option(
    "--misclassified",
    type=FILE,
    help="Write a plot of the misclassified images with the highest confidence: a .png, .svg "
    "or .pdf file.",
)
@JSON
@deferred("evaluate:evaluate")
def evaluate() -> None:
    """Evaluate a model on a test set.

    MODEL is a file of one network or of an ensemble, by default the pretrained model.

    Prints accuracy; precision, recall and F1 score of every class; the confusion matrix; the
    expected calibration error; selective accuracy: how many predictions are confident, and how many
    of those are correct; and for images, the accuracy under corruptions: shift, rotation, noise,
    blur, darkening and inversion.
    """
