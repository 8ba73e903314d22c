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
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from ..cache import cache_folder
from ..errors import SweepError

__all__ = [
    "RESULT",
    "Asked",
    "Counts",
    "Ledger",
    "address_for_people",
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
    """The study at an address, new or to go on with; nobody else's while it is open.

    address : a journal file, or a database as SQLAlchemy writes it, like sqlite:///sweep.db.
    name : of the study, where several are kept. identity : what must not change when a sweep goes
    on, plain JSON. Raises: SweepError, one line that says what differs or what to do.
    """
    with _locked(address), _database_errors(address):
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
            field = next(key for key in {**stored, **now} if stored.get(key) != now.get(key))
            was, is_now = (_short(entries.get(field)) for entries in (stored, now))
            what = field.replace("_", " ")
            advice = (
                "the last bits would differ: go on where it was begun"
                if field in _LAST_BITS
                else "go on with the options it was begun with"
            )
            raise SweepError(
                f"the sweep in {self.address} has another {what} ({was}, now {is_now}): {advice}, "
                "or name another --study"
            )

    def choose_with(
        self, sampler: BaseSampler, pruner: BasePruner, space: dict[str, BaseDistribution]
    ) -> None:
        """How ask() chooses and report() decides."""
        self.study.sampler, self.study.pruner, self._space = sampler, pruner, space

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


def is_database(address: str) -> bool:
    return "://" in address


def _short(value: Any) -> str:
    """A value in a few words."""
    text = value["name"] if isinstance(value, dict) and "name" in value else str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _storage(address: str) -> BaseStorage:
    """Raises: SweepError."""
    if is_database(address):
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return RDBStorage(address)
        except (SQLAlchemyError, ImportError, ValueError) as error:
            raise SweepError(
                f"study {address_for_people(address)} cannot be opened: {_first_line(error)}"
            ) from error
    path = Path(address)
    try:
        _mend_journal(path)
        # Optuna's own lock is a file that a kill leaves behind, and costs 30 s then.
        Path(f"{address}.lock").unlink(missing_ok=True)
        return JournalStorage(JournalFileBackend(address))
    except SweepError:
        raise
    except (OSError, ValueError, KeyError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise SweepError(
            f"study {path} cannot be read: {why}: name another file, or a new one"
        ) from error


@contextmanager
def _database_errors(address: str) -> Iterator[None]:
    """What a database that does not answer any more makes Optuna raise, as SweepError."""
    if not is_database(address):
        yield
        return
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
        raise SweepError(
            f"study {address_for_people(address)} cannot be read or written: "
            f"{_first_line(cause)}; trials that it has are not lost: the same command goes on"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _mend_journal(path: Path) -> None:
    """Take away a last line that a full disk or a power cut left without its end: the entry after
    it would be lost with it.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise SweepError(f"study {path} is not a file: name another, or a new one")
    with open(path, "r+b") as file:
        content = file.read()
        if content[:1] not in (b"", b"{"):
            raise SweepError(f"study {path} exists and is no journal of Optuna's: name another")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            os.fsync(file.fileno())


@contextmanager
def _locked(address: str) -> Iterator[None]:
    """Nobody else on this machine sweeps there."""
    from filelock import FileLock, Timeout

    if is_database(address):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"sweep-{sha256(address.encode()).hexdigest()[:16]}.running"
    else:
        place = Path(f"{address}.running")
        if not place.parent.is_dir():
            raise SweepError(
                f"study {address}: the folder {place.parent} does not exist: create it"
            )
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
