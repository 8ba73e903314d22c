"""Errors that a user can correct. Every message is one line that ends with what to do."""


class UserError(Exception):
    """Base of all errors that the command line prints without a traceback, with exit code 2."""

    def __str__(self) -> str:
        """Return the message on one line, whatever the names of files and arrays in it hold."""
        return " ".join(super().__str__().splitlines())


class ArgumentError(UserError, ValueError):
    """An argument has a wrong shape, dtype, value or name."""


class BackendUnavailable(UserError, ImportError):
    """A backend is unknown, not built, or does not support the options of the network."""


class MissingExtra(UserError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""


class DataError(UserError, ValueError):
    """A data set is missing, damaged, or fails its checksum."""


class DamagedFileError(DataError):
    """A file of inputs is damaged, or written in a way that cannot be read."""


class ModelFileError(UserError, ValueError):
    """A model file is missing, damaged, of another format or a newer version, or exists already."""


class CheckpointError(UserError, ValueError):
    """A checkpoint cannot be resumed: missing, locked, or of another network or data set."""


class ClusterError(UserError, RuntimeError):
    """Tasks cannot be run: no suitable worker, or no connection to the scheduler."""


class SweepError(UserError, ValueError):
    """A sweep cannot start or resume: another study, invalid settings, or no completed trial."""
