"""Labels of any kind as targets of the network, and its probabilities as labels."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelBinarizer

from ..kernels.interface import Floats
from ..nn.labels import encode_labels, smooth_labels, unique_labels


class LabeledRows(NamedTuple):
    """Checked rows to train on or to validate with.

    Parameters
    ----------
    x_ni : ndarray or CSR array of shape (n, features)
    y : ndarray of shape (n,) or (n, k)
        Labels, as the user names them.
    targets_n : ndarray of shape (n,) or (n, n_outputs)
        The same as targets of the network.
    weights_n : ndarray of float64, shape (n,), or None
        Sample weights; None: all are 1.
    """

    x_ni: Any
    y: Any
    targets_n: NDArray
    weights_n: NDArray[np.float64] | None

    def take(self, rows: NDArray) -> "LabeledRows":
        """Return the rows with these indices."""
        weights_n = None if self.weights_n is None else self.weights_n[rows]
        return LabeledRows(self.x_ni[rows], self.y[rows], self.targets_n[rows], weights_n)

    def weights(self) -> NDArray[np.float64]:
        """Return the sample weights as an array."""
        return np.ones(self.x_ni.shape[0]) if self.weights_n is None else self.weights_n


@dataclass(frozen=True)
class TargetEncoder:
    """Map labels to targets, and probabilities to labels.

    Parameters
    ----------
    target_type : str
        "binary", "multiclass" or "multilabel-indicator", as `sklearn.utils.multiclass` names them.
    classes : ndarray of shape (k,)
        The labels, ascending.
    binarizer : LabelBinarizer or None
        Fitted to the labels; None for integers, which need none.
    """

    target_type: str
    classes: NDArray
    binarizer: LabelBinarizer | None = None

    @classmethod
    def infer(cls, y: Any) -> "TargetEncoder":
        """Infer the type of target and the classes from labels.

        Parameters
        ----------
        y : array-like or sparse matrix of shape (n,) or (n, k)
            Labels, or indicators of several labels a row.

        Raises
        ------
        ValueError
            If these are not labels, but e.g. continuous values.
        """
        if isinstance(y, np.ndarray) and y.ndim == 1:
            y = unique_labels(y)  # LabelBinarizer needs only these
            if y.dtype.kind in "iu":  # the type that LabelBinarizer infers, found faster
                return cls("binary" if len(y) <= 2 else "multiclass", y)
        binarizer = LabelBinarizer().fit(y)
        return cls(binarizer.y_type_, np.asarray(binarizer.classes_), binarizer)

    @property
    def n_outputs(self) -> int:
        """Outputs of the network: one for two classes."""
        return 1 if self.target_type == "binary" else len(self.classes)

    def encode(self, y: Any, dtype: str, smoothing: float = 0.0) -> NDArray:
        """Return the targets of checked labels.

        Parameters
        ----------
        y : ndarray of shape (n,) or (n, k), or sparse matrix of shape (n, k)
            Labels, each among the classes.
        dtype : {"float32", "float64"}
            Of targets that are probabilities.
        smoothing : float
            Label smoothing factor.

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs)
            For several classes without smoothing int32 indices into `classes`; else probabilities.

        Raises
        ------
        ValueError
            If y has several labels a row and the labels that were seen before have one.
        """
        if y.ndim > 1 and self.target_type in ("binary", "multiclass"):
            raise ValueError("The object was not fitted with multilabel input.")
        if self.target_type == "multiclass":
            labels_n = encode_labels(y, self.classes)
            if not smoothing:
                return labels_n
            return smooth_labels(labels_n, len(self.classes), smoothing, dtype)
        if self.target_type == "binary":
            positive_nk = (y == self.classes[-1])[:, None] & (len(self.classes) > 1)
        else:
            assert self.binarizer is not None
            positive_nk = self.binarizer.transform(y) != 0
        targets_nk: Floats = np.ascontiguousarray(positive_nk, dtype)
        if smoothing:
            targets_nk = (targets_nk * (1 - smoothing) + smoothing / 2).astype(dtype, copy=False)
        return targets_nk

    def predict_labels(self, probability_nk: Floats) -> NDArray:
        """Return the most probable label of every row, or the indicators of its labels.

        Parameters
        ----------
        probability_nk : ndarray of shape (n, n_outputs)
            Outputs of the network.

        Returns
        -------
        ndarray of shape (n,) or (n, k)
        """
        labels: NDArray
        if self.target_type == "multiclass":
            labels = self.classes[probability_nk.argmax(axis=1)]
        elif self.target_type == "binary":
            labels = self.classes[np.where(probability_nk[:, 0] > 0.5, -1, 0)]
        else:
            assert self.binarizer is not None
            labels = self.binarizer.inverse_transform(probability_nk)
        return labels
