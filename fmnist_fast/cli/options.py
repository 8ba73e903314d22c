"""Options that several commands have."""

import re
from pathlib import Path
from typing import Any, ClassVar

import click

from .._cpu import usable_cores
from ..errors import UserError

__all__ = [
    "BACKEND",
    "BATCH_SIZE",
    "DATASETS",
    "DATA_DIR",
    "FILE",
    "FOLDER",
    "JSON",
    "THREADS",
    "Address",
    "ClassWeights",
    "Seconds",
    "Widths",
    "Workers",
    "check_workers",
]

# The widest layer, the most threads and the most processes that are not a slip of the finger.
MAX_WIDTH = 1 << 20
MAX_THREADS = 1024
MAX_WORKERS = 1024

# More processes than this for a core would only take memory from each other.
MAX_PER_CORE = 8


class Widths(click.ParamType):
    """Widths of the hidden layers: "128,64"; "none" for no hidden layer."""

    name = "WIDTHS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if not isinstance(value, str):
            return tuple(value)
        if value.strip() == "none":
            return ()
        try:
            widths = tuple(int(part) for part in value.split(","))
        except ValueError:
            widths = (0,)
        if not all(1 <= width <= MAX_WIDTH for width in widths):
            self.fail(f"{value!r}: give widths like 128,64, or none", param, ctx)
        return widths


class Seconds(click.ParamType):
    """A duration: "90", "90s", "500ms", "2m", "1h"."""

    name = "DURATION"
    UNITS: ClassVar = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "": 1.0}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", str(value))
        if not match or match[2] not in self.UNITS or not float(match[1]):
            self.fail(f"{value!r}: give a time like 2s, 500ms, 3m or 1h", param, ctx)
        return float(match[1]) * self.UNITS[match[2]]


class Address(click.ParamType):
    """Text that is not empty, as an unset variable of the shell would be."""

    name = "ADDRESS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | None:
        if value is not None and not value.strip():
            self.fail("it is empty: name something, or leave the option out", param, ctx)
        return None if value is None else str(value)


class Workers(click.ParamType):
    """A number of processes, or "auto"."""

    name = "N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value is None or isinstance(value, int) or value == "auto":
            return None if value == "auto" else value
        if not value.isdigit() or not 1 <= int(value) <= MAX_WORKERS:
            self.fail(f"{value!r}: give auto, or a number from 1 to {MAX_WORKERS}", param, ctx)
        return int(value)


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


class ClassWeights(click.ParamType):
    """ "balanced", or weights of labels: "6=2,2=1.5"; labels that are not named weigh 1."""

    name = "WEIGHTS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | dict[int, float]:
        if value == "balanced":
            return "balanced"
        try:
            pairs = (part.split("=") for part in value.split(","))
            return {int(label): float(weight) for label, weight in pairs}
        except ValueError:
            self.fail(f"{value!r}: give balanced, or weights like 6=2,2=1.5", param, ctx)


FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, and nothing else."
)
DATA_DIR = click.option(
    "--data-dir",
    type=FOLDER,
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
    help="Number of threads, at most 8 for every core.  [default: usable cores]",
)
BATCH_SIZE = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    help="Number of rows in a batch.",
)
DATASETS = "auto, fashion-mnist, synthetic, a folder of four IDX files, or an .npz file"
