"""Checks of the parameters, rows, labels and weights that `MLPClassifier` is given.

Errors are scikit-learn's where it has the same check.
"""

from itertools import pairwise
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import _check_sample_weight, validate_data

# The kernels count the weights of a layer with 32 bits.
MAX_WEIGHTS = 1 << 31


def check_hidden_sizes(hidden_layer_sizes: Any) -> list[int]:
    """Return the widths of the hidden layers. Raises ValueError if they are no sizes of layers."""
    iterable = hasattr(hidden_layer_sizes, "__iter__")
    sizes = list(hidden_layer_sizes) if iterable else [hidden_layer_sizes]
    try:
        widths = [index(size) for size in sizes]
    except TypeError:
        raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.") from None
    if any(width <= 0 for width in widths):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return widths


def check_layer_sizes(sizes: tuple[int, ...]) -> None:
    """Raise ValueError if the kernels cannot count the weights of a layer."""
    if any(i * o >= MAX_WEIGHTS for i, o in pairwise(sizes)):
        raise ValueError(f"hidden_layer_sizes are too large, the layers would have {sizes}.")


def check_lbfgs_options(dropout: float, schedule: str, has_validation_rows: bool) -> None:
    """Raise ValueError for options that only stochastic solvers have."""
    used = {"dropout": dropout, "schedule": schedule != "constant", "X_val": has_validation_rows}
    for name, value in used.items():
        if value:
            raise ValueError(f"{name} needs a stochastic solver: set solver to 'adam' or 'sgd'.")


def check_rows(estimator: Any, x: Any) -> Any:
    """Return the rows of a prediction as a C-contiguous or CSR array of a dtype of the kernels."""
    _check_sparse_indices(x)
    return validate_data(
        estimator, x, accept_sparse="csr", dtype=_kernel_dtypes(x), order="C", reset=False
    )


def check_rows_and_labels(estimator: Any, x: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
    """Return rows as `check_rows` does, and labels (n,) or (n, k).

    Parameters
    ----------
    reset : bool
        Whether the number and names of the features are learned, rather than compared.
    """
    _check_sparse_indices(x)
    dtype = _kernel_dtypes(x)
    x_ni, y = validate_data(
        estimator, x, y, accept_sparse="csr", multi_output=True, dtype=dtype, order="C", reset=reset
    )
    if y.ndim == 2 and y.shape[1] == 1:
        y = column_or_1d(y, warn=True)
    return x_ni, y


def _check_sparse_indices(x: Any) -> None:
    """Raise ValueError for a CSR or CSC matrix whose indices lead outside of it.

    SciPy does not check them when it makes a matrix of three arrays, nor do the kernels.
    """
    if not (sparse.issparse(x) and x.format in ("csr", "csc")):
        return
    major, minor = x.shape if x.format == "csr" else x.shape[::-1]
    indptr, indices = x.indptr, x.indices
    integers = indptr.dtype.kind in "iu" and indices.dtype.kind in "iu"
    entries = int(indptr[-1]) if integers and len(indptr) == major + 1 else -1
    valid = 0 <= entries <= min(len(indices), len(x.data)) and indptr[0] == 0
    valid = valid and not (indptr[1:] < indptr[:-1]).any()  # np.diff would overflow
    if valid and entries:  # read as unsigned, negative indices are the largest: one pass finds both
        valid = indices[:entries].view(indices.dtype.str.replace("i", "u")).max() < minor
    if not valid:
        raise ValueError(
            f"X is a damaged {x.format.upper()} matrix: its indices or indptr lead outside of its "
            f"shape {x.shape}; make it anew, and see its method check_format."
        )


def _kernel_dtypes(x: Any) -> Any:
    """The dtypes that the kernels read; anything else becomes float64."""
    if getattr(x, "dtype", None) == np.uint8 and not sparse.issparse(x):
        return np.uint8
    return (np.float64, np.float32)


def check_classes(y: Any, classes: NDArray, *, same: bool = False, name: str = "y") -> None:
    """Raise ValueError unless all labels are among the classes of the training rows so far.

    Parameters
    ----------
    same : bool
        Whether all of the classes must occur (warm_start).
    name : str
        Of the argument that has the labels.
    """
    labels = unique_labels(y)
    if same and set(labels) != set(classes):
        raise ValueError(
            "warm_start can only be used where `y` has the same classes as in the previous "
            f"call to fit. Previously got {classes}, `y` has {labels}"
        )
    unknown = np.setdiff1d(labels, classes, assume_unique=True)
    if len(unknown):
        raise ValueError(f"`{name}` has classes not in `self.classes_` {classes}: {unknown}.")


def check_weights(
    sample_weight: Any, class_weight: Any, x_ni: Any, y: Any
) -> NDArray[np.float64] | None:
    """Return the product of sample and class weights, float64 (n,), or None without either."""
    weights_n: NDArray[np.float64] | None = None
    if sample_weight is not None:
        weights_n = _check_sample_weight(sample_weight, x_ni, dtype=np.float64)
    if class_weight is None:
        return weights_n
    class_weights_n: NDArray[np.float64] = compute_sample_weight(class_weight, y)
    if not (class_weights_n >= 0).all():
        raise ValueError(f"class_weight is {class_weight!r}: no weight may be negative or NaN.")
    return class_weights_n if weights_n is None else weights_n * class_weights_n
