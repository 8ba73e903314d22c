"""The command `export`."""

from pathlib import Path

import click

from .options import FILE
from .outputs import check_outputs

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
def export(model: Path | None, to: str, out: Path | None, force: bool) -> None:
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
    from ..models.ensemble import single_member
    from ..models.export.formats import default_name
    from ..models.export.formats import export as write
    from ..models.load import PRETRAINED, load_model

    path = model or PRETRAINED
    out = out or Path(default_name(path, to))
    check_outputs({"export": out}, path)
    loaded = single_member(load_model(path), path, "export")
    network, spec = loaded.network, loaded.network.spec
    write(
        out,
        to,
        network.params,
        spec,
        class_names=loaded.class_names,
        scale=network.scale,
        temperature=loaded.temperature,
        force=force,
    )
    takes = f"{spec.sizes[0]} {'numbers' if network.scale == 1 else 'pixels, 0..255'}"
    click.echo(f"saved {out}: takes {takes}, gives {spec.sizes[-1]} probabilities")
