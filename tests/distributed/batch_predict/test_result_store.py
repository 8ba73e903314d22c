"""Result store: predictions of two commands are never mixed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from batch_inputs import blocks_of
from messages import assert_one_line

from fmnist_fast.distributed.batch_predict.result_store import open_results
from fmnist_fast.errors import ArgumentError


def check_open_fails(path, model, *parts):
    """Check that opening the store for the model is a one-line error."""
    with (
        pytest.raises(ArgumentError) as caught,
        open_results(path, {"model": model}, blocks_of("a.png")),
    ):
        pass
    assert_one_line(str(caught.value), *parts)


@pytest.fixture
def started(tmp_path):
    """A store with a prediction by the model "a"."""
    with open_results(tmp_path / "p", {"model": "a"}, blocks_of("a.png")) as store:
        store.store(1, b"x", 1, 0)
    return tmp_path / "p"


def test_open_results_resumes_store(started):
    with open_results(started, {"model": "a"}, blocks_of("a.png")) as store:
        assert store.done == 1


def test_open_results_rejects_store_of_another_command(started):
    check_open_fails(started, "b", "with other model")
    with open_results(started, {"model": "b"}, blocks_of("a.png"), force=True) as store:
        assert store.done == 0


def test_open_results_rejects_store_in_use(started):
    with open_results(started, {"model": "a"}, blocks_of("a.png")):
        check_open_fails(started, "a", "is in use")
        with pytest.MonkeyPatch.context() as patch:  # as if it had looked a moment before
            patch.setattr(Path, "exists", lambda path: False)
            check_open_fails(started, "a", "is in use")
        assert started.exists()


def test_open_results_rejects_store_of_older_version(started):
    with closing(sqlite3.connect(started)) as db, db:
        db.execute("UPDATE about SET version = 2")
    check_open_fails(started, "a", "another version of fmnist-fast", "--force")


def test_open_results_rejects_other_file(tmp_path):
    (tmp_path / "text").write_text("something else that is long enough to be a file" * 9)
    check_open_fails(tmp_path / "text", "a", "damaged, or not a file of fmnist-fast")
