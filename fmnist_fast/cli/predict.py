"""The command `predict`."""

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UserError
from .batch_predict import NOTHING_NAMED, ManyInputs, paths_in, score_into
from .options import check_workers
from .terminal import console_of

if TYPE_CHECKING:
    from ..vision.recognizer import Recognizer

__all__ = ["predict"]

# Pictures that are looked at or wait to be printed, for each thread.
AHEAD = 4


def predict(
    model: Path | None,
    images: tuple[str, ...],
    inputs_from: Path | None,
    segmentation: str,
    invert: bool,
    backend: str,
    threads: int | None,
    as_json: bool,
    **many: Any,
) -> int:
    with _readable_list(inputs_from) as inputs_from:
        if not images and inputs_from is None:
            raise UserError(NOTHING_NAMED)
        if many["out"]:
            if threads:
                raise UserError("--threads and --out do not go together: give --workers")
            check_workers(many["workers"], bool(many["workers"]), many["scheduler"])
            return score_into(
                ManyInputs(
                    images, inputs_from, model, segmentation, invert, backend, as_json, **many
                )
            )
        for option in ("workers", "scheduler", "column", "probabilities", "force", "quiet"):
            if many[option]:
                raise UserError(f"--{option} is for --out: say where the answers go")
        return _print_answers(
            images, inputs_from, model, (segmentation, invert), backend, threads, as_json
        )


@contextmanager
def _readable_list(inputs_from: Path | None) -> Iterator[Path | None]:
    """The list as a file that can be read more than once."""
    if inputs_from is None or (inputs_from != Path("-") and inputs_from.is_file()):
        yield inputs_from
        return
    if inputs_from == Path("-") and sys.stdin is None:
        raise UserError("standard input is closed: give --inputs-from a file")
    with (
        tempfile.NamedTemporaryFile(prefix="fmnist-fast-") as file,
        click.open_file(str(inputs_from), "rb") as pipe,  # - or one of the shell's, <(find .)
    ):
        shutil.copyfileobj(pipe, file)
        file.flush()
        yield Path(file.name)


def _print_answers(
    images: tuple[str, ...],
    inputs_from: Path | None,
    model: Path | None,
    how: tuple[str, bool],
    backend: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Answers to standard output; returns the exit code. how : segmentation and invert."""
    from .._cpu import usable_cores
    from ..vision.recognizer import Recognizer
    from ..vision.segmentation import WITHOUT_OPENCV

    if sys.stdout is None:
        raise UserError("standard output is closed, and the answers would be lost")
    recogniser = Recognizer(model, backend=backend, threads=1)
    named = chain(images, paths_in(inputs_from) if inputs_from else ())
    paths = list(chain.from_iterable(map(_files, named)))
    failed = plain = 0
    if not paths:
        raise UserError(NOTHING_NAMED)
    with _Output(len(paths), as_json) as output:
        for answer in _answers(recogniser, paths, how, threads or usable_cores()):
            failed += "error" in answer
            plain += answer.get("segmentation") == "plain"
            output.show(answer)
    if plain and how[0] == "auto":
        warnings.warn(WITHOUT_OPENCV, stacklevel=1)
    return 1 if failed else 0


def _files(path: str) -> list[str]:
    """The file itself, or all files in a folder that look like images, in the order of names."""
    from ..vision.image_io import SUFFIXES

    if not os.path.isdir(path):  # which is False too for a name that no file can have
        return [path]
    found = (file for file in Path(path).rglob("*") if file.suffix.lower() in SUFFIXES)
    files = sorted(str(file) for file in found if not file.is_dir())
    if not files:
        raise UserError(f"{path} is a folder without images: name one with .png or .jpg files")
    return files


def _answers(
    recogniser: "Recognizer", paths: list[str], how: tuple[str, bool], threads: int
) -> Iterator[dict[str, Any]]:
    """In the order of the paths, a few at once: memory does not grow with their number."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[dict[str, Any]]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(_answer, recogniser, path, how))
            if len(waiting) > AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answer(recogniser: "Recognizer", path: str, how: tuple[str, bool]) -> dict[str, Any]:
    """One entry of the output."""
    from ..errors import DataError
    from ..vision.image_io import read_picture

    try:
        picture = read_picture(Path(path), longest=512, accepted=recogniser.size)
        answer = recogniser.recognize(picture, *how)
    except DataError as error:
        return {"path": path, "error": str(error)}
    top = [{"label": label, "name": name, "p": p} for label, name, p in answer.top()]
    return {
        "path": path,
        "label": answer.label,
        "name": top[0]["name"],
        "probability": top[0]["p"],
        "top": top,
        "confident": answer.is_confident,
        "model": answer.model_name,
        "segmentation": answer.prepared.method,
        "notes": list(answer.prepared.notes),
    }


class _Output:
    """Lines for people, or one JSON array; and on a terminal a bar for many images."""

    def __init__(self, count: int, as_json: bool) -> None:
        from rich.progress import Progress

        self._as_json, self._shown = as_json, 0
        console = console_of(stderr=True)
        self._bar = Progress(
            console=console, transient=True, disable=count < 20 or not console.is_terminal
        )
        self._task = self._bar.add_task("images", total=count)

    def __enter__(self) -> "_Output":
        self._bar.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._bar.stop()
        if self._as_json and kind in (None, KeyboardInterrupt):
            click.echo("]" if self._shown else "[]")

    def show(self, answer: dict[str, Any]) -> None:
        """One more."""
        self._bar.advance(self._task)
        if self._as_json:
            click.echo(("," if self._shown else "[") + json.dumps(answer))
        elif "error" in answer:
            click.echo(f"{_printable(answer['path'])}: {answer['error']}", err=True)
        else:
            click.echo(_line(answer))
        self._shown += 1


def _line(answer: dict[str, Any]) -> str:
    from .report import percent

    top = ", ".join(f"{entry['name']} {percent(entry['p'])}" for entry in answer["top"])
    notes = "".join(f" ({note})" for note in answer["notes"])
    doubt = "not sure: " if answer["confident"] is False else ""
    return f"{_printable(answer['path'])}: {doubt}{top}{notes}"


def _printable(path: str) -> str:
    """The name on one line: what would move the cursor or change colours is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in path)
