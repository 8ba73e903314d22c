"""Where the next trial of a sweep is, and which trials are not worth their end: Optuna's choices.

Random and quasi-random points are a function of (seed, number of the trial), not of a generator's
state or of what came before: the same trials for any number of workers, and across a restart.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

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

from ...errors import ArgumentError
from ...nn.random_streams import SWEEP, random_stream
from .space import Choices, Part, Space
from .trial import RUNGS

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

__all__ = ["PRUNERS", "SAMPLERS", "distributions", "make_pruner", "make_sampler"]

SAMPLERS = ("tpe", "random", "qmc")
PRUNERS = ("hyperband", "median", "none")


# Trials before a median says something.
MEDIAN_OF = 5


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """What is searched, as Optuna has it."""
    return {field: _distribution(part) for field, part in space.searched.items()}


def _distribution(part: Part) -> BaseDistribution:
    if isinstance(part, Choices):
        return CategoricalDistribution(part.names())
    if isinstance(part.low, int):
        return IntDistribution(part.low, int(part.high), log=part.log, step=int(part.step or 1))
    return FloatDistribution(part.low, part.high, log=part.log, step=part.step)


def make_sampler(name: str, space: Space, seed: int, tried: int) -> BaseSampler:
    """The sampler of that name. tried : trials that the study has already, from which alone TPE
    goes on. Raises: ArgumentError.
    """
    if name == "random":
        return _Points(distributions(space), _Random(seed, len(space.searched)))
    if name == "qmc":
        return _Points(distributions(space), _Sobol(seed, len(space.searched)))
    if name == "tpe":
        # Another stream after a restart: the first trials are random, and must not come again.
        stream = random_stream(seed, SWEEP, tried)
        return TPESampler(seed=int(stream.integers(2**32)), multivariate=True, constant_liar=True)
    raise ArgumentError(f"unknown sampler {name!r}: choose from {', '.join(SAMPLERS)}")


def make_pruner(name: str) -> BasePruner:
    """The pruner of that name. Raises: ArgumentError."""
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=RUNGS, reduction_factor=3)
    if name == "median":
        return MedianPruner(n_startup_trials=MEDIAN_OF, n_warmup_steps=1)
    if name == "none":
        return NopPruner()
    raise ArgumentError(f"unknown pruner {name!r}: choose from {', '.join(PRUNERS)}")


class _Random:
    """Independent points of the unit cube."""

    def __init__(self, seed: int, dimensions: int) -> None:
        self._seed, self._dimensions = seed, dimensions

    def __call__(self, number: int) -> NDArray[np.float64]:
        return random_stream(self._seed, SWEEP, number).random(self._dimensions)


class _Sobol:
    """Points that fill the unit cube evenly, scrambled by the seed.

    Source: Sobol' (1967); Owen (1998), scrambling.
    """

    # Its points come in powers of two, so that few are computed twice.
    BLOCK = 1024

    def __init__(self, seed: int, dimensions: int) -> None:
        self._seed, self._dimensions = seed, dimensions
        self._block = cache(self._block_of)

    def __call__(self, number: int) -> NDArray[np.float64]:
        block, place = divmod(number, self.BLOCK)
        point: NDArray[np.float64] = self._block(block)[place]
        return point

    def _block_of(self, block: int) -> NDArray[np.float64]:
        from scipy.stats.qmc import Sobol

        engine = Sobol(self._dimensions, rng=random_stream(self._seed, SWEEP))
        if block:
            engine.fast_forward(block * self.BLOCK)
        points: NDArray[np.float64] = engine.random(self.BLOCK)
        return points


class _Points(BaseSampler):
    """Takes the settings of a trial from the point that belongs to its number."""

    def __init__(self, space: Mapping[str, BaseDistribution], point: "_Random | _Sobol") -> None:
        self._space, self._point = dict(space), point

    def infer_relative_search_space(
        self, study: "Study", trial: "FrozenTrial"
    ) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: "Study", trial: "FrozenTrial", search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        shares = self._point(trial.number)
        return {name: _at(part, u) for (name, part), u in zip(search_space.items(), shares)}

    def sample_independent(self, study: "Study", trial: "FrozenTrial", *_: Any) -> Any:
        raise AssertionError("every field of the space was sampled together")


def _at(distribution: BaseDistribution, share: float) -> Any:
    """What lies at that share, 0 <= share < 1, of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        choices: Sequence[Any] = distribution.choices
        return choices[int(share * len(choices))]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None and not distribution.log:
        place = int(share * (round((high - low) / step) + 1))
        return min(low + place * step, high)
    if isinstance(distribution, IntDistribution):  # every number has as much as rounds to it
        value = (low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share
        return min(max(round(value), int(low)), int(high))
    if distribution.log:
        return float(min(max(low * (high / low) ** share, low), high))
    return float(low + share * (high - low))
