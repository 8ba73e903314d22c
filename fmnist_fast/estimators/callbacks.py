"""The callbacks of scikit-learn 1.9, as far as the installed version has them."""

from typing import Any

from ..kernels.interface import Floats

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before scikit-learn 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """There are no callbacks in this version."""

    def with_callbacks(method: Any) -> Any:
        return method


__all__ = ["CallbackSupportMixin", "FitCallbacks", "with_callbacks"]


class FitCallbacks:
    """The callbacks of one call of `fit`. Every method does nothing if there are none.

    Parameters
    ----------
    estimator : MLPClassifier
        The estimator that is fitted.
    context : sklearn.callback.CallbackContext or None
        Of this call; None for no callbacks.
    arguments
        Of `fit`, which the callbacks receive.
    """

    def __init__(self, estimator: Any, context: Any = None, **arguments: Any) -> None:
        self.estimator, self.context, self.arguments = estimator, context, arguments

    @classmethod
    def begin(cls, estimator: Any, x: Any, y: Any, sample_weight: Any) -> "FitCallbacks":
        """Report to the callbacks of `estimator.set_callbacks` that a fit begins."""
        if not hasattr(estimator, "_skl_callbacks"):
            return cls(estimator)
        known = estimator.solver != "lbfgs" and estimator.time_budget is None
        max_epochs = estimator.max_iter if known else None
        context = estimator._init_callback_context(max_subtasks=max_epochs)
        callbacks = cls(estimator, context, X=x, y=y, metadata={"sample_weight": sample_weight})
        context.call_on_fit_task_begin(estimator=estimator, **callbacks.arguments)
        return callbacks

    def end_epoch(self) -> bool:
        """Report that an epoch has ended. Returns whether a callback stops the fit."""
        if self.context is None:
            return False
        task = self.context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(estimator=self.estimator)
        return self._end(task)

    def end(self) -> None:
        """Report that the fit has ended."""
        if self.context is not None:
            self._end(self.context, **self.arguments)

    def _end(self, task: Any, **arguments: Any) -> bool:
        """Report that a task has ended. Returns whether a callback stops the fit."""
        stops = task.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=self._copy_params, **arguments
        )
        return bool(stops)

    def _copy_params(self) -> dict[str, list[Floats]]:
        """Return the attributes from which scikit-learn makes a fitted estimator."""
        return {
            "coefs_": [w_io.copy() for w_io in self.estimator.coefs_],
            "intercepts_": [b_o.copy() for b_o in self.estimator.intercepts_],
        }
