"""Errors that a user can do something about. Their messages are one line that says what to do."""

__all__ = [
    "ArgumentError",
    "BackendUnavailable",
    "CheckpointError",
    "ClusterError",
    "DataError",
    "MissingExtra",
    "ModelFileError",
    "SweepError",
    "UserError",
]


class UserError(Exception):
    """Base of all errors that the command line prints without a traceback, with exit code 2."""


class ArgumentError(UserError, ValueError):
    """An argument that cannot be used: a wrong shape, dtype, range or name."""


class BackendUnavailable(UserError, ImportError):
    """A backend that was asked for by name is unknown, not built or cannot do what is asked."""


class MissingExtra(UserError, ImportError):
    """A package is missing that only this needs: the message says what to install."""


class DataError(UserError, ValueError):
    """A data set that is missing, damaged or not what it says it is."""


class ModelFileError(UserError, ValueError):
    """A model file that is missing, damaged, foreign or too new, or that must not be replaced."""


class CheckpointError(UserError, ValueError):
    """A run that cannot be gone on with: none there, another network or data set, or in use."""


class ClusterError(UserError, RuntimeError):
    """Work that cannot be given to workers: none is fit, or the scheduler is not there, or gone."""


class SweepError(UserError, ValueError):
    """A sweep that cannot begin or go on: another study, settings that cannot be, no result."""
