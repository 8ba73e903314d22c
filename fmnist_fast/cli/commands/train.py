"""Options of the command `train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .. import options
from ..grouped_help import GroupedCommand
from ..lazy import deferred

# Headings of --help.
GROUPS = {
    "Data": ("dataset", "data_dir", "validation", "hflip", "augment", "class_weight"),
    "Network": ("hidden",),
    "Optimization": (
        "preset",
        "epochs",
        "time_budget",
        "batch_size",
        "lr",
        "schedule",
        "find_lr",
        "patience",
        "ema_epochs",
        "seed",
    ),
    "Regularization": ("l2", "weight_decay", "label_smoothing", "dropout", "teacher"),
    "Run": ("backend", "threads", "checkpoint", "checkpoint_every", "resume"),
    "Output": ("out", "force", "target_precision", "metrics", "plot", "quiet", "as_json"),
}


def config_option(
    name: str, standard: str, help: str, **settings: Any
) -> Callable[[options.Command], options.Command]:
    """Option that overrides one field of the preset's configuration.

    standard : value of the field in the preset standard.
    """
    return click.option(name, default=None, help=f"{help}  [default: {standard}]", **settings)


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.option(
    "--preset",
    type=click.Choice(["fast", "standard", "best", "photos", "wide"]),
    help="Configuration that the other options override; see 'fmnist-fast info --presets'.  "
    "[default: standard]",
)
@options.BACKEND
@options.TRAINING_SET
@options.DATA_DIR
@config_option(
    "--hidden", "128,64", type=options.widths, help="Sizes of the hidden layers, or none."
)
@config_option(
    "--epochs", "25", type=click.IntRange(1), help="Number of passes over the training rows."
)
@click.option(
    "--time-budget",
    type=options.duration,
    help="Train for this time, start-up included, like 2s, 500ms or 3m, in place of --epochs; "
    "without --preset it also chooses the preset.",
)
@config_option("--batch-size", "64", type=click.IntRange(1), help="Number of rows in a batch.")
@config_option("--lr", "0.002", type=click.FloatRange(0, min_open=True), help="Peak learning rate.")
@config_option(
    "--schedule",
    "onecycle",
    type=click.Choice(["onecycle", "constant", "cosine"]),
    help="Learning-rate schedule.",
)
@config_option(
    "--l2",
    "0",
    type=click.FloatRange(0),
    help="L2 penalty: l2/2 times the sum of the squared weights.",
)
@config_option(
    "--weight-decay",
    "0.01",
    type=click.FloatRange(0),
    help="Decoupled weight decay, as a fraction of the learning rate.",
)
@config_option(
    "--label-smoothing",
    "0.05",
    type=click.FloatRange(0, 1, max_open=True),
    help="Label smoothing factor.",
)
@config_option(
    "--dropout",
    "0",
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
    "none",
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
    "1",
    type=click.IntRange(1),
    help="Save an exponential moving average of the weights over this many epochs (needs "
    "--schedule constant).",
)
@config_option(
    "--target-precision",
    "0.97",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Precision of confident predictions on the validation rows, which sets the "
    "confidence threshold.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="Random seed of the initial weights and the order of the rows.  [default: 0]",
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

    The defaults below are those of the preset standard; other presets have others.

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
