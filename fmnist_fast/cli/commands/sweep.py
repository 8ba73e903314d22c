"""Options of the command `sweep`."""

import click

from ..lazy import deferred
from ..options import (
    BACKEND,
    DATA_DIR,
    DATASETS,
    FILE,
    JSON,
    Address,
    Seconds,
    Workers,
)

__all__ = ["STUDY_NAME", "sweep"]

# Name of a study that has a journal file of its own.
STUDY_NAME = "fmnist-fast"


@click.command()
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Trials in all, those of earlier commands among them.",
)
@click.option(
    "--space",
    type=FILE,
    help="A TOML file of what may be chosen; --show-space prints one to begin with.  [default: "
    "learning rate, l2, batch size, schedule, layers, label smoothing, dropout, epochs]",
)
@click.option("--show-space", is_flag=True, help="Print the built-in space, as TOML, and end.")
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "photos"]),
    default="standard",
    show_default=True,
    help="The recipe for all that the space does not name. Others train teachers first, which no "
    "trial has time for.",
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random", "qmc"]),
    default="tpe",
    show_default=True,
    help="Who chooses: tpe learns from the trials before; random; qmc, points that fill the space "
    "evenly. The last two give the same trials for any number of workers.",
)
@click.option(
    "--pruner",
    type=click.Choice(["hyperband", "median", "none"]),
    default="hyperband",
    show_default=True,
    help="Who ends trials early that are behind others at the same part of their training.",
)
@click.option(
    "--workers",
    type=Workers(),
    default="auto",
    show_default=True,
    help="Processes on this machine, one training at a time each; auto: one a usable core.",
)
@click.option(
    "--scheduler",
    type=Address(),
    metavar="tcp://HOST:PORT",
    help="Use the workers of this Dask scheduler, on whatever machines they are.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Networks that a trial trains from other first weights; it is judged by their mean.",
)
@click.option(
    "--folds",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Cross-validation: train so many times, each judged on another part of the rows. 0: judge "
    "on the validation rows of 'fmnist-fast train'.",
)
@click.option(
    "--metric",
    type=click.Choice(["validation_accuracy", "validation_loss"]),
    default="validation_accuracy",
    show_default=True,
    help="What the best trial is best in.",
)
@click.option(
    "--study",
    type=Address(),
    default="sweep.journal",
    show_default=True,
    metavar="FILE|URL",
    help="Where the trials are kept, to go on with: Optuna's journal file, or the address of a "
    "database, like sqlite:///sweep.db. One sweep at a time; for many machines see --scheduler.",
)
@click.option(
    "--study-name",
    type=Address(),
    default=STUDY_NAME,
    show_default=True,
    metavar="NAME",
    help="Its name, where a database holds several.",
)
@click.option(
    "--time-budget",
    type=Seconds(),
    help="End the trials after this time, like 10m or 2h; those under way are begun again when the "
    "sweep goes on. Training the best again comes after it.",
)
@click.option("--dataset", default="auto", show_default=True, help=f"What to learn: {DATASETS}.")
@DATA_DIR
@BACKEND
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Decides the choices and the first weights.",
)
@click.option(
    "--out", type=FILE, default="model.safetensors", show_default=True, help="The best model."
)
@click.option(
    "--ensemble",
    type=click.IntRange(2, 100),
    metavar="K",
    help="Train the K best again, each from first weights of its own, and save beside --out the "
    "model that is the mean of them.",
)
@click.option("--force", is_flag=True, help="Replace --out even if another data set's model.")
@click.option("--quiet", is_flag=True, help="Print only what came out.")
@JSON
@deferred("sweep:sweep")
def sweep() -> None:
    """Train many networks with other settings, and keep the best.

    Optuna chooses the settings, the processes of a Dask cluster train, one thread each. All trials
    are kept in --study: stopped or killed, the same command goes on, and loses no trial. In the
    end come the ten best, what mattered, two pictures beside the study, and the best settings
    trained again on all training rows, with the command that does it once more.

      \b
      fmnist-fast sweep
      fmnist-fast sweep --trials 1000 --sampler random --pruner none --seeds 3
      fmnist-fast sweep --show-space >space.toml
      fmnist-fast sweep --space space.toml --study mine.journal --time-budget 10m
      fmnist-fast sweep --scheduler tcp://192.0.2.7:8786
      fmnist-fast sweep --ensemble 5
      fmnist-fast train --teacher model.ensemble.safetensors --out student.safetensors
    """
