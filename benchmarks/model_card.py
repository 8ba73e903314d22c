"""Evaluates the pretrained model and writes the results into its model card.

python benchmarks/model_card.py            # evaluate, rewrite the card
python benchmarks/model_card.py --train    # first train it, by the command in the card
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from readme_tables import replace_block

from fmnist_fast.models.load import PRETRAINED, load_model
from fmnist_fast.models.model import Model

CARD = PRETRAINED.with_name("MODEL_CARD.md")
COMMAND = [sys.executable, "-m", "fmnist_fast"]
TRAIN = ["train", "--preset", "best", "--dataset", "fashion-mnist", "--out", str(PRETRAINED)]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def block(model: Model, digest: str, measured_results: dict[str, Any]) -> str:
    """Return the text between the marks."""
    return "\n".join([*figures(model, digest, measured_results), ""])


def figures(model: Model, digest: str, measured_results: dict[str, Any]) -> Iterator[str]:
    """Yield lines of Markdown. measured_results : output of `evaluate --json`."""
    training, selective = model.training, measured_results["selective_accuracy"]
    yield f"- sha256 `{digest}`"
    yield f"- trained with backend {training['backend']}, {training['instruction_set']}"
    yield f"- accuracy {percent(measured_results['accuracy'])} on the 10,000 test images"
    yield f"- cross-entropy {measured_results['loss']:.4f} nats"
    yield f"- expected calibration error {percent(measured_results['calibration_error'])} (15 bins)"
    yield f"- temperature {model.temperature:.3f}"
    yield (
        f"- confidence threshold {percent(selective['threshold'])}: coverage "
        f"{percent(selective['coverage'])} of the test images, accuracy "
        f"{percent(selective['accuracy'])} on these"
    )
    yield ""
    yield "| class | precision | recall | F1 |"
    yield "| --- | ---: | ---: | ---: |"
    for entry in measured_results["classes"]:
        cells = (percent(entry[name]) for name in ("precision", "recall", "f1"))
        yield f"| {entry['name']} | {' | '.join(cells)} |"
    yield ""
    yield "| images | | accuracy |"
    yield "| --- | --- | ---: |"
    for entry in measured_results["corruptions"]:
        yield f"| {entry['kind']} | {entry['level']} | {percent(entry['accuracy'])} |"


def main() -> None:
    """Train if wanted, evaluate, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--train", action="store_true", help="train the model first")
    if parser.parse_args().train:
        subprocess.run([*COMMAND, *TRAIN], check=True)
    output = subprocess.run([*COMMAND, "evaluate", "--json"], check=True, stdout=subprocess.PIPE)
    digest = sha256(PRETRAINED.read_bytes()).hexdigest()
    content = block(load_model(), digest, json.loads(output.stdout))
    CARD.write_text(replace_block(CARD.read_text(encoding="utf-8"), content), encoding="utf-8")


if __name__ == "__main__":
    main()
