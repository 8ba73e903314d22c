"""Configuration of a sweep."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ... import __version__
from ...data.datasets import Dataset
from ...errors import SweepError
from ...kernels.interface import NetworkSpec
from ...nn.backend import backend_name, get_backend, instruction_set_of
from ...training.config import TrainingConfig
from .space import Space
from .trial import Task

# Of the identity that is stored in a study.
FORMAT_VERSION = 3


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep tries. base : configuration that the space modifies. trials : in all. seeds,
    folds : networks of a trial, see Task. seed : of the sampler, and of the first network.
    """

    dataset: Dataset
    base: TrainingConfig
    space: Space
    trials: int
    sampler: str = "tpe"
    pruner: str = "hyperband"
    seed: int = 0
    seeds: int = 1
    folds: int = 0
    metric: str = "validation_accuracy"
    backend: str = "auto"

    def checked(self) -> "SweepConfig":
        """Validate, and choose the backend. Raises: UserError if a trial cannot be run."""
        rows, classes = len(self.dataset.x_train), len(self.dataset.class_names)
        self.space.check(self.base, rows, classes)
        if self.folds == 1 or self.folds > rows:
            raise SweepError(f"folds is {self.folds}: give 2 or more, at most {rows}, or 0")
        if not self.folds and not self.base.n_validation(rows):
            raise SweepError(
                f"none of {rows} rows is for validation, which trials need: give --folds 2 or more"
            )
        sizes = (prod(self.dataset.x_train.shape[1:]), *self.base.hidden, classes)
        backend = get_backend(self.backend, NetworkSpec(sizes, dtype=self.base.dtype))
        return replace(self, backend=backend_name(backend))

    def identity(self) -> dict[str, Any]:
        """Return what must not change when the sweep is resumed, as plain JSON."""
        base = self.base.to_dict()
        del base["seed"]
        names = ("sampler", "pruner", "seed", "seeds", "folds", "metric")
        return {
            "format_version": FORMAT_VERSION,
            "dataset": {"name": self.dataset.name, "checksum": self.dataset.checksum},
            "config": base,
            "space": self.space.to_dict(),
            **{name: getattr(self, name) for name in names},
            **self.workers_identity(),
        }

    def workers_identity(self) -> dict[str, Any]:
        """Return what must be equal in workers."""
        return {
            "backend": self.backend,
            "instruction_set": instruction_set_of(get_backend(self.backend)),
            "fmnist_fast": __version__,
        }

    def task(self, number: int, params: Mapping[str, Any]) -> Task:
        """Return what a worker trains. params : of the trial, as the study has them."""
        return Task(
            number=number,
            config=replace(self.base, **self.space.settings(params)),
            seeds=tuple(range(self.seed, self.seed + self.seeds)),
            folds=self.folds,
            metric=self.metric,
            backend=self.backend,
        )
