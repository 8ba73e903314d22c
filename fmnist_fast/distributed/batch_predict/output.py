"""The output: all predictions in one Parquet or CSV file, which is complete or absent."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ..._files import replaced
from ...errors import ArgumentError
from .blocks import Block, ImageFiles
from .result_store import ResultStore

# Rows of a row group: what a reader of the file needs memory for.
GROUP_ROWS = 1 << 16


def check_format(path: Path) -> None:
    """Raise ArgumentError if the suffix is of no format that can be written."""
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise ArgumentError(f"give --out a name in .parquet or .csv, not {path}")


def write_predictions(
    store: ResultStore,
    path: Path,
    class_names: Sequence[str],
    probabilities: bool,
    advance: Callable[[int], None],
) -> None:
    """Write the predictions of all blocks, in order: equal predictions give equal bytes.

    Columns: path of the file; row in it, from 0; label and name of the most probable class; its
    probability; confident, whether it reaches the confidence threshold; error, why there is no
    prediction; and if probabilities, p_NAME of each class. advance : called with the rows written.
    Raises: OSError.
    """
    schema = _schema(class_names, probabilities)
    with (
        replaced(path) as temporary,
        pa.OSFile(os.fsencode(temporary), "w") as file,  # pyarrow itself encodes names as UTF-8
        _open_writer(file, path, schema) as writer,
    ):
        table = schema.empty_table()
        for block, predictions in store.results():
            with pa.ipc.open_stream(predictions) as stream:
                batch = _add_inputs(block, stream.read_next_batch(), class_names, schema)
            table = pa.concat_tables([table, pa.Table.from_batches([batch], schema)])
            while table.num_rows >= GROUP_ROWS:  # whole row groups, whatever the blocks
                writer.write_table(table.slice(0, GROUP_ROWS).combine_chunks())
                table = table.slice(GROUP_ROWS).combine_chunks()
            advance(batch.num_rows)
        if table.num_rows:
            writer.write_table(table.combine_chunks())


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
        unique = len(set(class_names)) == len(class_names)
        names = class_names if unique else range(len(class_names))
        columns |= {f"p_{name}": pa.float32() for name in names}
    return pa.schema(list(columns.items()))


def _add_inputs(
    block: Block, batch: pa.RecordBatch, class_names: Sequence[str], schema: pa.Schema
) -> pa.RecordBatch:
    """Add path, row and class name to the predictions of a block."""
    if isinstance(block, ImageFiles):
        paths = pa.array(map(_to_text, block.paths), pa.string())
        rows = np.zeros(batch.num_rows, np.int64)
    else:
        paths = pa.repeat(_to_text(block.path), batch.num_rows)
        rows = np.arange(block.begin, block.begin + batch.num_rows)
    label, *others = batch.columns
    names = pa.DictionaryArray.from_arrays(label, pa.array(class_names, pa.string()))
    columns = [paths, pa.array(rows), label, names, *others]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _to_text(path: str) -> str:
    """Escape bytes of a path that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _open_writer(file: pa.NativeFile, path: Path, schema: pa.Schema) -> Any:
    """Open a writer of the format that `path` names."""
    if path.suffix.lower() == ".csv":
        return pa.csv.CSVWriter(file, schema)
    # With Arrow's schema in the file, readers would take names for dictionary indices.
    return pq.ParquetWriter(
        file,
        schema,
        store_schema=False,
        use_dictionary=["path", "label", "name", "error"],
        column_encoding={"row": "DELTA_BINARY_PACKED"},
    )
