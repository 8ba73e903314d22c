"""Many answers into one file: inputs of any size, in blocks, by the workers of a cluster.

sources.py   what is to be scored, found and cut into blocks
blocks.py    what a block is
arrays.py    the rows of IDX, .npy and .npz files
tables.py    the rows and pictures of Parquet files
reading.py   what is in a block of any kind
worker.py    a block in, answers out
partial.py   answers so far: kept block by block, gone on with after a stop
output.py    all answers as Parquet or CSV, complete or absent
job.py       keeps the workers busy
"""
