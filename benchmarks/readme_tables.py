"""Writes the results of `fmnist-fast bench --json` into the READMEs, as tables and a plot.

    fmnist-fast bench --peers --rounds 9 --json > docs/bench.json
    python benchmarks/readme_tables.py

tests/test_readme.py checks that the tables are those of docs/bench.json.
"""

import json
from collections.abc import Iterator

from markdown_tables import README, ROOT, markdown_table, write_block

from fmnist_fast.bench.measurement import Report
from fmnist_fast.cli.bench_table import COLUMNS, cells, source_lines
from fmnist_fast.cli.plots import plot_speeds

RESULTS_FILE, PLOT = ROOT / "docs" / "bench.json", ROOT / "docs" / "bench.png"
BENCHMARKS_README = ROOT / "benchmarks" / "README.md"


def phase_table(report: Report) -> Iterator[str]:
    """Yield the lines of the table of phases."""
    entries = [entry for entry in report.entries if "barrier" in entry.phase_seconds]
    names = list(entries[0].phase_seconds) if entries else []
    rows = (
        [entry.name, *(f"{1e3 * entry.phase_seconds[name]:.1f}" for name in names)]
        for entry in entries
    )
    yield from markdown_table(["ms an epoch", *names], rows)


def readme_block(report: Report) -> Iterator[str]:
    """Yield the lines of the project's README: the best instruction set of each backend."""
    yield from markdown_table(COLUMNS, map(cells, report.best_entries().values()))
    yield from ("", "\\\n".join(source_lines(report)))


def benchmarks_block(report: Report) -> Iterator[str]:
    """Yield the lines of benchmarks/README.md."""
    measured = [entry for entry in report.entries if entry.missing is None]
    yield from markdown_table(COLUMNS, map(cells, measured))
    yield from ("", *phase_table(report), "", "\\\n".join(source_lines(report)))


def main() -> None:
    """Rewrite both pages and the plot."""
    report = Report.from_json(json.loads(RESULTS_FILE.read_text()))
    write_block(README, readme_block(report))
    write_block(BENCHMARKS_README, benchmarks_block(report))
    plot_speeds(report, PLOT)


if __name__ == "__main__":
    main()
