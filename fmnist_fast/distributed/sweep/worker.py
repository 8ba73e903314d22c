"""Runs a trial in a worker process."""

from collections.abc import Callable

from distributed import get_worker

from ...errors import UserError
from ...training.loop import StopRequested
from ...training.run import TrainingDiverged
from ..tasks import TaskFailure
from ..worker import DataKey, find_dataset
from .trial import Result, Task, run_trial


class Divergence(TaskFailure):
    """Failure of a trial that diverged, because of its hyperparameters."""


def work(task: Task, key: DataKey, topic: str | None) -> Result | TaskFailure:
    """Run a trial. topic : of the events (number, rung, value) that report its progress."""
    worker = get_worker()

    def report(rung: int, value: float) -> None:
        if topic:
            worker.log_event(topic, (task.number, rung, value))

    try:
        hflip = task.config.hflip or (task.config.hflip is None and key.hflip_invariant)
        dataset = find_dataset(key, x_train_with_flips=hflip and not task.config.augment)
        return run_trial(task, dataset, _make_cancel_check(), report)
    except StopRequested:
        return TaskFailure("it was stopped")  # the scheduler discards the result
    except TrainingDiverged as error:
        return Divergence(str(error))
    except (UserError, MemoryError) as error:
        return TaskFailure(str(error) or "there is not enough memory for it")


def _make_cancel_check() -> Callable[[], bool]:
    """Return a function that reads from the worker's state whether the task of this thread was
    cancelled: Dask informs the worker, and does not stop the thread.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def cancelled() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state != "executing"

    return cancelled
