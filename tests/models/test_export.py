"""Networks in other forms: ONNX, arrays, Python and C give the probabilities of the reference.

The truth is the reference in float64 on the weights as they are. A form that computes with a given
eps may be off by rounding alone, which `bound` carries from layer to layer; for ONNX Runtime, whose
arithmetic is its own, by 1e-5.
"""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from itertools import product

import numpy as np
import onnx
import onnxruntime
import pytest

from fmnist_fast import load_model
from fmnist_fast.cli.main import main
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.errors import ArgumentError, UserError
from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.models.export.formats import FORMATS, export, identifier
from fmnist_fast.models.model import Model
from fmnist_fast.nn.backend import get_backend
from fmnist_fast.nn.calibration import scale_logits
from fmnist_fast.nn.network import PIXEL_SCALE, Network

REFERENCE = get_backend("numpy")
CC = shutil.which("gcc") or shutil.which("cc")
STRICT = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror"]
SPECS = [
    NetworkSpec(sizes, activation, loss, dtype=dtype)
    for sizes, activation, loss, dtype in product(
        [(5, 3), (4, 7, 2), (6, 5, 9, 8, 3)],
        ["relu", "tanh", "logistic", "identity"],
        ["softmax", "sigmoid"],
        ["float32", "float64"],
    )
]
SPECS += [NetworkSpec((5, 4, 1), loss="sigmoid"), NetworkSpec((784, 128, 64, 10))]
SMALL = NetworkSpec((4, 7, 3))
NASTY = ('a "quoted" \\ name', "??/ */ %d {} $name", "日本\n\x01é")


def by_onnx(path, x_ni, spec):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"x": x_ni})[0]


def by_npz(path, x_ni, spec):
    with np.load(path, allow_pickle=False) as arrays:
        kinds, depths = ("weights", "biases"), range(len(spec.shapes))
        params = Params(*(tuple(arrays[f"{kind}_{d}"] for d in depths) for kind in kinds))
        read = NetworkSpec(spec.sizes, str(arrays["activation"]), str(arrays["loss"]))
        assert len(arrays) == 2 * len(depths) + 4
        return reference(params, read, x_ni, float(arrays["scale"]))


def by_python(path, x_ni, spec):
    module = imported(path)
    return np.array([module.predict_proba(row) for row in x_ni.tolist()])


def by_c(path, x_ni, spec):
    function = compiled(path)[f"{identifier(path.stem)}_predict_proba"]
    out_nk = np.full((len(x_ni), spec.sizes[-1]), np.nan, spec.dtype)
    for row_i, out_k in zip(x_ni, out_nk):
        function(ctypes.c_void_p(row_i.ctypes.data), ctypes.c_void_p(out_k.ctypes.data))
    return out_nk


RUN = {"onnx": by_onnx, "npz": by_npz, "python": by_python, "c": by_c}


