"""`MLPClassifier`: scikit-learn's multilayer perceptron on this project's kernels.

Constructor, attributes, semantics and errors are scikit-learn's; additional parameters are keyword
arguments whose defaults are its behaviour.
"""

from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import neural_network
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target
from sklearn.utils.validation import check_is_fitted

from ..kernels.interface import Floats
from ..models.export.formats import export, format_from_suffix
from ..nn.backend import BACKEND_NAMES
from ..nn.schedules import SCHEDULES
from .callbacks import CallbackSupportMixin, FitCallbacks, with_callbacks
from .fitting import StochasticFit
from .lbfgs import fit_lbfgs
from .networks import build_network, draw_params, with_both_classes
from .predict_cache import PredictCache
from .solvers import Solver
from .targets import LabeledRows, TargetEncoder
from .validation import (
    check_classes,
    check_hidden_sizes,
    check_layer_sizes,
    check_lbfgs_options,
    check_rows,
    check_rows_and_labels,
    check_weights,
)


class MLPClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Multilayer perceptron classifier: a drop-in replacement for scikit-learn's.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Widths of the hidden layers.
    activation : {"identity", "logistic", "tanh", "relu"}, default="relu"
        Activation function of the hidden layers.
    solver : {"lbfgs", "sgd", "adam"}, default="adam"
        Optimizer. "sgd" and "adam" are stochastic.
    alpha : float, default=0.0001
        Strength of the L2 penalty, divided by the sum of the batch's weights.
    batch_size : int, default="auto"
        Rows of a batch; "auto": min(200, n_samples).
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        Learning rate schedule of "sgd".
    learning_rate_init : float, default=0.001
        Initial learning rate.
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Maximum number of epochs, or of iterations of "lbfgs".
    shuffle : bool, default=True
        Whether to shuffle the rows before every epoch.
    random_state : int, RandomState instance or None, default=None
        Determines initial weights, validation rows, shuffling and dropout.
    tol : float, default=1e-4
        Improvement of the loss or of the validation score that counts.
    verbose : bool, default=False
        Whether to print the loss of every epoch.
    warm_start : bool, default=False
        Whether `fit` starts from the weights of the previous call.
    momentum : float, default=0.9
        Momentum of "sgd", in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether to use Nesterov's momentum.
    early_stopping : bool, default=False
        Whether to stop when the validation score no longer improves, and keep the best weights.
    validation_fraction : float, default=0.1
        Fraction of the rows that `early_stopping` validates with.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay rates of the moments of "adam", in [0, 1).
    epsilon : float, default=1e-8
        Constant of "adam" that avoids division by zero.
    n_iter_no_change : int or inf, default=10
        Epochs without improvement by `tol` before training stops.
    max_fun : int, default=15000
        Maximum number of loss evaluations of "lbfgs".
    backend : {"auto", "cython", "numba", "numpy"}, default="auto"
        Kernels; "auto": the fastest that is available and supports the options.
    n_threads : int or None, default=None
        Threads; None: as many as pay off, at most the usable cores. Results do not depend on it,
        bit for bit, with "cython" and "numba".
    dtype : {"auto", "float32", "float64"}, default="auto"
        Of weights and arithmetic. "auto": float32 for float32 and uint8 rows (which are never
        copied to floats), else float64.
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes; a list for several labels a row.
    dropout : float, default=0.0
        Dropout rate of the hidden layers, in [0, 1). Stochastic solvers only.
    label_smoothing : float, default=0.0
        Label smoothing factor, in [0, 1).
    schedule : {"constant", "cosine", "onecycle"}, default="constant"
        Factor of the learning rate over `max_iter` epochs or the time budget. Schedules other than
        "constant" run to their end unless `early_stopping` is set. Stochastic solvers only.
    time_budget : float or None, default=None
        Seconds of training, in place of `max_iter` ("lbfgs": in addition to it). Results then
        depend on the speed of the machine.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, ascending.
    coefs_, intercepts_ : list of ndarray
        Weights (n_in, n_out) and biases (n_out,) of every layer.
    backend_ : str
        The backend that computed the last fit.
    loss_, best_loss_ : float
        Loss of the last epoch, and the lowest; `best_loss_` is None with `early_stopping`.
    loss_curve_ : list of float
        Loss of every epoch, penalty included.
    validation_scores_, validation_loss_curve_ : list of float or None
        Accuracy and loss of the validation rows after every epoch.
    best_validation_score_ : float or None
        Highest accuracy, with `early_stopping`.
    n_iter_, t_ : int
        Epochs of the last call, and rows that were trained on.
    n_features_in_, n_layers_, n_outputs_ : int
        Number of features, of layers with the input layer, and of outputs.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where the rows have names.
    out_activation_ : {"softmax", "logistic"}
        Activation function of the last layer.

    See Also
    --------
    sklearn.neural_network.MLPClassifier : The specification, with more about each parameter.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fmnist_fast import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> MLPClassifier(random_state=0).fit(X, y).predict(X[:1])
    array([0])
    """

    coefs_: list[Any]
    intercepts_: list[Any]

    _parameter_constraints: dict = {  # noqa: RUF012 - as scikit-learn declares it
        **neural_network.MLPClassifier._parameter_constraints,
        "backend": [StrOptions({"auto", *BACKEND_NAMES})],
        "n_threads": [Interval(Integral, 1, None, closed="left"), None],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "time_budget": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        backend: str = "auto",
        n_threads: int | None = None,
        dtype: str = "auto",
        class_weight: Any = None,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        schedule: str = "constant",
        time_budget: float | None = None,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.backend = backend
        self.n_threads = n_threads
        self.dtype = dtype
        self.class_weight = class_weight
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.schedule = schedule
        self.time_budget = time_budget

    @with_callbacks  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
    ) -> "MLPClassifier":
        """Train on all rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows to train on. uint8, float32 and float64 are taken as they are, sparse rows as CSR;
            anything else becomes float64.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or indicators of several labels a row.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, >= 0.
        X_val, y_val, sample_weight_val : array-like, optional
            Rows, labels and weights to validate with after every epoch; see `validation_scores_`.
            With `early_stopping` they replace `validation_fraction`.

        Returns
        -------
        MLPClassifier
            This estimator, fitted.

        Raises
        ------
        ValueError
            If a parameter or an argument is out of range, or training diverged.
        BackendUnavailable
            If the backend is not built or lacks an option.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both, or neither.")
        validation = None if X_val is None else (X_val, y_val, sample_weight_val)
        callbacks = FitCallbacks.begin(self, X, y, sample_weight)
        self._fit(X, y, sample_weight, validation, callbacks, incremental=False)
        callbacks.end()
        return self

    @available_if(neural_network.MLPClassifier._check_solver)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> "MLPClassifier":
        """Train for one epoch on these rows, starting from the current weights.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows to train on.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or indicators of several labels a row.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows, >= 0.
        classes : array-like of shape (n_classes,), optional
            All labels of this and later calls; required in the first call.

        Returns
        -------
        MLPClassifier
            This estimator.

        Raises
        ------
        ValueError
            As `fit` does; and for labels that are not among the classes, `early_stopping`, or
            weights whose shapes have changed since the last call.
        """
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._encoder = TargetEncoder.infer(y if multilabel else self.classes_)
        self._fit(X, y, sample_weight, None, FitCallbacks(self), incremental=True)
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        validation: tuple | None,
        callbacks: FitCallbacks,
        *,
        incremental: bool,
    ) -> None:
        hidden = check_hidden_sizes(self.hidden_layer_sizes)
        if self.solver == "lbfgs":
            check_lbfgs_options(self.dropout, self.schedule, validation is not None)
        resumes = self.warm_start or incremental
        first_pass = not hasattr(self, "coefs_") or not resumes
        x_ni, y = check_rows_and_labels(self, X, y, reset=first_pass)
        if hasattr(self, "classes_") and resumes:
            check_classes(y, self.classes_, same=self.warm_start)
        else:
            self._encoder = TargetEncoder.infer(y)
            self.classes_: NDArray = self._encoder.classes
        weights_n = check_weights(sample_weight, self.class_weight, x_ni, y)
        random_state = check_random_state(self.random_state)
        self.n_outputs_ = self._encoder.n_outputs
        if first_pass:
            sizes = (x_ni.shape[1], *hidden, self.n_outputs_)
            check_layer_sizes(sizes)
            self._initialize(sizes, x_ni.dtype, random_state)
        elif self.dtype not in ("auto", self.coefs_[0].dtype.name):
            self.coefs_ = [w_io.astype(self.dtype) for w_io in self.coefs_]
            self.intercepts_ = [b_o.astype(self.dtype) for b_o in self.intercepts_]
        rows = LabeledRows(x_ni, y, self._encode(y), weights_n)
        validation_rows = None if validation is None else self._check_validation(*validation)
        if self.solver == "lbfgs":
            fit_lbfgs(self, rows, callbacks)
        else:
            StochasticFit(
                self, validation_rows, callbacks, random_state=random_state, incremental=incremental
            ).run(rows)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )

    def _initialize(self, sizes: tuple[int, ...], x_dtype: np.dtype, random_state: Any) -> None:
        """Draw weights, and reset the attributes that a warm start continues."""
        dtype = self.dtype
        if dtype == "auto":
            dtype = "float64" if x_dtype == np.float64 else "float32"
        self._predict_cache = PredictCache()
        self._solver: Solver | None = None
        self._no_improvement_count = 0
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(sizes)
        multiclass = self._encoder.target_type == "multiclass"
        self.out_activation_ = "softmax" if multiclass else "logistic"
        self.coefs_, self.intercepts_ = draw_params(sizes, self.activation, random_state, dtype)
        if self.solver != "lbfgs":
            self.loss_curve_: list[float] = []
            self.best_loss_: Any = None if self.early_stopping else np.inf
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.validation_loss_curve_: list[float] | None = None

    def _encode(self, y: Any) -> NDArray:
        return self._encoder.encode(y, self.coefs_[0].dtype.name, self.label_smoothing)

    def _check_validation(self, X: Any, y: Any, sample_weight: Any) -> LabeledRows:
        x_ni, y = check_rows_and_labels(self, X, y, reset=False)
        check_classes(y, self.classes_, name="y_val")
        weights_n = check_weights(sample_weight, None, x_ni, y)
        return LabeledRows(x_ni, y, self._encode(y), weights_n)

    def predict(self, X: ArrayLike) -> NDArray:
        """Predict the most probable label of every row, or all of its labels.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Of the dtype of the labels.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            If X has another number or other names of features than in `fit`, or holds NaN or
            infinity.
        """
        probability_nk = self._outputs(X)
        return self._encoder.predict_labels(probability_nk)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Predict the probability of every class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Of the dtype of the weights. Rows sum to 1, except for several labels a row, each of
            which has a probability by itself.

        Raises
        ------
        NotFittedError, ValueError
            As `predict` does.
        """
        probability_nk = self._outputs(X)
        if self.n_outputs_ > 1:
            return probability_nk
        return np.concatenate([1 - probability_nk, probability_nk], axis=1)

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """Predict the logarithm of the probability of every class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            -inf where a probability is too small for its dtype.

        Raises
        ------
        NotFittedError, ValueError
            As `predict` does.
        """
        probability_nk = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(probability_nk, out=probability_nk)

    def _outputs(self, X: Any) -> Floats:
        """Return the outputs of the network for unchecked rows, (n, n_outputs), probabilities."""
        if hasattr(self, "coefs_"):
            probability_nk = self._predict_cache.predict(self, X)
            if probability_nk is not None:
                return probability_nk
        check_is_fitted(self)
        x_ni = check_rows(self, X)
        network = build_network(self, x_ni)
        if type(X) is np.ndarray and not hasattr(self, "feature_names_in_"):
            self._predict_cache.store(self, network)
        return network.outputs(x_ni)

    def export(self, path: str | Path, to: str | None = None, *, force: bool = False) -> None:
        """Write the fitted network in a format of other programs.

        The exported network takes rows of floats and returns what `predict_proba` does, with the
        labels as text. Earlier steps of a pipeline are not part of it.

        Parameters
        ----------
        path : str or Path
            File to write.
        to : {"onnx", "npz", "python", "c"}, optional
            Format; None: by the ending of the file name.
        force : bool
            Whether to replace an existing file.

        Raises
        ------
        NotFittedError
            Before `fit`.
        ArgumentError
            If the format is unknown.
        UserError
            If the file exists, cannot be written, or a package is missing.
        """
        check_is_fitted(self)
        network = build_network(self)
        names = [str(label) for label in self.classes_]
        params, spec = network.params, network.spec
        if self.n_outputs_ == 1 and len(names) == 2:
            params, spec = with_both_classes(params, spec)
        export(path, to or format_from_suffix(path), params, spec, class_names=names, force=force)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags
