"""What a sweep has tried and is trying: an Optuna study, in a journal file or a database.

A trial that was begun and not ended, since the sweep was stopped or killed, is begun again under
its own number, with its own settings.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from ..._files import check_room
from ...data.cache import cache_folder
from ...errors import SweepError, UserError

__all__ = [
    "RESULT",
    "Asked",
    "Counts",
    "Ledger",
    "address_for_people",
    "check_address",
    "is_database",
    "open_ledger",
]

# Attributes of the study and of its trials, as Optuna's own tools show them.
IDENTITY = "fmnist_fast"
RESULT = "result"
FAILURE = "failure"

# What only says where a sweep ran: another value changes the last bits, not the question.
_LAST_BITS = ("backend", "instruction_set", "fmnist_fast")


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run. params : as the study calls them."""

    number: int
    params: Mapping[str, Any]


@dataclass(frozen=True)
class Counts:
    """Trials by what became of them."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    unfinished: int = 0

    @property
    def ended(self) -> int:
        """Those that need not be run any more."""
        return self.complete + self.pruned + self.failed


@contextmanager
def open_ledger(
    address: str, name: str, identity: Mapping[str, Any], maximise: bool
) -> Iterator["Ledger"]:
    """The study at an address, new or to go on with; nobody else's of this machine while it is
    open.

    address : a journal file, or a database as SQLAlchemy writes it, like sqlite:///sweep.db.
    name : of the study, where several are kept. identity : what must not change when a sweep goes
    on, plain JSON. Raises: SweepError, one line that says what differs or what to do.
    """
    check_address(address)
    with _locked(address), _storage_errors(address):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        yield Ledger(_storage(address), address, name, identity, maximise)


class Ledger:
    """The trials of a sweep. Made by open_ledger()."""

    def __init__(
        self,
        storage: BaseStorage,
        address: str,
        name: str,
        identity: Mapping[str, Any],
        maximise: bool,
    ) -> None:
        self.address = address_for_people(address)
        self._storage = storage
        self._running: dict[int, Trial] = {}
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize" if maximise else "minimize",
            load_if_exists=True,
        )
        self._check_identity(identity)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        """Write it into a new study; compare it with that of an old one."""
        stored = self.study.user_attrs.get(IDENTITY)
        now = json.loads(json.dumps(identity))  # lists for tuples
        if stored is None and not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr(IDENTITY, now)
        elif stored is None:
            raise SweepError(
                f"{self.address} holds a study that is no sweep of fmnist-fast: name another"
            )
        elif stored != now:
            self._check_same(stored, now)

    def _check_same(self, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """A study that has no trials yet takes any identity, but for the way to its best."""
        if not self.study.get_trials(deepcopy=False) and stored["metric"] == now["metric"]:
            self.study.set_user_attr(IDENTITY, now)
            return
        field = next(key for key in {**stored, **now} if stored.get(key) != now.get(key))
        what, was, is_now = _difference(stored.get(field), now.get(field), field.replace("_", " "))
        advice = (
            "the last bits would differ: go on where it was begun"
            if field in _LAST_BITS
            else "go on with the options it was begun with"
        )
        raise SweepError(
            f"the sweep in {self.address} has another {what} ({was}, now {is_now}): {advice}, or "
            "name another --study"
        )

    def choose_with(
        self, sampler: BaseSampler, pruner: BasePruner, space: dict[str, BaseDistribution]
    ) -> None:
        """How ask() chooses and report() decides. Raises: SweepError if the study has lost some of
        what was chosen.
        """
        self.study.sampler, self.study.pruner, self._space = sampler, pruner, space
        for trial in self.study.get_trials(deepcopy=False):
            complete = trial.state is TrialState.COMPLETE
            if (complete or trial.state is TrialState.PRUNED) and (
                not space.keys() <= trial.params.keys()
                or (complete and RESULT not in trial.user_attrs)
            ):
                raise SweepError(
                    f"study {self.address} is damaged: it has not all of trial {trial.number}: "
                    "take a copy of it that is whole, or name another --study"
                )

    def counts(self) -> Counts:
        """How many trials there are of each kind."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        return Counts(
            states.count(TrialState.COMPLETE),
            states.count(TrialState.PRUNED),
            states.count(TrialState.FAIL),
            states.count(TrialState.WAITING) + states.count(TrialState.RUNNING),
        )

    def ask(self) -> Asked:
        """The next trial: one that was begun before, or else a new one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            trial = self.study.ask(self._space)
        self._running[trial.number] = trial
        return Asked(trial.number, trial.params)

    def report(self, number: int, rung: int, value: float) -> bool:
        """A running trial's value at one of its rungs; whether it is not worth going on."""
        trial = self._running[number]
        if rung not in self._storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(value, rung)
        return trial.should_prune()

    def complete(self, number: int, value: float, result: Mapping[str, Any]) -> None:
        """A trial came to its end."""
        trial = self._running.pop(number)
        trial.set_user_attr(RESULT, dict(result))
        self.study.tell(trial, value)

    def prune(self, number: int) -> None:
        """A trial was stopped early, with the last value it reported."""
        self.study.tell(self._running.pop(number), state=TrialState.PRUNED)

    def fail(self, number: int, why: str) -> None:
        """A trial has no result, and would not have one the next time."""
        trial = self._running.pop(number)
        trial.set_user_attr(FAILURE, why)
        self.study.tell(trial, state=TrialState.FAIL)

    def put_back(self) -> None:
        """All running trials are to be begun again, next time."""
        for trial in self._running.values():
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        self._running.clear()

    def completed(self) -> list[FrozenTrial]:
        """Trials that have a value, the best first; of equals the earlier."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = -1 if self.study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        return sorted(trials, key=lambda trial: (sign * (trial.value or 0.0), trial.number))

    def failed(self) -> list[str]:
        """Why trials failed, in their order."""
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        return [trial.user_attrs.get(FAILURE, "nobody knows why") for trial in trials]


def address_for_people(address: str) -> str:
    """Without a password."""
    if not is_database(address):
        return address
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError as Unreadable

    try:
        return make_url(address).render_as_string(hide_password=True)
    except (Unreadable, ValueError):
        return address.partition("://")[0] + "://..."


def check_address(address: str) -> None:
    """Raises: SweepError if a study cannot be there, since something else is."""
    path = Path(address)
    if not is_database(address) and (not path.name or (path.exists() and not path.is_file())):
        raise SweepError(f"study {address} is not a file: name another, or a new one")


def is_database(address: str) -> bool:
    return "://" in address


def _difference(was: Any, is_now: Any, what: str) -> tuple[str, str, str]:
    """(what, was, is now) in a few words: of dicts, the first entry that differs."""
    if isinstance(was, dict) and isinstance(is_now, dict) and "checksum" not in was:
        key = next(key for key in {**was, **is_now} if was.get(key) != is_now.get(key))
        return _difference(was.get(key), is_now.get(key), f"{what}: {key.replace('_', ' ')}")
    return what, _short(was), _short(is_now)


def _short(value: Any) -> str:
    """A value in a few words."""
    if value is None:
        return "none"
    text = value["name"] if isinstance(value, dict) and "name" in value else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _storage(address: str) -> BaseStorage:
    """Raises: SweepError."""
    if is_database(address):
        return _database(address)
    path = Path(address)
    try:
        _mend_journal(path)
        # Optuna's own lock is a file that a kill leaves behind, and costs 30 s then.
        Path(f"{address}.lock").unlink(missing_ok=True)
        return JournalStorage(JournalFileBackend(address))
    except SweepError:
        raise
    except (OSError, ValueError, LookupError, AssertionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SweepError(
            f"study {path} cannot be read: {why}: name another file, or a new one"
        ) from error


def _database(address: str) -> RDBStorage:
    """Raises: SweepError."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    shown = address_for_people(address)
    try:
        url = make_url(address)
        if url.get_backend_name() == "sqlite":
            _check_sqlite(shown, url.database)
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


