"""fmnist_fast: a multilayer perceptron for Fashion-MNIST, from scratch, on interchangeable kernels.

    from fmnist_fast import load_dataset, train
    result = train(load_dataset(), epochs=5)
    result.model.predict_proba(images)          # uint8 (n, 28, 28)
    result.model.save("model.safetensors")

Importing the package loads nothing else, not even NumPy: each name is loaded when it is first used
(PEP 562).
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.datasets import Dataset as Dataset
    from .data.datasets import load_dataset as load_dataset
    from .estimators.classifier import MLPClassifier as MLPClassifier
    from .models.ensemble import Ensemble as Ensemble
    from .models.load import load_model as load_model
    from .models.model import Model as Model
    from .training.trainer import TrainingResult as TrainingResult
    from .training.trainer import train as train

__version__ = "0.1.0"

_MODULES = {
    "Dataset": "data.datasets",
    "Ensemble": "models.ensemble",
    "MLPClassifier": "estimators.classifier",
    "Model": "models.model",
    "TrainingResult": "training.trainer",
    "load_dataset": "data.datasets",
    "load_model": "models.load",
    "train": "training.trainer",
}

__all__ = sorted(_MODULES)

# In a checkout kernels/ lies beside this folder, not in it. Looking there too lets the checkout run
# without being installed, and also when another copy is installed.
_checkout = Path(__file__).parent.parent
if (_checkout / "kernels" / "reference.py").exists():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
