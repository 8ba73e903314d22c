"""The command `predict` for many inputs: answers into a file, by processes of this machine or by
the workers of a Dask scheduler.
"""

import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from math import prod
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from ..errors import DataError, MissingExtra, UserError
from .outputs import check_outputs
from .signals import catch_stop_signals
from .terminal import fail, make_console

if TYPE_CHECKING:
    from rich.console import Console

    from ..distributed.batch_predict.result_store import Partial
    from ..distributed.worker_pool import Fleet

__all__ = ["NOTHING_NAMED", "ManyInputs", "paths_in", "score_into"]

NOTHING_NAMED = "give images or folders, or a list of them with --inputs-from"

# Where lines are not replaced by newer ones, seconds between two of them.
LINE_SECONDS = 10


@dataclass(frozen=True)
class ManyInputs:
    """What `predict` was asked for, by the names of its options. images : files and folders.
    inputs_from : a file that names more of them.
    """

    images: Sequence[str]
    inputs_from: Path | None
    model: Path | None
    segmentation: str
    invert: bool
    backend: str
    as_json: bool
    out: Path
    workers: int | None
    scheduler: str | None
    column: str | None
    probabilities: bool
    force: bool
    quiet: bool

    def inputs(self) -> Iterator[str]:
        """Files and folders, in their order."""
        yield from self.images
        if self.inputs_from:
            yield from paths_in(self.inputs_from)


def paths_in(inputs_from: Path) -> Iterator[str]:
    """The paths in a file that has one a line, which may be any bytes that a path can have.

    Raises: UserError if a line has others.
    """
    with open(inputs_from, "rb") as file:
        for number, line in enumerate(file):
            path = line.rstrip(b"\r\n")
            if b"\0" in path:
                raise UserError(f"line {number + 1} of the list is no path: give one a line")
            if number == 0:  # some editors put it before everything
                path = path.removeprefix(BOM_UTF8)
            if path:
                yield os.fsdecode(path)


def score_into(asked: ManyInputs) -> int:
    """Score all inputs into the file; returns the exit code."""
    _load_engines()
    from .._cpu import usable_cores
    from ..distributed.batch_predict.job import model_to_workers, score_all, workers_identity
    from ..distributed.batch_predict.output import check_format, write_answers
    from ..distributed.batch_predict.result_store import open_partial, partial_path
    from ..distributed.batch_predict.sources import Inputs
    from ..distributed.batch_predict.worker import Scoring
    from ..distributed.worker_pool import open_fleet
    from ..vision.recognizer import Recognizer

    out, begin = asked.out, monotonic()
    check_format(out)
    check_outputs({"answers": out}, *_files_of(asked))
    if out.exists() and not asked.force:
        raise UserError(f"{out} exists already: name another file, or replace it with --force")
    model = Recognizer(asked.model, backend=asked.backend, threads=1).data_model
    of_workers = workers_identity(model)
    prepare = model_to_workers(asked.model, of_workers["backend"])
    identity = _identity(asked, of_workers["backend"]) | of_workers
    view = _Bar(make_console(stderr=True), asked.quiet)
    with (
        view,
        closing(Inputs(asked.inputs())) as inputs,
        open_partial(
            partial_path(out),
            identity | {"inputs": inputs.digest()},
            inputs.blocks(model.input_shape, asked.column),
            force=asked.force,
        ) as partial,
        catch_stop_signals() as stop,  # before, there is nothing yet to put in order
    ):
        if not partial.rows:
            partial.remove()
            raise UserError(NOTHING_NAMED)
        before = partial.done
        view.begin(partial)
        how = Scoring(
            identity["model"],
            identity["folder"],
            asked.segmentation,
            asked.invert,
            asked.probabilities,
        )
        try:
            if partial.done < partial.rows:
                workers = min(asked.workers or usable_cores(), partial.to_do())
                with open_fleet(asked.scheduler, workers, of_workers, prepare) as fleet:
                    score_all(
                        partial, how, prod(model.input_shape), fleet, view, lambda: bool(stop)
                    )
            complete = partial.done == partial.rows
            if complete:  # what is being written is written, whatever signal comes
                view.writing(partial, out)
                write_answers(partial, out, model.class_names, asked.probabilities, view.advance)
        except DataError as error:
            begin_anew = "begin anew with --force" if partial.done else "begin anew"
            raise UserError(f"{error}; mend that file or leave it out, and {begin_anew}") from error
        except UserError as error:
            raise UserError(f"{error}; {_kept(partial)}") from error
        if not complete:
            return fail(f"stopped; {_kept(partial)}", 128 + stop[0])
        partial.remove()
    result = _Result(str(out), partial.rows, partial.failed, before, monotonic() - begin)
    result.show(asked.as_json)
    return 1 if partial.failed else 0


