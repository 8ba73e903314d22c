"""Lazy loading of commands: `--help` loads click and nothing else.

`commands/NAME.py` declares the options and the help of a command, and is loaded when NAME is given.
`NAME.py` runs it, imports NumPy and all else at its top, and is loaded when the command is run.
"""

from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from ..errors import MissingExtra


class LazyGroup(click.Group):
    """Group that loads `commands.NAME` when NAME is used (click's documentation, "Lazily Loading
    Subcommands").
    """

    def __init__(self, *args: Any, lazy_commands: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy_commands:
            return None
        command: click.Command = getattr(_load(f"commands.{cmd_name}"), cmd_name)
        return command


def deferred(
    target: str, packages: tuple[str, ...] = ()
) -> Callable[[Callable[[], None]], Callable[..., Any]]:
    """Decorator: call() the target with the options."""
    return lambda declaration: wraps(declaration)(partial(call, target, packages))


def call(target: str, packages: tuple[str, ...] = (), **options: Any) -> Any:
    """Load and call `target`, "module:function" of this package.

    packages : of the extra `sweep` that it needs. Raises: MissingExtra if one is not installed.
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtra(f"this needs {package}: pip install 'fmnist-fast[sweep]'")
    module, _, function = target.partition(":")
    return getattr(_load(module), function)(**options)


def _load(module: str) -> Any:
    return import_module(f"{__package__}.{module}")
