"""Study on disk: an Optuna study in a journal file or a database.

A trial that was started and has not ended when a sweep is stopped or killed is run again under its
own number, with its own parameters. (Optuna's heartbeat and RetryHeartbeatStaleTrialCallback do
not: they need a database and `Study.optimize()`, and a retried trial gets a new number, which would
make results depend on kills.)
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError as UrlError
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from ..._files import check_disk_space
from ...data.cache import cache_folder
from ...errors import SweepError, UserError
from .config import SweepConfig
from .sampler import make_pruner, make_sampler
from .trial import Result

# User attributes of the study and of its trials, which Optuna's own tools show.
IDENTITY = "fmnist_fast"
RESULT = "result"
FAILURE = "failure"

# Entries of the identity that change the last bits of results, not what is searched.
PLATFORM = ("backend", "instruction_set", "fmnist_fast")


@dataclass
class Counts:
    """Number of trials by state."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    unfinished: int = 0

    @property
    def ended(self) -> int:
        """Trials that will not be run any more."""
        return self.complete + self.pruned + self.failed


@contextmanager
def open_study(
    address: str, name: str, identity: Mapping[str, Any], maximize: bool
) -> Iterator["StudyStore"]:
    """Create or resume a study, and lock it for other processes of this machine.

    address : a journal file, or a URL of SQLAlchemy, like sqlite:///sweep.db. name : of the study
    in a database. identity : what must not change when a sweep is resumed, plain JSON.
    Raises: SweepError, one line with what differs or what to do.
    """
    check_address(address)
    with _locked(address), _storage_errors(address), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "The reported value is ignored")  # of repeated trials
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = _open_database(address) if is_database(address) else _open_journal(address)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        yield StudyStore(study, storage, display_address(address), identity)


