"""Inputs in Parquet files: a column of images, a column of lists, or a column for each number."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat
from numpy.typing import NDArray

from ...errors import DamagedFileError, DataError
from .blocks import Chunk, Encoded, RowGroups, Rows, check_unchanged, damage_errors, fingerprint

# Bytes, before compression, of the row groups of a block, unless one group has more.
BLOCK_BYTES = 32 << 20

# Rows and images that are read at a time, and bytes of the file.
CHUNK_ROWS, CHUNK_IMAGES, BUFFER_BYTES = 4096, 64, 1 << 20

# Columns of numbers that are not pixels.
LABELS = ("label", "labels", "class", "target", "y", "index", "__index_level_0__")


def split_table(path: str, inputs: int, column: str | None) -> Iterator[RowGroups]:
    """Split a file into blocks of row groups.

    inputs : numbers of a row. column : of the inputs; None: the only one that can be.
    Raises: DataError, one line, if there is no such column; DamagedFileError; OSError.
    """
    stamp = fingerprint(path)
    with _open(path, path) as file:
        _find_columns(file.schema_arrow, path, inputs, column)
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        if sum(group.num_rows for group in groups) != file.metadata.num_rows:
            raise DamagedFileError(f"{path} is damaged: its numbers of rows contradict each other")
        first = begin = rows = size = 0
        for index, group in enumerate(groups):
            rows, size = rows + group.num_rows, size + group.total_byte_size
            if rows and (size >= BLOCK_BYTES or index + 1 == file.num_row_groups):
                yield RowGroups(
                    path=path,
                    fingerprint=stamp,
                    begin=begin,
                    rows=rows,
                    first=first,
                    last=index + 1,
                    column=column,
                )
                first, begin, rows, size = index + 1, begin + rows, 0, 0
        if not begin:
            raise DataError(f"{path} has no rows")


def read_groups(block: RowGroups, path: str, inputs: int) -> Iterator[Chunk]:
    """Read a block in chunks. inputs : numbers of a row.

    Raises: DataError if the file has changed; DamagedFileError; OSError.
    """
    check_unchanged(block, path)
    with _open(path, block.path) as file:
        columns = _find_columns(file.schema_arrow, block.path, inputs, block.column)
        images = _is_image(file.schema_arrow.field(columns[0]).type)
        for batch in file.iter_batches(
            CHUNK_IMAGES if images else CHUNK_ROWS,
            row_groups=range(block.first, block.last),
            columns=columns,
            use_threads=False,
        ):
            yield _read_images(batch.column(0)) if images else _read_rows(batch, inputs)


@contextmanager
def _open(path: str, name: str) -> Iterator[pq.ParquetFile]:
    """Open a file, and convert errors of reading it to DamagedFileError. name : in messages."""
    os.stat(path)  # raises an error that names a missing file
    with (
        damage_errors(name),
        pa.OSFile(os.fsencode(path)) as opened,  # pyarrow itself encodes names as UTF-8 only
        pq.ParquetFile(opened, buffer_size=BUFFER_BYTES, pre_buffer=False) as file,
    ):
        yield file


def _find_columns(schema: pa.Schema, name: str, inputs: int, column: str | None) -> list[str]:
    """Return the columns of the inputs: one of images or lists, or `inputs` ones of numbers."""
    if column is not None:
        if column not in schema.names:
            raise DataError(f"{name} has no column {column}: it has {', '.join(schema.names)}")
        kind = schema.field(column).type
        if not (_is_image(kind) or _is_list_of_numbers(kind)):
            raise DataError(
                f"column {column} of {name} holds {kind}: a column must hold image files, or lists "
                "of numbers"
            )
        return [column]
    whole = [f.name for f in schema if _is_image(f.type) or _is_list_of_numbers(f.type)]
    if len(whole) == 1:
        return whole
    numbers = [f.name for f in schema if _is_number(f.type) and f.name.lower() not in LABELS]
    if not whole and len(numbers) == inputs:
        return numbers
    which = f"{', '.join(whole)}: name one with --column" if whole else f"{len(numbers)} of numbers"
    raise DataError(
        f"{name} must have one column of image files or of lists of {inputs} numbers, or {inputs} "
        f"columns of numbers; it has {which}"
    )


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column holds image files, or the structs that Hugging Face has for them."""
    if pat.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pat.is_binary(kind) or pat.is_large_binary(kind))


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers, nested or not."""
    return _is_list(kind) and (_is_number(kind.value_type) or _is_list_of_numbers(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_integer(kind) or pat.is_floating(kind))


def _read_images(column: pa.Array) -> list[Encoded]:
    if pat.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return [
        Encoded(b"", "there is no image") if content is None else Encoded(content)
        for content in column.to_pylist()
    ]


def _read_rows(batch: pa.RecordBatch, inputs: int) -> Rows:
    """Return (n, inputs) numbers. Rows that lack some do not affect others."""
    rows = _to_numpy(batch, inputs)
    if rows is not None:
        return Rows(rows)
    present = np.flatnonzero(~np.any([column.is_null() for column in batch.columns], axis=0))
    rows = _to_numpy(batch.take(pa.array(present)), inputs)
    if rows is None:  # lists are too short, too long, or have nulls
        each = [_to_numpy(batch.slice(n, 1), inputs) for n in present]
        whole = [row for row in each if row is not None]
        present = present[[row is not None for row in each]]
        rows = np.concatenate(whole) if whole else np.zeros((0, inputs), np.uint8)
    all_rows = np.zeros((batch.num_rows, inputs), rows.dtype)
    all_rows[present] = rows
    absent = np.setdiff1d(np.arange(batch.num_rows), present)
    return Rows(all_rows, dict.fromkeys(absent.tolist(), f"it has not {inputs} numbers"))


def _to_numpy(batch: pa.RecordBatch, inputs: int) -> NDArray | None:
    """Return (n, inputs) numbers, or None if one is missing, or there are too many."""
    columns = [_flatten(column) for column in batch.columns]
    length = batch.num_rows * inputs // len(columns)
    if any(c.null_count or _is_list(c.type) or len(c) != length for c in columns):
        return None
    arrays = [column.to_numpy(zero_copy_only=False) for column in columns]
    rows: NDArray = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    return rows.reshape(batch.num_rows, inputs)


def _flatten(column: pa.Array) -> pa.Array:
    """Concatenate the lists of a column, as long as all have the same length."""
    while _is_list(column.type):
        lengths = pc.list_value_length(column)
        if column.null_count or pc.min(lengths) != pc.max(lengths):
            break
        column = column.flatten()
    return column
