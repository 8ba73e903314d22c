"""Options of the command `predict`."""

from pathlib import Path

import click

from ..lazy import deferred
from ..options import BACKEND, FILE, JSON, THREADS, Address, Workers

__all__ = ["predict"]


@click.command()
@click.option(
    "--model",
    type=FILE,
    help="A file that 'fmnist-fast train' wrote, or one of an ensemble.  [default: the two that "
    "come with the package, one for photographs]",
)
@click.argument("images", nargs=-1, metavar="IMAGE...", type=click.Path())
@click.option(
    "--inputs-from",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A file that names more images, one a line; - is standard input.",
)
@click.option(
    "--segmentation",
    type=click.Choice(["auto", "grabcut", "histogram", "none"]),
    default="auto",
    show_default=True,
    help="How to find the garment on a photograph: grabcut, where OpenCV is installed; plain, by "
    "its colours; none, the whole photograph is the garment. auto takes the best there is; "
    "what is transparent was cut out already.",
)
@click.option("--invert", is_flag=True, help="Exchange dark and light.")
@BACKEND
@THREADS
@click.option(
    "--out",
    type=FILE,
    help="A .parquet or .csv file for the answers, for any number of inputs: IMAGE may then be an "
    "IDX, .npy, .npz or Parquet file, too. It is complete or not there; stopped or killed, the "
    "same command goes on.",
)
@click.option(
    "--workers",
    type=Workers(),
    help="With --out: processes on this machine, or auto, one a usable core.  [default: auto]",
)
@click.option(
    "--scheduler",
    type=Address(),
    metavar="tcp://HOST:PORT",
    help="With --out: use the workers of this Dask scheduler; files that they have not are sent.",
)
@click.option(
    "--column",
    metavar="NAME",
    help="With --out: the array of .npz files, or the column of Parquet files, that has the "
    "images.  [default: the only one that fits]",
)
@click.option(
    "--probabilities", is_flag=True, help="With --out: a column for every class's probability."
)
@click.option(
    "--force", is_flag=True, help="With --out: replace it, and what was begun with other options."
)
@click.option("--quiet", is_flag=True, help="With --out: print only what came out.")
@JSON
@deferred("predict:predict")
def predict() -> None:
    """Say what is on each IMAGE, a file, or a folder: all in it, and in its folders, that has the
    name of an image.

    On photographs the garment is found, cut out, straightened and made small, as the data set was
    made. A grayscale image of 28x28 pixels, the garment bright on black, is taken as it is. "Not
    sure" stands before answers less probable than those of which 97 % are right, for images of the
    data set's kind, and about two in three for photographs. The exit code is 1 if any image could
    not be read.

      \b
      fmnist-fast predict shirt.jpg shoes.png
      fmnist-fast predict --json photos >answers.json
      fmnist-fast predict -- -name-with-a-dash.jpg
      fmnist-fast predict --out answers.parquet --workers 2 archive more.parquet
      find . -name '*.jpg' | fmnist-fast predict --inputs-from - --out answers.csv
    """
