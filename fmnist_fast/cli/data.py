"""The commands `data fetch`, `data verify` and `data path`."""

from pathlib import Path

import click

from ..data import fashion_mnist
from ..errors import UserError


def fetch(*, data_dir: Path | None) -> None:
    folder = fashion_mnist.fetch(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"Fashion-MNIST is in {folder}")


def verify(*, data_dir: Path | None) -> None:
    folder = _find_folder(data_dir)
    fashion_mnist.verify(folder)
    click.echo(f"{folder}: Fashion-MNIST, every byte")


def path(*, data_dir: Path | None) -> None:
    click.echo(_find_folder(data_dir))


def _find_folder(data_dir: Path | None) -> Path:
    folder = fashion_mnist.find_folder(data_dir)
    if folder is None:
        raise UserError(
            "the files of Fashion-MNIST are not here: get them with 'fmnist-fast data fetch', or "
            "name their folder with --data-dir or FMNIST_FAST_DATA"
        )
    return folder
