"""Prediction of many inputs into one Parquet or CSV file, in blocks, by Dask workers.

`sources` finds the inputs and cuts them into blocks, `readers` reads a block, `result_store` keeps
finished blocks, `output` writes the file. May import `distributed` and what lies below it; not
`sweep`.
"""
