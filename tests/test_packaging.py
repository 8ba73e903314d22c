"""Installed packages: they work from any folder, without the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command, cwd, **changes):
    environment = {**os.environ, **changes}
    ran = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def make_environment(folder: Path) -> Path:
    """Create an empty environment; return the folder of its commands."""
    run(sys.executable, "-m", "venv", folder, cwd=ROOT)
    return folder / "bin"


def check_installation(commands: Path, where: Path) -> None:
    """Train and load a model in a folder outside the checkout."""
    closed = "http://127.0.0.1:9"  # nothing may be downloaded here
    out = run(
        commands / "fmnist-fast",
        "train",
        "--dataset",
        "synthetic",
        "--epochs",
        "1",
        cwd=where,
        HTTPS_PROXY=closed,
        HTTP_PROXY=closed,
        PYTHONPATH="",
    )
    assert "saved model.safetensors: trained on synthetic" in out
    assert "test accuracy" in out
    code = (
        "import fmnist_fast, fmnist_fast.kernels; from fmnist_fast import load_model;"
        "import fmnist_fast.app.settings; print(fmnist_fast.__file__);"
        "print(load_model('model.safetensors').class_names[1])"
    )
    assert run(commands / "python", "-c", code, cwd=where).endswith("Trouser\n")
    info = json.loads(run(commands / "python", "-m", "fmnist_fast", "info", "--json", cwd=where))
    assert info["backends"]["numpy"] == "available"
    if os.environ.get("FMNIST_FAST_REQUIRE_COMPILED"):
        assert info["backends"]["cython"] == "available"


def test_wheel_installs_and_runs_in_empty_environment(tmp_path):
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (source,) = (tmp_path / "dist").glob("*.tar.gz")
    commands = make_environment(tmp_path / "env")
    run(commands / "pip", "install", "--quiet", wheel, cwd=tmp_path)
    check_installation(commands, tmp_path)
    ran = subprocess.run([commands / "fmnist-fast", "app"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (
        2,
        "fmnist-fast: the app needs Streamlit: pip install 'fmnist-fast[app]'\n",
    )
    listed = run(commands / "python", "-m", "tarfile", "--list", source, cwd=tmp_path)
    names = {name.partition("/")[2] for name in listed.split()}
    assert "LICENSE" in names
    sources = [
        path
        for path in (ROOT / "kernels").rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".c", ".h")
    ]
    assert len(sources) > 20
    assert {str(path.relative_to(ROOT)) for path in sources} <= names
    packed = run(commands / "python", "-m", "zipfile", "--list", wheel, cwd=tmp_path)
    assert "fmnist_fast/app/classify.py" in packed
    assert "fmnist_fast/app/main.py" in packed
    assert ".pyx" not in packed
    assert ".pxi" not in packed
    # An ordinary installation must also work from within the checkout, which shadows it.
    code = "import fmnist_fast.kernels.reference as r; print(r.__file__)"
    assert str(ROOT) in run(commands / "python", "-c", code, cwd=ROOT)


def test_editable_installation_works_from_another_folder(tmp_path):
    commands = make_environment(tmp_path / "env")
    run(commands / "pip", "install", "--quiet", "--editable", ROOT, cwd=tmp_path)
    check_installation(commands, tmp_path)
