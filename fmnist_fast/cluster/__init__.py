"""Work on the processes of a Dask cluster, on this machine or on many.

fleet.py    the workers: which may be used, and what they are given to do
tasks.py    work that is under way
worker.py   what runs in a worker: what it is, and the data sets that it has
"""
