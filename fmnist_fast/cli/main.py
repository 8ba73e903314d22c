"""The command line: `fmnist-fast train`, `sweep`, `evaluate`, `predict`, `export`, `info`, `bench`,
`data`, `app`.

Errors of the user are one line on standard error and exit code 2; Ctrl-C is exit code 130. Results
go to standard output.
"""

import sys
import warnings
from io import TextIOWrapper
from time import monotonic, process_time
from typing import Any

import click

from .. import __version__
from ..errors import UserError
from .lazy import LazyGroup
from .terminal import EXIT_INTERRUPTED, PROGRAM, discard_stdout, escape, fail


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold characters that the terminal lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        # Commands with a time budget count from the start of the process, loading included.
        start = monotonic() - process_time()
        code = _command.main(arguments, prog_name=PROGRAM, standalone_mode=False, obj=start)
        if sys.stdout:
            sys.stdout.flush()
        return code or 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else error, file=sys.stderr)
        return 2
    except (click.Abort, KeyboardInterrupt):
        return fail("stopped", EXIT_INTERRUPTED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else PROGRAM
        return fail(f"{error.format_message().rstrip('.')}; see '{path} --help'")
    except (UserError, Warning) as error:  # a warning comes here under python -W error
        return fail(str(error))
    except BrokenPipeError:
        discard_stdout()
        return 0
    except OSError as error:
        return fail(f"{error.filename or 'standard output'}: {error.strerror or error}")
    except MemoryError:
        return fail("there is not enough memory for this: use fewer epochs or narrower layers")


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # those of this package
        print(f"{PROGRAM}: warning: {escape(str(message))}", file=sys.stderr)


COMMANDS = ("train", "sweep", "evaluate", "predict", "export", "info", "bench", "data", "app")


@click.group(
    name=PROGRAM,
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, prog_name=PROGRAM)
def _command() -> None:
    """Train and use a multilayer perceptron for Fashion-MNIST.

    \b
    fmnist-fast train                            train, and save model.safetensors
    fmnist-fast sweep                            optimize the hyperparameters
    fmnist-fast evaluate model.safetensors       accuracy, precision and recall
    fmnist-fast predict --model model.safetensors shoe.png
    fmnist-fast export --to onnx                 export the model
    fmnist-fast app                              open the app in a browser
    """
