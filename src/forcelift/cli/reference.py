"""Write the help of all commands into `docs/reference/cli.md`: `python -m forcelift.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from forcelift.cli.main import cli

BEGIN: Final = "<!-- From here on made by `python -m forcelift.cli.reference`; change the commands, not this part. -->"
END: Final = "<!-- End of the part that is made. -->"
WIDTH: Final = 100


def all_commands() -> list[tuple[str, click.Command]]:
    """Each command and group with its whole name, in the order of the help."""
    return list(_walk(cli, _context("forcelift")))


def generated_part() -> str:
    """The part of the page that is made."""
    parts = [BEGIN]
    for path, command in all_commands():
        context = _context(path)
        parts += [f"### `{path}`", f"```text\n{command.get_help(context).strip()}\n```"]
    return "\n\n".join([*parts, END])


def _context(path: str) -> click.Context:
    context: click.Context | None = None
    for name in path.split():
        context = click.Context(
            cli,
            info_name=name,
            parent=context,
            terminal_width=WIDTH,
            max_content_width=WIDTH,
            help_option_names=cli.context_settings["help_option_names"],
        )
    assert context is not None
    return context


def _walk(group: click.Group, context: click.Context, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    path = f"{prefix} {context.info_name}".strip()
    yield path, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _walk(command, inner, path)
        else:
            yield f"{path} {name}", command


def write_page(page: Path) -> None:
    """Replace the part that is made."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + generated_part() + after, encoding="utf-8")


if __name__ == "__main__":
    write_page(Path("docs/reference/cli.md"))
