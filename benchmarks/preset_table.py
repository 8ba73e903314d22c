"""What accuracy do the presets reach, and in what time? Trains each from several seeds.

python benchmarks/preset_table.py                          # all, 5 seeds: some ten minutes
python benchmarks/preset_table.py --presets fast --seeds 3
python benchmarks/preset_table.py --write                  # also into presets.json and the README
"""

import argparse
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

from readme_tables import README, replace_block

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
    machine = describe_machine(())
    where = (
        f"{training['backend']} {training['instruction_set'] or ''}".strip()
        + f", {machine['cpu']}, {report['threads']} threads"
    )
    return report, where


def measure(preset: str, seeds: int) -> PresetResult:
    """Train with seeds 0, 1, ..."""
    accuracies, seconds, where = [], [], ""
    for seed in range(seeds):
        report, where = run_training(preset, seed)
        accuracies.append(report["test_accuracy"])
        seconds.append(round(report["seconds"], 3))
        print(
            f"{preset} seed {seed}: {100 * accuracies[-1]:.2f} %, {seconds[-1]:.2f} s",
            file=sys.stderr,
        )
    config = resolve_config(PRESETS[preset], load_dataset("fashion-mnist")).to_dict()
    today = datetime.now(UTC).date().isoformat()
    return PresetResult(config, tuple(accuracies), tuple(seconds), today, where)


def table(results: dict[str, PresetResult]) -> Iterator[str]:
    """Yield the lines of a table with the limits."""
    yield "| preset | test accuracy, mean and deviation | limit | seconds, median | limit | seeds |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for name, result in results.items():
        accuracy, seconds = LIMITS[name]
        yield (
            f"| {name} | {100 * result.accuracy:.2f} ± {100 * result.spread:.2f} % "
            f"| {100 * accuracy:.1f} % | {median(result.seconds):.2f} | {seconds:g} "
            f"| {len(result.seconds)} |"
        )


def block(results: dict[str, PresetResult]) -> str:
    """Return the table and its source for the README."""
    return "\n".join([*rows(results), "", *sources(results), ""])


def rows(results: dict[str, PresetResult]) -> Iterator[str]:
    """Yield the lines of the table of the README."""
    yield "| preset | network | test accuracy | seconds of training |"
    yield "| --- | --- | ---: | ---: |"
    for name, result in results.items():
        config = PRESETS[name]
        network = "-".join(map(str, (784, *config.hidden, 10)))
        yield (
            f"| {name} | {network}, {config.epochs} epochs | {100 * result.accuracy:.2f} ± "
            f"{100 * result.spread:.2f} % | {median(result.seconds):.1f} |"
        )


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


def main() -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--presets", default=",".join(LIMITS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="into presets.json and the README")
    args = parser.parse_args()
    results = {name: measure(name, args.seeds) for name in args.presets.split(",")}
    print("\n".join(table(results)))
    if args.write:
        known = measured_results() if RESULTS_FILE.exists() else {}
        entries = {
            name: asdict((known | results)[name]) for name in LIMITS if name in known | results
        }
        RESULTS_FILE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        README.write_text(replace_block(README.read_text(), block(measured_results()), "presets"))


if __name__ == "__main__":
    main()
