"""Options of the command `train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..lazy import deferred
from ..options import (
    BACKEND,
    DATA_DIR,
    DATASETS,
    FILE,
    JSON,
    THREADS,
    ClassWeights,
    Seconds,
    Widths,
)

__all__ = ["train"]


FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)


def config_option(name: str, **settings: Any) -> Callable[[FC], FC]:
    """Option that overrides one field of the preset's configuration."""
    return click.option(name, default=None, show_default="the preset's", **settings)


@click.command()
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "best", "photos", "wide"]),
    help="A whole recipe; the options below change parts of it. 'fmnist-fast info --presets' says "
    "what each is and reaches.  [default: standard]",
)
@BACKEND
@click.option("--dataset", default="auto", show_default=True, help=f"What to learn: {DATASETS}.")
@DATA_DIR
@config_option("--hidden", type=Widths(), help="Widths of the hidden layers, or none.")
@config_option(
    "--epochs", type=click.IntRange(1), help="How many times to go through the training rows."
)
@click.option(
    "--time-budget",
    type=Seconds(),
    help="Be done in this time, like 2s, 500ms or 3m, start-up included, in place of --epochs. "
    "Without --preset, the best recipe for 784-128-64-10 that fits is taken.",
)
@config_option("--batch-size", type=click.IntRange(1), help="Rows that one step learns from.")
@config_option("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@config_option(
    "--schedule",
    type=click.Choice(["onecycle", "constant", "cosine"]),
    help="How the learning rate goes over the run.",
)
@config_option(
    "--l2",
    type=click.FloatRange(0),
    help="Penalty on the weights: l2/2 times the sum of their squares.",
)
@config_option(
    "--weight-decay",
    type=click.FloatRange(0),
    help="Share of the learning rate that every step takes from the weights (decoupled decay).",
)
@config_option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of every target that all classes have alike: 0.05 teaches not to be too sure.",
)
@config_option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the hidden layers' outputs that every row of every epoch does without, like "
    "0.2; wants more epochs.",
)
@click.option(
    "--hflip/--no-hflip",
    default=None,
    help="Show half of the images in the mirror.  [default: for clothes, not for data of your own]",
)
@config_option(
    "--augment",
    type=click.Choice(["photos"]),
    help="Learn from other images in every epoch, such as photographs of clothes give when the "
    "garment is cut out.",
)
@click.option(
    "--class-weight",
    type=ClassWeights(),
    help="How much rows count by their class: balanced, or weights of labels, like 6=2,2=1.5.",
)
@click.option(
    "--teacher",
    type=FILE,
    help="Learn from what the model in this file answers too, one network or an ensemble; it takes "
    "the place of the preset's teachers. One that learned from the validation rows makes the "
    "validation accuracy too good.",
)
@click.option(
    "--validation",
    type=click.IntRange(0),
    help="Training rows held back to choose the best epoch; 0 for none, then the last epoch is "
    "saved.  [default: 5000, or a twelfth of a smaller set]",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="Stop after so many epochs without a better validation accuracy.",
)
@config_option(
    "--ema-epochs",
    type=click.IntRange(1),
    help="Save the mean of the weights over so many epochs; wants --schedule constant.",
)
@config_option(
    "--target-precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the answers called sure that must be right, on the validation rows.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=None,
    show_default="0",
    help="Decides the first weights and the order of the rows.",
)
@THREADS
@click.option(
    "--out", type=FILE, default="model.safetensors", show_default=True, help="The model file."
)
@click.option("--force", is_flag=True, help="Replace --out even if another data set's model.")
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the run in this new folder as it goes, so that --resume goes on after a crash.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    help="Epochs between two checkpoints.  [default: as often as costs a twentieth of the time]",
)
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    help="Go on with the run in this folder, with its own options; the model will be the same as "
    "if it had not been interrupted.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Train nothing: try learning rates on a few hundred batches, and advise one for --lr. "
    "--plot draws the losses.",
)
@click.option("--metrics", type=FILE, help="Append every epoch's figures, as JSON lines.")
@click.option("--plot", type=FILE, help="Draw loss and accuracy: a .png, .svg or .pdf file.")
@click.option("--quiet", is_flag=True, help="Print only the last line.")
@JSON
@deferred("train:train")
def train() -> None:
    """Train a network and save it.

    The same command with the same threads on the same machine writes the same bytes. The saved
    model is the epoch with the best validation accuracy; the test set is used once, for the figure
    at the end. Ctrl-C, or SIGTERM, saves the best epoch so far beside --out, and the run, so that
    --resume can go on with it.

      \b
      fmnist-fast train
      fmnist-fast train --preset best --checkpoint run --out best.safetensors
      fmnist-fast train --resume run
      fmnist-fast train --time-budget 2s
      fmnist-fast train --epochs 5 --hidden 256,128 --out wide.safetensors --plot curves.png
      fmnist-fast train --teacher ensemble.safetensors --out student.safetensors
      fmnist-fast train --dataset my-data.npz --json
    """
