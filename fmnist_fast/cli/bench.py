"""The command `bench`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import BATCH_SIZE, DATA_DIR, DATASETS, FILE, JSON, THREADS
from .outputs import check_outputs
from .terminal import console_of

if TYPE_CHECKING:
    from ..bench.measurement import Report

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
def bench(
    backends: str | None,
    threads: int | None,
    batch_size: int,
    rounds: int,
    peers: bool,
    rows: int | None,
    dataset: str,
    data_dir: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
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
    from .._cpu import usable_cores
    from ..bench.contenders import Setting
    from ..bench.measurement import measure
    from ..data.datasets import NAMES, load_dataset
    from ..nn.network import THREADS_PER_CORE
    from .report import MeasuringReport

    check_outputs({"plot": plot}, Path(dataset))
    names = None if backends is None else tuple(name.strip() for name in backends.split(","))
    found = load_dataset(dataset, data_dir)  # looked for, downloaded or done without only once
    where = found.name if dataset == "auto" and found.name in NAMES else dataset
    threads = min(threads or usable_cores(), THREADS_PER_CORE * usable_cores())
    setting = Setting(where, data_dir, rows, threads)
    with MeasuringReport(console_of(stderr=True)) as report:
        result = measure(setting, names, batch_size, rounds, peers, report.measuring)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        _print_bench(result)
    if plot:
        from .plots import plot_speeds

        plot_speeds(result, plot)


def _print_bench(result: "Report") -> None:
    from .bench_table import bench_tables, missing, on_what

    console = console_of()
    for line in on_what(result):
        console.print(line, soft_wrap=True)
    for table in bench_tables(result):
        console.print()
        console.print(table)
    console.print()
    for line in missing(result):
        console.print(line, soft_wrap=True)
