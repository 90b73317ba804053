"""The report as Markdown: sections, tables and words of the checklist's template, then what goes beyond it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from forcelift.after.report.content import Content, alarms, details_of
from forcelift.after.report.figures import ReportStatus
from forcelift.after.report.told import (
    bottleneck,
    cause,
    counts,
    days,
    metrics,
    quota_lines,
    rate,
    remarks,
    resolution,
    step_rows,
    verdict,
)
from forcelift.after.report.words import Language, Words

_SIGNS_OF_MARKUP: Final = "\\|<>*[]~&"
_SIGNS: Final = {
    ReportStatus.SUCCESS: "✅",
    ReportStatus.PARTIAL: "⚠️",
    ReportStatus.FAILED: "❌",
    ReportStatus.PASS: "✅",
    ReportStatus.FAIL: "❌",
    ReportStatus.DRIFT: "⚠️",
    ReportStatus.OPEN: "⏳",
}


def markdown(content: Content, words: Words | None = None) -> str:
    """The whole page."""
    words = words or Words()
    sections = (
        _summary, _statistics, _reconciliation, _issues, _performance, _sign_off,
        _steps, _quota, _rollbacks, _checks, _basis,
    )  # fmt: skip
    return "\n".join(line for section in sections for line in section(content, words)) + "\n"


def _summary(content: Content, words: Words) -> Iterator[str]:
    report = content.figures
    yield from (f"# {words('title')}", "")
    for one in alarms(content, words):
        yield from (f"> **⚠️ {_cell(one.what)}** {_cell(one.do, code=True)}", "")
    yield f"## {words('summary')}"
    yield f"- **{words('project')}:** {_cell(report.batch.project)}"
    yield f"- **{words('date')}:** {days(report, words)}"
    yield f"- **{words('status')}:** {_mark(report.status, words)}"
    yield f"- **{words('batch')}:** {', '.join(_cell(one.batch_id) for one in report.batches)}"
    yield from (f"- **{words('note')}:** {_cell(note)}" for note in remarks(content, words))
    yield ""


def _mark(status: ReportStatus, words: Words) -> str:
    return f"{_SIGNS[status]} {verdict(status, words)}"


def _statistics(content: Content, words: Words) -> Iterator[str]:
    yield from (f"## {words('statistics')}", "")
    yield _row(*(words(key) for key in ("table", "source", "target", "success", "failed", "rate")))
    yield "|-------|--------|--------|---------|--------|------|"
    for one in content.figures.tables:
        yield _row(_cell(one.table), *counts(one), rate(one))
    total = content.figures.total
    yield _row(f"**{words('total')}**", *(f"**{text}**" for text in (*counts(total), rate(total))))
    yield ""
    yield words("split_note", refused=total.refused, rejected=total.rejected)
    yield words("duplicates_note", duplicate=total.duplicate)
    yield ""


def _reconciliation(content: Content, words: Words) -> Iterator[str]:
    yield from (f"## {words('reconciliation')}", "")
    yield _row(words("check"), words("status"), words("details"))
    yield "|-------|--------|---------|"
    for one in content.figures.reconciled:
        yield _row(words(f"level_{one.level}"), _mark(one.status, words), _cell(details_of(one.said, words)))
    yield ""


def _issues(content: Content, words: Words) -> Iterator[str]:
    issues = content.figures.issues
    yield from (f"## {words('issues')}", "")
    if not issues:
        yield from (words("no_issues"), "")
    for number, issue in enumerate(issues, start=1):
        group = issue.group
        what = words("issue_line", rows=group.rows, table=_cell(group.table_name), code=_cell(group.code))
        yield f"{number}. **{words('issue')}:** {what}"
        yield f"   - **{words('cause')}:** {_cell(cause(issue, words))}"
        yield f"   - **{words('resolution')}:** {_cell(resolution(issue, words))}"
        yield f"   - **{words('fixed')}:** {issue.fixed:,}"
    if issues:
        yield ""


def _performance(content: Content, words: Words) -> Iterator[str]:
    yield from (f"## {words('performance')}", "", _row(words("metric"), words("value")), "|--------|-------|")
    for name, value in metrics(content, words):
        yield _row(name, value)
    yield ""


def _sign_off(content: Content, words: Words) -> Iterator[str]:
    yield from (f"## {words('sign_off')}", "")
    yield _row(*(words(key) for key in ("role", "name", "date", "signature")))
    yield "|------|------|------|-----------|"
    for role in content.roles:
        signed = content.of_role(role)
        for one in signed:
            stale = f"**{words('stale_because', why=_cell(words.told(one.why_stale or '')))}**" if one.is_stale else ""
            note = " ".join(text for text in (_cell(one.note or ""), stale) if text)
            yield _row(_cell(role), _cell(one.name), words.moment(one.at), note)
        if not signed:
            yield _row(_cell(role), "", "", "")
    yield ""


def _steps(content: Content, words: Words) -> Iterator[str]:
    rows = step_rows(content, words)
    if not rows:
        return
    yield from (f"## {words('time_went')}", "")
    yield _row(*(words(key) for key in ("step", "seconds", "share", "in_parallel")))
    yield "|------|------:|------:|------:|"
    for _, word, *numbers in rows:
        yield _row(word, *numbers)
    yield ""
    if (line := bottleneck(content, words)) is not None:
        yield f"**{words('bottleneck')}:** {line}"
    yield from (words("steps_note"), "")


def _quota(content: Content, words: Words) -> Iterator[str]:
    lines = quota_lines(content, words)
    if lines:
        yield from (f"## {words('chart_quota')}", "", *(f"- {one.name}: {one.told}" for one in lines), "")


def _rollbacks(content: Content, words: Words) -> Iterator[str]:
    if not content.figures.rollbacks:
        return
    yield from (f"## {words('rollbacks')}", "")
    yield _row(*(words(key) for key in ("begun", "by", "reason", "ended")))
    yield "|---|---|---|---|"
    for one in content.figures.rollbacks:
        yield _row(words.moment(one.began_at), _cell(one.asked_by), _cell(one.reason), words.moment(one.ended_at))
    total = content.figures.total
    yield from ("", words("rolled_back_note", rolled_back=total.rolled_back, kept=total.kept), "")


def _checks(content: Content, words: Words) -> Iterator[str]:
    checks = content.figures.checks
    if not checks:
        return
    keys = ("level", "table", "check", "status", "source", "target", "reason")
    yield from (f"## {words('in_full')}", "", _row(*(words(key) for key in keys)))
    yield "|---|---|---|---|---|---|---|"
    for one in checks:
        details = one.details
        status = str(details["status"])
        yield _row(
            str(one.level),
            _cell(one.table_name or "-"),
            _cell(words.told(one.check_name)),
            words("checks_open" if status == "not_checked" else f"checks_{status}"),
            *(_cell(str(details[side])) if details.get(side) is not None else "-" for side in ("source", "target")),
            _cell(words.told(str(details.get("reason") or ""))),
        )
    yield ""


def _basis(content: Content, words: Words) -> Iterator[str]:
    report = content.figures
    yield from (f"## {words('basis')}", "", words("basis_note"))
    yield words("head_note", head=report.head, moment=report.made_at)
    if words.language is Language.THAI:
        yield words("era_be" if words.buddhist_era else "era_ce")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str, *, code: bool = False) -> str:
    """A text that cannot break out of its cell or line, or be taken for markup; `code` keeps our own backticks."""
    plain = " ".join(text.split())
    signs = _SIGNS_OF_MARKUP if code else f"{_SIGNS_OF_MARKUP}`"
    # Within a word an underscore is none: codes and names of tables stay as they are written everywhere else.
    return re.sub(rf"[{re.escape(signs)}]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", plain)