def imported(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiled(path):
    if CC is None:
        pytest.skip("there is no C compiler")
    library = path.with_suffix(".so")
    subprocess.run([CC, *STRICT, "-shared", "-fPIC", path, "-o", library, "-lm"], check=True)
    return ctypes.CDLL(library)


def reference(params, spec, x_ni, scale):
    """What the numpy backend gives in float64."""
    wide = Params(*(tuple(a.astype(np.float64) for a in part) for part in params))
    out_nk = np.empty((len(x_ni), spec.sizes[-1]))
    wide_spec = NetworkSpec(spec.sizes, spec.activation, spec.loss, dtype="float64")
    REFERENCE.predict(wide, x_ni, scale, wide_spec, 1, out_nk)
    return out_nk


def bound(to, params, spec, x_ni, scale):
    """How far probabilities may be from the reference's.

    A sum of n products is off by (n + 2) eps sum |a||w| (Higham 2002, section 3.1), and by what its
    inputs are off, since no activation is steeper than 1; tanh and exp of the libraries are off by
    a few eps. Logits that are off by d move a p by the factor e^2d at most.
    """
    if to == "onnx":
        return 1e-5
    eps = float(np.finfo("float64" if to in ("python", "npz") else spec.dtype).eps)
    a_bi = x_ni * np.float64(scale)
    off_bi = 3 * eps * np.abs(a_bi)
    for depth, (w_io, b_o) in enumerate(zip(*params)):
        size_bo = (np.abs(a_bi) + off_bi) @ np.abs(w_io) + np.abs(b_o)
        off_bi = off_bi @ np.abs(w_io) + (len(w_io) + 2) * eps * size_bo
        a_bi = a_bi @ w_io.astype(np.float64) + b_o
        if depth < len(params.weights) - 1:
            REFERENCE.activate(a_bi, spec)
            off_bi += 8 * eps * np.abs(a_bi)
    off_b1 = off_bi.max(axis=1, keepdims=True)
    spread_b1 = 2 * np.abs(a_bi).max(axis=1, keepdims=True)
    factor = np.expm1(2 * off_b1) + (2 * spread_b1 + 16 + spec.sizes[-1]) * eps
    return reference(params, spec, x_ni, scale) * factor + 1e-37


def drawn(spec, pixels):
    """Parameters, 40 rows, and the scale."""
    rng = np.random.default_rng(spec.sizes)
    params = Params(
        tuple(rng.normal(0, 2 / np.sqrt(i), (i, o)).astype(spec.dtype) for i, o in spec.shapes),
        tuple(rng.normal(0, 0.5, o).astype(spec.dtype) for _, o in spec.shapes),
    )
    if pixels:
        x_ni = rng.integers(0, 256, (40, spec.sizes[0]), dtype=np.uint8)
    else:
        x_ni = (3 * rng.normal(size=(40, spec.sizes[0]))).astype(spec.dtype)
    x_ni[0] = 0
    for array in (*params.weights, *params.biases, x_ni):
        array.setflags(write=False)
    return params, x_ni, PIXEL_SCALE if pixels else 1.0


def names_of(spec):
    return [f"class {k}" for k in range(spec.sizes[-1])]


def write(folder, to, params, spec, stem="network", **options):
    path = folder / f"{stem}{FORMATS[to][1]}"
    export(path, to, params, spec, **{"class_names": names_of(spec), **options})
    return path


@pytest.mark.parametrize("pixels", [True, False], ids=["pixels", "table"])
@pytest.mark.parametrize("to", FORMATS)
def test_every_form_gives_the_probabilities_of_the_reference(to, pixels, tmp_path):
    # Compilers take time: every third has all pairs of activation, loss and dtype once.
    for number, spec in enumerate(SPECS[:-2:3] + SPECS[-2:] if to == "c" else SPECS):
        params, x_ni, scale = drawn(spec, pixels)
        path = write(tmp_path, to, params, spec, f"network_{number}", scale=scale)
        got_nk = RUN[to](path, x_ni, spec)
        off_nk = np.abs(got_nk - reference(params, spec, x_ni, scale))
        assert off_nk.shape == (40, spec.sizes[-1])
        assert (off_nk <= bound(to, params, spec, x_ni, scale)).all()


@pytest.mark.parametrize("to", FORMATS)
def test_a_wrong_file_would_be_seen(to, tmp_path):
    """Pixels, or logits, that are off by a thousandth."""
    params, x_ni, scale = drawn(SMALL, pixels=True)
    mistakes = {"scale": {"scale": scale * 1.001}, "cold": {"scale": scale, "temperature": 0.999}}
    for stem, mistake in mistakes.items():
        path = write(tmp_path, to, params, SMALL, stem, **mistake)
        off_nk = np.abs(RUN[to](path, x_ni, SMALL) - reference(params, SMALL, x_ni, scale))
        assert (off_nk > bound(to, params, SMALL, x_ni, scale)).any()


@pytest.mark.parametrize("to", FORMATS)
def test_the_shipped_model_is_the_same_everywhere(to, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--to", to]) == 0
    (name,) = os.listdir(tmp_path)
    assert capsys.readouterr().out == (
        f"saved {name}: takes 784 pixels, 0..255, gives 10 probabilities\n"
    )
    assert (
        name
        == {
            "onnx": "fashion-mnist.onnx",
            "npz": "fashion-mnist.npz",
            "python": "fashion_mnist.py",
            "c": "fashion_mnist.c",
        }[to]
    )
    model = load_model(backend="numpy")
    assert model.temperature != 1
    spec, scale = model.network.spec, model.network.scale
    x_ni = draw_synthetic(train=20, test=10)[0].reshape(20, -1)
    got_nk = RUN[to](tmp_path / name, x_ni, spec)
    params = scale_logits(model.network.params, model.temperature)
    off_nk = np.abs(got_nk - reference(params, spec, x_ni, scale))
    assert (off_nk <= bound(to, params, spec, x_ni, scale)).all()
    np.testing.assert_allclose(got_nk, model.predict_proba(x_ni), rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", FORMATS)
def test_large_logits_do_not_overflow(to, tmp_path):
    for number, loss in enumerate(("softmax", "sigmoid")):
        spec = NetworkSpec((4, 7, 3), "logistic", loss)
        params, x_ni, scale = drawn(spec, pixels=False)
        params = Params(tuple(1e4 * w for w in params.weights), params.biases)
        path = write(tmp_path, to, params, spec, f"network_{number}", scale=scale)
        got_nk = RUN[to](path, x_ni, spec)
        expected_nk = reference(params, spec, x_ni, scale)
        assert np.abs(expected_nk - 0.5).max() == 0.5
        np.testing.assert_allclose(got_nk, expected_nk, atol=1e-3)


@pytest.mark.parametrize("to", ["python", "c"])
def test_nan_stays_nan(to, tmp_path):
    params, x_ni, _ = drawn(SMALL, pixels=False)
    x_ni = np.where(np.arange(4) == 2, np.nan, x_ni[1:2]).astype(np.float32)
    assert np.isnan(RUN[to](write(tmp_path, to, params, SMALL), x_ni, SMALL)).all()


@pytest.mark.parametrize("to", FORMATS)
def test_the_same_network_gives_the_same_bytes(to, tmp_path):
    params, _, _ = drawn(SMALL, pixels=True)
    contents = {write(tmp_path, to, params, SMALL, force=True).read_bytes() for _ in range(2)}
    assert len(contents) == 1


def test_onnx_says_what_it_is(tmp_path):
    params, x_ni, scale = drawn(SMALL, pixels=True)
    path = write(tmp_path, "onnx", params, SMALL, scale=scale, class_names=NASTY)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "fmnist_fast"
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    (entry,) = model.metadata_props
    assert (entry.key, json.loads(entry.value)) == ("class_names", list(NASTY))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (x,), (out,) = session.get_inputs(), session.get_outputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(uint8)", ["n", 4])
    assert (out.name, out.type, out.shape) == ("probabilities", "tensor(float)", ["n", 3])
    for rows in (0, 1, 40):
        assert session.run(None, {"x": x_ni[:rows]})[0].shape == (rows, 3)
    wide = NetworkSpec((4, 7, 3), dtype="float64")
    model = onnx.load(write(tmp_path, "onnx", drawn(wide, pixels=False)[0], wide, "wide"))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.DOUBLE


def test_npz_holds_what_its_page_says(tmp_path):
    params, _, scale = drawn(SMALL, pixels=True)
    with np.load(write(tmp_path, "npz", params, SMALL, scale=scale, class_names=NASTY)) as arrays:
        assert np.array_equal(arrays["weights_1"], params.weights[1])
        assert arrays["biases_0"].dtype == np.float32
        assert (arrays["activation"], arrays["loss"]) == ("relu", "softmax")
        assert float(arrays["scale"]) == scale
        assert tuple(arrays["class_names"]) == NASTY


def test_python_keeps_every_bit_and_needs_nothing(tmp_path):
    params, x_ni, scale = drawn(SMALL, pixels=True)
    path = write(tmp_path, "python", params, SMALL, scale=scale, class_names=NASTY)
    module = imported(path)
    assert module.CLASSES == NASTY
    for layer, w_io, b_o in zip(module.LAYERS, *params):
        assert np.array_equal([bias for bias, _ in layer], b_o)
        assert np.array_equal(np.transpose([weights for _, weights in layer]), w_io)
    with pytest.raises(ValueError, match="row holds 3 numbers: give 4"):
        module.predict(x_ni[0, :3])
    code = f"import sys; sys.path.append('.'); import network; print(network.predict({[*x_ni[1]]}))"
    code = code.replace("np.uint8", "")
    command = [sys.executable, "-I", "-S", "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(ran.stdout) == reference(params, SMALL, x_ni[1:2], scale).argmax()


def test_python_predicts_yes_or_no_for_every_output_of_a_sigmoid(tmp_path):
    spec = NetworkSpec((4, 7, 3), loss="sigmoid")
    params, x_ni, _ = drawn(spec, pixels=False)
    module = imported(write(tmp_path, "python", params, spec))
    expected = [np.flatnonzero(p > 0.5).tolist() for p in reference(params, spec, x_ni, 1.0)]
    assert [module.predict(row) for row in x_ni] == expected
    assert len({*map(len, expected)}) > 1


def test_one_output_of_a_sigmoid_is_the_second_of_two_classes(tmp_path):
    spec = NetworkSpec((5, 4, 1), loss="sigmoid")
    params, x_ni, _ = drawn(spec, pixels=False)
    paths = [
        write(tmp_path, to, params, spec, f"net_{to}", class_names=["no", "yes"]) for to in FORMATS
    ]
    module = imported(tmp_path / "net_python.py")
    expected_n = reference(params, spec, x_ni, 1.0)[:, 0] > 0.5
    assert [module.predict(row) for row in x_ni] == expected_n.tolist()
    assert {*expected_n} == {False, True}
    assert module.CLASSES == ("no", "yes")
    for path in paths:
        assert path.suffix == ".npz" or b"that of the second class" in path.read_bytes()


def test_c_has_the_names_whatever_is_in_them(tmp_path):
    params, _, _ = drawn(SMALL, pixels=False)
    library = compiled(write(tmp_path, "c", params, SMALL, class_names=NASTY))
    names = (ctypes.c_char_p * 3).in_dll(library, "network_class_names")
    assert tuple(name.decode() for name in names) == NASTY


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("fashion-mnist", "fashion_mnist"),
        ("model.v2", "model_v2"),
        ("_x_", "x"),
        ("2 shoes", "model_2_shoes"),
        ("日本", "model"),
    ],
)
def test_names_for_python_and_c(stem, name):
    assert identifier(stem) == name


def test_parts_that_do_not_fit_are_refused(tmp_path):
    params, _, _ = drawn(SMALL, pixels=False)
    with pytest.raises(ArgumentError, match="to is 'pickle': choose from onnx, npz, python, c"):
        export(tmp_path / "net", "pickle", params, SMALL, class_names=NASTY)
    with pytest.raises(ArgumentError, match="class_names has 2 names for 3 outputs"):
        export(tmp_path / "net", "npz", params, SMALL, class_names=NASTY[:2])
    broken = Params(params.weights, tuple(np.full_like(b, np.nan) for b in params.biases))
    with pytest.raises(ArgumentError, match="holds NaN or infinite values"):
        export(tmp_path / "net", "npz", broken, SMALL, class_names=NASTY)
    with pytest.raises(UserError, match="is a folder: name a file in it"):
        export(tmp_path, "npz", params, SMALL, class_names=NASTY, force=True)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs `export` in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["export", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_model_of_a_table_takes_numbers(run, tmp_path):
    network = Network.random(SMALL, 0, 1.0, "numpy", 1)
    Model(network, ("a", "b", "c"), (4,), "flowers", "0" * 64).save("flowers.safetensors")
    code, out, err = run("flowers.safetensors", "--to", "onnx", "--out", "net.onnx")
    assert (code, out, err) == (0, "saved net.onnx: takes 4 numbers, gives 3 probabilities\n", "")
    x_ni = drawn(SMALL, pixels=False)[1]
    got_nk = by_onnx("net.onnx", x_ni, SMALL)
    np.testing.assert_allclose(got_nk, network.predict_proba(x_ni), rtol=0, atol=1e-5)


def test_a_file_that_is_there_stays_until_forced(run, tmp_path):
    (tmp_path / "fashion-mnist.npz").write_text("mine")
    code, out, err = run("--to", "npz")
    assert (code, out) == (2, "")
    assert err == (
        "fmnist-fast: fashion-mnist.npz exists: name another file, or use force (--force) to "
        "replace it\n"
    )
    assert (tmp_path / "fashion-mnist.npz").read_text() == "mine"
    assert run("--to", "npz", "--force")[0] == 0
    assert (tmp_path / "fashion-mnist.npz").stat().st_size > 400_000


def test_the_model_itself_is_never_replaced(run, tmp_path):
    model = tmp_path / "model.npz"
    model.write_bytes(b"a model")
    code, _, err = run(model, "--to", "npz", "--force")
    assert code == 2
    assert "is also another file of this command" in err
    assert model.read_bytes() == b"a model"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--to'"),
        (["--to", "pickle"], "'pickle' is not one of 'onnx', 'npz', 'python', 'c'"),
        (["--to", "c", "--out", "."], "is a directory"),
        (["--to", "c", "--out", "no/such/file.c"], "does not exist: create it"),
        (["missing", "--to", "c"], "there is no model file missing"),
        ([__file__, "--to", "c"], "is damaged or not a safetensors file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_onnx_that_is_not_installed_is_one_line(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run("--to", "onnx") == (
        2,
        "",
        "fmnist-fast: ONNX files need the package onnx: pip install 'fmnist-fast[export]'\n",
    )
    assert os.listdir(tmp_path) == []
    assert run("--to", "c")[0] == 0
