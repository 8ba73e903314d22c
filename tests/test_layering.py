"""Layering contract of the packages, and modules loaded by an import."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fmnist_fast

ROOT = Path(__file__).parents[1]

PACKAGES = {
    *("app", "bench", "cli", "data", "distributed", "estimators", "kernels", "models", "nn"),
    *("training", "vision"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the sources that has kernels/ where an installed package has it."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "fmnist_fast", folder / "fmnist_fast")
    shutil.copytree(ROOT / "kernels", folder / "fmnist_fast" / "kernels")
    return folder


def check_imports(tree: Path) -> subprocess.CompletedProcess:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    shutil.copy(ROOT / "pyproject.toml", tree)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


def test_layering_contract_is_kept(tree):
    ran = check_imports(tree)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("kernels/reference.py", "from fmnist_fast.nn import metrics"),
        ("kernels/interface.py", "from ..data import idx"),
        ("nn/network.py", "from ..data import idx"),
        ("nn/backend.py", "from ..kernels import reference"),
        ("data/idx.py", "from ..models import model"),
        ("training/loop.py", "from ..vision import image_io"),
        ("bench/machine.py", "from ..distributed import tasks"),
        ("app/session.py", "from fmnist_fast.cli import report"),
        ("models/load.py", "def f():\n    from ..training import config"),
    ],
)
def test_layering_contract_fails_on_planted_import(tree, module, planted):
    path = tree / "fmnist_fast" / module
    before = path.read_text()
    try:
        path.write_text(f"{before}\n{planted}\n")
        assert check_imports(tree).returncode != 0
    finally:
        path.write_text(before)


def test_source_tree_has_ten_packages_beside_kernels():
    folders = {path.parent.name for path in (ROOT / "fmnist_fast").glob("*/__init__.py")}
    assert folders | {"kernels"} == PACKAGES
    assert len(list((ROOT / "fmnist_fast").glob("*.py"))) <= 6


def test_package_docstrings_list_allowed_imports():
    inits = [*(ROOT / "fmnist_fast").rglob("__init__.py"), *(ROOT / "kernels").rglob("__init__.py")]
    for path in inits:
        if path.parent.name not in ("fmnist_fast", "cython_backend"):
            assert "May import" in path.read_text(), path


def test_backend_modules_are_named_in_nn_backend_only():
    for path in (ROOT / "fmnist_fast").rglob("*.py"):
        if path.name != "backend.py":
            text = path.read_text().replace("kernels/reference", "")
            for module in ("kernels.reference", "numba_backend", "cython_backend"):
                assert module not in text, path


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_import_of_package_loads_no_dependency():
    heavy = {"numpy", "click", "rich", "PIL", "matplotlib", "pooch", "safetensors", "streamlit"}
    assert loaded_by("import fmnist_fast").isdisjoint(heavy)


def test_import_of_train_loads_no_unused_dependency():
    unused = {"matplotlib", "streamlit", "pooch", "requests", "PIL", "sklearn", "numba", "rich"}
    assert loaded_by("from fmnist_fast import train, load_model").isdisjoint(unused)


def test_import_of_export_does_not_load_onnx():
    assert "onnx" not in loaded_by("import fmnist_fast.models.export.formats")


def test_train_help_does_not_load_numpy():
    statement = (
        "from fmnist_fast.cli.main import main; import io;"
        "out = sys.stdout; sys.stdout = io.StringIO();"
        "main(['train', '--help']); sys.stdout = out"
    )
    assert loaded_by(statement).isdisjoint({"numpy", "rich", "matplotlib"})


def test_public_names_exist():
    for name in fmnist_fast.__all__:
        assert name in dir(fmnist_fast)
        assert callable(getattr(fmnist_fast, name))
    assert not hasattr(fmnist_fast, "no_such_name")
