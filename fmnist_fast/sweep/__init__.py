"""Sweeps: many trainings with other settings. Optuna chooses, Dask runs.

space.py     what may be chosen          sampler.py   where the next trial is
ledger.py    what was tried, on disk     trial.py     one trial, wherever it runs
driver.py    keeps the workers busy      results.py   what came out
"""
