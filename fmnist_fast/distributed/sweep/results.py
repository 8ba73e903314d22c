"""Results of a sweep: the best trials, importances, and settings of the final training."""

import warnings
from dataclasses import dataclass
from statistics import mean
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from .config import SweepConfig
from .study_store import RESULT, StudyStore
from .trial import Result

# Trials that importances need.
MIN_TRIALS = 10


@dataclass(frozen=True)
class Ranked:
    """A completed trial. settings : fields of TrainingConfig that the space decided."""

    number: int
    settings: dict[str, Any]
    result: Result


def best_trials(store: StudyStore, config: SweepConfig, count: int) -> list[Ranked]:
    """Return the best trials, best first."""
    return [
        Ranked(
            number=trial.number,
            settings=config.space.settings(trial.params),
            result=Result.from_dict(trial.user_attrs[RESULT]),
        )
        for trial in store.completed()[:count]
    ]


def importances(store: StudyStore) -> dict[str, float]:
    """Return the importance of each field for being among the best trials, descending, with sum 1;
    empty if there are too few trials, or all have the same value.

    Source: Watanabe, Bansal, Hutter (2023), PED-ANOVA.
    """
    values = [trial.value for trial in store.completed()]
    if len(values) < MIN_TRIALS or len(set(values)) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ExperimentalWarning; fields with one value
        return get_param_importances(store.study, evaluator=PedAnovaImportanceEvaluator())


def final_settings(config: SweepConfig, ranked: Ranked, place: int = 0) -> dict[str, Any]:
    """Return the settings that train a trial's network on all training rows. Without validation
    rows the last epoch is the model: a constant schedule ends at the mean of the best epochs.

    place : in an ensemble, whose networks start from different weights.
    """
    settings = {**ranked.settings, "validation": 0, "seed": config.seed + place}
    if settings.get("schedule", config.base.schedule) == "constant":
        settings["epochs"] = round(mean(ranked.result.best_epochs))
    return settings
