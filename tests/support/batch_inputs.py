"""Inputs of every kind of file, and their predictions through a pool."""

import gzip
import io
import struct
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fmnist_fast import load_model
from fmnist_fast.distributed.batch_predict.job import model_name, predict_all
from fmnist_fast.distributed.batch_predict.output import write_predictions
from fmnist_fast.distributed.batch_predict.result_store import open_results
from fmnist_fast.distributed.batch_predict.sources import Inputs
from fmnist_fast.distributed.batch_predict.worker import PredictConfig

ROWS = 500

KINDS = (
    "idx",
    "idx.gz",
    "npy",
    "big-endian floats",
    "npz",
    "compressed npz",
    "lists",
    "lists of lists",
    "columns",
    "images",
    "images of a hub",
    "folder",
)


class Observer:
    """Calls back at every update."""

    def __init__(self, at_update=lambda store: None):
        self.at_update, self.notes = at_update, []

    def update(self, store, pool):
        self.at_update(store)

    def note(self, message):
        self.notes.append(message)


def make_config(folder, invert=False, probabilities=True):
    return PredictConfig(
        model=model_name(None, "cython"),
        folder=str(folder),
        segmentation="auto",
        invert=invert,
        probabilities=probabilities,
    )


def blocks_of(*inputs):
    return list(Inputs(map(str, inputs)).blocks((28, 28), None))


def predict_into(
    folder,
    pool,
    inputs,
    out="predictions.parquet",
    *,
    observer=None,
    should_stop=None,
    invert=False,
):
    """The table of predictions for all inputs; None if it was stopped."""
    config = make_config(folder, invert)
    observer, should_stop = observer or Observer(), should_stop or (lambda: False)
    with open_results(folder / f"{out}.partial", {}, blocks_of(*inputs)) as store:
        if not predict_all(store, config, 784, pool, observer, should_stop):
            return None
        names = load_model().class_names
        write_predictions(store, folder / out, names, True, lambda rows: None)
        store.remove()
    assert list(folder.glob("*.partial*")) == []
    return pq.read_table(folder / out) if out.endswith("parquet") else (folder / out).read_text()


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def idx(pixels):
    return struct.pack(">4B3I", 0, 0, 8, 3, *pixels.shape) + pixels.tobytes()


def npy(pixels):
    content = io.BytesIO()
    np.save(content, pixels)
    return content.getvalue()


def npz(pixels, shape=None):
    """A compressed archive; shape : that the header of its array promises instead."""
    content, member = io.BytesIO(), npy(pixels)
    if shape:
        member = member.replace(str(pixels.shape).encode(), str(shape).encode())
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        archive.writestr("é.npy", member)
    return content.getvalue()


def table(path, **columns):
    pq.write_table(pa.table(columns), path, row_group_size=120)


def write(kind, path, x):
    """Write images as a file of a kind, with other arrays or columns where it can have some."""
    flat = x.reshape(len(x), -1)
    match kind:
        case "idx":
            path.write_bytes(idx(x))
        case "idx.gz":
            path.write_bytes(gzip.compress(idx(x)))
        case "npy":
            np.save(path.open("wb"), x)
        case "big-endian floats":
            np.save(path.open("wb"), (x / 255).astype(">f8"))
        case "npz":
            np.savez(path.open("wb"), labels=np.zeros(3), x=x, more=x[:, :3])
        case "compressed npz":
            np.savez_compressed(path.open("wb"), labels=np.zeros(3), x=x)
        case "lists":
            table(path, label=np.zeros(len(x), np.int64), image=pa.array(list(flat)))
        case "lists of lists":
            table(path, image=pa.array([image.tolist() for image in x]))
        case "columns":
            columns = {f"pixel{i}": flat[:, i].astype(np.int64) for i in range(784)}
            table(path, label=np.zeros(len(x), np.int64), **columns)
        case "images":
            table(path, image=pa.array([png(image) for image in x]))
        case "images of a hub":
            entries = [{"bytes": png(image), "path": None} for image in x]
            table(path, image=pa.array(entries), label=np.zeros(len(x), np.int64))
        case "folder":
            path.mkdir()
            for number, image in enumerate(x):
                (path / f"{number:04}.png").write_bytes(png(image))
