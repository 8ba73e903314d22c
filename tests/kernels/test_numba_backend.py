"""Numba backend: one compilation, a cache on disk, a barrier."""

import os
import subprocess
import sys
import textwrap
import threading
from itertools import product

import numpy as np
import pytest
from kernel_cases import Case, training_data

from fmnist_fast import train
from fmnist_fast.kernels.interface import NetworkSpec, Params, StepSchedule
from fmnist_fast.nn.backend import unavailable_reason

pytestmark = pytest.mark.skipif(
    unavailable_reason("numba") is not None, reason=str(unavailable_reason("numba"))
)

# Calls the kernel that compiles fastest.
PREDICT_ONE = """
import numpy as np
from fmnist_fast.kernels import numba_backend
from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.kernels.numba_backend.compilation import _ready
params = Params((np.eye(2, dtype=np.float32),), (np.zeros(2, np.float32),))
out = np.empty((1, 2), np.float32)
numba_backend.predict(params, np.ones((1, 2), np.float32), 1.0, NetworkSpec((2, 2)), 1, out)
assert (out == 0.5).all()
(predict_one,) = _ready.values()
_, hits, misses = predict_one.stats
print(sum((hits or {}).values()), sum((misses or {}).values()))
"""


NOTICE = "compiling the Numba kernels, once: some 10 s\n"


