"""Options of the command `data`."""

from pathlib import Path

import click

from ..lazy import deferred
from ..options import DATA_DIR


@click.group()
def data() -> None:
    """Download, verify or locate Fashion-MNIST."""


@data.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to download into.  [default: the user's cache]",
)
@deferred("data:fetch")
def fetch() -> None:
    """Download the files that are missing, and verify their checksums."""


@data.command()
@DATA_DIR
@deferred("data:verify")
def verify() -> None:
    """Verify the checksums of the files that would be used."""


@data.command()
@DATA_DIR
@deferred("data:path")
def path() -> None:
    """Print the folder of the files that would be used: the IDX files, or their decoded copy."""
