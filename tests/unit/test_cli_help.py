"""Help: quick, complete, and the same in the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from forcelift.cli import cli
from forcelift.cli.main import COMMANDS, run_command
from forcelift.cli.reference import all_commands, generated_part

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
HEAVY = ("polars", "pyarrow", "duckdb", "sqlalchemy", "pydantic", "httpx", "rich", "starlette")


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["status", "-h"], ["stop", "-h"], ["demo", "-h"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys; from forcelift.cli.main import run_command; code = run_command(sys.argv[1:]);"
        f"sys.exit(code or ','.join(name for name in {HEAVY!r} if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: forcelift")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_of_a_command_is_true(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help
    first = command.help.splitlines()[0]
    assert first == COMMANDS[name].help
    assert not first.endswith(".")


@pytest.mark.parametrize("path", [path for path, command in all_commands() if not isinstance(command, click.Group)])
def test_each_command_has_an_example_and_its_help_shows(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([*path.split()[1:], "--help"]) == 0
    shown = capsys.readouterr().out
    assert path in shown.split("Example", 1)[1]


def test_the_reference_is_fresh() -> None:
    assert generated_part() in DOCS.read_text(encoding="utf-8"), "run `python -m forcelift.cli.reference`"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("forcelift, version ")
