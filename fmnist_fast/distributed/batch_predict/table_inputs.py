"""Inputs in Parquet files: a column of pictures, a column of lists of numbers, or a column each."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...errors import DataError
from .blocks import Chunk, Encoded, FlawedRows, RowGroups, check_stamp, stamp_of

__all__ = ["blocks_of_table", "read_groups"]

# Bytes, before compression, of the row groups that a block has, or of the one that is larger.
BLOCK_BYTES = 32 << 20

# Rows, and pictures, that are read at a time, and bytes that are asked of the file at a time.
CHUNK_ROWS, CHUNK_PICTURES, BUFFER_BYTES = 4096, 64, 1 << 20

# Columns of numbers that are no pixels.
LABELS = ("label", "labels", "class", "target", "y", "index", "__index_level_0__")


def blocks_of_table(
    path: Path, shown: str, input_shape: tuple[int, ...], field: str | None
) -> Iterator[RowGroups]:
    """The file in blocks, each of some row groups.

    shown : how people call the file. field : the column; None: the only one that can be meant.
    Raises: DataError, one line, if there is no such column, or the file is damaged; OSError.
    """
    stamp = stamp_of(str(path))
    with _opened(path, shown) as file:
        _columns(file.schema_arrow, shown, prod(input_shape), field)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        first = begin = rows = size = 0
        for number, group in enumerate(groups):
            rows, size = rows + group.num_rows, size + group.total_byte_size
            if rows and (size >= BLOCK_BYTES or number + 1 == len(groups)):
                yield RowGroups(shown, stamp, begin, rows, first, number + 1, field)
                first, begin, rows, size = number + 1, begin + rows, 0, 0
        if not begin:
            raise DataError(f"{shown} has no rows")


def read_groups(block: RowGroups, path: str, inputs: int) -> Iterator[Chunk]:
    """What is in a block, a part at a time. inputs : numbers of a row.

    Raises: DataError if the file has changed or is damaged; OSError.
    """
    check_stamp(block, path)
    with _opened(Path(path), block.path) as file:
        columns = _columns(file.schema_arrow, block.path, inputs, block.field)
        of_pictures = len(columns) == 1 and _is_picture(file.schema_arrow.field(columns[0]).type)
        try:
            for batch in file.iter_batches(
                CHUNK_PICTURES if of_pictures else CHUNK_ROWS,
                row_groups=range(block.first, block.last),
                columns=columns,
                use_threads=False,
            ):
                yield _pictures(batch.column(0)) if of_pictures else _rows(batch, inputs)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{block.path} is damaged: {_line(error)}") from error


def _opened(path: Path, shown: str) -> pq.ParquetFile:
    path.stat()  # for an error that says which file is not there
    try:
        return pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown} is no Parquet file that can be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _columns(schema: pa.Schema, shown: str, inputs: int, field: str | None) -> list[str]:
    """Names of the columns that have the inputs: one of pictures or of lists, or so many of
    numbers, in their order.
    """
    if field is not None:
        if field not in schema.names:
            raise DataError(f"{shown} has no column {field}: it has {', '.join(schema.names)}")
        if not (_is_picture(schema.field(field).type) or _is_list(schema.field(field).type)):
            raise DataError(
                f"column {field} of {shown} holds {schema.field(field).type}: a column must hold "
                "image files, or lists of numbers"
            )
        return [field]
    numbers = [
        name
        for name, kind in zip(schema.names, schema.types)
        if _is_number(kind) and name.lower() not in LABELS
    ]
    whole = [c.name for c in schema if _is_picture(c.type) or _is_list(c.type)]
    if len(whole) == 1:
        return whole
    if not whole and len(numbers) == inputs:
        return numbers
    which = f"{', '.join(whole)}: name one with --column" if whole else f"{len(numbers)} of numbers"
    raise DataError(
        f"{shown} must have one column of image files or of lists of {inputs} numbers, or {inputs} "
        f"columns of numbers; it has {which}"
    )


def _is_picture(kind: pa.DataType) -> bool:
    """Whether a column holds image files, or what datasets of Hugging Face have for them."""
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists of numbers, or lists of lists."""
    while _is_any_list(kind):
        kind = kind.value_type
        if _is_number(kind):
            return True
    return False


def _is_any_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _pictures(column: pa.Array) -> list[Encoded]:
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    return [
        Encoded(b"", "there is no picture") if content is None else Encoded(content)
        for content in column.to_pylist()
    ]


def _rows(batch: pa.RecordBatch, inputs: int) -> NDArray | FlawedRows:
    """(n, inputs): integers or floats. A row without them costs no other its answer."""
    rows = _numbers(batch, inputs)
    if rows is not None:
        return rows
    present = np.flatnonzero(~np.any([column.is_null() for column in batch.columns], axis=0))
    rows = _numbers(batch.take(pa.array(present)), inputs)
    if rows is None:  # since lists are too short, too long, or have gaps
        each = [_numbers(batch.slice(n, 1), inputs) for n in present]
        whole = [row for row in each if row is not None]
        present = present[[row is not None for row in each]]
        rows = np.concatenate(whole) if whole else np.zeros((0, inputs), np.uint8)
    all_rows = np.zeros((batch.num_rows, inputs), rows.dtype)
    all_rows[present] = rows
    absent = np.setdiff1d(np.arange(batch.num_rows), present)
    return FlawedRows(all_rows, dict.fromkeys(absent.tolist(), f"it has not {inputs} numbers"))


def _numbers(batch: pa.RecordBatch, inputs: int) -> NDArray | None:
    """(n, inputs), or None if a number is missing, or there are too many."""
    columns = [_flat(column) for column in batch.columns]
    whole = batch.num_rows * inputs // len(columns)
    if any(c.null_count or _is_any_list(c.type) or len(c) != whole for c in columns):
        return None
    arrays = [column.to_numpy(zero_copy_only=False) for column in columns]
    rows: NDArray = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    return rows.reshape(batch.num_rows, inputs)


def _flat(column: pa.Array) -> pa.Array:
    """The numbers of all lists, one after the other; of no list that another is longer than."""
    while _is_any_list(column.type):
        lengths = pc.list_value_length(column)
        if column.null_count or pc.min(lengths) != pc.max(lengths):
            break
        column = column.flatten()
    return column
