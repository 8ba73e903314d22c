"""Metadata of model files: the current format version, and the translation of older ones."""

from collections.abc import Mapping
from typing import Any

# 1: single networks. 2: calibration. 3: ensembles. 4: renamed keys; an ensemble has `members`.
FORMAT_VERSION = 4

_TRAINING_KEYS = {"flips": "hflip", "average": "ema_epochs", "sure": "target_precision"}
_DISTILLATION_KEYS = {"share": "alpha", "teachers": "n_teachers"}

Metadata = Mapping[str, Any]


def upgrade_metadata(metadata: Metadata) -> dict[str, Any]:
    """Translate metadata of versions 1 to 3 to the current version.

    Newer and unknown versions, and parts of the wrong type, are returned as they are: the reader
    of the metadata reports them.
    """
    upgraded = dict(metadata)
    version = upgraded.get("format_version")
    if version not in (1, 2, 3):
        return upgraded
    upgraded["format_version"] = FORMAT_VERSION
    if version == 1:
        upgraded["calibration"] = {"temperature": 1.0, "threshold": None}
    if version < 3:
        upgraded.pop("members", None)  # no meaning before version 3
    dataset = upgraded.get("dataset")
    if isinstance(dataset, Mapping) and dataset.get("name") == "garments":
        upgraded["dataset"] = {**dataset, "name": "synthetic"}
    if isinstance(training := upgraded.get("training"), Mapping):
        upgraded["training"] = _upgrade_training(training)
    if isinstance(members := upgraded.get("members"), list):
        upgraded["members"] = [
            upgrade_metadata(member) if isinstance(member, Mapping) else member
            for member in members
        ]
    return upgraded


def _upgrade_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of a training configuration, and of its teacher's."""
    upgraded = _rename(training, _TRAINING_KEYS)
    if isinstance(distillation := upgraded.get("distillation"), Mapping):
        distillation = _rename(distillation, _DISTILLATION_KEYS)
        if isinstance(teacher := distillation.get("teacher"), Mapping):
            distillation["teacher"] = _upgrade_training(teacher)
        upgraded["distillation"] = distillation
    return upgraded


def _rename(entries: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in entries.items()}
