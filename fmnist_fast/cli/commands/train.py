"""Options of the command `train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import options
from ..lazy import deferred


def config_option(name: str, **settings: Any) -> Callable[[options.Command], options.Command]:
    """Option that overrides one field of the preset's configuration."""
    return click.option(name, default=None, show_default="the preset's", **settings)


@click.command()
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "best", "photos", "wide"]),
    help="Configuration that the options below override; see 'fmnist-fast info --presets'.  "
    "[default: standard]",
)
@options.BACKEND
@options.TRAINING_SET
@options.DATA_DIR
@config_option("--hidden", type=options.widths, help="Sizes of the hidden layers, or none.")
@config_option("--epochs", type=click.IntRange(1), help="Number of passes over the training rows.")
@click.option(
    "--time-budget",
    type=options.duration,
    help="Train for this time, start-up included, like 2s, 500ms or 3m, in place of --epochs; "
    "without --preset it also chooses the preset.",
)
@config_option("--batch-size", type=click.IntRange(1), help="Number of rows in a batch.")
@config_option("--lr", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@config_option(
    "--schedule",
    type=click.Choice(["onecycle", "constant", "cosine"]),
    help="Learning-rate schedule.",
)
@config_option(
    "--l2", type=click.FloatRange(0), help="L2 penalty: l2/2 times the sum of the squared weights."
)
@config_option(
    "--weight-decay",
    type=click.FloatRange(0),
    help="Decoupled weight decay, as a fraction of the learning rate.",
)
@config_option(
    "--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="Label smoothing factor."
)
@config_option(
    "--dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Dropout rate of the hidden layers, e.g. 0.2 (needs more epochs).",
)
@click.option(
    "--hflip/--no-hflip",
    default=None,
    help="Flip half of the images horizontally.  [default: for clothes, not for other data]",
)
@config_option(
    "--augment",
    type=click.Choice(["photos"]),
    help="Data augmentation: 'photos' simulates segmented photographs, resampled each epoch.",
)
@click.option(
    "--class-weight",
    type=options.class_weights,
    metavar="WEIGHTS",
    help="Weights of the classes: balanced, or weights of labels, like 6=2,2=1.5.",
)
@click.option(
    "--teacher",
    type=options.FILE,
    help="Model file, of one network or an ensemble, to distil from, in place of the preset's "
    "teachers.",
)
@click.option(
    "--validation",
    type=click.IntRange(0),
    help="Number of training rows held out to choose the best epoch; 0 keeps the last epoch.  "
    "[default: 5000, or a twelfth of a smaller set]",
)
@click.option(
    "--patience",
    type=click.IntRange(1),
    help="Number of epochs without a better validation accuracy before training stops.",
)
@config_option(
    "--ema-epochs",
    type=click.IntRange(1),
    help="Save an exponential moving average of the weights over this many epochs (needs "
    "--schedule constant).",
)
@config_option(
    "--target-precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Precision of confident predictions on the validation rows, which sets the "
    "confidence threshold.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    show_default="0",
    help="Random seed of the initial weights and the order of the rows.",
)
@options.THREADS
@options.MODEL_OUT
@options.FORCE
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="New folder for checkpoints, from which --resume continues.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    help="Number of epochs between checkpoints.  [default: as often as takes at most a "
    "twentieth of the time]",
)
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    help="Resume the run in this folder with its own options; the model is the same as "
    "without the interruption.",
)
@click.option(
    "--find-lr",
    is_flag=True,
    help="Run a learning rate range test on a few hundred batches, and suggest a value for "
    "--lr; --plot draws the losses.",
)
@click.option(
    "--metrics",
    type=options.FILE,
    help="File to append the metrics of every epoch to, as JSON lines.",
)
@options.plot_option("loss and accuracy")
@click.option("--quiet", is_flag=True, help="Print only the last line.")
@options.JSON
@deferred("train:train")
def train() -> None:
    """Train a network and save it.

    The same command with the same threads on the same machine writes the same bytes. The saved
    model is that of the epoch with the best validation accuracy; the test set is used once, at the
    end. Ctrl-C, SIGTERM or a closed terminal (SIGHUP) saves the best epoch so far beside --out, and
    a checkpoint for --resume.

      \b
      fmnist-fast train
      fmnist-fast train --preset best --checkpoint run --out best.safetensors
      fmnist-fast train --resume run
      fmnist-fast train --time-budget 2s
      fmnist-fast train --epochs 5 --hidden 256,128 --out wide.safetensors --plot curves.png
      fmnist-fast train --teacher ensemble.safetensors --out student.safetensors
      fmnist-fast train --dataset my-data.npz --json
    """
