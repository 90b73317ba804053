"""A click group that is a command of its own where none of its commands is named."""

from __future__ import annotations

from typing import Any

import click


class DefaultGroup(click.Group):
    """Is `default`, with all that it is given, unless the first word names one of its commands or asks for help.

    A value that is such a word can be given after `--`.
    """

    def __init__(self, *arguments: Any, default: click.Command, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.default = default
        self.help = default.help

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        helps = parent.help_option_names if parent is not None else ["--help"]
        if args and (args[0] in self.commands or args[0] in helps):
            return super().make_context(info_name, args, parent, **extra)
        return self.default.make_context(info_name, args, parent, **extra)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.default.format_usage(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.default.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
