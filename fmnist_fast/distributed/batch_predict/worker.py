"""Predicts a block in a worker process."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...errors import ArgumentError, DataError, UserError
from ...models.ensemble import members_of
from ...vision.image_io import read_picture
from ...vision.recognizer import Recognizer
from ...vision.segmentation import limit_opencv_threads
from .blocks import Block, Chunk, Encoded, Rows
from .readers import read

# Longer side that images are reduced to.
MAX_SIDE = 512

# Models of this process, by name.
MODELS: dict[str, Recognizer] = {}


@dataclass(frozen=True)
class PredictConfig:
    """How blocks are predicted. model : its name in workers. folder : of relative paths.
    segmentation, invert : see Recognizer.recognize. probabilities : store those of all classes.
    """

    model: str
    folder: str
    segmentation: str
    invert: bool
    probabilities: bool


@dataclass(frozen=True)
class Predicted:
    """Predictions of a block. predictions : a record batch, as an Arrow stream. failed : rows
    without a prediction. by_histogram : images segmented without OpenCV.
    """

    predictions: bytes
    rows: int
    failed: int
    by_histogram: int


@dataclass(frozen=True)
class FilesMissing:
    """This worker cannot read the files: they must be sent."""


@dataclass(frozen=True)
class BlockError:
    """No worker can predict this block. of_file : because its file is damaged or unreadable."""

    error: str
    of_file: bool


def keep_model(name: str, content: bytes | None, backend: str) -> None:
    """Load a model. content : its file; None: the pretrained models of the package."""
    limit_opencv_threads()
    if name in MODELS:
        return
    with tempfile.TemporaryDirectory(prefix="fmnist-fast-") as folder:
        path = None
        if content is not None:
            path = Path(folder) / "model.safetensors"
            path.write_bytes(content)
        MODELS[name] = Recognizer(path, backend=backend, threads=1)


def predict(
    block: Block, chunks: Sequence[Chunk] | None, config: PredictConfig
) -> Predicted | FilesMissing | BlockError:
    """Predict a block. chunks : its content; None: read its files."""
    try:
        predictions = _Predictions(MODELS[config.model], config)
        for chunk in read(block, config.folder, predictions.inputs) if chunks is None else chunks:
            predictions.predict(chunk)
    except (OSError, DataError) as error:
        if chunks is None:
            return FilesMissing()
        message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        return BlockError(str(message), of_file=True)
    except UserError as error:
        return BlockError(str(error), of_file=False)
    except MemoryError:
        return BlockError("there is not enough memory for a block", of_file=False)
    return predictions.to_arrow()


class _Predictions:
    """Predictions of the rows of a block so far."""

    def __init__(self, recognizer: Recognizer, config: PredictConfig) -> None:
        self.recognizer, self.config = recognizer, config
        self.inputs = prod(recognizer.size)
        self.probability: list[NDArray] = []
        self.thresholds: list[NDArray] = []  # NaN if unknown
        self.errors: list[str | None] = []
        self.by_histogram = 0

    def predict(self, chunk: Chunk) -> None:
        """Append the predictions of a chunk."""
        if isinstance(chunk, Rows):
            self._predict_rows(chunk)
        else:
            for image in chunk:
                self._predict_image(image)

    def _predict_rows(self, chunk: Rows) -> None:
        model = self.recognizer.data_model
        rows = chunk.rows.reshape(len(chunk.rows), *model.input_shape)
        pixels = members_of(model)[0].network.scale != 1
        if self.config.invert and not pixels:
            raise ArgumentError("--invert needs a model of pixels: this one takes any numbers")
        invalid: dict[int, str] = {}
        if rows.dtype != np.uint8:
            rows, invalid = _convert(rows, pixels)
        if self.config.invert:
            rows = (255 if rows.dtype == np.uint8 else 1) - rows
        self._append(model.predict_proba(rows), model.threshold, {**invalid, **chunk.errors})

    def _predict_image(self, encoded: Encoded) -> None:
        """Predict an image; one that cannot be read has an error."""
        try:
            if encoded.error:
                raise DataError(encoded.error)
            content, size = BytesIO(encoded.content), self.recognizer.size
            picture = read_picture(content, max_side=MAX_SIDE, accepted=size)
            found = self.recognizer.recognize(picture, self.config.segmentation, self.config.invert)
        except DataError as error:
            none = np.zeros((1, len(self.recognizer.data_model.class_names)), np.float32)
            self._append(none, None, {0: str(error)})
            return
        self._append(found.probability_k[None], found.model.threshold, {})
        self.by_histogram += found.preprocessed.method == "histogram"

    def _append(
        self, probability_nk: NDArray, threshold: float | None, errors: Mapping[int, str]
    ) -> None:
        """Append rows. threshold : confidence threshold of the model. errors : by row of these."""
        rows = len(probability_nk)
        threshold = np.nan if threshold is None else threshold
        self.probability.append(probability_nk)
        self.thresholds.append(np.full(rows, threshold, probability_nk.dtype))
        self.errors += map(errors.get, range(rows))

    def to_arrow(self) -> Predicted:
        """Return the predictions as an Arrow stream."""
        probability_nk, threshold_n = map(np.concatenate, (self.probability, self.thresholds))
        top_n = probability_nk.max(axis=1)
        failed = np.array([error is not None for error in self.errors])
        columns = {
            "label": pa.array(probability_nk.argmax(axis=1).astype(np.int32), mask=failed),
            "probability": _floats(top_n, failed),
            "confident": pa.array(top_n >= threshold_n, mask=failed | np.isnan(threshold_n)),
            "error": pa.array(self.errors, pa.string()),
        }
        if self.config.probabilities:
            columns |= {f"p_{k}": _floats(p, failed) for k, p in enumerate(probability_nk.T)}
        batch = pa.RecordBatch.from_pydict(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return Predicted(
            predictions=sink.getvalue().to_pybytes(),
            rows=len(failed),
            failed=int(failed.sum()),
            by_histogram=self.by_histogram,
        )


def _floats(values: NDArray, missing: NDArray) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, np.float32), mask=missing)


def _convert(rows: NDArray, pixels: bool) -> tuple[NDArray, dict[int, str]]:
    """Convert to a dtype that networks take; invalid rows become 0, and have an error.

    pixels : only integers of 0..255 or floats of 0..1 are valid; else any finite numbers.
    """
    integers = rows.dtype.kind in "iu"
    flat = rows.reshape(len(rows), -1)
    highest = 255 if integers else 1
    valid = (flat >= 0) & (flat <= highest) if pixels else np.isfinite(flat)
    valid_n = valid.all(axis=1)
    error = f"it holds numbers outside of 0..{highest}" if pixels else "it holds NaN"
    errors = dict.fromkeys(np.flatnonzero(~valid_n).tolist(), error)
    if errors:
        rows = np.where(valid_n.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)
    if integers:
        rows = rows.astype(np.uint8 if pixels else np.float64)
    elif rows.dtype == np.float16:
        rows = rows.astype(np.float32)
    return rows, errors
