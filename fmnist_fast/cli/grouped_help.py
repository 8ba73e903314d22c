"""Help of commands with many options: listed in groups."""

from collections.abc import Mapping
from typing import Any

import click


class GroupedCommand(click.Command):
    """Command whose --help lists the options under headings.

    groups : names of parameters by heading; --help follows the last of them.
    """

    def __init__(self, *args: Any, groups: Mapping[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        heading_of = {name: heading for heading, names in self.groups.items() for name in names}
        last = list(self.groups)[-1]
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in self.groups}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                sections[heading_of.get(param.name or "", last)].append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
