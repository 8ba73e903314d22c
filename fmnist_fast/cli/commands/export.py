"""Options of the command `export`."""

import click

from ..lazy import deferred
from ..options import FILE


@click.command()
@click.argument("model", type=FILE, required=False)
@click.option(
    "--to",
    type=click.Choice(["onnx", "npz", "python", "c"]),
    required=True,
    help="Format: onnx, a graph for ONNX Runtime and others (pip install "
    "'fmnist-fast[export]'); npz, the arrays; python, a module without dependencies; c, "
    "a C99 file.",
)
@click.option(
    "--out", type=FILE, help="File to write.  [default: the model's name, in this folder]"
)
@click.option("--force", is_flag=True, help="Replace --out if it exists.")
@deferred("export:export")
def export() -> None:
    """Export a model for other programs.

    MODEL is a file of one network, by default the pretrained model. The export does not need this
    package and gives the same probabilities: the scaling of pixels, the calibration temperature and
    the softmax are part of it. Networks of images take their pixels, uint8 0..255, as one row:
    (n, 784) in ONNX, 784 numbers in Python and C. The file contains the class names.

      \b
      fmnist-fast export --to onnx
      fmnist-fast export model.safetensors --to c --out shoes.c
      fmnist-fast export --to python && python -c "import fashion_mnist as m; print(m.CLASSES)"
    """
