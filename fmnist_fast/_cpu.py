"""Number of CPU cores that this process may use."""

import os
from math import ceil
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def usable_cores() -> int:
    """Return the minimum of CPU affinity, container quota and OMP_NUM_THREADS, at least 1."""
    return max(1, min(n for n in (affinity(), _quota(), _omp_num_threads()) if n is not None))


def affinity() -> int:
    """Return the number of cores that the system lets this process use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quota() -> int | None:
    """Return the CPU quota of the control group in cores, rounded up; None without a limit."""
    try:
        if _CGROUP_V2.exists():
            quota, period = _CGROUP_V2.read_text().split()[:2]
        else:
            quota = (_CGROUP_V1 / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP_V1 / "cpu.cfs_period_us").read_text()
        return ceil(int(quota) / int(period)) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def _omp_num_threads() -> int | None:
    # OMP_NUM_THREADS may list one number per nesting level: "4,2".
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdigit() and int(first) > 0 else None
