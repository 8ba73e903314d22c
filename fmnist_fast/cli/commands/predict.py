"""Options of the command `predict`."""

from pathlib import Path

import click

from ..lazy import deferred
from ..options import BACKEND, FILE, JSON, THREADS, nonempty, workers_or_auto


@click.command()
@click.option(
    "--model",
    type=FILE,
    help="Model file to predict with.  [default: the two pretrained models, one of them for "
    "photographs]",
)
@click.argument("images", nargs=-1, metavar="IMAGE...", type=click.Path())
@click.option(
    "--inputs-from",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="File that lists more images, one a line; - is standard input.",
)
@click.option(
    "--segmentation",
    type=click.Choice(["auto", "grabcut", "histogram", "none"]),
    default="auto",
    help="Method that segments the garment of a photograph; auto is grabcut where OpenCV is "
    "installed, else histogram.",
)
@click.option("--invert", is_flag=True, help="Invert the brightness.")
@BACKEND
@THREADS
@click.option(
    "--out",
    type=FILE,
    help="Write the predictions of any number of inputs to this .parquet or .csv file; IMAGE "
    "may then also be an IDX, .npy, .npz or Parquet file. A stopped command resumes when "
    "it is repeated.",
)
@click.option(
    "--workers",
    type=workers_or_auto,
    metavar="N",
    help="With --out: number of worker processes on this machine.  [default: auto, one a "
    "usable core]",
)
@click.option(
    "--scheduler",
    type=nonempty,
    metavar="tcp://HOST:PORT",
    help="With --out: address of a Dask scheduler whose workers to use.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="With --out: the array of .npz files, or the column of Parquet files, that holds the "
    "images.  [default: the only one that fits]",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="With --out: write a column of probabilities for every class.",
)
@click.option(
    "--force",
    is_flag=True,
    help="With --out: replace the file, and discard partial results of other options.",
)
@click.option("--quiet", is_flag=True, help="With --out: print only the result.")
@JSON
@deferred("predict:predict")
def predict() -> None:
    """Classify each IMAGE: a file, or all image files in a folder.

    Photographs are preprocessed to match the data set: segmentation, deskewing, cropping, tone
    normalization, downscaling to 28x28. A grayscale image of 28x28 pixels, the garment bright on
    black, is not preprocessed. "Not confident" marks predictions below the confidence threshold:
    of those above, 97 % are correct for images of the data set's kind, and about two in three for
    photographs. The exit code is 1 if any image could not be read.

      \b
      fmnist-fast predict shirt.jpg shoes.png
      fmnist-fast predict --json photos >predictions.json
      fmnist-fast predict -- -name-with-a-dash.jpg
      fmnist-fast predict --out predictions.parquet --workers 2 archive more.parquet
      find . -name '*.jpg' | fmnist-fast predict --inputs-from - --out predictions.csv
    """
