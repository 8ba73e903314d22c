"""A trial on a worker of a cluster."""

from collections.abc import Callable
from dataclasses import dataclass

from distributed import get_worker

from ...errors import UserError
from ...training.loop import StopRequested
from ...training.run import Diverged
from ..worker import DataKey, dataset_of
from .trial import Result, Task, run_trial

__all__ = ["Failure", "work"]


@dataclass(frozen=True)
class Failure:
    """A trial that has no result. diverged : since its loss exploded, as some settings will."""

    why: str
    diverged: bool


def work(task: Task, key: DataKey, topic: str | None) -> Result | Failure:
    """Run the trial. topic : of the events that tell the rungs, to whom it may concern."""
    worker = get_worker()

    def report(rung: int, value: float) -> None:
        if topic:
            worker.log_event(topic, (task.number, rung, value))

    try:
        hflip = task.config.hflip or (task.config.hflip is None and key.hflip_invariant)
        dataset = dataset_of(key, x_train_with_flips=hflip and not task.config.augment)
        return run_trial(task, dataset, _cancelled(), report)
    except StopRequested:
        return Failure("it was stopped", diverged=False)  # which nobody waits for any more
    except Diverged as error:
        return Failure(str(error), diverged=True)
    except (UserError, MemoryError) as error:
        return Failure(str(error) or "there is not enough memory for it", diverged=False)


def _cancelled() -> Callable[[], bool]:
    """Whether the task that runs in this thread is no longer wanted: the scheduler tells the
    worker, which lets the thread go on. Asking the worker costs no message.
    """
    worker = get_worker()
    name = worker.get_current_task()

    def cancelled() -> bool:
        task = worker.state.tasks.get(name)
        return task is None or task.state != "executing"

    return cancelled