def run(code, tmp_path, **environment):
    """Run code in a new process; return its stdout and stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr


def test_cache_prevents_compilation_in_second_process(tmp_path):
    assert run(PREDICT_ONE, tmp_path) == ("0 1\n", NOTICE)
    assert run(PREDICT_ONE, tmp_path) == ("1 0\n", "")


def test_cache_unavailable_is_warning(tmp_path):
    no_locators = (
        "from numba.core import caching\ncaching.CompileResultCacheImpl._locator_classes = []\n"
    )
    _, stderr = run(no_locators + PREDICT_ONE, tmp_path)
    assert stderr.count("UserWarning") == 1
    assert "NUMBA_CACHE_DIR" in stderr
    assert not list((tmp_path / "cache").glob("*"))


def test_cache_on_full_disk_is_warning(tmp_path):
    full = (
        "from numba.core import caching\n"
        "def save(*_):\n"
        "    raise OSError(28, 'No space left on device')\n"
        "caching.IndexDataCacheFile.save = save\n"
    )
    _, stderr = run(full + PREDICT_ONE, tmp_path)
    assert stderr.count("UserWarning") == 1
    assert "No space left on device" in stderr


def truncate(content):
    return content[:20]


def make_text_invalid(content):
    place = content.rindex(b"float32")
    return content[:place] + b"\xff" + content[place + 1 :]  # no UTF-8


@pytest.mark.parametrize(("damage", "files"), [(truncate, "*.nb*"), (make_text_invalid, "*.nbi")])
def test_cache_damaged_is_warning(damage, files, tmp_path):
    run(PREDICT_ONE, tmp_path)
    for path in (tmp_path / "cache").rglob(files):
        path.write_bytes(damage(path.read_bytes()))
    _, stderr = run(PREDICT_ONE, tmp_path)
    assert stderr.count("UserWarning") == 1


@pytest.mark.filterwarnings("error")
def test_compilation_error_is_not_blamed_on_cache():
    def invalid(x):
        return x + "text"

    from numba import TypingError

    from fmnist_fast.kernels.numba_backend.compilation import compiled_for

    with pytest.raises(TypingError, match="No implementation of function"):
        compiled_for(invalid, "key", 1.0)


def test_cache_dir_that_is_a_file_is_not_used(tmp_path):
    (tmp_path / "file").touch()
    run(PREDICT_ONE, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == b""


def test_compilation_defers_ctrl_c(tmp_path):
    code = (
        "import logging, os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "handler = logging.Handler()\n"
        "handler.emit = lambda record: os.kill(os.getpid(), signal.SIGINT)\n"
        "logging.getLogger().addHandler(handler)\n"  # receives the notice that compilation begins
        f"try:\n{textwrap.indent(PREDICT_ONE, '    ')}"
        "except KeyboardInterrupt:\n    print(len(_ready))\n"
    )
    assert run(code, tmp_path) == ("1\n", "")


def test_compiling_seconds_are_those_of_a_compilation_in_progress(tmp_path):
    code = (
        "import logging\n"
        "from fmnist_fast.nn.backend import compiling_seconds\n"
        "seconds = []\n"
        "handler = logging.Handler()\n"
        "handler.emit = lambda record: seconds.append(compiling_seconds())\n"
        "logging.getLogger().addHandler(handler)\n"
        f"{PREDICT_ONE}\n"
        "print(0 <= seconds[0] < 1, len(seconds), compiling_seconds())\n"
    )
    stdout, _ = run(code, tmp_path)
    assert stdout.splitlines()[-1] == "True 1 None"


def test_backend_is_unavailable_with_disabled_jit(tmp_path):
    code = (
        "from fmnist_fast.nn.backend import unavailable_reason; print(unavailable_reason('numba'))"
    )
    printed, _ = run(code, tmp_path, NUMBA_DISABLE_JIT="1")
    assert "NUMBA_DISABLE_JIT" in printed


def test_missing_numba_error_names_extra(tmp_path):
    code = (
        "import sys\nsys.modules['numba'] = None\n"
        "from fmnist_fast.nn.backend import unavailable_reason\n"
        "print(unavailable_reason('numba'))\n"
    )
    printed, _ = run(code, tmp_path)
    assert printed.startswith("cannot be loaded: ")
    assert "pip install 'fmnist-fast[numba]'" in printed


def test_barrier_releases_threads_if_one_never_starts(small_dataset, monkeypatch):
    from fmnist_fast.kernels.numba_backend import workspace

    workers, run_team = [], workspace.run_team

    def interrupted(job, threads):
        if workers:  # prediction of the test set, after training
            return run_team(job, threads)
        workers.append(threading.Thread(target=job, args=(1,), daemon=True))
        workers[0].start()
        raise KeyboardInterrupt

    monkeypatch.setattr(workspace, "run_team", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small_dataset, backend="numba", threads=2, epochs=1)
    workers[0].join(timeout=10)
    assert not workers[0].is_alive()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compilation_serves_all_options_of_a_dtype(dtype):
    from fmnist_fast.kernels import numba_backend
    from fmnist_fast.kernels.numba_backend.compilation import _ready

    compiled, order_n, one = [], np.arange(5, dtype=np.int32), np.ones(1)
    for activation, loss, optimizer in product(*list(numba_backend.SUPPORTS.values())[:3]):
        case = Case(
            (7, 5, 3), 5, activation=activation, loss=loss, optimizer=optimizer, dtype=dtype
        )
        state, data, spec = case.state(), training_data(case), case.spec
        schedule = StepSchedule(5, one, one, one, one)
        numba_backend.train_steps(state, data, order_n, schedule, spec, 0, 1, 1)
        for rows in (5, 1):
            out = np.empty((rows, 3), dtype)
            numba_backend.predict(case.params, case.x_bi[:rows], 1.0, spec, 1, out)
        numba_backend.forward(case.params, case.x_bi, spec, case.activations())
        numba_backend.update(state, case.grads(), schedule.at(0), spec)
        compiled.append([len(kernel.signatures) for kernel in _ready.values()])
    assert compiled[1:] == compiled[:-1]


@pytest.mark.parametrize("readonly", ["x", "a weight", "all"])
def test_predict_takes_readonly_arrays(readonly):
    from fmnist_fast.kernels import numba_backend
    from fmnist_fast.kernels.numba_backend.compilation import _ready

    case = Case((7, 5, 3), 1)
    expected, out = np.empty((2, 1, 3), np.float32)
    numba_backend.predict(case.params, case.x_bi, 1.0, case.spec, 1, expected)
    if readonly != "a weight":
        case.x_bi.flags.writeable = False
    if readonly != "x":
        case.params.weights[1].flags.writeable = False
    numba_backend.predict(case.params, case.x_bi, 1.0, case.spec, 1, out)
    np.testing.assert_array_equal(out, expected)
    assert all(len(kernel.signatures) == 1 for kernel in _ready.values())


def test_forward_keeps_nan_of_bias():
    from fmnist_fast.kernels import numba_backend

    sizes = (3, 5, 2)
    spec = NetworkSpec(sizes)
    params = Params(
        tuple(np.ones(shape, np.float32) for shape in spec.shapes),
        tuple(np.zeros(o, np.float32) for _, o in spec.shapes),
    )
    params.biases[0][4] = np.nan
    activations = tuple(np.empty((1, o), np.float32) for o in sizes[1:])
    numba_backend.forward(params, np.ones((1, 3), np.float32), spec, activations)
    assert np.isnan(activations[0]).tolist() == [[False] * 4 + [True]]
    assert np.isnan(activations[1]).all()
