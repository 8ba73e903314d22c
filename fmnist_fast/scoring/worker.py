"""A block on a worker of a cluster: inputs in, answers out."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..ensemble import members_of
from ..errors import DataError, UserError
from ..images import read_picture
from ..recognise import Recogniser
from .blocks import Block, Chunk, Encoded
from .reading import read

__all__ = ["Absent", "Scored", "Scoring", "Trouble", "keep_model", "score"]

# Pixels on the longer side that a picture is made small to before anything is looked for on it.
LONGEST = 512

# Models that this process was given, by what they are called.
_MODELS: dict[str, Recogniser] = {}


@dataclass(frozen=True)
class Scoring:
    """How blocks are scored. model : what workers call it. root : what relative paths are relative
    to. cutout, invert : as for Recogniser.recognise. probabilities : of all classes, too.
    """

    model: str
    root: str
    cutout: str
    invert: bool
    probabilities: bool


@dataclass(frozen=True)
class Scored:
    """answers : a record batch, as a stream of Arrow's. rows, failed : how many there are, and how
    many have no answer. plain : pictures that were cut out by the method for where OpenCV is not.
    """

    answers: bytes
    rows: int
    failed: int
    plain: int


@dataclass(frozen=True)
class Absent:
    """This worker cannot read the files: they must be sent."""


@dataclass(frozen=True)
class Trouble:
    """No worker can score this block."""

    why: str


def keep_model(name: str, content: bytes | None, backend: str) -> None:
    """Load the model, for blocks to come. content : its file; None: those in the package."""
    if name in _MODELS:
        return
    if content is None:
        _MODELS[name] = Recogniser(backend=backend, threads=1)
        return
    with tempfile.TemporaryDirectory(prefix="fmnist-fast-") as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        _MODELS[name] = Recogniser(path, backend=backend, threads=1)


def score(block: Block, chunks: Sequence[Chunk] | None, how: Scoring) -> Scored | Absent | Trouble:
    """The answers of a block. chunks : what is in it; None: read it from its files."""
    recogniser = _MODELS[how.model]
    answers = _Answers()
    try:
        width, height = recogniser.size
        for chunk in read(block, how.root, width * height) if chunks is None else chunks:
            if isinstance(chunk, list):
                _of_pictures(chunk, recogniser, how, answers)
            else:
                _of_rows(chunk, recogniser, answers)
    except OSError as error:
        return Absent() if chunks is None else Trouble(f"{error.filename}: {error.strerror}")
    except DataError as error:
        return Absent() if chunks is None else Trouble(str(error))
    except UserError as error:
        return Trouble(str(error))
    except MemoryError:
        return Trouble("there is not enough memory for a block")
    return answers.packed(how.probabilities)


@dataclass
class _Answers:
    """Of the rows so far."""

    probability: list[NDArray] = field(default_factory=list)
    sure: list[bool | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    plain: int = 0

    def packed(self, probabilities: bool) -> Scored:
        probability_nk = np.concatenate(self.probability)
        absent = np.array([error is not None for error in self.errors])
        columns = {
            "label": pa.array(probability_nk.argmax(axis=1).astype(np.int32), mask=absent),
            "probability": _floats(probability_nk.max(axis=1), absent),
            "sure": pa.array(
                [None if error else sure for sure, error in zip(self.sure, self.errors)],
                pa.bool_(),
            ),
            "error": pa.array(self.errors, pa.string()),
        }
        if probabilities:
            columns |= {f"p_{k}": _floats(p, absent) for k, p in enumerate(probability_nk.T)}
        batch = pa.RecordBatch.from_pydict(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        rows = len(absent)
        return Scored(sink.getvalue().to_pybytes(), rows, int(absent.sum()), self.plain)


def _floats(numbers: NDArray, absent: NDArray) -> pa.Array:
    return pa.array(np.ascontiguousarray(numbers, np.float32), mask=absent)


def _of_rows(rows: NDArray, recogniser: Recogniser, answers: _Answers) -> None:
    """Of rows of numbers; those that no network takes have a reason in place of an answer."""
    model = recogniser.data_model
    rows = rows.reshape(len(rows), *model.input_shape)
    errors: list[str | None] = [None] * len(rows)
    if rows.dtype != np.uint8:
        unit_range = members_of(model)[0].network.scale != 1
        fits_n = _fitting(rows, unit_range)
        for n in np.flatnonzero(~fits_n):
            errors[n] = "it holds numbers outside of 0..1" if unit_range else "it holds NaN"
        rows = np.where(fits_n.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)
    probability_nk = model.predict_proba(rows)
    answers.probability.append(probability_nk)
    answers.errors += errors
    if model.threshold is None:
        answers.sure += [None] * len(rows)
    else:
        answers.sure += (probability_nk.max(axis=1) >= model.threshold).tolist()


def _fitting(rows: NDArray, unit_range: bool) -> NDArray[np.bool_]:
    """Which rows of floats a network takes."""
    flat = rows.reshape(len(rows), -1)
    within = (flat >= 0) & (flat <= 1) if unit_range else np.isfinite(flat)
    return np.asarray(within.all(axis=1))


def _of_pictures(
    pictures: Iterable[Encoded], recogniser: Recogniser, how: Scoring, answers: _Answers
) -> None:
    """Of pictures; those that cannot be read have a reason in place of an answer."""
    for encoded in pictures:
        try:
            if encoded.why_not:
                raise DataError(encoded.why_not)
            content = BytesIO(encoded.content)
            picture = read_picture(content, longest=LONGEST, accepted=recogniser.size)
            answer = recogniser.recognise(picture, how.cutout, how.invert)
        except DataError as error:
            classes = len(recogniser.data_model.class_names)
            answers.probability.append(np.zeros((1, classes), np.float32))
            answers.sure.append(None)
            answers.errors.append(str(error))
            continue
        answers.probability.append(answer.probability_k[None])
        answers.sure.append(answer.sure)
        answers.errors.append(None)
        answers.plain += answer.prepared.method == "plain"
