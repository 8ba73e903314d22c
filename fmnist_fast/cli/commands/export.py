"""Options of the command `export`."""

import click

from ..lazy import deferred
from ..options import FILE

__all__ = ["export"]


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option(
    "--to",
    type=click.Choice(["onnx", "npz", "python", "c"]),
    required=True,
    help="onnx: a graph for ONNX Runtime and others (pip install 'fmnist-fast[export]'). npz: the "
    "arrays. python: a module that needs nothing but Python. c: a file of C99.",
)
@click.option(
    "--out", type=FILE, help="The file to write.  [default: the model's name, in this folder]"
)
@click.option("--force", is_flag=True, help="Replace --out if it is there.")
@deferred("export:export")
def export() -> None:
    """Write MODEL, or else the model that comes with the package, for other programs.

    What is written needs nothing of this package and gives the same probabilities: the scaling of
    pixels, the temperature and the softmax are inside. Networks of images take their pixels, uint8
    0..255, as one row: (n, 784) in ONNX, 784 numbers in Python and C. The names of the classes are
    in the file.

      \b
      fmnist-fast export --to onnx
      fmnist-fast export model.safetensors --to c --out shoes.c
      fmnist-fast export --to python && python -c "import fashion_mnist as m; print(m.CLASSES)"
    """
