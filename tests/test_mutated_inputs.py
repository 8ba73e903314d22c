"""Mutated input files: each gives a result or one documented error, of one line.

The mutations are drawn from a seed. The short run is part of every test run; the long one, in
`make deep`, lasts FMNIST_FAST_FUZZ_SECONDS for each kind of input and prints what was tried:

    pytest -m slow tests/test_mutated_inputs.py -s
"""

import gzip
import io
import json
import os
import random
import shutil
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed", reason="Dask is not installed")
pytest.importorskip("pyarrow", reason="Arrow is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
from batch_inputs import blocks_of, idx, npy, png
from mutations import mutate_bytes, mutate_json
from PIL import Image
from scipy import sparse

from fmnist_fast import Ensemble, MLPClassifier, load_dataset, load_model, train
from fmnist_fast.data.fashion_mnist import FILES
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.distributed.batch_predict.readers import LocalReader
from fmnist_fast.errors import (
    BackendUnavailable,
    CheckpointError,
    DataError,
    ModelFileError,
    UserError,
)
from fmnist_fast.models.safetensors_io import serialize
from fmnist_fast.training.trainer import TrainingInterrupted
from fmnist_fast.vision.image_io import read_picture

FAST = {"epochs": 1, "hidden": (5,), "threads": 1, "backend": "numpy", "validation": 20}

# Inputs of the short run, and seconds of the long one, for each kind.
SHORT = 60
SECONDS = float(os.environ.get("FMNIST_FAST_FUZZ_SECONDS", "20"))

# No input may take so long. A Parquet page that claims 2 GB takes some 5 s.
MAX_SECONDS = 60

# Mutates its input by these random numbers and reads it. Raises: documented errors.
Trial = Callable[[random.Random], object]


def attempts(trial: Trial, errors: tuple, seconds: float, at_least: int) -> tuple[int, int, float]:
    """Run trials; return how many, how many of them were rejected, and the longest time."""
    end, tried, rejected, longest, broken = time.monotonic() + seconds, 0, 0, 0.0, 0
    while tried < at_least or time.monotonic() < end:
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial(random.Random(tried))
        except errors as error:
            rejected += 1
            if isinstance(error, UserError):  # scikit-learn's may have several lines
                broken += len(str(error).splitlines()) != 1
        except Exception as error:
            error.add_note(f"input {tried}")
            raise
        longest = max(longest, time.perf_counter() - start)
        assert longest < MAX_SECONDS, f"input {tried}"
        tried += 1
    assert broken == 0
    return tried, rejected, longest


def blocks_trial(content: bytes) -> tuple[Trial, tuple[type[Exception], ...]]:
    """Find and read the rows of a file, as `predict --out` does."""

    def trial(draws: random.Random) -> None:
        path = Path("input")
        path.write_bytes(mutate_bytes(content, draws))
        reader = LocalReader(".", 784)
        try:
            for block in blocks_of(path):
                list(reader.read(block))
        finally:
            reader.close()

    return trial, (DataError,)


def parquet(**columns) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


def images() -> np.ndarray:
    return draw_synthetic(train=1, test=20)[2]


def blocks_of_npz(save) -> tuple[Trial, tuple[type[Exception], ...]]:
    content = io.BytesIO()
    save(content, labels=np.zeros(3), x=images())
    return blocks_trial(content.getvalue())


def data_set_trial(content: bytes, name: str, arrays=()) -> tuple[Trial, tuple]:
    """Load a data set of which one file is mutated."""
    for other, array in arrays:
        Path(other).write_bytes(array)

    def trial(draws: random.Random) -> None:
        Path(name).write_bytes(mutate_bytes(content, draws))
        data = load_dataset(Path(name).name if not arrays else ".")
        assert len(data.x_train) == len(data.y_train) > 0

    return trial, (DataError,)


def npz_data_set(dataset) -> tuple[Trial, tuple]:
    content = io.BytesIO()
    part = slice(0, 30)
    np.savez_compressed(
        content,
        x_train=dataset.x_train[part],
        y_train=dataset.y_train[part],
        x_test=dataset.x_test[part],
        y_test=dataset.y_test[part],
    )
    return data_set_trial(content.getvalue(), "data.npz")


def idx_data_set(dataset) -> tuple[Trial, tuple]:
    labels = struct.pack(">4BI", 0, 0, 8, 1, 20) + bytes(range(10)) * 2
    files = dict(zip(FILES, [idx(images()), labels] * 2))
    names = [name.removesuffix(".gz") for name in files]
    contents = dict(zip(names, files.values()))
    return data_set_trial(contents[names[0]], names[0], list(contents.items()))


def model_trial(mutate: Callable[[random.Random], bytes]) -> tuple[Trial, tuple]:
    """Load, use and save a mutated model file."""

    def trial(draws: random.Random) -> None:
        Path("m.safetensors").write_bytes(mutate(draws))
        model = load_model("m.safetensors", threads=1)
        with np.errstate(all="ignore"):
            for value in (0, 255):
                rows = np.full((2, *model.input_shape), value, np.uint8)
                assert np.isfinite(model.predict_proba(rows)).all()
        model.save("again.safetensors", force=True)
        load_model("again.safetensors", threads=1)

    return trial, (ModelFileError, BackendUnavailable)


def model_bytes(dataset) -> tuple[Trial, tuple]:
    content = train(dataset, **FAST).model.to_bytes()
    return model_trial(partial(mutate_bytes, content))


def metadata_of(model) -> tuple[Trial, tuple]:
    def mutate(draws: random.Random) -> bytes:
        metadata = mutate_json(model.metadata(), draws)
        return serialize(metadata, model.tensors(), allow_nan=True)

    return model_trial(mutate)


def resume_trial(dataset, mutate: Callable[[Path, random.Random], object]) -> tuple[Trial, tuple]:
    """Resume a run of which a file is mutated; training itself is interrupted at once."""
    train(dataset, **{**FAST, "epochs": 3}, checkpoint="run", checkpoint_every=1)

    def trial(draws: random.Random) -> None:
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree("run", "copy")
        mutate(Path("copy"), draws)
        with suppress(TrainingInterrupted):
            train(dataset, checkpoint="copy", resume=True, should_stop=lambda: True)

    return trial, (CheckpointError,)


def run_json(dataset) -> tuple[Trial, tuple]:
    def mutate(folder: Path, draws: random.Random) -> None:
        path = folder / "run.json"
        path.write_text(json.dumps(mutate_json(json.loads(path.read_text()), draws)))

    return resume_trial(dataset, mutate)


def checkpoint(dataset) -> tuple[Trial, tuple]:
    def mutate(folder: Path, draws: random.Random) -> None:
        for path in folder.iterdir():
            if path.is_file() and draws.random() < 0.5:
                path.write_bytes(mutate_bytes(path.read_bytes(), draws))

    return resume_trial(dataset, mutate)


def picture(dataset) -> tuple[Trial, tuple]:
    contents = []
    for suffix in ("PNG", "GIF", "BMP", "TIFF", "JPEG", "WEBP"):
        content = io.BytesIO()
        Image.fromarray(images()[0]).save(content, suffix)
        contents.append(content.getvalue())

    def trial(draws: random.Random) -> None:
        content = mutate_bytes(draws.choice(contents), draws)
        assert read_picture(io.BytesIO(content), max_side=100).rgb.dtype == np.uint8

    return trial, (DataError,)


def csr(dataset) -> tuple[Trial, tuple]:
    """A damaged matrix would make the kernels read outside of it: the process may end."""
    rng = np.random.default_rng(0)
    whole = sparse.random_array((12, 9), density=0.3, format="csr", dtype=np.float32, rng=rng)
    model = MLPClassifier((3,), max_iter=1, n_threads=1).fit(whole, np.arange(12) % 2)

    def trial(draws: random.Random) -> None:
        x = whole.copy()
        for name in draws.sample(["data", "indices", "indptr"], draws.randint(1, 2)):
            array = getattr(x, name)
            content = mutate_bytes(array.tobytes(), draws)
            setattr(x, name, np.frombuffer(content[: len(content) // 4 * 4], array.dtype).copy())
        with np.errstate(all="ignore"):
            model.predict_proba(x)
            MLPClassifier((3,), max_iter=1, n_threads=1).fit(x, np.arange(12) % 2)

    return trial, (ValueError,)


KINDS = {
    "idx": lambda dataset: blocks_trial(idx(images())),
    "idx.gz": lambda dataset: blocks_trial(gzip.compress(idx(images()))),
    "npy": lambda dataset: blocks_trial(npy(images())),
    "npz": lambda dataset: blocks_of_npz(np.savez),
    "compressed npz": lambda dataset: blocks_of_npz(np.savez_compressed),
    "parquet": lambda dataset: blocks_trial(parquet(image=list(images().reshape(20, -1)))),
    "parquet of images": lambda dataset: blocks_trial(parquet(image=list(map(png, images())))),
    "npz data set": npz_data_set,
    "idx data set": idx_data_set,
    "model": model_bytes,
    "model metadata": lambda dataset: metadata_of(train(dataset, **FAST).model),
    "ensemble metadata": lambda dataset: metadata_of(Ensemble((train(dataset, **FAST).model,) * 2)),
    "run.json": run_json,
    "checkpoint": checkpoint,
    "picture": picture,
    "csr": csr,
}


def run(kind: str, dataset, seconds: float, at_least: int) -> None:
    trial, errors = KINDS[kind](dataset)
    tried, rejected, longest = attempts(trial, errors, seconds, at_least)
    print(f"{kind}: {tried:,} inputs, {rejected:,} of them rejected; {longest:.2f} s at most")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_input_gives_result_or_documented_error(kind, small_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(kind, small_dataset, 0, SHORT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_for_long(kind, small_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(kind, small_dataset, SECONDS, 1)
