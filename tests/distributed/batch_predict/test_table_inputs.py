"""Parquet inputs: rows that lack numbers, and row groups without rows."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_inputs import blocks_of, predict_into, table

from fmnist_fast.distributed.batch_predict import table_inputs


@pytest.mark.parametrize(
    "flaw", ["no list", "short", "long", "gap", "ragged", "missing", "nothing else"]
)
def test_table_rows_with_missing_values_have_an_error(flaw, images, model, pool, tmp_path):
    x, path = images[:20], tmp_path / "x.parquet"
    flat, absent = x.reshape(20, 784).tolist(), [3, 7]
    match flaw:
        case "no list":
            flat[3] = flat[7] = None
        case "short":
            flat[3], flat[7] = flat[3][:783], []
        case "long":  # as many numbers as all rows have
            flat[3], flat[7] = flat[3][:700], flat[7] + [0] * 84
        case "gap":
            flat[3][0] = flat[7][783] = None
        case "ragged":
            flat = x.tolist()
            flat[3][5], flat[7] = flat[3][5][:27], flat[7][:27]
        case "nothing else":
            flat, absent = [None] * 20, list(range(20))
    if flaw == "missing":
        columns = {f"pixel{i}": x[:, i // 28, i % 28].tolist() for i in range(784)}
        columns["pixel0"][3] = columns["pixel9"][7] = columns["pixel783"][7] = None
        table(path, **{name: pa.array(column, pa.int64()) for name, column in columns.items()})
    else:
        kind = pa.list_(pa.list_(pa.uint8())) if flaw == "ragged" else pa.list_(pa.uint8())
        table(path, image=pa.array(flat, kind))
    found = predict_into(tmp_path, pool, [str(path)])
    errors = dict.fromkeys(absent, "it has not 784 numbers")
    assert {n: error for n, error in enumerate(found["error"].to_pylist()) if error} == errors
    expected = model.predict(x).tolist()
    labels = [None if n in absent else label for n, label in enumerate(expected)]
    assert found["label"].to_pylist() == labels


def test_table_empty_row_groups_are_skipped(images, pool, tmp_path, monkeypatch):
    rows = pa.table({"pixels": images[:9].reshape(9, -1).tolist()})
    with pq.ParquetWriter(tmp_path / "x.parquet", rows.schema) as writer:
        for part in (rows[:0], rows[:4], rows[:0], rows[4:], rows[:0]):
            writer.write_table(part)
    monkeypatch.setattr(table_inputs, "BLOCK_BYTES", 1)
    assert [block.rows for block in blocks_of(tmp_path / "x.parquet")] == [4, 5]
    assert predict_into(tmp_path, pool, [tmp_path / "x.parquet"]).num_rows == 9
