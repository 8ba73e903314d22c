"""What only the numba backend has: compiling once, a cache on disk, and a barrier of its own."""

import os
import subprocess
import sys
import textwrap
import threading
from itertools import product

import numpy as np
import pytest
from equivalence import Case, training_data

from fmnist_fast import train
from fmnist_fast.kernels.interface import NetworkSpec, Params, StepSchedule
from fmnist_fast.nn.backend import unavailable_reason

pytestmark = pytest.mark.skipif(
    unavailable_reason("numba") is not None, reason=str(unavailable_reason("numba"))
)

# The kernel that takes the least time to compile.
UPDATE = (
    "import numpy as np\n"
    "from fmnist_fast.kernels import Layers, Spec, State, StepHyperparams, jit\n"
    "def layers(value):\n"
    "    return Layers((np.full((2, 2), value, np.float32),), (np.full(2, value, np.float32),))\n"
    "state = State(layers(1), layers(0), layers(0))\n"
    "numbers = StepHyperparams(0.5, 0.0, 0.0, 0.0, 0.0, 0.0)\n"
    "jit.update(state, layers(1), numbers, Spec((2, 2), rule='sgd'))\n"
    "assert (state.params.weights[0] == 0.5).all()\n"
    "_, hits, misses = jit.step_all.stats\n"
    "print(sum((hits or {}).values()), sum((misses or {}).values()))\n"
)


def run(code, tmp_path, **environment):
    """Runs code in a process of its own; returns what it printed, and what it said on stderr."""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr


def test_the_second_process_does_not_compile(tmp_path):
    assert run(UPDATE, tmp_path) == ("0 1\n", "compiling kernels, once\n")
    assert run(UPDATE, tmp_path) == ("1 0\n", "")


def test_a_cache_that_cannot_be_had_is_a_warning_and_no_more(tmp_path):
    nowhere = (
        "from numba.core import caching\ncaching.CompileResultCacheImpl._locator_classes = []\n"
    )
    _, said = run(nowhere + UPDATE, tmp_path)
    assert said.count("UserWarning") == 1
    assert "NUMBA_CACHE_DIR" in said
    assert not list((tmp_path / "cache").glob("*"))


def test_a_full_disk_is_a_warning_and_no_more(tmp_path):
    full = (
        "from numba.core import caching\n"
        "def save(*_):\n"
        "    raise OSError(28, 'No space left on device')\n"
        "caching.IndexDataCacheFile.save = save\n"
    )
    _, said = run(full + UPDATE, tmp_path)
    assert said.count("UserWarning") == 1
    assert "No space left on device" in said


def test_a_damaged_cache_is_a_warning_and_no_more(tmp_path):
    run(UPDATE, tmp_path)
    for path in (tmp_path / "cache").rglob("*.nb*"):
        path.write_bytes(path.read_bytes()[:20])
    _, said = run(UPDATE, tmp_path)
    assert said.count("UserWarning") == 1


def test_a_named_folder_that_is_none_is_a_warning_and_no_more(tmp_path):
    (tmp_path / "file").touch()
    _, said = run(UPDATE, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert said.count("UserWarning") == 1
    assert "NUMBA_CACHE_DIR cannot be written to" in said


def test_ctrl_c_while_kernels_are_compiled_interrupts_afterwards(tmp_path):
    code = (
        "import logging, os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in background jobs
        "handler = logging.Handler()\n"
        "handler.emit = lambda record: os.kill(os.getpid(), signal.SIGINT)\n"
        "logging.getLogger().addHandler(handler)\n"  # it hears that compilation begins
        f"try:\n{textwrap.indent(UPDATE, '    ')}"
        "except KeyboardInterrupt:\n    print(len(jit.step_all.signatures))\n"
    )
    assert run(code, tmp_path) == ("1\n", "")


def test_a_numba_that_does_not_compile_is_not_taken(tmp_path):
    code = "from fmnist_fast.nn.backend import unavailable; print(unavailable('numba'))"
    printed, _ = run(code, tmp_path, NUMBA_DISABLE_JIT="1")
    assert "NUMBA_DISABLE_JIT" in printed


def test_without_numba_the_message_says_how_to_get_it(tmp_path):
    code = (
        "import sys\nsys.modules['numba'] = None\n"
        "from fmnist_fast.nn.backend import get_backend, unavailable\n"
        "print(unavailable('numba'))\n"
    )
    printed, _ = run(code, tmp_path)
    assert printed.startswith("cannot be loaded: ")
    assert "pip install 'fmnist-fast[numba]'" in printed


def test_nobody_waits_for_a_thread_that_never_begins(small_dataset, monkeypatch):
    from fmnist_fast.kernels import numba_backend as jit

    helpers, as_usual = [], jit.run_team

    def interrupted(job, threads):
        if helpers:  # the test set, after the training
            return as_usual(job, threads)
        helpers.append(threading.Thread(target=job, args=(1,), daemon=True))
        helpers[0].start()
        raise KeyboardInterrupt

    monkeypatch.setattr(jit, "run_team", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small_dataset, backend="numba", threads=2, epochs=1)
    helpers[0].join(timeout=10)
    assert not helpers[0].is_alive()


def test_threads_keep_their_floating_point_mode(small_dataset):
    """Denormals count as zero while kernels train, and as what they are afterwards."""
    train(small_dataset, backend="numba", threads=1, epochs=1)
    assert np.float32(1e-39) * np.float32(1) != 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_compilation_serves_all_that_a_spec_chooses_but_its_dtype(dtype):
    from fmnist_fast.kernels import numba_backend as jit

    kernels = (jit.work, jit.step_all, jit.forward_batch, jit.step_all)
    compiled, order_n, one = [], np.arange(5, dtype=np.int32), np.ones(1)
    for activation, loss, optimizer in product(*list(jit.SUPPORTS.values())[:3]):
        case = Case(
            (7, 5, 3), 5, activation=activation, loss=loss, optimizer=optimizer, dtype=dtype
        )
        state, data, spec = case.state(), training_data(case), case.spec
        jit.train_steps(state, data, order_n, StepSchedule(5, one, one, one, one), spec, 0, 1, 1)
        jit.predict(case.params, case.x_bi, 1.0, spec, 1, np.empty((5, 3), dtype))
        jit.forward(case.params, case.x_bi, spec, case.layers())
        jit.update(state, case.grads(), StepSchedule(5, one, one, one, one).at(0), spec)
        compiled.append([len(kernel.signatures) for kernel in kernels])
    assert compiled[1:] == compiled[:-1]


def test_nan_comes_through():
    from fmnist_fast.kernels import numba_backend as jit

    sizes = (3, 5, 2)
    spec = NetworkSpec(sizes)
    params = Params(
        tuple(np.ones(shape, np.float32) for shape in spec.shapes),
        tuple(np.zeros(o, np.float32) for _, o in spec.shapes),
    )
    params.biases[0][4] = np.nan
    out_layers = tuple(np.empty((1, o), np.float32) for o in sizes[1:])
    jit.forward(params, np.ones((1, 3), np.float32), spec, out_layers)
    assert np.isnan(out_layers[0]).tolist() == [[False] * 4 + [True]]
    assert np.isnan(out_layers[1]).all()
