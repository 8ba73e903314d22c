"""Options of the command `info`."""

import click

from ..lazy import deferred
from ..options import FILE, JSON

__all__ = ["info"]


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option("--presets", is_flag=True, help="List the recipes that train knows by name.")
@JSON
@deferred("info:info")
def info() -> None:
    """Say what this installation has, or what MODEL's file says, of one network or an ensemble.

    With --presets, what the recipes that 'fmnist-fast train --preset' takes were measured to reach
    on Fashion-MNIST: accuracy on the test set, mean and standard deviation over seeds, and seconds
    of training, teachers included.
    """
