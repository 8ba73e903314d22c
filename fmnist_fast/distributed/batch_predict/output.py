"""All answers as one file, which is complete or not there."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..._files import replaced
from ...errors import ArgumentError
from .blocks import Block, PictureFiles
from .result_store import Partial

__all__ = ["SUFFIXES", "check_format", "write_answers"]

SUFFIXES = (".parquet", ".csv")

# Rows of a row group: what a reader of the file needs room for.
GROUP_ROWS = 1 << 16


def check_format(path: Path) -> None:
    """Raises: ArgumentError if the name is of no format that answers can have."""
    if path.suffix.lower() not in SUFFIXES:
        raise ArgumentError(
            f"answers go into a Parquet or a CSV file: give --out a name in {' or '.join(SUFFIXES)}"
            f", not {path}"
        )


def write_answers(
    partial: Partial,
    path: Path,
    class_names: Sequence[str],
    probabilities: bool,
    advance: Callable[[int], None],
) -> None:
    """Write the answers of all blocks, in their order: the same bytes for the same answers.

    Columns: path, of the file; row, within it, from 0; label, of the most probable class; name, of
    that; probability; sure, whether it can be relied on; error, why there is no answer; and if
    probabilities, p_ and its name for each class. advance : is told rows that are written.
    Raises: OSError.
    """
    schema = _schema(class_names, probabilities)
    with replaced(path) as temporary, _writer(temporary, path, schema) as write:
        waiting: list[pa.RecordBatch] = []
        for block, answers in partial.answers():
            with pa.ipc.open_stream(answers) as stream:
                batch = stream.read_next_batch()
            waiting.append(_whole(block, batch, class_names, schema))
            if sum(batch.num_rows for batch in waiting) >= GROUP_ROWS:
                waiting = _write(waiting, write, schema)
            advance(batch.num_rows)
        _write(waiting, write, schema, all_of_it=True)


def _schema(class_names: Sequence[str], probabilities: bool) -> pa.Schema:
    columns = {
        "path": pa.string(),
        "row": pa.int64(),
        "label": pa.int32(),
        "name": pa.dictionary(pa.int32(), pa.string()),
        "probability": pa.float32(),
        "confident": pa.bool_(),
        "error": pa.string(),
    }
    if probabilities:
        named = len(set(class_names)) == len(class_names)
        of_class = class_names if named else range(len(class_names))
        columns |= {f"p_{name}": pa.float32() for name in of_class}
    return pa.schema(list(columns.items()))


def _whole(
    block: Block, batch: pa.RecordBatch, class_names: Sequence[str], schema: pa.Schema
) -> pa.RecordBatch:
    """The answers of a block with what is known of its rows."""
    if isinstance(block, PictureFiles):
        paths = pa.array(map(_readable, block.paths), pa.string())
        rows = np.zeros(batch.num_rows, np.int64)
    else:
        paths = pa.repeat(_readable(block.path), batch.num_rows)
        rows = np.arange(block.begin, block.begin + batch.num_rows)
    label, *others = batch.columns
    names = pa.DictionaryArray.from_arrays(label, pa.array(class_names, pa.string()))
    columns = [paths, pa.array(rows), label, names, *others]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _readable(path: str) -> str:
    """As text, also where the system's bytes are none."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _write(
    waiting: list[pa.RecordBatch],
    write: Callable[[pa.Table], Any],
    schema: pa.Schema,
    *,
    all_of_it: bool = False,
) -> list[pa.RecordBatch]:
    """Write whole row groups, whatever the blocks were; returns what is left."""
    table = pa.Table.from_batches(waiting, schema)
    whole = table.num_rows if all_of_it else table.num_rows // GROUP_ROWS * GROUP_ROWS
    for begin in range(0, whole, GROUP_ROWS):
        write(table.slice(begin, min(GROUP_ROWS, whole - begin)).combine_chunks())
    left: list[pa.RecordBatch] = table.slice(whole).combine_chunks().to_batches()
    return left


@contextmanager
def _writer(temporary: Path, path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], Any]]:
    """What writes tables to the file, in the format that its later name says."""
    writer: Any
    if path.suffix.lower() == ".csv":
        writer = pa.csv.CSVWriter(temporary, schema)
    else:
        # The schema of Arrow would have readers take names for numbers of names.
        writer = pq.ParquetWriter(
            temporary,
            schema,
            store_schema=False,
            use_dictionary=["path", "label", "name", "error"],
            column_encoding={"row": "DELTA_BINARY_PACKED"},
        )
    with writer:
        yield writer.write_table
