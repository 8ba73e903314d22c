"""Imports run one way, and importing the package loads next to nothing."""

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


def test_tree_has_ten_packages_beside_kernels():
    folders = {path.parent.name for path in (ROOT / "fmnist_fast").glob("*/__init__.py")}
    assert folders | {"kernels"} == PACKAGES
    assert len(list((ROOT / "fmnist_fast").glob("*.py"))) <= 6


def test_every_package_says_what_it_may_import():
    inits = [*(ROOT / "fmnist_fast").rglob("__init__.py"), *(ROOT / "kernels").rglob("__init__.py")]
    for path in inits:
        if path.parent.name not in ("fmnist_fast", "cython_backend"):
            assert "May import" in path.read_text(), path


def test_only_nn_backend_names_a_backend_module():
    for path in (ROOT / "fmnist_fast").rglob("*.py"):
        if path.name != "backend.py":
            text = path.read_text().replace("kernels/reference", "")
            for module in ("kernels.reference", "numba_backend", "cython_backend"):
                assert module not in text, path


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_importing_the_package_loads_nothing_else():
    heavy = {"numpy", "click", "rich", "PIL", "matplotlib", "pooch", "safetensors", "streamlit"}
    assert loaded_by("import fmnist_fast").isdisjoint(heavy)


def test_training_loads_nothing_that_it_does_not_use():
    unused = {"matplotlib", "streamlit", "pooch", "requests", "PIL", "sklearn", "numba", "rich"}
    assert loaded_by("from fmnist_fast import train, load_model").isdisjoint(unused)


def test_exporting_loads_what_its_format_needs():
    assert "onnx" not in loaded_by("import fmnist_fast.models.export.formats")


def test_help_does_not_wait_for_numpy():
    statement = (
        "from fmnist_fast.cli.main import main; import io;"
        "out = sys.stdout; sys.stdout = io.StringIO();"
        "main(['train', '--help']); sys.stdout = out"
    )
    assert loaded_by(statement).isdisjoint({"numpy", "rich", "matplotlib"})


def test_every_public_name_is_there():
    for name in fmnist_fast.__all__:
        assert name in dir(fmnist_fast)
        assert callable(getattr(fmnist_fast, name))
    assert not hasattr(fmnist_fast, "no_such_name")
