"""Evaluates the pretrained model and writes the results into its model card.

python benchmarks/model_card.py            # evaluate, rewrite the card
python benchmarks/model_card.py --train    # first train it, by the command in the card
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import click
from markdown_tables import MODEL_CARD, markdown_table, write_block

from fmnist_fast.models.load import PRETRAINED, load_model
from fmnist_fast.models.model import Model

COMMAND = [sys.executable, "-m", "fmnist_fast"]
TRAIN = ["train", "--preset", "best", "--dataset", "fashion-mnist", "--out", str(PRETRAINED)]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def block(model: Model, results: dict[str, Any]) -> Iterator[str]:
    """Yield lines of Markdown. results : output of `evaluate --json`."""
    training, selective = model.training, results["selective_accuracy"]
    yield f"- sha256 `{sha256(PRETRAINED.read_bytes()).hexdigest()}`"
    yield f"- trained with backend {training['backend']}, {training['instruction_set']}"
    yield f"- accuracy {percent(results['accuracy'])} on the 10,000 test images"
    yield f"- cross-entropy {results['loss']:.4f} nats"
    yield f"- expected calibration error {percent(results['calibration_error'])} (15 bins)"
    yield f"- temperature {model.temperature:.3f}"
    yield (
        f"- confidence threshold {percent(selective['threshold'])}: coverage "
        f"{percent(selective['coverage'])} of the test images, accuracy "
        f"{percent(selective['accuracy'])} on these"
    )
    yield ""
    metrics = ("precision", "recall", "f1")
    rows = ([c["name"], *(percent(c[metric]) for metric in metrics)] for c in results["classes"])
    yield from markdown_table(("class", "precision", "recall", "F1"), rows)
    yield ""
    rows = ([c["kind"], c["level"], percent(c["accuracy"])] for c in results["corruptions"])
    yield from markdown_table(("images", "", "accuracy"), rows, left=("",))


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--train", is_flag=True, help="Train the model first.")
def main(train: bool) -> None:
    if train:
        subprocess.run([*COMMAND, *TRAIN], check=True)
    output = subprocess.run([*COMMAND, "evaluate", "--json"], check=True, stdout=subprocess.PIPE)
    write_block(MODEL_CARD, block(load_model(), json.loads(output.stdout)))


if __name__ == "__main__":
    main()
