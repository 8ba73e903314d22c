"""`MLPClassifier`: scikit-learn's multilayer perceptron on this project's kernels.

Same constructor, attributes, semantics and errors; what is new has keyword arguments that default
to scikit-learn's behaviour. Needs scikit-learn, the extra `sklearn`.
"""

import warnings
from dataclasses import replace
from itertools import pairwise
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import MissingExtra
from ..kernels.interface import Floats, NetworkSpec, Params, TrainData
from ..models.export.formats import export, format_from_suffix
from ..nn import labels
from ..nn.backend import BACKEND_NAMES, backend_name
from ..nn.labels import encode_labels, smooth_labels
from ..nn.network import Network
from ..nn.schedules import SCHEDULES
from ..training.budget import Clock, StepBudget, TimeBudget
from .lbfgs import minimize_lbfgs
from .predict_cache import PredictCache
from .solvers import Epochs, Solver

try:
    from scipy import sparse
    from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import accuracy_score
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import LabelBinarizer
    from sklearn.utils import check_random_state, column_or_1d
    from sklearn.utils._param_validation import Interval, Options, StrOptions
    from sklearn.utils.class_weight import compute_sample_weight
    from sklearn.utils.metaestimators import available_if
    from sklearn.utils.multiclass import (
        _check_partial_fit_first_call,
        type_of_target,
        unique_labels,
    )
    from sklearn.utils.optimize import _check_optimize_result
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtra(
        f"MLPClassifier needs scikit-learn 1.7 or newer ({error}): "
        "pip install 'fmnist-fast[sklearn]'"
    ) from error

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """There are no callbacks in this version."""

    def with_callbacks(method: Any) -> Any:
        return method


__all__ = ["MLPClassifier"]

_STOCHASTIC = ("adam", "sgd")


def _is_stochastic(estimator: "MLPClassifier") -> bool:
    if estimator.solver not in _STOCHASTIC:
        raise AttributeError(
            "partial_fit is only available for stochastic optimizers. "
            f"{estimator.solver} is not stochastic."
        )
    return True


