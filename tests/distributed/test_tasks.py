"""Tasks: resubmission after a lost result."""

from concurrent.futures import CancelledError

import pytest

pytest.importorskip("distributed", reason="Dask is not installed")

from distributed import Future

from fmnist_fast.distributed.tasks import Finished, Tasks


class FakeFuture(Future):
    """Finished future with a result, or an error when the result is fetched."""

    status = "finished"

    def __init__(self, result):
        self._outcome = result

    def __del__(self):
        pass

    def add_done_callback(self, function):
        function(self)

    def result(self, timeout=None):
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class FakePool:
    """Pool that returns finished futures with the given results, in order."""

    epoch = 0

    def __init__(self, *results):
        self.results = list(results)

    def submit(self, function, *arguments, name):
        return FakeFuture(self.results.pop(0))

    def check_scheduler(self):
        pass


@pytest.mark.parametrize("error", [OSError("gone"), TimeoutError(), CancelledError()])
def test_tasks_resubmit_task_with_lost_result(error):
    pool = FakePool(error, 42)
    tasks = Tasks(pool, "test")
    tasks.submit(7, print)
    assert list(tasks.poll(1)) == [Finished(7, 42)]
    assert pool.results == []


def test_tasks_fail_task_after_five_lost_results():
    tasks = Tasks(FakePool(*[OSError("gone")] * 5), "test")
    tasks.submit(7, print)
    (finished,) = tasks.poll(1)
    assert finished.result.error == "no worker completed it"
    assert not tasks
