"""Text report of `fmnist-fast bench`: a table of speeds, and one of the phases of an epoch."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ..bench.measurement import Entry, Report
from .report import make_table

COLUMNS = ("", "s/epoch", "min", "samples/s", "GFLOP/s", "of peak", "x numpy", "1 image", "10,000")


def source_lines(report: Report) -> Iterator[str]:
    """Yield lines with the workload, the machine, the versions, and reasons for doubt."""
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
    """Return a contender's row, for COLUMNS."""

    def number(value: float | None, form: str, factor: float = 1, unit: str = "") -> str:
        return "" if value is None else format(factor * value, form) + unit

    return (
        entry.name,
        number(entry.seconds_median, ".3f"),
        number(entry.seconds_min, ".3f"),
        number(entry.samples_per_second, ",.0f"),
        number(entry.gflops, ".0f"),
        number(entry.of_peak, ".2f"),
        number(entry.speedup, ".2f"),
        number(entry.one_image_median, ".1f", 1e6, " us"),
        number(entry.images_median, ".1f", 1e3, " ms"),
    )


def print_report(report: Report, console: Console) -> None:
    """Print the source, the tables, and what is missing."""
    for line in source_lines(report):
        console.print(line, soft_wrap=True)
    for table in _tables(report):
        console.print()
        console.print(table)
    console.print()
    for entry in report.entries:
        if entry.missing:
            console.print(f"missing: {entry.name}: {entry.missing}", soft_wrap=True)


def _tables(report: Report) -> Iterator[Table]:
    """Yield the table of speeds, and one of phases for each set of phases."""
    speeds = make_table(*COLUMNS, collapse_padding=True)
    for column in speeds.columns:
        column.no_wrap = True
    for entry in report.entries:
        if entry.missing is None:
            speeds.add_row(*cells(entry))
    yield speeds
    phased = [entry for entry in report.entries if entry.phase_seconds]
    for names in dict.fromkeys(tuple(entry.phase_seconds) for entry in phased):
        phases = make_table("fraction of an epoch", *names)
        for entry in phased:
            if tuple(entry.phase_seconds) == names:
                total = sum(entry.phase_seconds.values())
                fractions = (f"{100 * s / total:.0f} %" for s in entry.phase_seconds.values())
                phases.add_row(entry.name, *fractions)
        yield phases