def _check_sqlite(shown: str, database: str | None) -> None:
    """Raises: SweepError if it is no file, or in no folder."""
    if not database or ":memory:" in database or "mode=memory" in database:
        raise SweepError(
            f"study {shown} would be lost with this command: name a file, like sqlite:///sweep.db"
        )
    folder = Path(database).parent
    if not database.startswith("file:") and not folder.is_dir():
        raise SweepError(f"study {shown}: the folder {folder} does not exist: create it")


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    """What a database that does not answer any more makes Optuna raise, or a sweep on another
    machine, as SweepError.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except UpdateFinishedTrialError as error:
        raise SweepError(
            f"another sweep, on another machine, writes to {address_for_people(address)}: stop one "
            "of them, or name another --study"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
        raise SweepError(
            f"study {address_for_people(address)} cannot be read or written: "
            f"{_first_line(cause)}; trials that it has are not lost: the same command goes on"
        ) from error


def _from_anywhere(address: str) -> str:
    """The address; of a file of SQLite's its path, the same from whatever folder it is named."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError as Unreadable

    try:
        url = make_url(address)
    except (Unreadable, ValueError):
        return address
    file = url.get_backend_name() == "sqlite" and url.database
    return os.path.realpath(file) if file else address


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _mend_journal(path: Path) -> None:
    """Take away a last line that a full disk or a power cut left without its end: the entry after
    it would be lost with it. Raises: SweepError if another line is none of Optuna's, which would
    keep what is written after it from being read.
    """
    if not path.exists():
        return
    with open(path, "r+b") as file:
        content = file.read()
        if content[:1] not in (b"", b"{"):
            raise SweepError(f"study {path} exists and is no journal of Optuna's: name another")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())
    lines = content[:whole].splitlines()
    for number, line in enumerate(lines, start=1):
        if not _is_entry(line):
            raise SweepError(
                f"study {path} is damaged: line {number} of {len(lines)} is none of "
                "Optuna's: take that line away, and the same command goes on"
            )


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


@contextmanager
def _locked(address: str) -> Iterator[None]:
    """Nobody else on this machine sweeps there."""
    from filelock import FileLock, Timeout

    if is_database(address):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        place = (
            folder / f"sweep-{sha256(_from_anywhere(address).encode()).hexdigest()[:16]}.running"
        )
    else:
        place = Path(f"{address}.running")
        try:
            check_room(Path(address), 1, "study")
        except UserError as error:
            raise SweepError(str(error)) from error
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SweepError(
            f"another sweep is writing to {address_for_people(address)}: wait for it, stop it, or "
            "name another --study"
        ) from None
    except OSError as error:
        raise SweepError(
            f"study {address_for_people(address)} cannot be written: {error.strerror}: name "
            "another place"
        ) from error
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()
