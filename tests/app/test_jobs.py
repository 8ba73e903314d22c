"""Job queue: order, stopping, abandoned jobs, errors."""

from threading import Event

import pytest
from conditions import wait_until

from fmnist_fast.app.jobs import ABANDON_SECONDS, MAX_WAITING, JobQueue, QueueFull, State
from fmnist_fast.errors import UserError


class Clock:
    """A clock that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Work:
    """Work that ends when its event is set or a stop is requested."""

    def __init__(self):
        self.begun, self.go = Event(), Event()

    def __call__(self, should_stop):
        self.begun.set()
        while not self.go.wait(0.001):
            if should_stop():
                raise KeyboardInterrupt
        return "done"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return JobQueue(clock)


def wait_for(job):
    wait_until(lambda: job.ended)
    return job.state


def test_queue_runs_one_job_at_a_time_in_order(queue):
    works = [Work() for _ in range(3)]
    jobs = [queue.submit(work) for work in works]
    assert works[0].begun.wait(20)
    assert [queue.position(job) for job in jobs] == [0, 1, 2]
    assert [job.state for job in jobs] == [State.RUNNING, State.WAITING, State.WAITING]
    works[0].go.set()
    assert wait_for(jobs[0]) is State.DONE
    assert jobs[0].result == "done"
    assert works[1].begun.wait(20)
    assert not works[2].begun.is_set()
    assert [queue.position(job) for job in jobs] == [0, 0, 1]
    for work in works:
        work.go.set()
    assert [wait_for(job) for job in jobs] == [State.DONE] * 3


def test_queue_restarts_after_it_was_empty(queue):
    for _ in range(3):
        job = queue.submit(lambda should_stop: 7)
        assert wait_for(job) is State.DONE
        assert job.result == 7


def test_job_stop_ends_running_job(queue):
    work = Work()
    job = queue.submit(work)
    assert work.begun.wait(20)
    job.stop()
    assert wait_for(job) is State.STOPPED
    assert job.result is None


def test_job_stop_prevents_waiting_job_from_running(queue):
    first, second = Work(), Work()
    running, waiting = queue.submit(first), queue.submit(second)
    assert first.begun.wait(20)
    waiting.stop()
    queue.position(waiting)
    assert waiting.state is State.STOPPED
    first.go.set()
    assert wait_for(running) is State.DONE
    assert not second.begun.is_set()


def test_queue_stops_abandoned_jobs_and_runs_others(queue, clock):
    abandoned, waiting, wanted = Work(), Work(), Work()
    jobs = [queue.submit(work) for work in (abandoned, waiting, wanted)]
    assert abandoned.begun.wait(20)
    clock.now = ABANDON_SECONDS / 2
    assert queue.position(jobs[2]) == 2
    clock.now = ABANDON_SECONDS + 1
    assert wait_for(jobs[0]) is State.STOPPED
    assert wanted.begun.wait(20)
    assert jobs[1].state is State.STOPPED
    assert not waiting.begun.is_set()
    wanted.go.set()
    assert wait_for(jobs[2]) is State.DONE


def test_queue_polled_job_is_not_abandoned(queue, clock):
    work = Work()
    job = queue.submit(work)
    assert work.begun.wait(20)
    for _ in range(5):
        clock.now += 0.9 * ABANDON_SECONDS
        assert queue.position(job) == 0
        assert not job.should_stop()
    work.go.set()
    assert wait_for(job) is State.DONE


def test_queue_job_of_connected_session_is_not_abandoned(queue, clock):
    connected = [True]
    work = Work()
    job = queue.submit(work, lambda: connected[0])
    assert work.begun.wait(20)
    clock.now = 10 * ABANDON_SECONDS
    assert not job.should_stop()
    connected[0] = False
    assert not job.should_stop()  # a connection may come back
    clock.now += ABANDON_SECONDS + 1
    assert wait_for(job) is State.STOPPED


def test_job_user_error_is_one_line(queue):
    def work(should_stop):
        raise UserError("too\nwide")

    job = queue.submit(work)
    assert wait_for(job) is State.FAILED
    assert job.error == "too wide"


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), MemoryError()])
def test_job_internal_error_is_not_shown(queue, error):
    def work(should_stop):
        raise error

    job = queue.submit(work)
    assert wait_for(job) is State.FAILED
    assert "secret" not in job.error
    assert "\n" not in job.error
    assert wait_for(queue.submit(lambda should_stop: 1)) is State.DONE


def test_queue_submit_rejects_more_than_max_waiting(queue):
    first = Work()
    queue.submit(first)
    assert first.begun.wait(20)
    jobs = [queue.submit(Work()) for _ in range(MAX_WAITING)]
    with pytest.raises(QueueFull, match="try again later"):
        queue.submit(Work())
    for job in jobs:
        job.stop()
    jobs.append(queue.submit(lambda should_stop: 1))
    first.go.set()
    assert wait_for(jobs[-1]) is State.DONE
