"""One trial: rungs that it reports, folds that it trains."""

from dataclasses import replace

import numpy as np
import pytest
from sweeps import SPACE, make_config

import fmnist_fast.distributed.sweep.trial as trial
from fmnist_fast.distributed.sweep.trial import RUNGS, run_trial


def first_task(config):
    return config.task(0, {"hidden": "8", "lr": 1e-3})


@pytest.mark.parametrize(("seeds", "last"), [(1, RUNGS - 1), (2, RUNGS)])
def test_run_trial_does_not_report_last_rung(small_dataset, seeds, last):
    space = replace(SPACE, fixed={"epochs": 2 * RUNGS})
    reported = []
    task = first_task(make_config(small_dataset, space, seeds=seeds))
    run_trial(task, small_dataset, lambda: False, lambda rung, _: reported.append(rung))
    assert reported == list(range(1, last + 1))


def test_run_trial_folds_validate_every_row_once(small_dataset, monkeypatch):
    validated = []

    class RecordingRun(trial.TrainingRun):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            validated.append(self.train_set.validation_rows_n)

    monkeypatch.setattr(trial, "TrainingRun", RecordingRun)
    config = make_config(small_dataset, folds=4)
    result = run_trial(first_task(config), small_dataset, lambda: False, lambda *_: None)
    assert len(result.values) == 4
    assert sorted(np.concatenate(validated)) == list(range(600))