class MLPClassifier(CallbackSupportMixin, ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron that minimises the log loss, in place of scikit-learn's.

    All parameters, attributes and methods of `sklearn.neural_network.MLPClassifier` are there and
    mean the same; see its documentation. In addition:

    backend : auto, cython, numba or numpy: what computes. auto: the fastest that has the options.
    n_threads : how many threads compute; None: as many as are worth it, at most the usable cores.
        Results do not depend on it, bit for bit, with cython and numba.
    dtype : auto, float32 or float64: of the weights and the arithmetic. auto: float32 for float32
        and uint8, which is never copied to floats, else float64, as in scikit-learn.
    class_weight : {label: weight}, "balanced" or None, as elsewhere in scikit-learn; a list of
        such dictionaries for multilabel targets.
    dropout : share of the hidden layers' outputs that training leaves out, in [0, 1).
    label_smoothing : share of every target that all classes have alike, in [0, 1).
    schedule : constant, cosine or onecycle: what the learning rate is multiplied by over max_iter
        epochs or the time budget. Other than constant it is planned to the end, so that training
        stops early only with `early_stopping`.
    time_budget : seconds of training, in place of max_iter (lbfgs: beside it); then the clock
        decides the bits.
    dropout, schedule and validation rows are for the solvers adam and sgd.

    `backend_` says which backend computed the last fit.

    `fit(X, y, X_val=..., y_val=...)` takes validation rows, whose accuracy and loss are in
    `validation_scores_` and `validation_loss_curve_`, epoch by epoch; with `early_stopping` they
    decide in place of rows of X. `export` writes the trained network for other programs.
    """

    coefs_: list[Any]
    intercepts_: list[Any]

    _parameter_constraints: dict = {  # noqa: RUF012 - scikit-learn's own way
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({"identity", "logistic", "tanh", "relu"})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [
            Interval(Integral, 1, None, closed="left"),
            Options(Real, {np.inf}),
        ],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
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
        """Learn from all rows.

        X : (n, features), dense or sparse. y : (n,) labels of any kind, or (n, labels) of zeros and
        ones. sample_weight : (n,), >= 0. X_val, y_val, sample_weight_val : rows to judge by.
        Raises: ValueError, or InvalidParameterError, one of those, that says what is wrong.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val belong together: give both, or neither.")
        validation = None if X_val is None else (X_val, y_val, sample_weight_val)
        if not hasattr(self, "_skl_callbacks"):
            return self._fit(X, y, sample_weight, incremental=False, validation=validation)
        told = {"X": X, "y": y, "metadata": {"sample_weight": sample_weight}}
        planned = self.solver in _STOCHASTIC and self.time_budget is None
        context = self._init_callback_context(max_subtasks=self.max_iter if planned else None)
        context.call_on_fit_task_begin(estimator=self, **told)
        self._fit(X, y, sample_weight, incremental=False, validation=validation, context=context)
        context.call_on_fit_task_end(
            estimator=self, **told, reconstruction_attributes=self._weights_so_far
        )
        return self

    def _weights_so_far(self) -> dict[str, list[Floats]]:
        """For scikit-learn's callbacks, which make a fitted estimator of them."""
        return {
            "coefs_": [w.copy() for w in self.coefs_],
            "intercepts_": [b.copy() for b in self.intercepts_],
        }

    @available_if(_is_stochastic)  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        classes: ArrayLike | None = None,
    ) -> "MLPClassifier":
        """One epoch over these rows, going on from where the last call ended.

        classes : all labels that will ever come; the first call needs them.
        """
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._learn_kind(y if multilabel else self.classes_)
        return self._fit(X, y, sample_weight, incremental=True, validation=None)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        *,
        incremental: bool,
        validation: tuple | None,
        context: Any = None,
    ) -> "MLPClassifier":
        """context : of scikit-learn's callbacks, if there are any."""
        hidden = self._hidden_sizes()
        if self.solver == "lbfgs":
            self._check_for_lbfgs(validation)
        first_pass = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        x_ni, y = self._check_rows_and_labels(X, y, reset=first_pass)
        self._check_labels(y, incremental)
        weights_n = self._weights(sample_weight, y, x_ni)

        self.n_outputs_ = self._outputs()
        self._random_state = check_random_state(self.random_state)
        if first_pass:
            sizes = (x_ni.shape[1], *hidden, self.n_outputs_)
            self._initialise(sizes, self._dtype_of(x_ni))
        elif self.dtype not in ("auto", self.coefs_[0].dtype.name):
            self.coefs_ = [w_io.astype(self.dtype) for w_io in self.coefs_]
            self.intercepts_ = [b_o.astype(self.dtype) for b_o in self.intercepts_]
        if validation is not None:
            validation = self._check_validation(*validation)
        targets_n = self._targets(y, self.coefs_[0].dtype.name)
        if self.solver == "lbfgs":
            self._fit_lbfgs(x_ni, targets_n, weights_n, context)
        else:
            self._fit_stochastic(x_ni, y, targets_n, weights_n, incremental, validation, context)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    # What goes in.

    def _hidden_sizes(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        hidden = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        return [index(size) for size in hidden]

    def _check_for_lbfgs(self, validation: tuple | None) -> None:
        """Refuse what only makes sense for solvers that learn from batches."""
        without = {
            "dropout": not self.dropout,
            "schedule": self.schedule == "constant",
            "X_val": validation is None,
        }
        for name, unused in without.items():
            if not unused:
                raise ValueError(
                    f"{name} needs a stochastic solver: set solver to 'adam' or 'sgd'."
                )

    def _dtype_of(self, x_ni: Any) -> str:
        """Of the weights and the arithmetic, for these rows."""
        if self.dtype != "auto":
            return self.dtype
        return "float64" if x_ni.dtype == np.float64 else "float32"

    def _check_rows_and_labels(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        x_ni, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            dtype=_kept_dtypes(X),
            order="C",
            reset=reset,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return x_ni, y

    def _check_labels(self, y: Any, incremental: bool) -> None:
        """Learn which classes there are, or make sure that they are those known.

        As in scikit-learn, they are learned anew in every fit that does not go on from another.
        """
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self.classes_ = self._learn_kind(y)
            return
        classes = unique_labels(y)
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _learn_kind(self, y: Any) -> NDArray:
        """Learn what kind of target these are, in scikit-learn's words. Returns: the classes.

        Raises: ValueError for labels that are none.
        """
        if isinstance(y, np.ndarray) and y.ndim == 1:
            y = labels.unique_labels(y)  # each label but once is all that LabelBinarizer needs
            if y.dtype.kind in "iu":  # what it says of these, in no time
                self._target_kind = "binary" if len(y) <= 2 else "multiclass"
                classes: NDArray = y
                return classes
        self._label_binarizer = LabelBinarizer().fit(y)
        self._target_kind = self._label_binarizer.y_type_
        return np.asarray(self._label_binarizer.classes_)

    def _outputs(self) -> int:
        """Of several labels a row there may be more classes than columns, in partial_fit."""
        if self._is_binary():
            return 1
        several = not self._is_multiclass()
        return len(self._label_binarizer.classes_ if several else self.classes_)

    def _is_binary(self) -> bool:
        return bool(self._target_kind == "binary")

    def _is_multiclass(self) -> bool:
        return bool(self._target_kind == "multiclass")

    def _targets(self, y: Any, dtype: str) -> NDArray:
        """What the network is asked to say: classes by number, or (n, k) of the given dtype."""
        smoothing, k = self.label_smoothing, len(self.classes_)
        if y.ndim > 1 and (self._is_multiclass() or self._is_binary()):
            raise ValueError("The object was not fitted with multilabel input.")
        if self._is_multiclass():
            labels_n = encode_labels(y, self.classes_)
            if not smoothing:
                return labels_n
            return smooth_labels(labels_n, k, smoothing, dtype)
        if self._is_binary():
            yes_nk = (y == self.classes_[-1])[:, None] & (k > 1)
        else:
            yes_nk = self._label_binarizer.transform(y)
            yes_nk = (yes_nk.toarray() if sparse.issparse(yes_nk) else yes_nk) != 0
        targets_nk: Floats = np.ascontiguousarray(yes_nk, dtype)
        if smoothing:
            targets_nk = targets_nk * (1 - smoothing) + smoothing / 2
        asked_nk: Floats = targets_nk.astype(dtype)
        return asked_nk

    def _weights(self, sample_weight: Any, y: Any, x_ni: Any) -> NDArray[np.float64] | None:
        """(n,), or None where every row counts alike."""
        if sample_weight is None and self.class_weight is None:
            return None
        weights_n = _check_sample_weight(sample_weight, x_ni, dtype=np.float64)
        if self.class_weight is not None:
            of_classes_n = compute_sample_weight(self.class_weight, y)
            if not (of_classes_n >= 0).all():
                raise ValueError(
                    f"class_weight is {self.class_weight!r}: no weight may be negative or NaN."
                )
            weights_n = weights_n * of_classes_n
        checked: NDArray[np.float64] = np.ascontiguousarray(weights_n, np.float64)
        return checked

    def _check_validation(self, X: Any, y: Any, sample_weight: Any) -> tuple:
        """Rows, labels and weights (or None) to judge by."""
        x_ni, y = self._check_rows_and_labels(X, y, reset=False)
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(f"`y_val` has classes that `y` has not: {unknown}.")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, x_ni, dtype=np.float64)
        return x_ni, y, sample_weight

    # Learning.

    def _initialise(self, sizes: tuple[int, ...], dtype: str) -> None:
        """Weights and biases as scikit-learn draws them, and the attributes of a new fit.

        Source: Glorot & Bengio (2010), equation 16; for the logistic function a third of its
        variance.
        """
        self._short_way = PredictCache()
        self.n_iter_, self.t_, self.n_layers_ = 0, 0, len(sizes)
        self.out_activation_ = "softmax" if self._is_multiclass() else "logistic"
        coefs, intercepts = [], []
        for i, o in pairwise(sizes):
            bound = np.sqrt((2.0 if self.activation == "logistic" else 6.0) / (i + o))
            coef = self._random_state.uniform(-bound, bound, (i, o))
            intercept = self._random_state.uniform(-bound, bound, o)
            coefs.append(coef.astype(dtype, copy=False))
            intercepts.append(intercept.astype(dtype, copy=False))
        self.coefs_, self.intercepts_ = coefs, intercepts
        if self.solver in _STOCHASTIC:
            self._no_improvement_count = 0
            self.loss_curve_: list[float] = []
            self.best_loss_: Any = None if self.early_stopping else np.inf
            self.best_validation_score_: Any = -np.inf if self.early_stopping else None
            self.validation_scores_: list[float] | None = [] if self.early_stopping else None
            self.validation_loss_curve_: list[float] | None = None

    def _network(
        self, x_ni: Any = None, batch_size: int = 0, epochs: int = 0, dtype: Any = None
    ) -> Network:
        """The network as it is now, for these rows (None: dense ones), in batches (0: in one).

        epochs : to train in one call; 0: it is not trained. In training coefs_ and intercepts_
        become the arrays that change. dtype : to compute in, if it is not that of the weights.
        Raises: ValueError if somebody has changed them so that they do not fit together.
        """
        coefs, intercepts = list(self.coefs_), list(self.intercepts_)  # others may replace them
        dtype = np.dtype(dtype or coefs[0].dtype)
        needs: Any = "CW" if epochs else "C"
        coefs = [np.require(w_io, dtype, needs) for w_io in coefs]
        intercepts = [np.require(b_o, dtype, needs) for b_o in intercepts]
        sizes = _sizes_of(coefs, intercepts)
        if x_ni is not None and x_ni.shape[1] != sizes[0]:
            raise ValueError(f"coefs_[0] has {sizes[0]} rows, and X has {x_ni.shape[1]} columns.")
        if sizes[-1] != self.n_outputs_:
            raise ValueError(
                f"coefs_[-1] has {sizes[-1]} columns, and there are {self.n_outputs_} outputs."
            )
        spec = NetworkSpec(
            sizes,
            self.activation,
            "softmax" if self.out_activation_ == "softmax" else "sigmoid",
            self._optimizer.optimizer.name if epochs else "adam",
            dtype.name,
            self.dropout if epochs else 0.0,
            "csr" if sparse.issparse(x_ni) else "dense",
            float(-np.log(np.finfo(dtype).eps)),  # where scikit-learn's loss ends
        )
        if epochs:
            self.coefs_, self.intercepts_ = coefs, intercepts
        params = Params(tuple(coefs), tuple(intercepts))
        rows = 1 if x_ni is None else x_ni.shape[0]
        return Network.from_params(
            *(spec, params, 1.0, self.backend, self.n_threads),
            *(batch_size or rows, rows * max(1, epochs)),
        )

    def _fit_lbfgs(self, x_ni: Any, targets_n: NDArray, weights_n: Any, context: Any) -> None:
        """In float64, as scikit-learn does whatever the rows are: a line search needs it."""
        dtype = self.coefs_[0].dtype
        network = self._network(x_ni, dtype=np.float64)
        if targets_n.ndim == 2:
            targets_n = targets_n.astype(np.float64)
        self.backend_ = backend_name(network.backend)
        data = TrainData(x_ni, 1.0, targets_n, _or_ones(weights_n, x_ni))

        self.coefs_, self.intercepts_ = list(network.params[0]), list(network.params[1])
        clock = Clock()

        def report(loss: float) -> bool:
            if self.verbose:
                print(f"loss = {loss:.8f}")
            if self.time_budget is not None and clock() > self.time_budget:
                return True
            return context is not None and self._callbacks_stop(context)

        result = minimize_lbfgs(
            network, data, self.alpha, self.tol, self.max_iter, self.max_fun, report
        )
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)
        self.loss_ = float(result.fun)
        self.coefs_ = [w.astype(dtype, copy=False) for w in network.params.weights]
        self.intercepts_ = [b.astype(dtype, copy=False) for b in network.params.biases]

    def _fit_stochastic(
        self,
        x_ni: Any,
        y: Any,
        targets_n: NDArray,
        weights_n: NDArray[np.float64] | None,
        incremental: bool,
        validation: tuple | None,
        context: Any,
    ) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Solver.from_estimator(self)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.early_stopping and validation is None:
            kept, validation = self._split(x_ni, y, weights_n)
            x_ni, targets_n = x_ni[kept], targets_n[kept]
            weights_n = None if weights_n is None else weights_n[kept]
        batch_size = self._batch_size(x_ni.shape[0])
        self.n_iter_ = 0
        ahead = self._epochs_ahead(incremental, validation, context)
        network = self._network(x_ni, batch_size, ahead)
        self.backend_ = backend_name(network.backend)
        epochs = self._plan(network, x_ni, targets_n, weights_n, batch_size)
        try:
            self._run(epochs, incremental, validation, context)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=3)
        if self.early_stopping and epochs.best is not None:
            self.coefs_, self.intercepts_ = (list(arrays) for arrays in epochs.best)

    def _plan(
        self, network: Network, x_ni: Any, targets_n: NDArray, weights_n: Any, batch_size: int
    ) -> Epochs:
        if x_ni.dtype not in (np.uint8, network.spec.dtype):
            x_ni = x_ni.astype(network.spec.dtype)  # once, not in every epoch
        epochs = Epochs(
            network,
            self._optimizer,
            network.data(x_ni, targets_n, _or_ones(weights_n, x_ni)),
            batch_size,
            self.alpha,
            self._random_state if self.shuffle else None,
            self.t_,
        )
        if self.time_budget is not None:
            epochs.budget = TimeBudget(self.schedule, 1.0, 0.0, self.time_budget, Clock())
        elif self.schedule != "constant":
            steps = self.max_iter * epochs.steps_of_epoch
            epochs.budget = StepBudget(self.schedule, 1.0, steps)
        if self.dropout:
            epochs.dropout_seed = self._random_state.randint(2**31 - 1)
        return epochs

    def _batch_size(self, rows: int) -> int:
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. "
                "It is going to be clipped",
                stacklevel=5,
            )
        return int(min(self.batch_size, rows))

    def _split(self, x_ni: Any, y: Any, weights_n: Any) -> tuple[NDArray, tuple]:
        """The rows to learn from, by number, and those to judge by."""
        kept, held = train_test_split(
            np.arange(x_ni.shape[0]),
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if self.n_outputs_ == 1 else None,
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        weights = None if weights_n is None else weights_n[held]
        return kept, (x_ni[held], y[held], weights)

    def _run(
        self, epochs: Epochs, incremental: bool, validation: tuple | None, context: Any
    ) -> None:
        while True:
            losses = epochs.train(self._epochs_ahead(incremental, validation, context))
            if not losses:  # the time is over
                return
            for loss in losses:
                self._note(epochs, loss, validation)
            if self._no_improvement_count > self.n_iter_no_change and self._stops():
                return
            if incremental or (context is not None and self._callbacks_stop(context)):
                return
            if self.time_budget is None and self.n_iter_ == self.max_iter:
                if self.schedule == "constant":
                    warnings.warn(
                        f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and "
                        "the optimization hasn't converged yet.",
                        ConvergenceWarning,
                        stacklevel=4,
                    )
                return

    def _epochs_ahead(self, incremental: bool, validation: tuple | None, context: Any) -> int:
        """How many epochs come for certain, however the loss goes, before anybody looks."""
        if incremental or validation is not None or context is not None:
            return 1
        before_a_stop = self.n_iter_no_change - self._no_improvement_count + 1
        return max(1, int(min(before_a_stop, self.max_iter - self.n_iter_)))

    def _note(self, epochs: Epochs, loss: float, validation: tuple | None) -> None:
        """An epoch of this loss is done."""
        self.n_iter_ += 1
        self.loss_ = loss
        self.t_ += epochs.count
        self.loss_curve_.append(loss)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")
        self._judge(epochs, validation)

    def _callbacks_stop(self, context: Any) -> bool:
        """Tell scikit-learn's callbacks that an iteration has ended; whether they want to stop."""
        task = context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self)
        return bool(
            task.call_on_fit_task_end(
                estimator=self, reconstruction_attributes=self._weights_so_far
            )
        )

    def _stops(self) -> bool:
        """Whether training ends since nothing gets better; else it goes on more slowly."""
        what = "Validation score" if self.early_stopping else "Training loss"
        said = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} "
            "consecutive epochs."
        )
        stops = not self._optimizer.reduce_rate()
        if stops and self.schedule != "constant" and not self.early_stopping:
            stops = False  # the schedule is planned to its end
        elif self.verbose:
            rate = self._optimizer.learning_rate
            if stops and self.solver == "sgd" and self.learning_rate == "adaptive":
                said += " Learning rate too small."
            print(said, "Stopping." if stops else f"Setting learning rate to {rate:f}")
        if not stops:
            self._no_improvement_count = 0
        return stops

    def _judge(self, epochs: Epochs, validation: tuple | None) -> None:
        """Count the epochs without improvement; keep the best weights where validation decides."""
        if validation is not None:
            score, loss = self._score_and_loss(*validation)
            self.validation_scores_ = [*(self.validation_scores_ or []), score]
            self.validation_loss_curve_ = [*(self.validation_loss_curve_ or []), loss]
            if self.verbose:
                print(f"Validation score: {score:f}")
        if self.early_stopping:
            better = not score < self.best_validation_score_ + self.tol
            if score > self.best_validation_score_:
                self.best_validation_score_ = score
                epochs.keep()
        else:
            loss = self.loss_curve_[-1]
            better = not loss > self.best_loss_ - self.tol
            self.best_loss_ = min(loss, self.best_loss_)
        self._no_improvement_count = 0 if better else self._no_improvement_count + 1

    def _score_and_loss(self, x_ni: Any, y: Any, weights_n: Any) -> tuple[float, float]:
        """Accuracy and mean loss, without the penalty; NaN if the network has diverged."""
        probability_nk = self._probabilities(x_ni, self._network(x_ni, batch_size=x_ni.shape[0]))
        if not np.isfinite(probability_nk).all():
            return np.nan, np.nan
        targets_n = self._targets(y, probability_nk.dtype.name)
        p_nk = np.clip(probability_nk, np.finfo(probability_nk.dtype).tiny, None)
        if self.out_activation_ == "softmax":
            if targets_n.ndim == 1:
                loss_n = -np.log(p_nk[np.arange(len(p_nk)), targets_n])
            else:
                loss_n = -(targets_n * np.log(p_nk)).sum(axis=1)
        else:
            q_nk = np.clip(1 - probability_nk, np.finfo(probability_nk.dtype).tiny, None)
            loss_n = -(targets_n * np.log(p_nk) + (1 - targets_n) * np.log(q_nk)).sum(axis=1)
        score = accuracy_score(y, self._decide(probability_nk), sample_weight=weights_n)
        return float(score), float(np.average(loss_n, weights=weights_n))

    # What comes out.

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable class of every row, (n,); or which labels it has, (n, labels)."""
        return self._decide(self._checked_probabilities(X))

    def predict_proba(self, X: ArrayLike) -> Floats:
        """(n, classes): how probable each class, or each label by itself, is."""
        probability_nk = self._checked_probabilities(X)
        if self.n_outputs_ > 1:
            return probability_nk
        both_nk: Floats = np.empty((len(probability_nk), 2), probability_nk.dtype)
        both_nk[:, 1:] = probability_nk
        np.subtract(1, probability_nk, out=both_nk[:, :1])
        return both_nk

    def predict_log_proba(self, X: ArrayLike) -> Floats:
        """The logarithm of predict_proba."""
        probability_nk = self.predict_proba(X)
        with np.errstate(divide="ignore"):  # a probability may be too small for its dtype
            return np.log(probability_nk, out=probability_nk)

    def _checked_probabilities(self, X: Any) -> Floats:
        """(n, outputs), of rows as they come."""
        if hasattr(self, "coefs_"):
            settings = (self.activation, self.backend)
            arrays = (*self.coefs_, *self.intercepts_)
            probability_nk = self._short_way.probabilities(X, arrays, settings)
            if probability_nk is not None:
                return probability_nk
        check_is_fitted(self)
        x_ni = validate_data(
            self, X, accept_sparse="csr", dtype=_kept_dtypes(X), order="C", reset=False
        )
        network = self._network(x_ni)
        if type(X) is np.ndarray and not hasattr(self, "feature_names_in_"):
            self._short_way.remember(network, (self.activation, self.backend))
        return self._probabilities(x_ni, network)

    def _probabilities(self, x_ni: Any, network: Network) -> Floats:
        """(n, outputs), of checked rows."""
        out_nk = np.empty((x_ni.shape[0], network.spec.sizes[-1]), network.spec.dtype)
        network.backend.predict(
            network.params, x_ni, network.scale, network.spec, network.threads, out_nk
        )
        return out_nk

    def _decide(self, probability_nk: Floats) -> NDArray:
        answers: NDArray
        if self._is_multiclass():
            answers = self.classes_[probability_nk.argmax(axis=1)]
        elif self._is_binary():
            answers = self.classes_[np.where(probability_nk[:, 0] > 0.5, -1, 0)]
        else:
            answers = self._label_binarizer.inverse_transform(probability_nk)
        return answers

    def export(self, path: str | Path, to: str | None = None, *, force: bool = False) -> None:
        """Write the trained network for other programs: onnx, npz, python or c.

        to : the format; None: what the name of the file ends with says. force : replace a file that
        is there. The file takes rows as floats, as this classifier does, and gives what
        predict_proba gives; labels are named in it as text. What a pipeline does to rows before is
        not in it.
        Raises: NotFittedError; ArgumentError; UserError, which says what to do or to install.
        """
        check_is_fitted(self)
        network = self._network()
        names = [str(label) for label in self.classes_]
        params, spec = network.params, network.spec
        if self.n_outputs_ == 1 and len(names) == 2:
            params, spec = _with_both_classes(params, spec)
        export(path, to or format_from_suffix(path), params, spec, class_names=names, force=force)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags


def _sizes_of(coefs: list, intercepts: list) -> tuple[int, ...]:
    """The widths of all layers. Raises: ValueError if one does not follow from the other."""
    if not coefs or len(coefs) != len(intercepts) or any(w_io.ndim != 2 for w_io in coefs):
        raise ValueError("coefs_ and intercepts_ need a matrix and a vector for every layer.")
    for layer, (w_io, b_o) in enumerate(zip(coefs, intercepts)):
        if b_o.shape != (w_io.shape[1],):
            raise ValueError(
                f"intercepts_[{layer}] has the shape {b_o.shape}, and coefs_[{layer}] "
                f"{w_io.shape}: they do not fit."
            )
        if layer and coefs[layer - 1].shape[1] != len(w_io):
            raise ValueError(
                f"coefs_[{layer}] has the shape {w_io.shape}, and coefs_[{layer - 1}] "
                f"{coefs[layer - 1].shape}: they do not fit."
            )
    return (*(len(w_io) for w_io in coefs), coefs[-1].shape[1])


def _kept_dtypes(X: Any) -> Any:
    """The dtypes that the kernels read; anything else becomes float64."""
    if getattr(X, "dtype", None) == np.uint8 and not sparse.issparse(X):
        return np.uint8
    return (np.float64, np.float32)


def _with_both_classes(params: Params, spec: NetworkSpec) -> tuple[Params, NetworkSpec]:
    """A network that says how probable each of two classes is: sigmoid(z) = softmax(0, z)[1]."""
    *weights, last_i1 = params.weights
    *biases, last_1 = params.biases
    both_i2 = np.ascontiguousarray(np.hstack([np.zeros_like(last_i1), last_i1]))
    both_2 = np.concatenate([np.zeros_like(last_1), last_1])
    return (
        Params((*weights, both_i2), (*biases, both_2)),
        replace(spec, sizes=(*spec.sizes[:-1], 2), loss="softmax"),
    )


def _or_ones(weights_n: NDArray[np.float64] | None, x_ni: Any) -> NDArray[np.float64]:
    return np.ones(x_ni.shape[0]) if weights_n is None else weights_n
