"""Export to ONNX, NPZ, Python and C: probabilities agree with the reference.

The truth is the reference in float64 on the weights as they are. A form that computes with a given
eps may be off by rounding alone, which `bound` carries from layer to layer; for ONNX Runtime, whose
arithmetic is its own, by 1e-5.
"""

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from exports import (
    NASTY,
    RUN,
    SMALL,
    SPECS,
    bound,
    compiled,
    drawn,
    imported,
    reference,
    write,
)
from messages import assert_one_line

from fmnist_fast import load_model
from fmnist_fast.cli.main import main
from fmnist_fast.data.synthetic import draw_synthetic
from fmnist_fast.errors import ArgumentError, UserError
from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.models.export.formats import FORMATS, export, identifier
from fmnist_fast.nn.calibration import scale_logits


@pytest.mark.parametrize("pixels", [True, False], ids=["pixels", "table"])
@pytest.mark.parametrize("to", FORMATS)
def test_export_matches_reference(to, pixels, tmp_path):
    # Compilers take time: every third has all pairs of activation, loss and dtype once.
    for number, spec in enumerate(SPECS[:-2:3] + SPECS[-2:] if to == "c" else SPECS):
        params, x_ni, scale = drawn(spec, pixels)
        path = write(tmp_path, to, params, spec, f"network_{number}", scale=scale)
        got_nk = RUN[to](path, x_ni, spec)
        off_nk = np.abs(got_nk - reference(params, spec, x_ni, scale))
        assert off_nk.shape == (40, spec.sizes[-1])
        assert (off_nk <= bound(to, params, spec, x_ni, scale)).all()


@pytest.mark.parametrize("to", FORMATS)
def test_export_bound_detects_wrong_file(to, tmp_path):
    """Pixels, or logits, that are off by a thousandth."""
    params, x_ni, scale = drawn(SMALL, pixels=True)
    mistakes = {"scale": {"scale": scale * 1.001}, "cold": {"scale": scale, "temperature": 0.999}}
    for stem, mistake in mistakes.items():
        path = write(tmp_path, to, params, SMALL, stem, **mistake)
        off_nk = np.abs(RUN[to](path, x_ni, SMALL) - reference(params, SMALL, x_ni, scale))
        assert (off_nk > bound(to, params, SMALL, x_ni, scale)).any()


@pytest.mark.parametrize("to", FORMATS)
def test_export_of_pretrained_matches_everywhere(to, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--to", to]) == 0
    (name,) = os.listdir(tmp_path)
    out = capsys.readouterr().out
    assert_one_line(out, f"saved {name}:", "784 pixels, 0..255", "10 probabilities")
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
def test_export_large_logits_do_not_overflow(to, tmp_path):
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
def test_export_propagates_nan(to, tmp_path):
    params, x_ni, _ = drawn(SMALL, pixels=False)
    x_ni = np.where(np.arange(4) == 2, np.nan, x_ni[1:2]).astype(np.float32)
    assert np.isnan(RUN[to](write(tmp_path, to, params, SMALL), x_ni, SMALL)).all()


@pytest.mark.parametrize("to", FORMATS)
def test_export_is_deterministic(to, tmp_path):
    params, _, _ = drawn(SMALL, pixels=True)
    contents = {write(tmp_path, to, params, SMALL, force=True).read_bytes() for _ in range(2)}
    assert len(contents) == 1


def test_export_onnx_has_metadata(tmp_path):
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


def test_export_npz_has_documented_arrays(tmp_path):
    params, _, scale = drawn(SMALL, pixels=True)
    with np.load(write(tmp_path, "npz", params, SMALL, scale=scale, class_names=NASTY)) as arrays:
        assert np.array_equal(arrays["weights_1"], params.weights[1])
        assert arrays["biases_0"].dtype == np.float32
        assert (arrays["activation"], arrays["loss"]) == ("relu", "softmax")
        assert float(arrays["scale"]) == scale
        assert tuple(arrays["class_names"]) == NASTY


def test_export_python_is_exact_and_needs_stdlib_only(tmp_path):
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


def test_export_python_sigmoid_predicts_each_output(tmp_path):
    spec = NetworkSpec((4, 7, 3), loss="sigmoid")
    params, x_ni, _ = drawn(spec, pixels=False)
    module = imported(write(tmp_path, "python", params, spec))
    expected = [np.flatnonzero(p > 0.5).tolist() for p in reference(params, spec, x_ni, 1.0)]
    assert [module.predict(row) for row in x_ni] == expected
    assert len({*map(len, expected)}) > 1


def test_export_single_sigmoid_has_two_classes(tmp_path):
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


def test_export_c_escapes_class_names(tmp_path):
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
def test_identifier_is_valid_in_python_and_c(stem, name):
    assert identifier(stem) == name


def test_export_rejects_mismatched_arguments(tmp_path):
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
