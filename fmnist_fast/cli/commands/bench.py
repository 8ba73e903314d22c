"""Options of the command `bench`."""

import click

from ..lazy import deferred
from ..options import DATA_DIR, DATASETS, JSON, THREADS, plot_option


@click.command()
@click.option(
    "--backends",
    metavar="NAME,...",
    help="Backends to measure: cython, numba, numpy. numpy is always measured, as the reference.  "
    "[default: all available]",
)
@THREADS
@click.option("--batch-size", type=click.IntRange(1), default=64, help="Number of rows in a batch.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Number of interleaved rounds.")
@click.option(
    "--peers",
    is_flag=True,
    help="Also measure JAX, PyTorch, scikit-learn and ONNX Runtime, where installed "
    "(pip install 'fmnist-fast[bench]').",
)
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Number of training rows: fewer are quicker, and measured less well.",
)
@click.option("--dataset", default="auto", help=f"Data set: {DATASETS}, of uint8 pixels.")
@DATA_DIR
@plot_option("the speeds")
@JSON
@deferred("bench:bench")
def bench() -> None:
    """Measure the speed of training and prediction.

    Every backend, with every instruction set that this processor has, trains epochs of
    784-128-64-10, in interleaved rounds, each in its own process, from the same weights and on the
    same rows. First it is checked that all compute the same. GFLOP/s count an epoch's arithmetic as
    if no pixel were zero; "of peak" is their fraction of the processor's peak, measured in the same
    run, and may be above 1. "x numpy" is the median of the rounds' ratios. Takes some 40 seconds,
    with --peers two minutes and more, on a machine that should be idle otherwise.

      \b
      fmnist-fast bench
      fmnist-fast bench --peers --plot bench.png
      fmnist-fast bench --backends cython --threads 1 --batch-size 256 --json
    """
