"""Markdown tables, and the blocks of pages that the scripts of this folder write."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from fmnist_fast.models.load import PRETRAINED

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MODEL_CARD = PRETRAINED.with_name("MODEL_CARD.md")


def markdown_table(
    titles: Sequence[str], rows: Iterable[Iterable[str]], left: Collection[str] = ()
) -> Iterator[str]:
    """Yield the lines of a table. left : columns of text, beside the first one."""
    marks = ["---" if title in (titles[0], *left) else "---:" for title in titles]
    for cells in (titles, marks, *rows):
        yield f"| {' | '.join(cells)} |"


def replace_block(page: str, lines: Iterable[str], mark: str = "measured") -> str:
    """Return the page with these lines between the marks of that name."""
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return before + begin + "".join(f"{line}\n" for line in lines) + end + after


def write_block(path: Path, lines: Iterable[str], mark: str = "measured") -> None:
    """Write these lines between the marks of that name in a file."""
    page = path.read_text(encoding="utf-8")
    path.write_text(replace_block(page, lines, mark), encoding="utf-8")
