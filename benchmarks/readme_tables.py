"""Writes the results of `fmnist-fast bench --json` into the READMEs, as tables and a plot.

    fmnist-fast bench --peers --rounds 9 --json > docs/bench.json
    python benchmarks/readme_tables.py

tests/test_readme.py checks that the tables are those of docs/bench.json.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from fmnist_fast.bench.measurement import Entry, Report
from fmnist_fast.cli.bench_table import COLUMNS, cells, source_lines
from fmnist_fast.cli.plots import plot_speeds

ROOT = Path(__file__).parent.parent
RESULTS_FILE, PLOT = ROOT / "docs" / "bench.json", ROOT / "docs" / "bench.png"
README, BENCHMARKS_README = ROOT / "README.md", ROOT / "benchmarks" / "README.md"


def speed_table(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the lines of the table of speeds."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| --- |" + " ---: |" * (len(COLUMNS) - 1)
    for entry in entries:
        yield "| " + " | ".join(cells(entry)) + " |"


def phase_table(report: Report) -> Iterator[str]:
    """Yield the lines of the table of phases."""
    entries = [entry for entry in report.entries if "barrier" in entry.phase_seconds]
    names = list(entries[0].phase_seconds) if entries else []
    yield "| ms an epoch | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for entry in entries:
        milliseconds = (f"{1e3 * entry.phase_seconds[name]:.1f}" for name in names)
        yield f"| {entry.name} | {' | '.join(milliseconds)} |"


def source(report: Report) -> str:
    """Return the lines below the tables."""
    return "\\\n".join(source_lines(report))


def readme_block(report: Report) -> str:
    """Return the table of the project's README: one instruction set for each backend, the best."""
    best: dict[str, Entry] = {}
    for entry in report.entries:
        if entry.missing is None:
            best.setdefault(entry.name.split()[0], entry)
    return "\n".join([*speed_table(best.values()), "", source(report), ""])


def benchmarks_block(report: Report) -> str:
    """Return the tables of benchmarks/README.md."""
    measured = [entry for entry in report.entries if entry.missing is None]
    return "\n".join([*speed_table(measured), "", *phase_table(report), "", source(report), ""])


def replace_block(page: str, block: str, mark: str = "measured") -> str:
    """Return the page with the block between the marks of that name."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + block + end + after


def main() -> None:
    """Rewrite both pages and the plot."""
    report = Report.from_json(json.loads(RESULTS_FILE.read_text()))
    README.write_text(replace_block(README.read_text(), readme_block(report)))
    page = replace_block(BENCHMARKS_README.read_text(), benchmarks_block(report))
    BENCHMARKS_README.write_text(page)
    plot_speeds(report, PLOT)


if __name__ == "__main__":
    main()
