"""Samplers and pruners of Optuna, by name.

Random and quasi-random points are a function of (seed, number of the trial), not of the state of a
generator or of earlier trials: the same for any number of workers, and after a restart.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from ...nn.random_streams import Purpose, random_stream
from .space import Space
from .trial import RUNGS

# Trials that the median pruner waits for.
MEDIAN_STARTUP = 5


def make_sampler(name: str, space: Space, seed: int, trials: int) -> BaseSampler:
    """Return a sampler: tpe, random or qmc. trials : that the study has already."""
    if name == "tpe":
        # Another stream after a restart: TPE's first trials are random, and must not be repeated.
        stream = random_stream(seed, Purpose.SWEEP, trials)
        return TPESampler(seed=int(stream.integers(2**32)), multivariate=True, constant_liar=True)
    points = {"random": _random_points, "qmc": _sobol_points}[name]
    return _PointSampler(space, points(seed, len(space.searched)))


def make_pruner(name: str) -> BasePruner:
    """Return a pruner: hyperband, median or none."""
    pruners: dict[str, BasePruner] = {
        "hyperband": HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=3),
        "median": MedianPruner(n_startup_trials=MEDIAN_STARTUP, n_warmup_steps=1),
        "none": NopPruner(),
    }
    return pruners[name]


def _random_points(seed: int, dimensions: int) -> Callable[[int], NDArray[np.float64]]:
    """Independent points of the unit cube, by number."""
    return lambda number: random_stream(seed, Purpose.SWEEP, number).random(dimensions)


def _sobol_points(seed: int, dimensions: int) -> Callable[[int], NDArray[np.float64]]:
    """Sobol sequence (Sobol' 1967) with Owen scrambling (Owen 1998), by number."""
    from scipy.stats.qmc import Sobol

    engine = Sobol(dimensions, rng=random_stream(seed, Purpose.SWEEP))

    def point(number: int) -> NDArray[np.float64]:
        engine.reset()
        if number:
            engine.fast_forward(number)
        point_i: NDArray[np.float64] = engine.random(1)[0]
        return point_i

    return point


class _PointSampler(BaseSampler):
    """Sampler that maps the point of a trial's number to the search space."""

    def __init__(self, space: Space, point: Callable[[int], NDArray[np.float64]]) -> None:
        self._space, self._point = dict(space.searched), point

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        point = self._point(trial.number)
        return {name: value_at(part, u) for (name, part), u in zip(search_space.items(), point)}

    def sample_independent(self, study: Study, trial: FrozenTrial, *_: Any) -> Any:
        raise AssertionError("every field of the space was sampled together")


def value_at(distribution: BaseDistribution, u: float) -> Any:
    """Inverse cumulative distribution function at u, 0 <= u < 1."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        index = int(u * (round((high - low) / step) + 1))
        return min(low + index * step, high)
    if isinstance(distribution, IntDistribution):  # each integer gets what rounds to it
        value = (low - 0.5) * ((high + 0.5) / (low - 0.5)) ** u
        return min(max(round(value), int(low)), int(high))
    if distribution.log:
        return float(min(max(low * (high / low) ** u, low), high))
    return float(low + u * (high - low))
