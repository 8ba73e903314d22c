"""Exported networks, run as their users run them, and the bound of their rounding errors."""

import ctypes
import importlib.util
import shutil
import subprocess
from itertools import product

import numpy as np
import onnxruntime
import pytest

from fmnist_fast.kernels.interface import NetworkSpec, Params
from fmnist_fast.models.export.formats import FORMATS, export, identifier
from fmnist_fast.nn.backend import get_backend
from fmnist_fast.nn.network import PIXEL_SCALE

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
