"""One training at a time, in order, and nobody who went away holds up the others."""

import time
from threading import Event

import pytest

from fmnist_fast.app.jobs import MOST_WAITING, PATIENCE, JobQueue, QueueFull, State
from fmnist_fast.errors import UserError


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Work:
    """Work that ends when it is let go or asked to stop."""

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
    end = time.monotonic() + 20
    while not job.ended:
        assert time.monotonic() < end
        time.sleep(0.001)
    return job.state


def test_jobs_run_one_at_a_time_and_in_order(queue):
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


def test_the_queue_works_again_after_it_was_empty(queue):
    for _ in range(3):
        job = queue.submit(lambda should_stop: 7)
        assert wait_for(job) is State.DONE
        assert job.result == 7


def test_a_job_that_runs_can_be_stopped(queue):
    work = Work()
    job = queue.submit(work)
    assert work.begun.wait(20)
    job.stop()
    assert wait_for(job) is State.STOPPED
    assert job.result is None


def test_a_job_that_waits_and_is_stopped_never_begins(queue):
    first, second = Work(), Work()
    running, waiting = queue.submit(first), queue.submit(second)
    assert first.begun.wait(20)
    waiting.stop()
    queue.position(waiting)
    assert waiting.state is State.STOPPED
    first.go.set()
    assert wait_for(running) is State.DONE
    assert not second.begun.is_set()


def test_nobody_who_went_away_holds_up_the_others(queue, clock):
    lost, waiting_and_lost, wanted = Work(), Work(), Work()
    jobs = [queue.submit(work) for work in (lost, waiting_and_lost, wanted)]
    assert lost.begun.wait(20)
    clock.now = PATIENCE / 2
    assert queue.position(jobs[2]) == 2
    clock.now = PATIENCE + 1
    assert wait_for(jobs[0]) is State.STOPPED
    assert wanted.begun.wait(20)
    assert jobs[1].state is State.STOPPED
    assert not waiting_and_lost.begun.is_set()
    wanted.go.set()
    assert wait_for(jobs[2]) is State.DONE


def test_who_looks_now_and_then_keeps_the_job(queue, clock):
    work = Work()
    job = queue.submit(work)
    assert work.begun.wait(20)
    for _ in range(5):
        clock.now += 0.9 * PATIENCE
        assert queue.position(job) == 0
        assert not job.should_stop()
    work.go.set()
    assert wait_for(job) is State.DONE


def test_who_is_connected_need_not_look(queue, clock):
    here = [True]
    work = Work()
    job = queue.submit(work, lambda: here[0])
    assert work.begun.wait(20)
    clock.now = 10 * PATIENCE
    assert not job.should_stop()
    here[0] = False
    assert not job.should_stop()  # a connection may come back
    clock.now += PATIENCE + 1
    assert wait_for(job) is State.STOPPED


def test_a_mistake_of_the_user_is_one_line(queue):
    def work(should_stop):
        raise UserError("too\nwide")

    job = queue.submit(work)
    assert wait_for(job) is State.FAILED
    assert job.error == "too wide"


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), MemoryError()])
def test_any_other_error_ends_in_the_log_and_not_on_the_page(queue, error):
    def work(should_stop):
        raise error

    job = queue.submit(work)
    assert wait_for(job) is State.FAILED
    assert "secret" not in job.error
    assert "\n" not in job.error
    assert wait_for(queue.submit(lambda should_stop: 1)) is State.DONE


def test_the_queue_has_an_end(queue):
    first = Work()
    queue.submit(first)
    assert first.begun.wait(20)
    jobs = [queue.submit(Work()) for _ in range(MOST_WAITING)]
    with pytest.raises(QueueFull, match="try again later"):
        queue.submit(Work())
    for job in jobs:
        job.stop()
    jobs.append(queue.submit(lambda should_stop: 1))
    first.go.set()
    assert wait_for(jobs[-1]) is State.DONE
