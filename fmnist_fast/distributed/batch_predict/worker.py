"""A block on a worker of a cluster: inputs in, answers out."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import ArgumentError, DataError, UserError
from ...models.ensemble import members_of
from ...vision.image_io import read_picture
from ...vision.recognizer import Recognizer
from ...vision.segmentation import limit_opencv_threads
from .blocks import Block, Chunk, Encoded, FlawedRows
from .readers import read

__all__ = ["Absent", "Scored", "Scoring", "Trouble", "keep_model", "score"]

# Pixels on the longer side that a picture is made small to before anything is looked for on it.
LONGEST = 512

# Where no model says what can be relied on.
UNKNOWN = -1

# Models that this process was given, by what they are called.
_MODELS: dict[str, Recognizer] = {}


@dataclass(frozen=True)
class Scoring:
    """How blocks are scored. model : what workers call it. root : what relative paths are relative
    to. segmentation, invert : as for Recognizer.recognize. probabilities : of all classes, too.
    """

    model: str
    root: str
    segmentation: str
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
    """No worker can score this block. of_file : since its file is damaged, or cannot be read."""

    why: str
    of_file: bool


def keep_model(name: str, content: bytes | None, backend: str) -> None:
    """Load the model, for blocks to come. content : its file; None: those in the package."""
    limit_opencv_threads()
    if name in _MODELS:
        return
    if content is None:
        _MODELS[name] = Recognizer(backend=backend, threads=1)
        return
    with tempfile.TemporaryDirectory(prefix="fmnist-fast-") as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(content)
        _MODELS[name] = Recognizer(path, backend=backend, threads=1)


def score(block: Block, chunks: Sequence[Chunk] | None, how: Scoring) -> Scored | Absent | Trouble:
    """The answers of a block. chunks : what is in it; None: read it from its files."""
    recogniser = _MODELS[how.model]
    answers = _Answers()
    try:
        width, height = recogniser.size
        for chunk in read(block, how.root, width * height) if chunks is None else chunks:
            if isinstance(chunk, list):
                _of_pictures(chunk, recogniser, how, answers)
            elif isinstance(chunk, FlawedRows):
                _of_rows(chunk.rows, recogniser, how, answers, chunk.why_not)
            else:
                _of_rows(chunk, recogniser, how, answers, {})
    except OSError as error:
        return (
            Absent()
            if chunks is None
            else Trouble(f"{error.filename}: {error.strerror}", of_file=True)
        )
    except DataError as error:
        return Absent() if chunks is None else Trouble(str(error), of_file=True)
    except UserError as error:
        return Trouble(str(error), of_file=False)
    except MemoryError:
        return Trouble("there is not enough memory for a block", of_file=False)
    return answers.packed(how.probabilities)


@dataclass
class _Answers:
    """Of the rows so far. sure : 1, 0, or UNKNOWN. errors : by row."""

    rows: int = 0
    probability: list[NDArray] = field(default_factory=list)
    confident: list[NDArray[np.int8]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    plain: int = 0

    def add(
        self, probability_nk: NDArray, threshold: float | None, errors: Mapping[int, str]
    ) -> None:
        """Of some more rows. threshold : of the model that answered. errors : by row of these."""
        if threshold is None:
            self.is_confident.append(np.full(len(probability_nk), UNKNOWN, np.int8))
        else:
            self.is_confident.append((probability_nk.max(axis=1) >= threshold).astype(np.int8))
        self.probability.append(probability_nk)
        self.errors |= {self.rows + n: why for n, why in errors.items()}
        self.rows += len(probability_nk)

    def packed(self, probabilities: bool) -> Scored:
        probability_nk, sure_n = np.concatenate(self.probability), np.concatenate(self.is_confident)
        absent = np.zeros(self.rows, bool)
        absent[list(self.errors)] = True
        errors = pa.nulls(self.rows, pa.string())
        if self.errors:
            errors = pa.array([self.errors.get(n) for n in range(self.rows)], pa.string())
        columns = {
            "label": pa.array(probability_nk.argmax(axis=1).astype(np.int32), mask=absent),
            "probability": _floats(probability_nk.max(axis=1), absent),
            "confident": pa.array(sure_n == 1, mask=absent | (sure_n == UNKNOWN)),
            "error": errors,
        }
        if probabilities:
            columns |= {f"p_{k}": _floats(p, absent) for k, p in enumerate(probability_nk.T)}
        batch = pa.RecordBatch.from_pydict(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return Scored(sink.getvalue().to_pybytes(), self.rows, len(self.errors), self.plain)


def _floats(numbers: NDArray, absent: NDArray) -> pa.Array:
    return pa.array(np.ascontiguousarray(numbers, np.float32), mask=absent)


def _of_rows(
    rows: NDArray,
    recogniser: Recognizer,
    how: Scoring,
    answers: _Answers,
    why_not: Mapping[int, str],
) -> None:
    """Of rows of numbers; those that are none, or no network takes, have a reason in place of an
    answer.
    """
    model = recogniser.data_model
    rows = rows.reshape(len(rows), *model.input_shape)
    unit_range = members_of(model)[0].network.scale != 1
    if how.invert and not unit_range:
        raise ArgumentError(
            "this model takes any numbers, of which --invert cannot say what is dark"
        )
    errors: dict[int, str] = {}
    if rows.dtype != np.uint8:
        rows, errors = _taken(rows, unit_range)
    if how.invert:
        rows = (255 if rows.dtype == np.uint8 else 1) - rows
    answers.add(model.predict_proba(rows), model.threshold, errors | dict(why_not))


def _taken(rows: NDArray, unit_range: bool) -> tuple[NDArray, dict[int, str]]:
    """Numbers of a dtype that networks take, and why they do not take some rows, which are then 0.

    unit_range : they take pixels, integers of 0..255 or floats of 0..1; else any finite numbers.
    """
    whole_numbers = rows.dtype.kind in "iu"
    flat = rows.reshape(len(rows), -1)
    highest = 255 if whole_numbers else 1
    fits = (flat >= 0) & (flat <= highest) if unit_range else np.isfinite(flat)
    fits_n = fits.all(axis=1)
    errors = {}
    if not fits_n.all():
        why = f"it holds numbers outside of 0..{highest}" if unit_range else "it holds NaN"
        errors = {int(n): why for n in np.flatnonzero(~fits_n)}
        rows = np.where(fits_n.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)
    if whole_numbers:
        rows = rows.astype(np.uint8 if unit_range else np.float64)
    elif rows.dtype == np.float16:
        rows = rows.astype(np.float32)
    return rows, errors


def _of_pictures(
    pictures: Iterable[Encoded], recogniser: Recognizer, how: Scoring, answers: _Answers
) -> None:
    """Of pictures; those that cannot be read have a reason in place of an answer."""
    for encoded in pictures:
        try:
            if encoded.why_not:
                raise DataError(encoded.why_not)
            content = BytesIO(encoded.content)
            picture = read_picture(content, max_side=LONGEST, accepted=recogniser.size)
            answer = recogniser.recognize(picture, how.segmentation, how.invert)
        except DataError as error:
            nothing = np.zeros((1, len(recogniser.data_model.class_names)), np.float32)
            answers.add(nothing, None, {0: str(error)})
            continue
        answers.add(answer.probability_k[None], answer.model.threshold, {})
        answers.plain += answer.preprocessed.method == "histogram"
