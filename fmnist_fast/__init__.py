"""fmnist_fast: a multilayer perceptron for Fashion-MNIST, from scratch, on interchangeable kernels.

    from fmnist_fast import load_dataset, train
    result = train(load_dataset(), epochs=5)
    result.model.predict_proba(images)          # uint8 (n, 28, 28)
    result.model.save("model.safetensors")

Importing the package loads nothing else, not even NumPy: each name is loaded when it is first used.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.datasets import Dataset, load_dataset
    from .estimators.classifier import MLPClassifier
    from .models.load import Ensemble, Model, load_model
    from .training.trainer import TrainingResult, train

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Ensemble",
    "MLPClassifier",
    "Model",
    "TrainingResult",
    "load_dataset",
    "load_model",
    "train",
]

_HOME = {
    "Dataset": "data",
    "Ensemble": "modelfile",
    "MLPClassifier": "estimator",
    "Model": "modelfile",
    "TrainingResult": "train",
    "load_dataset": "data",
    "load_model": "modelfile",
    "train": "train",
}

# In a checkout kernels/ lies beside this folder, not in it. Looking there too lets the checkout run
# without being installed, and also when another copy is installed.
_checkout = Path(__file__).parent.parent
if (_checkout / "kernels" / "reference.py").exists():
    __path__.append(str(_checkout))


class _LazyPackage(ModuleType):
    """Loads the public names on first use, and keeps `train` the function."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the module fmnist_fast.training.trainer sets this package's attribute `train` to it, which
        # would hide the function of that name.
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _LazyPackage
