"""Options of the command `info`."""

import click

from ..lazy import deferred
from ..options import FILE, JSON


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option(
    "--presets",
    is_flag=True,
    help="List the presets of 'fmnist-fast train' and their measured results.",
)
@JSON
@deferred("info:info")
def info() -> None:
    """Describe this installation, or a model file.

    MODEL is a file of one network or of an ensemble. --presets shows test accuracy on Fashion-MNIST
    (mean and standard deviation over seeds) and seconds of training, teachers included.
    """
