"""What came out of a sweep: the best trials, what mattered, and models trained from them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from ...errors import SweepError
from ...training.progress import Progress
from ...training.trainer import TrainingResult, train
from .scheduler import Plan
from .study_store import RESULT, Ledger
from .trial import Result

__all__ = [
    "Ranked",
    "best_trials",
    "final_settings",
    "importances",
    "nothing_came_out",
    "trained_again",
]

# Fewer trials say nothing of what matters.
LEAST_TRIALS = 10


@dataclass(frozen=True)
class Ranked:
    """A trial that came to its end. settings : fields of the recipe that the space decided."""

    number: int
    settings: dict[str, Any]
    result: Result


def best_trials(ledger: Ledger, plan: Plan, count: int) -> list[Ranked]:
    """The best trials, best first."""
    return [
        Ranked(
            trial.number,
            plan.space.settings(trial.params),
            Result.from_dict(trial.user_attrs[RESULT]),
        )
        for trial in ledger.completed()[:count]
    ]


def importances(ledger: Ledger) -> dict[str, float]:
    """How much each field mattered for being among the best trials, shares that sum to 1, most
    first; nothing if there are too few trials, or all alike.

    Source: Watanabe, Bansal, Hutter (2023), PED-ANOVA.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    values = {trial.value for trial in ledger.completed()}
    if len(ledger.completed()) < LEAST_TRIALS or len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an experiment, and of fields with one value
        return get_param_importances(ledger.study, evaluator=PedAnovaImportanceEvaluator())


def final_settings(plan: Plan, ranked: Ranked, place: int = 0) -> dict[str, Any]:
    """What to train the trial's network with on all training rows: no row is held back, so where
    the learning rate does not fall to nothing, the epoch that was best is the last.

    place : in an ensemble, whose networks begin from weights of their own each, since what differs
    more errs less together.
    """
    settings = {**ranked.settings, "validation": 0, "seed": plan.seed + place}
    if settings.get("schedule", plan.base.schedule) == "constant":
        settings["epochs"] = round(mean(ranked.result.best_epochs))
    return settings


def trained_again(
    plan: Plan,
    preset: str,
    ranked: Ranked,
    progress: Progress,
    should_stop: Callable[[], bool],
    place: int = 0,
) -> TrainingResult:
    """The network of a trial, trained on all training rows and measured on the test set.
    place : as for final_settings().

    Raises: TrainingDiverged; TrainingInterrupted.
    """
    return train(
        plan.dataset,
        preset=preset,
        backend=plan.backend,
        progress=progress,
        should_stop=should_stop,
        **final_settings(plan, ranked, place),
    )


def nothing_came_out(ledger: Ledger) -> SweepError:
    """No trial has a value: the last failure says why."""
    failures = ledger.failed()
    why = f"; the last of them: {failures[-1]}" if failures else ""
    return SweepError(
        f"no trial came to its end{why}; they are kept in {ledger.address}: give another --space "
        "and --study, or more --trials"
    )
