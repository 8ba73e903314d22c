"""Time budgets."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from typing import ClassVar

import pytest

from fmnist_fast import Ensemble, train
from fmnist_fast.training.budget import Clock, TimeBudget
from fmnist_fast.training.config import Distillation, TrainingConfig
from fmnist_fast.training.progress import Progress


class ManualClock(Clock):
    """Clock that the test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("slower", [1.0, 0.3, 3.0])
def test_time_budget_ends_in_time_at_annealed_rate(slower):
    """Also on a machine whose speed changes half-way."""
    clock = ManualClock()
    budget, done, rates = TimeBudget("onecycle", 1.0, 0.0, 10.0, clock), 0, []
    while len(found := budget.rates(done, 40)):
        seconds = 0.001 * len(found) * (slower if clock.now > 5 else 1)
        clock.now += seconds
        budget.observe(len(found), seconds)
        done += len(found)
        rates.extend(found)
    assert 9.9 < clock.now <= 10.0 + 0.1
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] < 1e-4
    assert rates.index(max(rates)) == pytest.approx(2500, abs=60)


@pytest.mark.alone
def test_time_budget_covers_teachers_and_student(small_dataset, slowness):
    """Also where the teachers have more time than their epochs would take."""

    class Watch(Progress):
        begun: ClassVar[list] = []

        def begin(self, network, config, dataset):
            self.begun.append((network.spec.sizes[1], time.perf_counter()))

    budget = 1.5 * slowness
    taught_by = Distillation(TrainingConfig(hidden=(24,), epochs=2), n_teachers=2)
    start = time.perf_counter()
    result = train(
        small_dataset,
        distillation=taught_by,
        preset="standard",
        hidden=(16,),
        epochs=4,
        time_budget=budget,
        threads=1,
        progress=Watch(),
    )
    assert [width for width, _ in Watch.begun] == [24, 24, 16]
    times = [at - start for _, at in Watch.begun]
    # By their multiply-adds: 2 x 24 wide, 2 x 24 wide, 4 x 16 wide.
    assert times[1] == pytest.approx(budget * 48 / 160, abs=0.1 * budget)
    assert times[2] == pytest.approx(budget * 96 / 160, abs=0.1 * budget)
    assert result.seconds == pytest.approx(budget, abs=budget / 15)
    assert len(result.history) > 4


def test_time_budget_already_spent_still_trains_a_step(small_dataset):
    result = train(small_dataset, time_budget=1e-3, threads=1)
    assert len(result.history) == 1
    assert result.model.predict(small_dataset.x_test).shape == (200,)


@pytest.mark.alone
@pytest.mark.parametrize("seconds", [0.7, 1.5])
def test_time_budget_of_command_ends_in_time(small_npz, tmp_path, seconds, slowness):
    """The whole process; the best of three, since a machine has other things to do."""
    late, epochs = [], []
    seconds = round(seconds * slowness, 1)  # a slow machine needs more time to start, too
    for attempt in range(3):
        out = tmp_path / f"{attempt}.safetensors"
        command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz)]
        command += ["--time-budget", f"{seconds}s", "--threads", "1", "--json", "--quiet"]
        start = time.perf_counter()
        ran = subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.PIPE)
        late.append(time.perf_counter() - start - seconds)
        epochs.append(json.loads(ran.stdout)["epochs"])
    assert min(late) < max(0.1 * slowness, 0.05 * seconds)
    assert max(epochs) > 3
    assert max(late) > -0.5 * seconds  # the time is used


@pytest.fixture(scope="module")
def teacher(small_dataset) -> Ensemble:
    """Two models with different temperatures."""
    options = {"epochs": 3, "hidden": (24,), "threads": 1, "backend": "numpy"}
    one, two = (train(small_dataset, seed=seed, **options).model for seed in (10, 11))
    return Ensemble((replace(one, temperature=1.4), replace(two, temperature=0.7)))


def test_time_budget_is_students_with_given_teacher(small_dataset, teacher):
    result = train(small_dataset, teacher=teacher, hidden=(16,), time_budget=0.6, threads=1)
    assert result.seconds == pytest.approx(0.6, abs=0.1)
    assert len(result.history) > 2