def _files_of(asked: ManyInputs) -> Iterator[Path]:
    """What must not be written over."""
    yield from map(Path, asked.images)
    yield from filter(None, (asked.model, asked.inputs_from))


def _load_engines() -> None:
    try:
        for package in ("distributed", "pyarrow"):
            import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"answers into a file need Dask and Arrow ({error}): pip install 'fmnist-fast[sweep]'"
        ) from error


def _identity(asked: ManyInputs, backend: str) -> dict[str, Any]:
    """What must be the same for a command that was stopped to go on; the inputs must be, too."""
    from ..distributed.batch_predict.job import model_name

    return {
        "folder": os.getcwd(),
        "model": model_name(asked.model, backend),
        **{
            name: getattr(asked, name)
            for name in ("column", "probabilities", "segmentation", "invert")
        },
    }


def _kept(partial: "Partial") -> str:
    return (
        f"{partial.done:,} of {partial.rows:,} answers are kept in {partial.path}: the same "
        "command goes on"
    )


class _Bar:
    """On a terminal a bar; elsewhere now and then a line."""

    def __init__(self, console: "Console", quiet: bool) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
        from rich.table import Column

        self._console, self._quiet, self._last = console, quiet, monotonic()
        self._numbers = Column(no_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(table_column=self._numbers),
            TextColumn("{task.fields[workers]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", workers="", total=None)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, partial: "Partial") -> None:
        """It is known how much there is to do."""
        self._numbers.min_width = 2 * len(str(partial.rows)) + 1  # other columns give way
        self._bar.update(self._task, total=partial.rows, completed=partial.done)
        if partial.done:
            self.note(f"going on: {partial.done:,} of {partial.rows:,} answers are there already")

    def update(self, partial: "Partial", fleet: "Fleet") -> None:
        count = len(fleet.threads)
        workers = f"{count} worker{'s' * (count != 1)}" if count else "waiting for workers"
        self._bar.update(self._task, description="scoring", completed=partial.done, workers=workers)
        if self._bar.disable and monotonic() - self._last > LINE_SECONDS:
            self._last = monotonic()
            self.note(f"{partial.done:,} of {partial.rows:,} answers, {workers}")

    def note(self, message: str) -> None:
        if not self._quiet:
            self._console.print(message, soft_wrap=True)

    def writing(self, partial: "Partial", out: Path) -> None:
        """All answers are there, and now come into their file."""
        self._bar.reset(self._task, total=partial.rows, description=f"writing {out}", workers="")

    def advance(self, rows: int) -> None:
        """So many more are written."""
        self._bar.advance(self._task, rows)


@dataclass(frozen=True)
class _Result:
    """What came out. before : answers that an earlier command had left."""

    out: str
    rows: int
    failed: int
    before: int
    seconds: float

    def show(self, as_json: bool) -> None:
        if as_json:
            click.echo(json.dumps(asdict(self)))
            return
        line = (
            f"saved {self.out}: {self.rows:,} row{'s' * (self.rows != 1)} in {self.seconds:.1f} s"
        )
        if self.failed:
            line += f", {self.failed:,} without an answer: column error says why"
        click.echo(line)
