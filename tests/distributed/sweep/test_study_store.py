"""Study store: studies of other sweeps, damaged or in use are rejected unchanged."""

import json
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from messages import assert_one_line
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState
from sweeps import SLOW, SPACE, make_config, open_store, run, sweep

from fmnist_fast.distributed.sweep.scheduler import StopReason
from fmnist_fast.distributed.sweep.space import Space
from fmnist_fast.distributed.sweep.study_store import open_study
from fmnist_fast.errors import SweepError
from fmnist_fast.training.config import TrainingConfig


def check_open_fails(*parts, address, identity, name="fmnist-fast", maximize=True):
    """Check that opening the study is a one-line error."""
    with (
        pytest.raises(SweepError) as caught,
        open_study(str(address), name, identity, maximize=maximize),
    ):
        pass
    assert_one_line(str(caught.value), *parts)


def test_open_study_rejects_study_in_use(small_dataset, tmp_path):
    study, config = tmp_path / "s.journal", make_config(small_dataset)
    with open_store(config, study):
        check_open_fails("another sweep is writing to", address=study, identity=config.identity())


def test_open_study_rejects_another_config(small_dataset, pool, tmp_path):
    study, config = tmp_path / "s.journal", make_config(small_dataset)
    sweep(replace(config, trials=1), pool, study)
    wider = Space({**SPACE.searched, "l2": CategoricalDistribution((0.0,))}, SPACE.fixed)
    for changed, *parts in (
        (replace(config, seed=1), "has another seed (0, now 1)", "options it was begun with"),
        (
            replace(config, space=wider),
            "another space: searched: l2 (none, now {'choices': [0.0]})",
        ),
        (replace(config, space=SLOW), "has another space: searched: hidden ("),
        (replace(config, base=TrainingConfig(l2=0.5)), "has another config: l2 ("),
        (replace(config, backend="numpy"), "another backend (cython, now numpy)", "the last bits"),
        (
            replace(config, dataset=replace(small_dataset, name="b")),
            "another dataset (small, now b)",
        ),
    ):
        check_open_fails(*parts, address=study, identity=changed.identity())
    with open_store(replace(config, trials=3), study):
        pass


def test_open_study_rejects_study_of_older_version(small_dataset, pool, tmp_path):
    study, config = tmp_path / "s.journal", make_config(small_dataset, trials=1)
    older = {name: v for name, v in config.identity().items() if name != "format_version"}
    with open_study(str(study), "fmnist-fast", older, maximize=True) as store:
        run(config, store, pool)
    check_open_fails(
        "has another format version (none, now 3)", address=study, identity=config.identity()
    )


def test_open_study_without_trials_accepts_another_config(small_dataset, tmp_path):
    study, config = tmp_path / "s.journal", make_config(small_dataset)
    for changed in (
        config,
        replace(config, seed=1),
        replace(config, space=SLOW),
        replace(config, folds=2),
    ):
        with open_store(changed, study):
            pass
    identity = replace(changed, metric="validation_loss").identity()
    check_open_fails("has another metric", address=study, identity=identity, maximize=False)


def test_journal_with_unfinished_line_is_resumed(small_dataset, pool, full_run, tmp_path):
    config, study = make_config(small_dataset), tmp_path / "s.journal"
    sweep(replace(config, trials=4), pool, study)
    with open(study, "ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x", "stu')
    Path(f"{study}.lock").symlink_to(study)  # as Optuna's lock is left by a kill
    start = time.monotonic()
    assert sweep(config, pool, study) == (full_run, StopReason.DONE)
    assert time.monotonic() - start < 20


def test_journal_with_damaged_line_is_rejected_unchanged(small_dataset, pool, tmp_path):
    config, study = make_config(small_dataset, trials=2), tmp_path / "s.journal"
    trials, _ = sweep(config, pool, study)
    whole = study.read_bytes()
    lines = whole.splitlines(keepends=True)
    study.write_bytes(whole + b"xxx{garbage\n")
    last = len(lines) + 1
    for _ in range(2):
        with pytest.raises(SweepError) as caught:
            sweep(config, pool, study)
        assert_one_line(str(caught.value), f"is damaged: line {last} of {last}", "delete it")
    study.write_bytes(whole)
    assert sweep(config, pool, study)[0] == trials


def test_journal_with_missing_line_resumes_exactly_or_fails(small_dataset, pool, tmp_path):
    config, study = make_config(small_dataset, trials=2), tmp_path / "s.journal"
    trials, _ = sweep(config, pool, study)
    lines = study.read_bytes().splitlines(keepends=True)

    def resumes_without(n):
        study.write_bytes(b"".join(lines[:n] + lines[n + 1 :]))
        try:
            found, _ = sweep(config, pool, study)
        except SweepError:
            return False
        assert found == trials  # the lost line is not needed, or its trial was run again
        return True

    resumed = defaultdict(set)
    for n, line in enumerate(lines):
        resumed[JournalOperation(json.loads(line)["op_code"]).name].add(resumes_without(n))
    for lost in ("SET_STUDY_USER_ATTR", "SET_TRIAL_PARAM", "SET_TRIAL_USER_ATTR"):
        assert resumed.pop(lost) == {False}, lost
    assert resumed.pop("SET_TRIAL_STATE_VALUES") == {True}  # the trial is run again
    assert resumed.pop("CREATE_STUDY") == {True}  # all are
    assert resumed.pop("CREATE_TRIAL") == {False, True}  # the last is; others would change numbers
    assert not resumed


def test_sqlite_lock_is_independent_of_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_study("sqlite:///s.db", "x", {}, maximize=True):
        check_open_fails(
            "another sweep is writing to", address=f"sqlite:///{tmp_path}/s.db", identity={}
        )


def journal(path):
    return JournalStorage(JournalFileBackend(str(path)))


def test_study_store_trial_ended_elsewhere_is_an_error(small_dataset, tmp_path):
    study, config = tmp_path / "s.journal", make_config(small_dataset)

    def fail_after_other_machine(store):
        store.configure(config)
        trial = store.ask()
        elsewhere = optuna.load_study(storage=journal(study), study_name="fmnist-fast")
        elsewhere.tell(trial.number, state=TrialState.FAIL)
        store.fail(trial, "here")

    with pytest.raises(SweepError) as caught, open_store(config, study) as store:
        fail_after_other_machine(store)
    assert_one_line(str(caught.value), "another sweep, on another machine, writes to")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("text", "text exists and is not an Optuna journal: name another"),
        ("folder", "folder is not a file: name another"),
        ("missing/s.journal", "does not exist: create it"),
        ("foreign.journal", "is no sweep of fmnist-fast"),
    ],
)
def test_open_study_rejects_other_files_unchanged(name, part, tmp_path):
    (tmp_path / "text").write_text("my notes")
    (tmp_path / "folder").mkdir()
    foreign = tmp_path / "foreign.journal"
    optuna.create_study(storage=journal(foreign), study_name="x").ask()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    check_open_fails(part, address=tmp_path / name, identity={}, name="x")
    for path, content in before.items():
        if path != foreign:  # Optuna appends that it was opened
            assert path.read_bytes() == content
