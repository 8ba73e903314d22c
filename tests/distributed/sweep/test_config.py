"""Configuration of a sweep: validation before it starts."""

from dataclasses import replace

import pytest
from messages import assert_one_line
from sweeps import SPACE

from fmnist_fast.distributed.sweep.config import SweepConfig
from fmnist_fast.errors import SweepError
from fmnist_fast.training.config import TrainingConfig


def test_config_rejects_missing_validation_rows(small_dataset):
    few = replace(
        small_dataset, x_train=small_dataset.x_train[:11], y_train=small_dataset.y_train[:11]
    )
    with pytest.raises(SweepError) as caught:
        SweepConfig(few, TrainingConfig(batch_size=2), SPACE, 1).checked()
    assert_one_line(str(caught.value), "none of 11 rows is for validation")
