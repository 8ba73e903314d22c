"""Options of the command `bench`."""

import click

from ..lazy import deferred
from ..options import BATCH_SIZE, DATA_DIR, DATASETS, FILE, JSON, THREADS

__all__ = ["bench"]


@click.command()
@click.option(
    "--backends",
    metavar="NAME,...",
    help="Which of ours: cython, numba, numpy. numpy is always measured, to compare with.  "
    "[default: all that are there]",
)
@THREADS
@BATCH_SIZE
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How often everything is measured, in turn.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Also JAX, PyTorch, scikit-learn and ONNX Runtime, those that are installed "
    "(pip install 'fmnist-fast[bench]').",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Train on so many rows only: for a quick look; the figures mean less.",
)
@click.option(
    "--dataset",
    default="auto",
    show_default=True,
    help=f"What to learn: {DATASETS}, of uint8 pixels.",
)
@DATA_DIR
@click.option("--plot", type=FILE, help="Draw it: a .png, .svg or .pdf file.")
@JSON
@deferred("bench:bench")
def bench() -> None:
    """Measure how fast this machine trains and predicts, and where the time goes.

    Every backend, with every instruction set that this processor has, trains epochs of
    784-128-64-10, in turn, each in a process of its own, from the same weights and on the same
    rows; checked first to compute the same. GFLOP/s count an epoch's arithmetic as if no pixel were
    zero; "of peak" is their share of what the processor can do at most, measured in the same run,
    and may be above 1. "x numpy" is the median of the rounds' ratios. Takes some 40 seconds, with
    --peers two minutes and more, and wants a machine that does nothing else.

      \b
      fmnist-fast bench
      fmnist-fast bench --peers --plot bench.png
      fmnist-fast bench --backends cython --threads 1 --batch-size 256 --json
    """
