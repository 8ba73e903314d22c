"""The machine of a measurement: processor, load, and versions."""

import os
import platform
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_info

from .. import __version__
from .._cpu import usable_cores

_CPUINFO = Path("/proc/cpuinfo")


def describe_machine(packages: tuple[str, ...]) -> dict[str, Any]:
    """Return date, processor, cores, load, and versions of Python and packages; None: missing."""
    return {
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
        "cpu": _cpu(),
        "machine": platform.machine(),
        "system": platform.system(),
        "usable_cores": usable_cores(),
        "load_before": load_average(),
        "versions": {
            "fmnist-fast": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "blas": _blas(),
    }


def load_average() -> float | None:
    """Return the processes that wanted to run, averaged over the last minute, if it is known."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    """Return the name of the processor, with family and model, which the name may hide."""
    try:
        pairs = [line.split(":", 1) for line in _CPUINFO.read_text().splitlines() if ":" in line]
    except OSError:
        pairs = []
    entries = {key.strip(): value.strip() for key, value in pairs}
    name = entries.get("model name") or platform.processor() or platform.machine()
    details = [f"{key} {entries[key]}" for key in ("cpu family", "model") if key in entries]
    return " ".join([name, *details])


def _blas() -> str | None:
    """Return the BLAS library that NumPy uses."""
    libraries = [info for info in threadpool_info() if info["user_api"] == "blas"]
    found = [f"{info['internal_api']} {info['version']}" for info in libraries]
    return ", ".join(found) or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
