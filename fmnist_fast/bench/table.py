"""What `fmnist-fast bench` prints: a table of speeds, and one of where the time goes."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from .measure import Entry, Report

__all__ = ["COLUMNS", "bench_tables", "cells", "on_what"]

COLUMNS = (
    "",
    "s/epoch",
    "least",
    "samples/s",
    "GFLOP/s",
    "of peak",
    "x numpy",
    "one image",
    "10,000 images",
)


def on_what(report: Report) -> Iterator[str]:
    """Lines that say what was measured, on what and when."""
    machine = report.machine
    sizes = "-".join(map(str, report.sizes))
    yield (
        f"{sizes} on {report.dataset}, {report.rows:,} rows an epoch, batch {report.batch_size}, "
        f"float32; medians of n = {report.rounds} interleaved rounds"
    )
    yield (
        f"{machine['date']}; {machine['cpu']}, {machine['usable_cores']} usable cores, "
        f"{report.threads} threads"
    )
    peak = f"{report.peak_gflops:.0f} GFLOP/s" if report.peak_gflops else "not without cython"
    yield f"peak of fused multiply-adds, float32, all threads: {peak}"
    yield ", ".join(f"{name} {number or 'missing'}" for name, number in machine["versions"].items())


def cells(entry: Entry) -> tuple[str, ...]:
    """A contender's row, for COLUMNS."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    us = None if entry.one_image is None else 1e6 * entry.one_image
    ms = None if entry.images is None else 1e3 * entry.images
    return (
        entry.name,
        number(entry.seconds_median, ".3f"),
        number(entry.seconds_least, ".3f"),
        number(entry.samples_per_second, ",.0f"),
        number(entry.gflops, ".0f"),
        number(entry.of_peak, ".2f"),
        number(entry.speedup, ".2f"),
        number(us, ".1f") + " us" * (us is not None),
        number(ms, ".1f") + " ms" * (ms is not None),
    )


def bench_tables(report: Report) -> RenderableType:
    """Everything that people are shown."""
    speeds = Table(box=None, pad_edge=False)
    for n, title in enumerate(COLUMNS):
        speeds.add_column(title, justify="right" if n else "left")
    for entry in report.entries:
        if entry.missing is None:
            speeds.add_row(*cells(entry))
    parts: list[RenderableType] = ["\n".join(on_what(report)), "", speeds, ""]
    for names, entries in _by_phases(report):
        phases = Table(box=None, pad_edge=False)
        phases.add_column("share of an epoch")
        for name in names:
            phases.add_column(name, justify="right")
        for entry in entries:
            total = sum(entry.phases.values())
            shares = (f"{100 * entry.phases[name] / total:.0f} %" for name in names)
            phases.add_row(entry.name, *shares)
        parts += [phases, ""]
    parts += [f"missing: {e.name}: {e.missing}" for e in report.entries if e.missing]
    return Group(*parts)


def _by_phases(report: Report) -> Iterator[tuple[tuple[str, ...], list[Entry]]]:
    """Contenders that have the same phases."""
    kinds: dict[tuple[str, ...], list[Entry]] = {}
    for entry in report.entries:
        if entry.phases:
            kinds.setdefault(tuple(entry.phases), []).append(entry)
    yield from kinds.items()
