"""Options of the command `sweep`."""

from importlib.resources import files
from typing import Any

import click

from .. import options
from ..lazy import deferred

# Name of a study that has a journal file of its own.
STUDY_NAME = "fmnist-fast"


def _show_space(context: click.Context, _: click.Parameter, value: bool) -> Any:
    if value:
        space = files("fmnist_fast.distributed.sweep") / "space.toml"
        click.echo(space.read_text(encoding="utf-8"), nl=False)
        context.exit()


@click.command()
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=200,
    help="Number of trials in all, those of earlier commands included.",
)
@click.option(
    "--space",
    type=options.FILE,
    help="TOML file of the search space; --show-space prints an example.  [default: learning "
    "rate, l2, batch size, schedule, layers, label smoothing, dropout, epochs]",
)
@click.option(
    "--show-space",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_space,
    help="Print the built-in search space as TOML, and exit.",
)
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "photos"]),
    default="standard",
    help="Configuration for all that the search space does not name.",
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random", "qmc"]),
    default="tpe",
    help="Search algorithm: tpe (model-based), random, qmc (Sobol). The last two give the "
    "same trials for any number of workers.",
)
@click.option(
    "--pruner",
    type=click.Choice(["hyperband", "median", "none"]),
    default="hyperband",
    help="Pruner that stops unpromising trials early.",
)
@click.option(
    "--workers",
    type=options.workers_or_auto,
    metavar="N",
    default="auto",
    help="Number of worker processes on this machine; auto: one a usable core.",
)
@click.option(
    "--scheduler",
    type=options.nonempty,
    metavar="tcp://HOST:PORT",
    help="Address of a Dask scheduler whose workers to use.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    help="Number of networks a trial trains from different seeds; its value is their mean.",
)
@click.option(
    "--folds",
    type=click.IntRange(0, 1000),
    default=0,
    help="Number of cross-validation folds; 0 evaluates on the validation rows of "
    "'fmnist-fast train'.",
)
@click.option(
    "--metric",
    type=click.Choice(["validation_accuracy", "validation_loss"]),
    default="validation_accuracy",
    help="Metric to optimize.",
)
@click.option(
    "--study",
    type=options.nonempty,
    default="sweep.journal",
    metavar="FILE|URL",
    help="Storage of the study, from which the same command resumes: an Optuna journal file, "
    "or a database URL like sqlite:///sweep.db.",
)
@click.option(
    "--study-name",
    type=options.nonempty,
    default=STUDY_NAME,
    metavar="NAME",
    help="Name of the study, where a database holds several.",
)
@click.option(
    "--time-budget",
    type=options.duration,
    help="Stop the trials after this time, like 10m or 2h; unfinished ones restart when the "
    "sweep resumes.",
)
@options.TRAINING_SET
@options.DATA_DIR
@options.BACKEND
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    help="Random seed of the sampler and the initial weights.",
)
@options.MODEL_OUT
@click.option(
    "--ensemble",
    type=click.IntRange(2, 100),
    metavar="K",
    help="Retrain the K best trials with different seeds, and save their ensemble beside --out.",
)
@options.FORCE
@click.option("--quiet", is_flag=True, help="Print only the result.")
@options.JSON
@deferred("sweep:sweep", packages=("distributed", "optuna", "scipy"))
def sweep() -> None:
    """Optimize the hyperparameters of a network.

    Optuna samples the hyperparameters; the workers of a Dask cluster train, one thread each. All
    trials are stored in --study: after a stop or a crash, the same command resumes without losing
    a trial. At the end it prints the ten best trials and the importance of the hyperparameters,
    writes two plots beside the study, retrains the best trial on all training rows, and prints the
    command that reproduces it.

      \b
      fmnist-fast sweep
      fmnist-fast sweep --trials 1000 --sampler random --pruner none --seeds 3
      fmnist-fast sweep --show-space >space.toml
      fmnist-fast sweep --space space.toml --study mine.journal --time-budget 10m
      fmnist-fast sweep --scheduler tcp://192.0.2.7:8786
      fmnist-fast sweep --ensemble 5
      fmnist-fast train --teacher model.ensemble.safetensors --out student.safetensors
    """
