"""Terminal view of a sweep."""

import io
import re

import pytest

pytest.importorskip("optuna", reason="Optuna is not installed")
pytest.importorskip("distributed", reason="Dask is not installed")

from rich.console import Console

from fmnist_fast.cli.sweep_view import FinalProgress, SweepView, best_table
from fmnist_fast.distributed.sweep.results import Ranked
from fmnist_fast.distributed.sweep.scheduler import Status
from fmnist_fast.distributed.sweep.study_store import Counts
from fmnist_fast.distributed.sweep.trial import Result
from fmnist_fast.training.config import TrainingConfig


def seen(show):
    """The lines of a terminal of 90 columns."""
    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    show(console)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_view_shows_bar_counts_and_best():
    best = Ranked(7, {"lr": 0.00125}, Result((0.9123,), (0.9123,), (0.3,), (2,), 1.5))
    status = Status(50, Counts(10, 15, 1), 2, 2, 2, 26, 60.0, best, until_deadline=30.0)

    def show(console):
        with SweepView(console, "validation_accuracy") as view:
            view.update(status)

    bar, how_far, best_line = seen(show)[-3:]
    assert bar == "━" * 60 + "╺" + "━" * 29  # two thirds of the time, if half of the trials
    assert how_far == "26 of 50 trials, 15 pruned, 1 failed, 26.0 a minute, 0:30 left, 2 workers"
    assert best_line == "best: trial 7, 91.23 %: lr 0.00125"


def test_final_progress_shows_epoch():
    def show(console):
        with FinalProgress(console, "model 2 of 5") as progress:
            progress.begin(None, TrainingConfig(epochs=10), None)
            progress.steps(4, 1, 2)

    assert seen(show)[-1] == "model 2 of 5: epoch 4 of 10"


@pytest.mark.parametrize("width", [40, 80, 103, 104, 200])
def test_best_table_is_readable_at_any_width(width):
    settings = {
        "batch_size": 256,
        "dropout": 0.0501,
        "epochs": 29,
        "hidden": (256, 128),
        "l2": 2.45e-05,
        "label_smoothing": 0.00503,
        "lr": 0.00431,
        "schedule": "onecycle",
    }
    result = Result((0.9004, 0.8996), (0.9, 0.9), (0.3, 0.3), (3, 3), 12.3)
    console = Console(file=io.StringIO(), width=width)
    console.print(best_table([Ranked(123, settings, result)], "validation_accuracy", width))
    text = console.file.getvalue()
    assert {word.rstrip(",") for word in text.split()} >= {
        *("123", "90.00", "0.06", "256", "0.0501", "29", "256-128", "2.45e-05", "0.00503"),
        *("0.00431", "onecycle"),
    }
    assert "…" not in text
