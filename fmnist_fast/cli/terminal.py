"""Standard output and standard error, whatever is behind them."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["INTERRUPTED", "PROGRAM", "console_of", "fail", "ignore_output", "number_or_none"]

PROGRAM = "fmnist-fast"
INTERRUPTED = 130

# Width that the widest line and table need.
MIN_WIDTH = 120


def ignore_output() -> None:
    """The reader of standard output has had enough, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int = 2) -> int:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    return code


def console_of(*, stderr: bool = False) -> "Console":
    """Plain text goes out as it is: names from data sets and files are never markup."""
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Go on without anybody who reads, where rich would end the process."""
            self.quiet = True
            ignore_output()

    console = Quiet(stderr=stderr, markup=False, highlight=False)
    if not console.is_terminal:  # a file has no width that lines would have to be broken for
        console.width = max(console.width, MIN_WIDTH)
    return console


def number_or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if value == value else None
