"""Options that several commands have."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .._cpu import usable_cores
from ..errors import UserError

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)

# The widest layer, the most threads and the most processes that are not a slip of the finger.
MAX_WIDTH = 1 << 20
MAX_THREADS = 1024
MAX_WORKERS = 1024

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}

# More processes than this for a core would only take memory from each other.
MAX_PER_CORE = 8


def widths(value: str) -> tuple[int, ...]:
    """Parse widths of the hidden layers: "128,64"; "none" for no hidden layer."""
    if value.strip() == "none":
        return ()
    try:
        sizes = tuple(int(part) for part in value.split(","))
    except ValueError:
        sizes = (0,)
    if not all(1 <= size <= MAX_WIDTH for size in sizes):
        raise click.BadParameter(f"{value!r}: give widths like 128,64, or none")
    return sizes


def duration(value: str) -> float:
    """Parse a duration, in seconds: "90", "90s", "500ms", "2m", "1h"."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", value)
    if not match or match[2] not in SECONDS or not float(match[1]):
        raise click.BadParameter(f"{value!r}: give a time like 2s, 500ms, 3m or 1h")
    return float(match[1]) * SECONDS[match[2]]


def nonempty(value: str) -> str:
    """Refuse an empty text, as an unset variable of the shell would be."""
    if not value.strip():
        raise click.BadParameter("it is empty: name something, or leave the option out")
    return value


def workers_or_auto(value: str) -> int | None:
    """Parse a number of processes; None for "auto"."""
    if value == "auto":
        return None
    if not value.isdigit() or not 1 <= int(value) <= MAX_WORKERS:
        raise click.BadParameter(f"{value!r}: give auto, or a number from 1 to {MAX_WORKERS}")
    return int(value)


def class_weights(value: str) -> str | dict[int, float]:
    """Parse "balanced", or weights of labels: "6=2,2=1.5"; labels that are not named weigh 1."""
    if value == "balanced":
        return value
    try:
        pairs = (part.split("=") for part in value.split(","))
        return {int(label): float(weight) for label, weight in pairs}
    except ValueError:
        raise click.BadParameter(f"{value!r}: give balanced, or weights like 6=2,2=1.5") from None


def check_workers(workers: int | None, given: bool, scheduler: str | None) -> None:
    """given : whether --workers was. Raises: UserError if the scheduler has workers of its own, or
    there are far more than cores.
    """
    if given and scheduler:
        raise UserError("--workers are of this machine, and --scheduler has its own: give only one")
    cores = usable_cores()
    if workers and workers > MAX_PER_CORE * cores:
        raise UserError(
            f"--workers {workers} is too many for {cores} usable core{'s' * (cores != 1)}: give at "
            f"most {MAX_PER_CORE * cores}, or leave it out for one a core"
        )


FILE = click.Path(dir_okay=False, path_type=Path)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else."
)
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the Fashion-MNIST files.  [default: $FMNIST_FAST_DATA, then the user's "
    "cache, then a download]",
)
BACKEND = click.option(
    "--backend",
    default="auto",
    help="Backend: auto (the fastest available), cython, numba or numpy.",
)
THREADS = click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Number of threads, at most 8 for every core.  [default: usable cores, or fewer]",
)
DATASETS = "auto, fashion-mnist, synthetic, a folder of four IDX files, or an .npz file"
TRAINING_SET = click.option("--dataset", default="auto", help=f"Data set to train on: {DATASETS}.")
MODEL_OUT = click.option(
    "--out",
    type=FILE,
    default="model.safetensors",
    help="Model file to write. An earlier model there is kept under another name unless the new "
    "one is at least as accurate on the validation rows.",
)
FORCE = click.option("--force", is_flag=True, help="Replace --out, whatever it holds.")


def plot_option(content: str) -> Callable[[Command], Command]:
    """Option for the file of a plot of `content`."""
    return click.option(
        "--plot", type=FILE, help=f"Write a plot of {content}: a .png, .svg or .pdf file."
    )
