"""Runs the command `predict --out`: predictions of many inputs into a file, by Dask workers."""

import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import chain
from math import prod
from pathlib import Path
from time import monotonic
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from .._cpu import usable_cores
from ..distributed.batch_predict.job import (
    PredictObserver,
    model_name,
    model_to_workers,
    predict_all,
    workers_identity,
)
from ..distributed.batch_predict.output import check_format, write_predictions
from ..distributed.batch_predict.result_store import ResultStore, open_results
from ..distributed.batch_predict.sources import Inputs
from ..distributed.batch_predict.worker import PredictConfig
from ..distributed.worker_pool import WorkerPool, open_pool
from ..errors import DataError, UserError
from ..vision.recognizer import Recognizer
from .outputs import check_outputs
from .predict import NO_INPUTS, paths_in
from .signals import catch_stop_signals
from .terminal import fail, make_console

# Seconds between two lines where the output is not a terminal.
LINE_SECONDS = 10


def batch_predict(
    *,
    images: Sequence[str],
    inputs_from: Path | None,
    model: Path | None,
    backend: str,
    as_json: bool,
    out: Path,
    workers: int | None,
    scheduler: str | None,
    column: str | None,
    force: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Predict all inputs into the file `out`; return the exit code. options : of PredictConfig."""
    begin = monotonic()
    check_format(out)
    read_files = filter(None, (*map(Path, images), model, inputs_from))
    check_outputs({"predictions": out}, *read_files)
    if out.exists() and not force:
        raise UserError(f"{out} exists already: name another file, or replace it with --force")
    data_model = Recognizer(model, backend=backend, threads=1).data_model
    of_workers = workers_identity(data_model)
    backend = of_workers["backend"]
    config = PredictConfig(model=model_name(model, backend), folder=os.getcwd(), **options)
    identity = {"column": column, **asdict(config), **of_workers}
    named = chain(images, paths_in(inputs_from) if inputs_from else ())
    view = _View(make_console(stderr=True), quiet)
    with (
        view.bar,
        closing(Inputs(named)) as inputs,
        open_results(
            out.with_name(f"{out.name}.partial"),
            identity | {"inputs": inputs.digest()},
            inputs.blocks(data_model.input_shape, column),
            force=force,
        ) as store,
        catch_stop_signals() as stop,  # before, nothing needs to be put in order
    ):
        if not store.rows:
            store.remove()
            raise UserError(NO_INPUTS)
        before = store.done
        view.begin(store)
        try:
            if store.done < store.rows:
                with open_pool(
                    scheduler,
                    min(workers or usable_cores(), store.blocks_left()),
                    of_workers,
                    model_to_workers(model, backend),
                ) as pool:
                    size = prod(data_model.input_shape)
                    predict_all(store, config, size, pool, view, lambda: bool(stop))
            complete = store.done == store.rows
            if complete:  # then a signal does not stop the writing
                view.begin_writing(store, out)
                names = data_model.class_names
                write_predictions(store, out, names, config.probabilities, view.advance)
        except DataError as error:
            anew = "begin anew with --force" if store.done else "begin anew"
            raise UserError(f"{error}; mend that file or leave it out, and {anew}") from error
        except UserError as error:
            if not stop:  # else workers were stopped, too
                raise UserError(f"{error}; {_kept(store)}") from error
            complete = False
        if not complete:
            return fail(f"stopped; {_kept(store)}", 128 + stop[0])
        store.remove()
    seconds = monotonic() - begin
    if as_json:
        document = {
            "out": str(out),
            "rows": store.rows,
            "failed": store.failed,
            "before": before,
            "seconds": seconds,
        }
        click.echo(json.dumps(document))
    else:
        line = f"saved {out}: {store.rows:,} row{'s' * (store.rows != 1)} in {seconds:.1f} s"
        if store.failed:
            line += f", {store.failed:,} without a prediction: see the column error"
        click.echo(line)
    return 1 if store.failed else 0


def _kept(store: ResultStore) -> str:
    """Say what is stored, and how to resume."""
    return (
        f"{store.done:,} of {store.rows:,} predictions are kept in {store.path}: the same command "
        "resumes it"
    )


class _View(PredictObserver):
    """Progress bar on a terminal; elsewhere a line every LINE_SECONDS."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet, self._printed = console, quiet, monotonic()
        self._counts = Column(no_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(table_column=self._counts),
            TextColumn("{task.fields[workers]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self.bar.add_task("starting", workers="", total=None)
        self.advance = lambda rows: self.bar.advance(self._task, rows)

    def begin(self, store: ResultStore) -> None:
        self._counts.min_width = 2 * len(str(store.rows)) + 1  # other columns shrink
        self.bar.update(self._task, total=store.rows, completed=store.done)
        if store.done:
            self.note(f"resuming: {store.done:,} of {store.rows:,} predictions are there already")

    def update(self, store: ResultStore, pool: WorkerPool) -> None:
        count = len(pool.threads)
        workers = f"{count} worker{'s' * (count != 1)}" if count else "waiting for workers"
        self.bar.update(self._task, description="predicting", completed=store.done, workers=workers)
        if self.bar.disable and monotonic() - self._printed > LINE_SECONDS:
            self._printed = monotonic()
            self.note(f"{store.done:,} of {store.rows:,} predictions, {workers}")

    def note(self, message: str) -> None:
        if not self._quiet:
            self._console.print(message, soft_wrap=True)

    def begin_writing(self, store: ResultStore, out: Path) -> None:
        self.bar.reset(self._task, total=store.rows, description=f"writing {out}", workers="")
