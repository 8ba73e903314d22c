"""The command `bench` when it is interrupted."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from conditions import wait_until


@pytest.mark.parametrize("children", [1, 2, 3])
def test_bench_ctrl_c_is_one_line_at_any_moment(small_npz, tmp_path, children):
    """Also while the processes of backends load: a terminal sends the signal to these, too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fmnist_fast", "bench", "--rounds", "99", "--dataset", small_npz],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_process = psutil.Process(process.pid)
    wait_until(lambda: process.poll() is not None or len(of_process.children()) >= children)
    started = of_process.children()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "fmnist-fast: stopped")
    assert psutil.wait_procs(started, timeout=60)[1] == []
