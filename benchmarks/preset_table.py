"""What accuracy do the presets reach, and in what time? Trains each from several seeds.

python benchmarks/preset_table.py                          # all, 5 seeds: some ten minutes
python benchmarks/preset_table.py --presets fast --seeds 3
python benchmarks/preset_table.py --write                  # also into presets.json and the README
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
from markdown_tables import README, markdown_table, write_block

from fmnist_fast import load_dataset, load_model
from fmnist_fast.bench.machine import describe_machine
from fmnist_fast.training.presets import PRESETS, RESULTS_FILE, PresetResult, measured_results
from fmnist_fast.training.train_data import resolve_config

# Limits: minimum test accuracy, mean of five seeds; maximum seconds on two cores with cython.
LIMITS = {
    "fast": (0.880, 1.0),
    "standard": (0.890, 4.0),
    "best": (0.896, 180.0),
    "wide": (0.908, 900.0),
}


def run_training(preset: str, seed: int) -> tuple[dict[str, Any], str]:
    """Return the output of `fmnist-fast train --json`, and a description of the machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.safetensors"
        command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", "fashion-mnist"]
        command += ["--preset", preset, "--seed", str(seed), "--json", "--quiet", "--out", str(out)]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        training = load_model(out).training
    backend = f"{training['backend']} {training['instruction_set'] or ''}".strip()
    return report, f"{backend}, {describe_machine(())['cpu']}, {report['threads']} threads"


def measure(preset: str, seeds: int) -> PresetResult:
    """Train with seeds 0, 1, ..."""
    accuracies, seconds, where = [], [], ""
    for seed in range(seeds):
        report, where = run_training(preset, seed)
        accuracies.append(report["test_accuracy"])
        seconds.append(round(report["seconds"], 3))
        accuracy = f"{100 * accuracies[-1]:.2f} %"
        print(f"{preset} seed {seed}: {accuracy}, {seconds[-1]:.2f} s", file=sys.stderr)
    config = resolve_config(PRESETS[preset], load_dataset("fashion-mnist")).to_dict()
    today = datetime.now(UTC).date().isoformat()
    return PresetResult(config, tuple(accuracies), tuple(seconds), today, where)


def block(results: dict[str, PresetResult]) -> Iterator[str]:
    """Yield the lines of the README: the table and its source."""
    rows = []
    for name, result in results.items():
        config = PRESETS[name]
        network = "-".join(map(str, (784, *config.hidden, 10)))
        accuracy = f"{100 * result.accuracy:.2f} ± {100 * result.spread:.2f} %"
        seconds = f"{median(result.seconds):.1f}"
        rows.append((name, f"{network}, {config.epochs} epochs", accuracy, seconds))
    titles = ("preset", "network", "test accuracy", "seconds of training")
    yield from markdown_table(titles, rows, left=("network",))
    yield ""
    yield from sources(results)


def sources(results: dict[str, PresetResult]) -> Iterator[str]:
    """Yield lines with machine, date and method."""
    seeds = min(len(result.seconds) for result in results.values())
    yield f"Mean and standard deviation of {seeds} seeds; median of seconds, teachers included;"
    yield "`benchmarks/preset_table.py`. Measured"
    by_source: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        by_source.setdefault((result.date, result.where), []).append(name)
    for (date, where), names in by_source.items():
        yield f"- {', '.join(names)}: {date}, {where}"


@click.command()
@click.option("--presets", default=",".join(LIMITS))
@click.option("--seeds", default=5)
@click.option("--write", is_flag=True, help="Write the results into presets.json and the README.")
def main(presets: str, seeds: int, write: bool) -> None:
    """Train each preset from several seeds, and print accuracy and seconds beside their limits."""
    results = {name: measure(name, seeds) for name in presets.split(",")}
    print("\n".join(block(results)))
    for name in results:
        accuracy, seconds = LIMITS[name]
        print(f"limits of {name}: at least {100 * accuracy:.1f} %, at most {seconds:g} seconds")
    if write:
        known = (measured_results() if RESULTS_FILE.exists() else {}) | results
        entries = {name: asdict(known[name]) for name in LIMITS if name in known}
        RESULTS_FILE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        write_block(README, block(measured_results()), "presets")


if __name__ == "__main__":
    main()
