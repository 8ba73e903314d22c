"""The house in order: imports run one way, and importing the package costs next to nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import fmnist_fast

ROOT = Path(__file__).parents[1]

# Each layer may import those below it. Modules of one layer do not import each other, except where
# a layer is written as several lines for the same rank.
LAYERS = (
    {"__main__"},
    {"cli", "app.main"},
    {"app.classify", "app.training", "app.race", "app.explore"},
    {"app.charts", "app.session", "app.samples"},
    {"app.contest", "app.jobs", "app.live"},
    {
        "commands.app",
        "commands.bench",
        "commands.data",
        "commands.evaluating",
        "commands.exporting",
        "commands.info",
        "commands.predicting",
        "commands.sweeping",
        "commands.training",
    },
    {"commands.scoring"},
    {"commands.outputs"},
    {
        "commands",
        "commands.options",
        "commands.signals",
        "commands.terminal",
        "app",
        "app.settings",
    },
    {"sweep.view"},
    {"report", "plots", "bench.table"},
    {"sweep.results", "sweep.pictures"},
    {"ratefinder"},
    {"bench.measure"},
    {"bench.contender"},
    {"bench", "bench.machine", "bench.peers", "bench.phases"},
    {"train", "estimator", "sweep.driver", "scoring.job"},
    {"scoring.output", "scoring.worker"},
    {"scoring.partial", "scoring.reading", "scoring.sources"},
    {"scoring.arrays", "scoring.tables"},
    {"sweep.sampler", "sweep.worker", "cluster.tasks"},
    {"cluster.fleet"},
    {"sweep.space", "sweep.trial"},
    {"solvers", "lbfgs", "shortway"},
    {"run", "presets"},
    {"photolike", "recognise", "teachers"},
    {"export", "modelfile", "cluster.worker"},
    {"ensemble"},
    {"model", "data", "augment", "checkpoint", "recipe", "pace", "corruptions", "imitation"},
    {"network", "fashion_mnist", "photo", "garments", "metrics", "targets", "redrawn"},
    {"cutout", "images", "averaging", "drawing"},
    {"formats.arrays", "formats.c_source", "formats.onnx_graph", "formats.python_source"},
    {"formats"},
    {"scoring", "scoring.blocks"},
    {"schedule", "sweep", "sweep.ledger", "cluster"},
    {"backend", "cache", "idx", "cores", "calibration", "tensorfile"},
    {"files"},
    {"errors"},
    {"kernels.reference", "kernels.jit"},
    {"kernels.team"},
    {"kernels"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    found = {}
    for folder, prefix in ((ROOT / "fmnist_fast", ""), (ROOT / "kernels", "kernels.")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = (prefix + ".".join(parts)).removesuffix(".__init__").removesuffix("__init__")
            found[name.rstrip(".")] = path
    found.pop("")  # the package itself, which loads the public names on first use
    return found


def imported(name: str, path: Path) -> set[str]:
    """Our own modules that a module imports, at its top or within a function."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(["fmnist_fast", *filter(None, above), *filter(None, [base])])
            candidates = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, alias in candidates:
            own = base.removeprefix("fmnist_fast").lstrip(".")
            if base.split(".")[0] == "fmnist_fast":
                names |= {f"{own}.{alias}".strip("."), own} & RANK.keys()
    return names - {name}


def test_every_module_has_a_place():
    assert modules().keys() == RANK.keys()


def test_imports_run_one_way():
    upward = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imported(name, path)
        if RANK[other] <= RANK[name]
    ]
    assert upward == []


def test_the_reader_of_imports_sees_them():
    """Guards the test above against finding nothing."""
    assert {"data", "kernels", "modelfile", "network", "run"} <= imported(
        "train", ROOT / "fmnist_fast" / "train.py"
    )
    assert imported("app.classify", ROOT / "fmnist_fast/app/classify.py") >= {
        "modelfile",
        "recognise",
    }
    assert "kernels" in imported("kernels.reference", ROOT / "kernels" / "reference.py")


def test_only_backend_names_a_kernel_module():
    for name, path in modules().items():
        if name not in ("backend", "kernels.reference", "kernels.jit"):
            assert "reference" not in {part.rpartition(".")[2] for part in imported(name, path)}
            assert "kernels.reference" not in path.read_text().replace("kernels/reference", "")


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
        "from fmnist_fast.cli import main; import io; out = sys.stdout; sys.stdout = io.StringIO();"
        "main(['train', '--help']); sys.stdout = out"
    )
    assert loaded_by(statement).isdisjoint({"numpy", "rich", "matplotlib"})


def test_train_stays_the_function_when_its_module_is_imported():
    code = (
        "import fmnist_fast.training.trainer, fmnist_fast.models.load, fmnist_fast\n"
        "from fmnist_fast.training.trainer import Recipe\n"
        "from fmnist_fast import train\n"
        "assert callable(train) and callable(fmnist_fast.training.trainer)\n"
        "assert fmnist_fast.training.trainer is sys.modules['fmnist_fast.training.trainer'].train\n"
    )
    loaded_by(f"exec({code!r})")


def test_every_public_name_is_there():
    for name in fmnist_fast.__all__:
        assert name in dir(fmnist_fast)
        assert callable(getattr(fmnist_fast, name))
    assert not hasattr(fmnist_fast, "no_such_name")
