"""Options of the command `data`."""

from pathlib import Path

import click

from ..lazy import deferred
from ..options import DATA_DIR

__all__ = ["data"]


@click.group()
def data() -> None:
    """Fetch, verify or find Fashion-MNIST."""


@data.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to download into.  [default: the user's cache]",
)
@deferred("data:fetch")
def fetch() -> None:
    """Download the four files, those that are not there yet, and check them."""


@data.command()
@DATA_DIR
@deferred("data:verify")
def verify() -> None:
    """Check every byte of the files that would be used."""


@data.command()
@DATA_DIR
@deferred("data:path")
def path() -> None:
    """Print the folder of the files that would be used: the four, or their decoded copy."""
