"""Predicts a block in a worker process."""

import tempfile
from collections.abc import Mapping, Sequence
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
from .blocks import Block, Chunk, Encoded, RowsWithErrors
from .readers import read

__all__ = ["BlockError", "FilesMissing", "PredictConfig", "Predicted", "keep_model", "predict"]

# Longer side that images are reduced to.
MAX_SIDE = 512

# Models of this process, by name.
MODELS: dict[str, Recognizer] = {}


@dataclass(frozen=True)
class PredictConfig:
    """How blocks are predicted. model : its name in workers. root : folder of relative paths.
    segmentation, invert : see Recognizer.recognize. probabilities : store those of all classes.
    """

    model: str
    root: str
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
    recognizer = MODELS[config.model]
    predictions = _Predictions()
    try:
        width, height = recognizer.size
        for chunk in read(block, config.root, width * height) if chunks is None else chunks:
            if isinstance(chunk, list):
                _predict_images(chunk, recognizer, config, predictions)
            elif isinstance(chunk, RowsWithErrors):
                _predict_rows(chunk.rows, recognizer, config, predictions, chunk.errors)
            else:
                _predict_rows(chunk, recognizer, config, predictions, {})
    except (OSError, DataError) as error:
        if chunks is None:
            return FilesMissing()
        if isinstance(error, OSError):
            return BlockError(f"{error.filename}: {error.strerror}", of_file=True)
        return BlockError(str(error), of_file=True)
    except UserError as error:
        return BlockError(str(error), of_file=False)
    except MemoryError:
        return BlockError("there is not enough memory for a block", of_file=False)
    return predictions.to_arrow(config.probabilities)


@dataclass
class _Predictions:
    """Predictions of the rows so far. errors : by row."""

    rows: int = 0
    probability: list[NDArray] = field(default_factory=list)
    thresholds: list[NDArray] = field(default_factory=list)  # NaN if unknown
    errors: dict[int, str] = field(default_factory=dict)
    by_histogram: int = 0

    def add(
        self, probability_nk: NDArray, threshold: float | None, errors: Mapping[int, str]
    ) -> None:
        """Append rows. threshold : confidence threshold of the model. errors : by row of these."""
        count = len(probability_nk)
        threshold = np.nan if threshold is None else threshold
        self.probability.append(probability_nk)
        self.thresholds.append(np.full(count, threshold, probability_nk.dtype))
        self.errors |= {self.rows + n: error for n, error in errors.items()}
        self.rows += count

    def to_arrow(self, probabilities: bool) -> Predicted:
        probability_nk, threshold_n = map(np.concatenate, (self.probability, self.thresholds))
        top_n = probability_nk.max(axis=1)
        failed = np.zeros(self.rows, bool)
        failed[list(self.errors)] = True
        errors = [self.errors.get(n) for n in range(self.rows)] if self.errors else None
        columns = {
            "label": pa.array(probability_nk.argmax(axis=1).astype(np.int32), mask=failed),
            "probability": _floats(top_n, failed),
            "confident": pa.array(top_n >= threshold_n, mask=failed | np.isnan(threshold_n)),
            "error": pa.array(errors, pa.string()) if errors else pa.nulls(self.rows, pa.string()),
        }
        if probabilities:
            columns |= {f"p_{k}": _floats(p, failed) for k, p in enumerate(probability_nk.T)}
        batch = pa.RecordBatch.from_pydict(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return Predicted(
            predictions=sink.getvalue().to_pybytes(),
            rows=self.rows,
            failed=len(self.errors),
            by_histogram=self.by_histogram,
        )


def _floats(values: NDArray, missing: NDArray) -> pa.Array:
    return pa.array(np.ascontiguousarray(values, np.float32), mask=missing)


def _predict_rows(
    rows: NDArray,
    recognizer: Recognizer,
    config: PredictConfig,
    predictions: _Predictions,
    errors: Mapping[int, str],
) -> None:
    """Predict rows of numbers. errors : of rows without numbers, by row."""
    model = recognizer.data_model
    rows = rows.reshape(len(rows), *model.input_shape)
    pixels = members_of(model)[0].network.scale != 1
    if config.invert and not pixels:
        raise ArgumentError("--invert needs a model of pixels: this one takes any numbers")
    invalid: dict[int, str] = {}
    if rows.dtype != np.uint8:
        rows, invalid = _convert(rows, pixels)
    if config.invert:
        rows = (255 if rows.dtype == np.uint8 else 1) - rows
    predictions.add(model.predict_proba(rows), model.threshold, {**invalid, **errors})


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


def _predict_images(
    images: Sequence[Encoded],
    recognizer: Recognizer,
    config: PredictConfig,
    predictions: _Predictions,
) -> None:
    """Predict images; those that cannot be read have an error."""
    for encoded in images:
        try:
            if encoded.error:
                raise DataError(encoded.error)
            content = BytesIO(encoded.content)
            picture = read_picture(content, max_side=MAX_SIDE, accepted=recognizer.size)
            prediction = recognizer.recognize(picture, config.segmentation, config.invert)
        except DataError as error:
            none = np.zeros((1, len(recognizer.data_model.class_names)), np.float32)
            predictions.add(none, None, {0: str(error)})
            continue
        predictions.add(prediction.probability_k[None], prediction.model.threshold, {})
        predictions.by_histogram += prediction.preprocessed.method == "histogram"
