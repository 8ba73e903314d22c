"""Thread teams: no deadlock, and the same model for every number of threads."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from fmnist_fast import train
from fmnist_fast.nn.backend import BACKEND_NAMES, unavailable_reason

COMPILED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            unavailable_reason(name) is not None, reason=str(unavailable_reason(name))
        ),
    )
    for name in BACKEND_NAMES
    if name != "numpy"
]
OPTIONS = {"epochs": 2, "hidden": (130, 20)}


@pytest.fixture(params=COMPILED)
def backend(request):
    return request.param


@pytest.fixture
def expected(backend, small_dataset) -> bytes:
    """Return the model that one thread trains."""
    return train(small_dataset, backend=backend, threads=1, **OPTIONS).model.to_bytes()


@pytest.mark.parametrize("threads", [2, 3, 8, 30])
def test_team_of_any_size_trains_same_model(backend, small_dataset, expected, threads):
    result = train(small_dataset, backend=backend, threads=threads, **OPTIONS)
    assert result.model.to_bytes() == expected


def test_concurrent_teams_train_same_model(backend, small_dataset, expected):
    models = {}

    def run(n):
        result = train(small_dataset, backend=backend, threads=2, **OPTIONS)
        models[n] = result.model.to_bytes()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert models == dict.fromkeys(range(4), expected)


def run_code(code, npz, tmp_path, timeout=60):
    """Run code that assigns the trained model to `model`; return its bytes."""
    prelude = (
        "import os, sys\nfrom fmnist_fast import load_dataset, train\n"
        "data = load_dataset(sys.argv[1])\n"
        "def fit(backend, threads):\n"
        f"    return train(data, backend=backend, threads=threads, **{OPTIONS})\n"
    )
    path = tmp_path / "model"
    subprocess.run(
        [sys.executable, "-c", prelude + code + "\nmodel.save(sys.argv[2])", str(npz), str(path)],
        check=True,
        timeout=timeout,
    )
    return path.read_bytes()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_team_larger_than_cores_trains_same_model(backend, small_npz, tmp_path):
    alone = run_code(f"model = fit({backend!r}, 1).model", small_npz, tmp_path)
    (tmp_path / "model").unlink()
    crowded = run_code(
        f"os.sched_setaffinity(0, {{next(iter(os.sched_getaffinity(0)))}})\n"
        f"model = fit({backend!r}, 8).model",
        small_npz,
        tmp_path,
    )
    assert crowded == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_team_works_after_fork(backend, small_npz, tmp_path):
    code = (
        f"model = fit({backend!r}, 4).model\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        f"    os._exit(0 if fit({backend!r}, 4).model.to_bytes() == model.to_bytes() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    run_code(code, small_npz, tmp_path)


def test_team_stops_on_ctrl_c_during_epoch(backend, small_npz, tmp_path):
    """Ctrl-C ends an epoch of several minutes at once, and the unfinished model is saved."""
    command = [sys.executable, "-m", "fmnist_fast", "train", "--dataset", str(small_npz)]
    process = subprocess.Popen(
        [*command, *f"--backend {backend} --threads 3 --batch-size 1 --hidden 2000,2000".split()],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while "epoch" not in process.stdout.readline():  # head of the table: training has begun
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is saved in model.unfinished.safetensors" in err
