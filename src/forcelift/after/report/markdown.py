"""The report as Markdown: sections, tables and words of the checklist's template, then what goes beyond it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from forcelift.after.report.figures import ReportFigures, ReportStatus, TableFigures
from forcelift.after.validate.checks import percent

_MARKS: Final = {
    ReportStatus.SUCCESS: "✅ SUCCESS",
    ReportStatus.PARTIAL: "⚠️ PARTIAL",
    ReportStatus.FAILED: "❌ FAILED",
    ReportStatus.PASS: "✅ PASS",
    ReportStatus.FAIL: "❌ FAIL",
    ReportStatus.DRIFT: "⚠️ DRIFT",
    ReportStatus.OPEN: "⏳ NOT CHECKED",
}


def markdown(report: ReportFigures) -> str:
    """The whole page."""
    sections = (_summary, _statistics, _reconciliation, _issues, _performance, _sign_off, _rollbacks, _checks, _basis)
    return "\n".join(line for section in sections for line in section(report)) + "\n"


def _summary(report: ReportFigures) -> Iterator[str]:
    yield from ("# Data Migration Report", "", "## Executive Summary")
    yield f"- **Project:** {_cell(report.batch.project)}"
    began = report.performance.began_at or report.batch.started_at
    ended = report.performance.ended_at or report.batch.ended_at or report.made_at
    yield f"- **Date:** {began.astimezone(UTC):%Y-%m-%d} to {ended.astimezone(UTC):%Y-%m-%d}"
    yield f"- **Status:** {_MARKS[report.status]}"
    yield f"- **Batch:** {_cell(report.batch.batch_id)}"
    yield from (f"- **Note:** {_cell(note)}" for note in report.notes)
    yield ""


def _statistics(report: ReportFigures) -> Iterator[str]:
    yield from ("## Migration Statistics", "")
    yield "| Table | Source | Target | Success | Failed | Rate |"
    yield "|-------|--------|--------|---------|--------|------|"
    for one in report.tables:
        yield _row(_cell(one.table), *_counts(one), _rate(one))
    total = report.total
    yield _row("**TOTAL**", *(f"**{text}**" for text in (*_counts(total), _rate(total))))
    yield ""
    yield f"Failed: {total.refused:,} refused by Salesforce, {total.rejected:,} rejected by rules of the plan."
    yield f"Dropped as duplicates: {total.duplicate:,}. Each row of the source is counted once."
    yield ""


def _counts(one: TableFigures) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in (one.source, one.target, one.success, one.failed))


def _rate(one: TableFigures) -> str:
    return f"{percent(one.success, one.source)}%" if one.source else "-"


def _reconciliation(report: ReportFigures) -> Iterator[str]:
    yield from ("## Reconciliation Results", "", "| Check | Status | Details |", "|-------|--------|---------|")
    for one in report.reconciled:
        yield _row(one.name, _MARKS[one.status], _cell(one.details))
    yield ""


def _issues(report: ReportFigures) -> Iterator[str]:
    yield from ("## Issues Encountered", "")
    if not report.issues:
        yield from ("None: no row was refused or rejected.", "")
    for number, issue in enumerate(report.issues, start=1):
        group = issue.group
        what = f"{group.rows:,} records of {_cell(group.table_name)} failed with {_cell(group.code)}"
        yield f"{number}. **Issue:** {what}"
        yield f"   - **Root Cause:** {_cell(issue.cause)}"
        resolution = "; ".join(issue.notes) if issue.notes else f"open: {issue.remedy}"
        yield f"   - **Resolution:** {_cell(resolution)}"
        yield f"   - **Records Fixed:** {issue.fixed:,}"
    if report.issues:
        yield ""


def _performance(report: ReportFigures) -> Iterator[str]:
    figures = report.performance
    yield from ("## Performance Metrics", "", "| Metric | Value |", "|--------|-------|")
    yield _row("Total Duration", _duration(figures.seconds))
    yield _row("Average Throughput", f"{figures.average:,.0f} records/second")
    yield _row("Peak Throughput", f"{figures.peak:,.0f} records/second")
    yield _row("SF API Calls Used", f"{figures.api_calls:,}")
    yield ""


def _sign_off(report: ReportFigures) -> Iterator[str]:
    yield from ("## Sign-off", "", "| Role | Name | Date | Signature |", "|------|------|------|-----------|")
    yield from (_row(_cell(role), "", "", "") for role in report.roles)
    yield ""


def _rollbacks(report: ReportFigures) -> Iterator[str]:
    if not report.rollbacks:
        return
    yield from ("## Rollbacks", "", "| Begun (UTC) | By | Reason | Ended |", "|---|---|---|---|")
    for one in report.rollbacks:
        yield _row(_moment(one.began_at), _cell(one.asked_by), _cell(one.reason), _moment(one.ended_at))
    total = report.total
    yield from (
        "",
        f"{total.rolled_back:,} rows were taken back; {total.kept:,} were kept, as others had built on them.",
        "",
    )


def _checks(report: ReportFigures) -> Iterator[str]:
    if not report.checks:
        return
    yield from ("## Validation in Full", "", "| Level | Table | Check | Status | Source | Target | Reason |")
    yield "|---|---|---|---|---|---|---|"
    for one in report.checks:
        details = one.details
        yield _row(
            str(one.level),
            _cell(one.table_name or "-"),
            _cell(one.check_name),
            str(details["status"]).replace("_", " "),
            *(_cell(str(details[side])) if details.get(side) is not None else "-" for side in ("source", "target")),
            _cell(str(details.get("reason") or "")),
        )
    yield ""


def _basis(report: ReportFigures) -> Iterator[str]:
    yield "## Basis"
    yield ""
    yield "Every figure is from the audit database and the ledger of the batch. Personal values are masked there."
    yield f"Journal head: `{report.head}`. Made {_moment(report.made_at)} UTC."


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A text that cannot break out of its cell or line, or be taken for markup."""
    plain = " ".join(text.split())
    for sign in ("\\", "|", "<", ">", "*", "_", "`", "[", "]"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def _moment(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _duration(seconds: float) -> str:
    """As the template has it: `46 hours 23 minutes`; shorter ones in minutes and seconds."""
    whole = round(seconds)
    parts: Sequence[tuple[int, str]] = ((whole // 3600, "hour"), (whole % 3600 // 60, "minute"), (whole % 60, "second"))
    first = next((number for number, (amount, _) in enumerate(parts) if amount), 2)
    shown = parts[first : first + 2]
    return " ".join(f"{amount} {word}{'' if amount == 1 else 's'}" for amount, word in shown)
