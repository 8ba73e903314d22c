"""Hyperparameter sweeps: Optuna suggests trials and stores them, Dask workers run them.

`space` is the search space, `scheduler` the loop that dispatches trials, `study_store` the study on
disk. May import `distributed` and what lies below it; not `batch_predict`.
"""
