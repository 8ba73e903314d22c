"""The command `predict`: classify image files, to standard output or into a file of results."""

import json
import os
import shutil
import sys
import tempfile
import warnings
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import click

from .._cpu import usable_cores
from ..errors import DataError, UserError
from ..vision.image_io import SUFFIXES, read_picture
from ..vision.recognizer import Recognizer
from ..vision.segmentation import OPENCV_MISSING
from .lazy import call
from .options import check_workers
from .report import percent
from .terminal import escape, make_console

NO_INPUTS = "give images or folders, or a list of them with --inputs-from"

# Images that are being read, or whose predictions wait to be printed, for each thread.
QUEUED_PER_THREAD = 4

# Options that need --out.
BATCH_OPTIONS = ("out", "workers", "scheduler", "column", "probabilities", "force", "quiet")

# Photographs are read at this size: more pixels change no prediction.
LONGEST_SIDE = 512

# Fewer images than this need no progress bar.
MIN_FOR_BAR = 20


def predict(
    *, images: Sequence[str], inputs_from: Path | None, threads: int | None, **options: Any
) -> int:
    """Run the command; return the exit code."""
    if not images and inputs_from is None:
        raise UserError(NO_INPUTS)
    with _rereadable(inputs_from) as inputs_from:
        if options["out"]:
            if threads:
                raise UserError("--threads and --out cannot be combined: give --workers")
            workers = options["workers"]
            check_workers(workers, bool(workers), options["scheduler"])
            target, packages = "batch_predict:batch_predict", ("distributed", "pyarrow")
            code: int = call(target, packages, images=images, inputs_from=inputs_from, **options)
            return code
        for name in BATCH_OPTIONS:
            if options[name]:
                raise UserError(f"--{name} needs --out: name the file for the predictions")
        if sys.stdout is None:
            raise UserError("standard output is closed, and the predictions would be lost")
        recognizer = Recognizer(options["model"], backend=options["backend"], threads=1)
        named = chain(images, paths_in(inputs_from) if inputs_from else ())
        paths = list(chain.from_iterable(map(_image_files, named)))
        if not paths:
            raise UserError(NO_INPUTS)
        method, threads = options["segmentation"], threads or usable_cores()
        predictions = predict_files(recognizer, paths, method, options["invert"], threads)
        return _print_predictions(predictions, len(paths), method, options["as_json"])


def paths_in(inputs_from: Path) -> Iterator[str]:
    """Yield the paths in a file that has one a line, of any bytes that a path can have.

    Raises: UserError if a line is not a path.
    """
    with open(inputs_from, "rb") as file:
        for number, line in enumerate(file, start=1):
            path = line.rstrip(b"\r\n")
            if b"\0" in path:
                raise UserError(f"line {number} of the list is not a path: give one a line")
            if number == 1:  # some editors write a byte order mark
                path = path.removeprefix(BOM_UTF8)
            if path:
                yield os.fsdecode(path)


@contextmanager
def _rereadable(inputs_from: Path | None) -> Iterator[Path | None]:
    """Yield the list of inputs as a file that can be read more than once."""
    if inputs_from is None or (inputs_from != Path("-") and inputs_from.is_file()):
        yield inputs_from
        return
    if inputs_from == Path("-") and sys.stdin is None:
        raise UserError("standard input is closed: name a file with --inputs-from")
    with (
        tempfile.NamedTemporaryFile(prefix="fmnist-fast-") as file,
        click.open_file(str(inputs_from), "rb") as pipe,  # - or one of the shell's, <(find .)
    ):
        shutil.copyfileobj(pipe, file)
        file.flush()
        yield Path(file.name)


def _image_files(path: str) -> list[str]:
    """Return the file itself, or all image files in a folder and its subfolders, sorted."""
    if not os.path.isdir(path):  # also False for a name that no file can have
        return [path]
    found = (file for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
    files = sorted(str(file) for file in found if not file.is_dir())
    if not files:
        raise UserError(f"{path} is a folder without images: name one with .png or .jpg files")
    return files


def predict_files(
    recognizer: Recognizer, paths: Sequence[str], segmentation: str, invert: bool, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield `predict_file` of every path, in their order, with a bounded number in memory."""
    pool = ThreadPoolExecutor(threads)
    queue: deque[Future[dict[str, Any]]] = deque()
    try:
        for path in paths:
            queue.append(pool.submit(predict_file, recognizer, path, segmentation, invert))
            if len(queue) > QUEUED_PER_THREAD * threads:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def predict_file(
    recognizer: Recognizer, path: str, segmentation: str, invert: bool
) -> dict[str, Any]:
    """Return the prediction of one image, or its error, as in the output of --json."""
    try:
        picture = read_picture(Path(path), max_side=LONGEST_SIDE, accepted=recognizer.size)
        prediction = recognizer.recognize(picture, segmentation, invert)
    except DataError as error:
        return {"path": path, "error": str(error)}
    top = [{"label": label, "name": name, "probability": p} for label, name, p in prediction.top()]
    return {
        "path": path,
        **top[0],
        "top": top,
        "confident": prediction.is_confident,
        "model": prediction.model_name,
        "segmentation": prediction.preprocessed.method,
        "notes": list(prediction.preprocessed.notes),
    }


def _print_predictions(
    predictions: Iterator[dict[str, Any]], count: int, segmentation: str, as_json: bool
) -> int:
    """Print as they come, with a progress bar for many on a terminal; return the exit code."""
    from rich.progress import Progress

    console = make_console(stderr=True)
    hidden = count < MIN_FOR_BAR or not console.is_terminal
    failed, methods, separator = 0, set(), "["
    try:
        with Progress(console=console, transient=True, disable=hidden) as progress:
            for prediction in progress.track(predictions, total=count, description="images"):
                failed += "error" in prediction
                methods.add(prediction.get("segmentation"))
                if as_json:
                    click.echo(separator + json.dumps(prediction))
                    separator = ","
                else:
                    _print_line(prediction)
    finally:
        if as_json:  # also after Ctrl-C
            click.echo("]" if separator == "," else "[]")
    if segmentation == "auto" and "histogram" in methods:
        warnings.warn(OPENCV_MISSING, stacklevel=1)
    return 1 if failed else 0


def _print_line(prediction: dict[str, Any]) -> None:
    path = escape(prediction["path"])
    if "error" in prediction:
        click.echo(f"{path}: {prediction['error']}", err=True)
        return
    top = ", ".join(
        f"{entry['name']} {percent(entry['probability'])}" for entry in prediction["top"]
    )
    notes = "".join(f" ({note})" for note in prediction["notes"])
    doubt = "not confident: " if prediction["confident"] is False else ""
    click.echo(f"{path}: {doubt}{top}{notes}")
