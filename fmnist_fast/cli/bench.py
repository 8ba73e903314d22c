"""The command `bench`."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from .._cpu import usable_cores
from ..bench.contenders import BenchConfig
from ..bench.measurement import measure
from ..data.datasets import DATASET_NAMES, load_dataset
from ..nn.network import THREADS_PER_CORE
from .bench_table import print_report
from .outputs import check_outputs
from .plots import plot_speeds
from .report import measuring_bar
from .terminal import make_console


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
    """Measure, and print or draw the report."""
    check_outputs({"plot": plot}, Path(dataset))
    names = None if backends is None else tuple(name.strip() for name in backends.split(","))
    found = load_dataset(dataset, data_dir)  # so that only one process downloads it
    source = found.name if dataset == "auto" and found.name in DATASET_NAMES else dataset
    threads = min(threads or usable_cores(), THREADS_PER_CORE * usable_cores())
    config = BenchConfig(source, data_dir, rows, threads, batch_size)
    with measuring_bar(make_console(stderr=True)) as progress:
        report = measure(config, names, rounds, peers, progress)
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        print_report(report, make_console())
    if plot:
        plot_speeds(report, plot)