class StudyStore:
    """Trials of a sweep. Made by open_study()."""

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, address: str, identity: Mapping[str, Any]
    ) -> None:
        self.study, self._storage, self.address = study, storage, address
        self._space: dict[str, BaseDistribution] = {}
        self._check_identity(json.loads(json.dumps(identity)))  # lists for tuples
        self.requeue(self._trials(TrialState.RUNNING))

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        """Compare with the stored one; without trials, replace it unless the metric differs."""
        stored = self.study.user_attrs.get(IDENTITY)
        if stored == identity:
            return
        if stored is None and self._trials():
            raise SweepError(
                f"{self.address} holds a study that is no sweep of fmnist-fast: name another"
            )
        if stored is None or (not self._trials() and stored["metric"] == identity["metric"]):
            self.study.set_user_attr(IDENTITY, identity)
            return
        path, before, now = _difference(stored, identity)
        advice = (
            "the last bits would differ: resume it where it was begun"
            if path[0] in PLATFORM
            else "resume it with the options it was begun with"
        )
        raise SweepError(
            f"the sweep in {self.address} has another {': '.join(path).replace('_', ' ')} "
            f"({before}, now {now}): {advice}, or name another --study"
        )

    def configure(self, config: SweepConfig) -> None:
        """Set how ask() samples and report() prunes. Raises: SweepError if parameters or results of
        trials are missing, since the study was damaged.
        """
        begun = len(self._trials())
        self.study.sampler = make_sampler(config.sampler, config.space, config.seed, begun)
        self.study.pruner = make_pruner(config.pruner)
        self._space = dict(config.space.searched)
        for trial in self._trials(TrialState.COMPLETE, TrialState.PRUNED):
            if not self._space.keys() <= trial.params.keys() or (
                trial.state is TrialState.COMPLETE and RESULT not in trial.user_attrs
            ):
                raise SweepError(
                    f"study {self.address} is damaged: trial {trial.number} lacks parameters or "
                    "its result: restore a backup, or name another --study"
                )

    def counts(self) -> Counts:
        """Count the trials."""
        states = [trial.state for trial in self._trials()]
        return Counts(
            complete=states.count(TrialState.COMPLETE),
            pruned=states.count(TrialState.PRUNED),
            failed=states.count(TrialState.FAIL),
            unfinished=states.count(TrialState.WAITING) + states.count(TrialState.RUNNING),
        )

    def ask(self) -> Trial:
        """Return the next trial: one that waits to be run again, else a new one."""
        return self.study.ask(self._space)

    def report(self, trial: Trial, rung: int, value: float) -> bool:
        """Store the metric of a running trial at a rung; return whether to prune it."""
        trial.report(value, rung)
        return trial.should_prune()

    def complete(self, trial: Trial, result: Result) -> None:
        """Store the result of a trial."""
        trial.set_user_attr(RESULT, asdict(result))
        self.study.tell(trial, result.value)

    def prune(self, trial: Trial) -> None:
        """Mark a trial as pruned; its value is the last one reported."""
        self.study.tell(trial, state=TrialState.PRUNED)

    def fail(self, trial: Trial, error: str) -> None:
        """Mark a trial as failed for good."""
        trial.set_user_attr(FAILURE, error)
        self.study.tell(trial, state=TrialState.FAIL)

    def requeue(self, trials: Iterable[Trial | FrozenTrial]) -> None:
        """Have running trials run again, from their start."""
        for trial in trials:
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def completed(self) -> list[FrozenTrial]:
        """Return completed trials, best first; of equal ones the earlier first."""
        sign = -1 if self.study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        trials = self._trials(TrialState.COMPLETE)
        return sorted(trials, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def failures(self) -> list[str]:
        """Return the errors of failed trials, in order."""
        return [t.user_attrs.get(FAILURE, "unknown") for t in self._trials(TrialState.FAIL)]


def _difference(before: Any, now: Any) -> tuple[list[str], str, str]:
    """Path and both values, shortened, of the first leaf that differs."""
    path = []
    while isinstance(before, dict) and isinstance(now, dict) and "checksum" not in before:
        key = next(key for key in {**now, **before} if before.get(key) != now.get(key))
        path.append(key)
        before, now = before.get(key), now.get(key)
    return path, _shorten(before), _shorten(now)


def _shorten(value: Any) -> str:
    if value is None:
        return "none"
    text = value["name"] if isinstance(value, dict) and "name" in value else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def is_database(address: str) -> bool:
    """Whether an address is a URL, not a file."""
    return "://" in address


def check_address(address: str) -> None:
    """Raise SweepError if the address is a folder, or another thing that is not a file."""
    path = Path(address)
    if not is_database(address) and (not path.name or (path.exists() and not path.is_file())):
        raise SweepError(f"study {address} is not a file: name another, or a new one")


def _parse_url(address: str) -> URL | None:
    try:
        return make_url(address) if is_database(address) else None
    except (UrlError, ValueError):
        return None


def display_address(address: str) -> str:
    """Return the address without its password."""
    if not is_database(address):
        return address
    url = _parse_url(address)
    return url.render_as_string() if url else address.partition("://")[0] + "://..."


def _open_journal(address: str) -> BaseStorage:
    """Open a journal file. Raises: SweepError."""
    try:
        _repair_journal(Path(address))
        # A kill leaves Optuna's lock file behind, which would cost 30 s.
        Path(f"{address}.lock").unlink(missing_ok=True)
        return JournalStorage(JournalFileBackend(address))
    except SweepError:
        raise
    except (OSError, ValueError, LookupError, AssertionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SweepError(
            f"study {address} cannot be read: {why}: name another file, or a new one"
        ) from error


def _repair_journal(path: Path) -> None:
    """Truncate an unfinished last line (full disk, power cut): Optuna would append to it, and lose
    both entries. Raises: SweepError if another line is invalid: Optuna reads nothing after it.
    """
    if not path.exists():
        return
    with open(path, "r+b") as file:
        content = file.read()
        if content[:1] not in (b"", b"{"):
            raise SweepError(f"study {path} exists and is not an Optuna journal: name another")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
    lines = content[:whole].splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            valid = isinstance(json.loads(line), dict)
        except ValueError:
            valid = False
        if not valid:
            raise SweepError(
                f"study {path} is damaged: line {number} of {len(lines)} is not a valid Optuna "
                "journal entry; delete it and rerun the command"
            )


def _open_database(address: str) -> RDBStorage:
    """Open a database. Raises: SweepError."""
    shown, url = display_address(address), _parse_url(address)
    if url and url.get_backend_name() == "sqlite":
        file = url.database
        if not file or ":memory:" in file or "mode=memory" in file:
            raise SweepError(
                f"study {shown} would be lost with this command: name a file, like "
                "sqlite:///sweep.db"
            )
        folder = Path(file).parent
        if not file.startswith("file:") and not folder.is_dir():
            raise SweepError(f"study {shown}: the folder {folder} does not exist: create it")
    try:
        return RDBStorage(address)
    except NoSuchModuleError as error:
        raise SweepError(
            f"study {shown} is of no kind that Optuna knows: give a file, or a database like "
            "sqlite:///sweep.db or postgresql://user@host/name"
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, ImportError) else None
        raise SweepError(
            f"study {shown} cannot be opened: {_first_line(cause or error)}"
        ) from error


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    """Convert errors of a storage, or of a sweep on another machine, to SweepError."""
    try:
        yield
    except UpdateFinishedTrialError as error:
        raise SweepError(
            f"another sweep, on another machine, writes to {display_address(address)}: stop one "
            "of them, or name another --study"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
        raise SweepError(
            f"study {display_address(address)} cannot be read or written: {_first_line(cause)}; "
            "its trials are kept: the same command resumes it"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _locked(address: str) -> Iterator[None]:
    """Lock a study for other processes of this machine. Raises: SweepError."""
    shown = display_address(address)
    if is_database(address):
        url = _parse_url(address)
        file = url.database if url and url.get_backend_name() == "sqlite" else None
        key = os.path.realpath(file) if file else address  # the same from any folder
        cache_folder().mkdir(parents=True, exist_ok=True)
        path = cache_folder() / f"sweep-{sha256(key.encode()).hexdigest()[:16]}.running"
    else:
        path = Path(f"{address}.running")
        try:
            check_disk_space(Path(address), 1, "study")
        except UserError as error:
            raise SweepError(str(error)) from error
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SweepError(
            f"another sweep is writing to {shown}: wait for it, stop it, or name another --study"
        ) from None
    except OSError as error:
        raise SweepError(
            f"study {shown} cannot be written: {error.strerror}: name another place"
        ) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
