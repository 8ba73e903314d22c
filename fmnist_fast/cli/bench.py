"""The command `bench`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .outputs import check_outputs
from .terminal import console_of

if TYPE_CHECKING:
    from ..bench.measurement import Report

__all__ = ["bench"]


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
    from .._cpu import usable_cores
    from ..bench.contenders import Setting
    from ..bench.measurement import measure
    from ..data.datasets import DATASET_NAMES, load_dataset
    from ..nn.network import THREADS_PER_CORE
    from .report import MeasuringReport

    check_outputs({"plot": plot}, Path(dataset))
    names = None if backends is None else tuple(name.strip() for name in backends.split(","))
    found = load_dataset(dataset, data_dir)  # looked for, downloaded or done without only once
    where = found.name if dataset == "auto" and found.name in DATASET_NAMES else dataset
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
