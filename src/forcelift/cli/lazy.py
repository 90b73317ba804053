"""A click group whose commands are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click
from msgspec import Struct


class LazyCommand(Struct, frozen=True, kw_only=True):
    """Where a command is found, and its line in the list of commands, which is shown without importing it."""

    module: str
    name: str
    help: str


class LazyGroup(click.Group):
    """Knows its commands by name only, in the order in which they are shown."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, LazyCommand] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.lazy = dict(lazy or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = self.lazy.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(place.module), place.name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in self.lazy.items()])
