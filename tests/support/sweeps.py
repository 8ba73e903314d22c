"""Small sweeps that tests run."""

from contextlib import contextmanager

from optuna.distributions import CategoricalDistribution, FloatDistribution

from fmnist_fast.distributed.sweep.config import SweepConfig
from fmnist_fast.distributed.sweep.results import best_trials
from fmnist_fast.distributed.sweep.scheduler import SweepObserver, data_to_workers, run_sweep
from fmnist_fast.distributed.sweep.space import Space
from fmnist_fast.distributed.sweep.study_store import open_study
from fmnist_fast.distributed.worker_pool import open_pool
from fmnist_fast.training.config import TrainingConfig

SPACE = Space(
    {
        "hidden": CategoricalDistribution(("8", "16,8")),
        "lr": FloatDistribution(1e-3, 1e-2, log=True),
    },
    {"epochs": 2},
)
# Trials of some half a second, so that they can be interrupted.
SLOW = Space({"lr": FloatDistribution(1e-3, 1e-2, log=True)}, {"epochs": 60, "hidden": (64, 64)})


def make_config(dataset, space=SPACE, trials=8, **options):
    options = {"sampler": "random", "pruner": "none", **options}
    return SweepConfig(dataset, TrainingConfig(), space, trials, **options).checked()


@contextmanager
def pool_for(config, workers=1, scheduler=None):
    """Pool of processes of this machine, or of a scheduler's workers."""
    prepare = data_to_workers(config.dataset)
    with open_pool(scheduler, workers, config.workers_identity(), prepare) as pool:
        yield pool


def open_store(config, path, name="fmnist-fast"):
    return open_study(str(path), name, config.identity(), config.metric != "validation_loss")


def run(config, store, pool):
    """Run all trials; return why it stopped."""
    return run_sweep(config, store, pool, SweepObserver(), lambda: False)


def sweep(config, pool, study, observer=None, should_stop=lambda: False, **more):
    """(number, settings, values) of all completed trials, by number; and why it stopped."""
    with open_store(config, study) as store:
        reason = run_sweep(config, store, pool, observer or SweepObserver(), should_stop, **more)
        best = best_trials(store, config, config.trials)
    return sorted((r.number, str(r.settings), r.result.values) for r in best), reason
