"""What `fmnist-fast bench` prints: a table of speeds, and one of where the time goes."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table

from ..bench.measurement import Entry, Report

__all__ = ["COLUMNS", "bench_tables", "cells", "missing", "on_what"]

COLUMNS = (
    "",
    "s/epoch",
    "least",
    "samples/s",
    "GFLOP/s",
    "of peak",
    "x numpy",
    "1 image",
    "10,000",
)


def on_what(report: Report) -> Iterator[str]:
    """Lines that say what was measured, on what and when, and whether to believe it."""
    machine = report.machine
    sizes = "-".join(map(str, report.sizes))
    yield (
        f"{sizes} on {report.dataset}, {report.rows:,} rows an epoch, batch {report.batch_size}, "
        f"float32; medians of n = {report.rounds} interleaved rounds"
    )
    cores, threads = machine["usable_cores"], report.threads
    yield (
        f"{machine['date']}; {machine['cpu']}, {cores} usable core{'s' * (cores != 1)}, "
        f"{threads} thread{'s' * (threads != 1)}"
    )
    peak = f"{report.peak_gflops:.0f} GFLOP/s" if report.peak_gflops else "not without cython"
    yield f"peak of fused multiply-adds, float32, all threads: {peak}"
    yield ", ".join(f"{name} {number or 'missing'}" for name, number in machine["versions"].items())
    for doubt in report.doubts():
        yield f"in doubt: {doubt}"


def cells(entry: Entry) -> tuple[str, ...]:
    """A contender's row, for COLUMNS."""

    def number(value: float | None, form: str, factor: float = 1, unit: str = "") -> str:
        return "" if value is None else format(factor * value, form) + unit

    return (
        entry.name,
        number(entry.seconds_median, ".3f"),
        number(entry.seconds_least, ".3f"),
        number(entry.samples_per_second, ",.0f"),
        number(entry.gflops, ".0f"),
        number(entry.of_peak, ".2f"),
        number(entry.speedup, ".2f"),
        number(entry.one_image_median, ".1f", 1e6, " us"),
        number(entry.images_median, ".1f", 1e3, " ms"),
    )


def bench_tables(report: Report) -> Iterator[RenderableType]:
    """Everything that people are shown, below what on_what says."""
    speeds = Table(box=None, pad_edge=False, collapse_padding=True)
    for n, title in enumerate(COLUMNS):
        speeds.add_column(title, justify="right" if n else "left", no_wrap=True)
    for entry in report.entries:
        if entry.missing is None:
            speeds.add_row(*cells(entry))
    yield speeds
    for names, entries in _by_phases(report):
        phases = Table(box=None, pad_edge=False)
        phases.add_column("share of an epoch")
        for name in names:
            phases.add_column(name, justify="right")
        for entry in entries:
            total = sum(entry.phase_seconds.values())
            shares = (f"{100 * entry.phase_seconds[name] / total:.0f} %" for name in names)
            phases.add_row(entry.name, *shares)
        yield phases


def missing(report: Report) -> Iterator[str]:
    """Lines that name who was not measured."""
    for entry in report.entries:
        if entry.missing:
            yield f"missing: {entry.name}: {entry.missing}"


def _by_phases(report: Report) -> Iterator[tuple[tuple[str, ...], list[Entry]]]:
    """Contenders that have the same phases."""
    kinds: dict[tuple[str, ...], list[Entry]] = {}
    for entry in report.entries:
        if entry.phase_seconds:
            kinds.setdefault(tuple(entry.phase_seconds), []).append(entry)
    yield from kinds.items()
