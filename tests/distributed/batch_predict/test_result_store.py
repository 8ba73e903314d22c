"""Result store: predictions of two commands are never mixed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from batch_inputs import blocks_of
from messages import assert_one_line

from fmnist_fast.distributed.batch_predict.result_store import open_results
from fmnist_fast.errors import ArgumentError


def check_is_refused(path, model, *parts):
    """Opening a store for a model is an error of one line."""
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


def test_store_is_resumed(started):
    with open_results(started, {"model": "a"}, blocks_of("a.png")) as store:
        assert store.done == 1


def test_store_of_another_command_is_refused(started):
    check_is_refused(started, "b", "with other model")
    with open_results(started, {"model": "b"}, blocks_of("a.png"), force=True) as store:
        assert store.done == 0


def test_store_in_use_is_refused(started):
    with open_results(started, {"model": "a"}, blocks_of("a.png")):
        check_is_refused(started, "a", "is in use")
        with pytest.MonkeyPatch.context() as patch:  # as if it had looked a moment before
            patch.setattr(Path, "exists", lambda path: False)
            check_is_refused(started, "a", "is in use")
        assert started.exists()


def test_store_of_an_older_version_is_refused(started):
    with closing(sqlite3.connect(started)) as db, db:
        db.execute("UPDATE about SET version = 2")
    check_is_refused(started, "a", "another version of fmnist-fast", "--force")


def test_foreign_file_is_refused(tmp_path):
    (tmp_path / "text").write_text("something else that is long enough to be a file" * 9)
    check_is_refused(tmp_path / "text", "a", "damaged, or not a file of fmnist-fast")
