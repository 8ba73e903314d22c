"""Puts what `fmnist-fast bench --json` measured into the pages: tables and the picture.

    fmnist-fast bench --peers --rounds 9 --json > docs/bench.json
    python benchmarks/quote.py

So no figure of these tables is typed by hand; tests/test_readme.py holds that.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from fmnist_fast.bench.measurement import Entry, Report
from fmnist_fast.cli.bench_table import COLUMNS, cells, on_what
from fmnist_fast.cli.plots import plot_speeds

ROOT = Path(__file__).parent.parent
RESULTS_FILE, PICTURE = ROOT / "docs" / "bench.json", ROOT / "docs" / "bench.png"
SHORT, LONG = ROOT / "README.md", ROOT / "benchmarks" / "README.md"


def short_entries(report: Report) -> Iterator[Entry]:
    """Without the instruction sets that nobody takes who has a better one."""
    seen = set()
    for entry in report.entries:
        backend = entry.name.split()[0]
        if backend not in seen and entry.missing is None:
            seen.add(backend)
            yield entry


def table(entries: list[Entry]) -> Iterator[str]:
    """In Markdown."""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "| --- |" + " ---: |" * (len(COLUMNS) - 1)
    for entry in entries:
        yield "| " + " | ".join(cells(entry)) + " |"


def phases(report: Report) -> Iterator[str]:
    """In Markdown: milliseconds of an epoch by phase."""
    split = [entry for entry in report.entries if "barrier" in entry.phase_seconds]
    names = list(split[0].phase_seconds) if split else []
    yield "| ms an epoch | " + " | ".join(names) + " |"
    yield "| --- |" + " ---: |" * len(names)
    for entry in split:
        yield (
            "| "
            + " | ".join([entry.name, *(f"{1e3 * entry.phase_seconds[n]:.1f}" for n in names)])
            + " |"
        )


def source(report: Report) -> str:
    """What was measured, on what, when and with what, a line each."""
    return "\\\n".join(on_what(report))


def short_block(report: Report) -> str:
    """For the project's README."""
    return "\n".join([*table(list(short_entries(report))), "", source(report), ""])


def long_block(report: Report) -> str:
    """For benchmarks/README.md."""
    there = [entry for entry in report.entries if entry.missing is None]
    return "\n".join([*table(there), "", *phases(report), "", source(report), ""])


def replaced(page: str, block: str, mark: str = "measured") -> str:
    """The page with the block between the marks of that name."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + block + end + after


def main() -> None:
    """Rewrite both pages and the picture."""
    report = Report.from_json(json.loads(RESULTS_FILE.read_text()))
    for page, block in ((SHORT, short_block(report)), (LONG, long_block(report))):
        page.write_text(replaced(page.read_text(), block))
    plot_speeds(report, PICTURE)


if __name__ == "__main__":
    main()
