"""Work on several processes or machines with Dask: sweeps and batch prediction.

`worker_pool`, `tasks` and `worker` serve both. Needs the extra `sweep`. May import `estimators` and
what lies below it; not `bench`.
"""
