"""How `forcelift validate` looks: a table of checks, then what differs, then one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console

from forcelift.after.validate.checks import LEVEL_NAMES, Check, CheckStatus, Difference, Found
from forcelift.cli.output import plural, table_lines
from forcelift.validating.batch import Validated
from forcelift.validating.project import ProjectValidated

_AGGREGATES = 2
_EXAMPLES_SHOWN = 10
_WIDTH_MAX = 40
_WORDS = {CheckStatus.NOT_CHECKED: "not checked"}


def show_validation(console: Console, validated: Validated) -> None:
    """Print what a validation found."""
    found = validated.found
    console.print(f"batch {validated.batch.batch_id}")
    lines = _by_line(found.checks)
    rows = [_row(checks[0]) if len(checks) == 1 else _sum_up(checks) for checks in lines]
    for line in table_lines(
        ("level", "table", "check", "status", "source", "org", "difference"), rows, left=(0, 1, 2, 3)
    ):
        console.print(line)
    for check in found.checks:
        if check.reason and check.status is not CheckStatus.PASSED:
            console.print(f"{check.table}, {_name(check)}: {check.reason}")
        for example in check.examples[:_EXAMPLES_SHOWN]:
            console.print(f"  {_sentence(example)}")
        if len(check.examples) > _EXAMPLES_SHOWN:
            console.print(f"  and {len(check.examples) - _EXAMPLES_SHOWN:,} more; `--json` lists them")
    if len(lines) < len(found.checks):
        console.print("(`--json` lists each figure)")
    console.print()
    console.print(_verdict(found, validated.api_calls))


def show_project_validation(console: Console, validated: ProjectValidated) -> None:
    """Print what a validation found of each batch, then of all of them."""
    for one in validated.batches:
        show_validation(console, one)
        console.print()
    for left in validated.not_validated:
        console.print(f"batch {left.batch_id} was not compared: {left.reason}")
    together = Found(checks=[check for one in validated.batches for check in one.found.checks])
    console.print(
        f"project {validated.scope.project}, {plural(len(validated.batches), 'batch', 'batches')}: "
        f"{_verdict(together, validated.api_calls)}"
    )


def _by_line(checks: Sequence[Check]) -> list[list[Check]]:
    """The checks that share a line: a table's aggregates while all are equal, as a wide table has a hundred."""

    def line(numbered: tuple[int, Check]) -> tuple[str, int]:
        number, check = numbered
        shares = check.level == _AGGREGATES and check.status is CheckStatus.PASSED
        return check.table, -1 if shares else number

    return [[check for _, check in group] for _, group in groupby(enumerate(checks), key=line)]


def _sum_up(checks: Sequence[Check]) -> tuple[str, ...]:
    fields = {check.name.rpartition(" ")[2] for check in checks}
    what = f"{plural(len(checks), 'figure')} of {plural(len(fields), 'field')}"
    return (*_row(checks[0])[:2], what, _row(checks[0])[3], "-", "-", "-")


def _row(check: Check) -> tuple[str, ...]:
    return (
        f"{check.level} {LEVEL_NAMES[check.level]}",
        check.table,
        _name(check),
        _WORDS.get(check.status, check.status.value),
        _short(check.source),
        _short(check.target),
        _short(check.difference),
    )


def _name(check: Check) -> str:
    return check.name if check.chunk is None else f"{check.name} of chunk {check.chunk}"


def _short(text: str | None) -> str:
    if text is None:
        return "-"
    if text.lstrip("-").isdigit():
        return f"{int(text):,}"
    return text if len(text) <= _WIDTH_MAX else text[: _WIDTH_MAX - 1] + "…"


def _sentence(one: Difference) -> str:
    words = [one.kind.value.replace("_", " "), one.key or "(no key)"]
    if one.record_id:
        words.append(one.record_id)
    text = " ".join(words)
    if one.field is not None or one.source is not None or one.target is not None:
        text += f": {one.field or 'value'} was {_value(one.source)}, is {_value(one.target)}"
    return f"{text} ({one.note})" if one.note else text


def _value(text: str | None) -> str:
    return "null" if text is None else repr(text)


def _verdict(found: Found, api_calls: int) -> str:
    parts = [
        plural(found.count(CheckStatus.PASSED), "check passed", "checks passed"),
        f"{found.count(CheckStatus.FAILED):,} failed" if found.count(CheckStatus.FAILED) else "",
        f"{found.count(CheckStatus.DRIFT):,} cannot be told, as the source has changed"
        if found.count(CheckStatus.DRIFT)
        else "",
        f"{found.count(CheckStatus.NOT_CHECKED):,} not checked" if found.count(CheckStatus.NOT_CHECKED) else "",
    ]
    return ", ".join(part for part in parts if part) + f"; {api_calls:,} API calls"
