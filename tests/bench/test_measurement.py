"""`fmnist-fast bench`: measurements, checks before them, and the report."""

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from messages import assert_contains, assert_one_line

from fmnist_fast.bench import rounds
from fmnist_fast.bench.contenders import Outputs
from fmnist_fast.bench.measurement import Entry, Report, find_difference
from fmnist_fast.bench.peers import LR, PACKAGES, FmnistFast, OnnxRuntime, TrainingTask
from fmnist_fast.bench.phases import phases_of_epoch
from fmnist_fast.bench.rounds import multiply_adds
from fmnist_fast.cli.bench_table import print_report
from fmnist_fast.cli.main import main
from fmnist_fast.cli.plots import plot_speeds
from fmnist_fast.cli.terminal import make_console
from fmnist_fast.kernels.interface import PHASES, NetworkSpec, TrainData
from fmnist_fast.nn.backend import BACKEND_NAMES, get_backend, unavailable_reason
from fmnist_fast.nn.network import PIXEL_SCALE
from fmnist_fast.nn.optimizers import Adam

BUILT = [name for name in BACKEND_NAMES if unavailable_reason(name) is None]
QUICK = ["--rounds", "1", "--rows", "256", "--threads", "2"]


@pytest.fixture
def run(capsys, monkeypatch, small_npz):
    """Runs `bench` on the small set; returns exit code, standard output, standard error."""
    monkeypatch.setattr(rounds, "SETTLE_SECONDS", 0)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        code = main(["bench", "--dataset", str(small_npz), *QUICK, *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def task(small_dataset):
    count = len(small_dataset.x_train)
    x_ni = np.ascontiguousarray(small_dataset.x_train).reshape(count, -1)
    data = TrainData(x_ni, PIXEL_SCALE, small_dataset.y_train.astype(np.int32), np.ones(count))
    return TrainingTask(NetworkSpec((784, 128, 64, 10)), data, 64)


def entry(name, seconds=(), **more):
    """The entry of a measurement of these seconds."""
    figures = {"seconds_median": seconds[0], "seconds_min": min(seconds)} if seconds else {}
    return Entry(name, name in BACKEND_NAMES, seconds=list(seconds), **{**figures, **more})


@pytest.fixture
def report():
    phases = dict.fromkeys((*PHASES, "packing"), 0.01)
    machine = {
        "date": "2026-01-02 03:04",
        "cpu": "a $processor$ [bold]",
        "machine": "x86_64",
        "system": "Linux",
        "usable_cores": 2,
        "load_before": 0.0,
        "versions": {"python": "3.11", "numpy": "2.0", "jax": None},
    }
    entries = [
        entry(
            "cython",
            (0.1, 0.09, 0.2),
            phase_seconds=phases,
            speedup=5.0,
            of_peak=0.5,
            one_image_median=6e-6,
        ),
        entry("numpy", (0.5, 0.4, 0.6), phase_seconds={"gather": 0.1, "update": 0.4}, speedup=1.0),
        entry("onnxruntime", images_median=0.01),
        entry("jax", missing="No module named 'jax'"),
    ]
    return Report(
        machine=machine,
        dataset="synthetic",
        rows=12_000,
        sizes=[784, 128, 64, 10],
        batch_size=64,
        threads=2,
        rounds=3,
        peak_gflops=400.0,
        gflop_per_epoch=5.4,
        images=10_000,
        entries=entries,
    )


def test_bench_measures_backends_and_instruction_sets(run, tmp_path):
    code, out, err = run("--json", "--plot", tmp_path / "bench.png")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["dataset"] == "small"
    assert (document["rows"], document["rounds"], document["threads"]) == (256, 1, 2)
    assert document["gflop_per_epoch"] == pytest.approx(2e-9 * 227_200 * 256)
    entries = {entry["name"]: entry for entry in document["entries"]}
    if "cython" in BUILT:
        sets = get_backend("cython").available_instruction_sets()
        assert [f"cython {name}" for name in sets] == list(entries)[: len(sets)]
        assert document["peak_gflops"] > 1
    assert entries.keys() >= set(BUILT) - {"cython"}
    for got in entries.values():
        if got["missing"]:
            continue
        assert len(got["seconds"]) == 1
        assert got["samples_per_second"] == pytest.approx(256 / got["seconds_median"])
        assert got["gflops"] == pytest.approx(document["gflop_per_epoch"] / got["seconds_median"])
        assert 0 < got["one_image_median"] < got["images_median"]
        assert len(got["one_image_seconds"]) == len(got["images_seconds"]) == 1
        assert sum(got["phase_seconds"].values()) > 0
    assert entries["numpy"]["speedup"] == 1
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_bench_prints_a_table(run):
    code, out, err = run("--backends", "numpy")
    assert (code, err) == (0, "")
    assert "784-128-64-10 on small, 256 rows an epoch, batch 64" in out
    peak = r"\d+ GFLOP/s" if "cython" in BUILT else "not without cython"
    assert re.search(f"peak of fused multiply-adds, float32, all threads: {peak}", out)
    row = next(line for line in out.splitlines() if line.startswith("numpy "))
    assert "1.00" in row
    assert "forward" in out


def test_bench_onnxruntime_predicts_like_numpy(task):
    found = OnnxRuntime(task, 1).probabilities(task.data.x_ni)
    expected = FmnistFast(task, 1, "numpy").probabilities(task.data.x_ni)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_bench_names_missing_peers(run, monkeypatch, tmp_path):
    for module in ("jax", "torch", "sklearn", "onnxruntime"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.syspath_prepend(tmp_path)  # processes inherit it
    code, out, err = run("--backends", "numpy", "--peers")
    assert (code, err) == (0, "")
    for peer in PACKAGES:
        assert f"missing: {peer}: not installed" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "numpi"], "unknown backend 'numpi': choose from cython, numba, numpy"),
        (["--backends", "auto"], "unknown backend 'auto'"),
        (["--backends", ""], "unknown backend ''"),
        (["--batch-size", "257", "--backends", "numpy"], "above the 256 rows"),
        (["--plot", "bench.jpg"], "must end in .png"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_bench_invalid_option_is_one_line(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert_one_line(err, message)


def test_bench_ended_process_is_an_error(run, monkeypatch, tmp_path):
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.syspath_prepend(tmp_path)  # processes inherit it
    code, _, err = run("--backends", "numpy", "--peers")
    assert code == 2
    assert "the process of scikit-learn has died" in err


def test_find_difference_detects_another_network():
    rng = np.random.default_rng(0)
    reference = Outputs(rng.random((5, 10)), [rng.random((70, 30))])
    assert find_difference([reference, reference], reference) is None

    def weights(w):
        return find_difference([reference, reference._replace(weights=[w])], reference) or ""

    assert "trains another network" in weights(reference.weights[0] + 0.2 * LR)
    assert "trains another network" in weights(np.full((70, 30), np.nan))
    other = reference._replace(probabilities=reference.probabilities + 1e-4)
    assert "computes another network" in (find_difference([other], reference) or "")
    outlier = reference.weights[0].copy()
    outlier[3, 2] += LR  # a gradient that was zero but for rounding took the other sign
    assert weights(outlier) == ""
    outlier[3, 2] += 100 * LR
    assert "trains another network" in weights(outlier)


def test_multiply_adds_of_standard_network():
    """227,200 a sample make 27.3 GFLOP an epoch of 60,000."""
    assert multiply_adds(NetworkSpec((784, 128, 64, 10))) == 227_200


@pytest.mark.parametrize("name", BUILT)
def test_phases_of_epoch_train_like_train_steps(task, name):
    plain, timed = FmnistFast(task, 1, name), FmnistFast(task, 1, name)
    order_n = np.random.default_rng(0).permutation(600).astype(np.int32)
    plain.train(order_n)
    steps = Adam().steps(np.full(10, LR), 0, 64, 1e-4)
    phases = phases_of_epoch(timed.network, timed.state, task.data, order_n, steps)
    for got, expected in zip(timed.weights(), plain.weights()):
        assert np.array_equal(got, expected)
    assert all(seconds > 0 for phase, seconds in phases.items() if phase != "barrier")
    if name != "numpy":
        assert tuple(phases) == (*PHASES, "packing")


def test_bench_report_is_printed_without_markup(report, capsys, tmp_path):
    print_report(report, make_console())
    out = capsys.readouterr().out
    assert "a $processor$ [bold], 2 usable cores, 2 threads" in out
    assert "jax missing" in out
    assert "missing: jax: No module named 'jax'" in out
    assert "cython" in out
    assert "6.0 us" in out
    assert "10.0 ms" in out
    plot_speeds(report, tmp_path / "bench.svg")
    assert (tmp_path / "bench.svg").stat().st_size > 1000
    assert Report.from_json(json.loads(json.dumps(asdict(report)))) == report


def test_bench_report_prints_warnings(report, capsys):
    report.entries[0].seconds[:] = [0.1, 0.07, 0.2]
    report.machine["load_before"] = 2.5
    report.threads = 5
    print_report(report, make_console())
    out = capsys.readouterr().out
    assert_contains(out, "in doubt: the machine was busy before the run: its load was 2.5")
    assert_contains(out, "in doubt: other processes were running: epochs of cython, numpy differ")
    assert_contains(out, "in doubt: 5 threads share 2 usable cores")
    report.entries = [entry("numpy", (0.5, 0.5), phase_seconds={"gather": 0.5})]
    report.machine["load_before"], report.threads = 0.1, 2
    assert list(report.doubts()) == []


def test_bench_reports_threads_that_are_used(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, out, _ = run("--backends", "numpy", "--threads", "1000", "--json")
    assert code == 0
    assert json.loads(out)["threads"] == 8


def test_bench_measures_instruction_set_of_environment(run, monkeypatch):
    if "cython" not in BUILT:
        pytest.skip("the cython backend is not built")
    monkeypatch.setenv("FMNIST_FAST_ISA", "baseline")
    code, out, _ = run("--backends", "cython", "--json")
    assert code == 0
    assert [e["name"] for e in json.loads(out)["entries"]] == ["cython baseline", "numpy"]
