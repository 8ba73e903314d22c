"""Estimators for scikit-learn, on the kernels of this package. Needs the extra `sklearn`.

May import `training` and what lies below it.
"""

from ..errors import MissingExtra

try:
    from .classifier import MLPClassifier
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("scipy", "sklearn"):
        raise
    raise MissingExtra(
        f"MLPClassifier needs scikit-learn 1.7 or newer ({error}): "
        "pip install 'fmnist-fast[sklearn]'"
    ) from error

__all__ = ["MLPClassifier"]
