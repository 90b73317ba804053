"""Errors on one screen: message, state, hint; exit codes; and where the traceback of a fault of ours goes."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from forcelift import errors
from forcelift.cli import cli
from forcelift.cli.main import run_command
from forcelift.errors import ExitCode, ForceliftError, Problem

Fail = Callable[[BaseException], None]


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fail]:
    """Let a command `fail` raise what the test names."""
    raised: list[BaseException] = []

    @click.command()
    @click.option("--plan")
    def fail(plan: str | None) -> None:
        raise raised[-1]

    cli.add_command(fail, "fail")
    yield raised.append
    del cli.commands["fail"]


CODES = {
    errors.UsageError: 2,
    errors.StateConflict: 3,
    errors.StorageError: 3,
    errors.SourceError: 4,
    errors.SourceUnavailable: 4,
    errors.SourceFaulty: 4,
    errors.SourceChanged: 4,
    errors.TargetError: 5,
    errors.OrgUnavailable: 5,
    errors.LostReply: 5,
    errors.SignInFailed: 5,
    errors.Interrupted: 130,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_each_error_ends_the_process_with_its_code(
    kind: type[ForceliftError], code: int, fail_with: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(kind("table `A[/bold]` cannot be read", state="nothing [red]was[/red] written", hint="run `x [y]`"))
    assert run_command(["fail"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "error: table `A[/bold]` cannot be read",
        "state: nothing [red]was[/red] written",
        "next:  run `x [y]`",
    ]


def test_a_plan_with_problems_shows_them_all(fail_with: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(
        errors.PlanError([Problem(message="one", line=3), Problem(message="two", path="tables.T")], file="p.yaml")
    )
    assert run_command(["fail"]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert "the plan `p.yaml` has 2 problems" in shown
    assert "line 3: one" in shown
    assert "`tables.T`: two" in shown


def test_a_fault_of_ours_keeps_its_traceback_beside_the_plan(
    fail_with: Fail, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    fail_with(ZeroDivisionError("secret value"))
    assert run_command(["fail", "--plan", str(tmp_path / "forcelift.yaml")]) == ExitCode.BUG
    shown = capsys.readouterr().err
    (kept,) = (tmp_path / "state").iterdir()
    assert str(kept) in shown
    assert "Traceback" not in shown
    assert "secret value" not in shown
    assert "ZeroDivisionError: secret value" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_debug_prints_the_traceback(fail_with: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(ZeroDivisionError("why"))
    assert run_command(["--debug", "fail"]) == ExitCode.BUG
    assert "ZeroDivisionError: why" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["nonsense"], ["run", "--tabel", "x"], ["stop", "--batch"], ["run", "--resume", "x", "--dry-run"]]
)
def test_a_wrong_command_line_is_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(words) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err
