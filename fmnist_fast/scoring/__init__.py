"""Many answers into one file: inputs of any size, in blocks, by the workers of a cluster.

sources.py   what is to be scored: its kinds of files, cut into blocks
blocks.py    a block, and its rows or pictures as they are read
worker.py    a block in, answers out
partial.py   answers so far: kept block by block, gone on with after a stop
output.py    all answers as Parquet or CSV, complete or absent
job.py       keeps the workers busy
"""
