"""The commands `data fetch`, `data verify` and `data path`."""

from pathlib import Path

import click

from ..errors import UserError
from .options import DATA_DIR

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
def fetch(data_dir: Path | None) -> None:
    """Download the four files, those that are not there yet, and check them."""
    from ..data import fashion_mnist

    folder = fashion_mnist.fetch(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"Fashion-MNIST is in {folder}")


@data.command()
@DATA_DIR
def verify(data_dir: Path | None) -> None:
    """Check every byte of the files that would be used."""
    from ..data import fashion_mnist

    folder = _data_folder(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"{folder}: Fashion-MNIST, every byte")


@data.command()
@DATA_DIR
def path(data_dir: Path | None) -> None:
    """Print the folder of the files that would be used: the four, or their decoded copy."""
    click.echo(_data_folder(data_dir))


def _data_folder(data_dir: Path | None) -> Path:
    from ..data import fashion_mnist

    folder = fashion_mnist.find_folder(data_dir)
    if folder is None:
        raise UserError(
            "the files of Fashion-MNIST are not here: get them with 'fmnist-fast data fetch', or "
            "name their folder with --data-dir or FMNIST_FAST_DATA"
        )
    return folder
