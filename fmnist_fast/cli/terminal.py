"""Standard output and standard error, whatever is behind them."""

import json
import os
import select
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

PROGRAM = "fmnist-fast"
EXIT_INTERRUPTED = 130

# Width of the widest line and table.
MIN_WIDTH = 120


def discard_stdout() -> None:
    """Discard what is still to be printed: the reader has closed the pipe, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def discard_closed(*streams: IO[str] | None) -> None:
    """Discard what is still to be printed on terminals and pipes that are closed."""
    for stream in filter(None, streams):
        with suppress(AttributeError, OSError):  # Windows has no poll; no file lies behind
            poll = select.poll()
            poll.register(stream, 0)  # only errors are reported
            if poll.poll(0):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def escape(text: str) -> str:
    """Return a text on one line, without characters that move the cursor or change colours."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fail(message: str, code: int = 2) -> int:
    """Print an error on one line of standard error; return the exit code."""
    with suppress(OSError):  # the terminal is closed
        print(f"{PROGRAM}: {escape(' '.join(message.split()))}", file=sys.stderr)
    return code


def print_json(document: Any) -> None:
    """Print one JSON document, with null for NaN and infinity, which JSON lacks."""
    finite = json.loads(json.dumps(document), parse_constant=lambda _: None)
    click.echo(json.dumps(finite))


def make_console(*, stderr: bool = False) -> "Console":
    """Return a console without markup: names from data sets and files are printed as they are."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            """Continue without output, where rich would end the process."""
            self.quiet = True
            discard_stdout()

    console = PipeConsole(stderr=stderr, markup=False, highlight=False)
    if not console.is_terminal:  # lines in a file need not be broken
        console.width = max(console.width, MIN_WIDTH)
    return console
