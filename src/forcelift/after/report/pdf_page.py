"""The report as PDF, set by Typst with the font beside this module: figures become data, and the template sets them.

The same report gives the same bytes: nothing of the machine goes in, neither its fonts nor its clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from importlib import resources
from typing import Any, Final

from forcelift.after.report.content import Content, alarms, details_of
from forcelift.after.report.curves import Curves
from forcelift.after.report.figures import ReportStatus
from forcelift.after.report.html_plots import short, ticks, widths
from forcelift.after.report.told import (
    CHECK_KINDS,
    CHECKS_SHOWN,
    KINDS,
    Line,
    bottleneck,
    cause,
    check_word,
    code_lines,
    counts,
    days,
    fates,
    headline,
    level_lines,
    metrics,
    quota_lines,
    rate,
    remarks,
    resolution,
    step_rows,
    tiles,
    times,
    value_text,
    verdict,
)
from forcelift.after.report.words import Language, Words
from forcelift.errors import UsageError

ISSUES_SHOWN: Final = 60
_HEADINGS: Final = (
    "summary", "statistics", "reconciliation", "issues", "performance", "sign_off", "rollbacks", "in_full", "basis",
    "chart_checks", "chart_codes", "chart_progress", "chart_rate", "chart_quota", "time_went", "bottleneck",
)  # fmt: skip


def pdf_page(content: Content, words: Words | None = None) -> bytes:
    """The document.

    Raises:
        UsageError: Typst is not installed.
    """
    try:
        import typst
    except ModuleNotFoundError:
        raise UsageError(
            "a PDF is set by the package `typst`, which is not installed",
            state="nothing was written",
            hint="install it by `pip install 'forcelift[pdf]'`, or write .html and print that",
        ) from None
    here = resources.files("forcelift.after.report")
    template = here.joinpath("report.typ").read_bytes()
    data = json.dumps(document(content, words or Words()), ensure_ascii=False)
    with resources.as_file(here.joinpath("fonts")) as fonts:
        made: bytes = typst.compile(
            template,
            font_paths=typst.Fonts(include_system_fonts=False, font_paths=[str(fonts)]),
            sys_inputs={"report": data},
            timestamp=int(content.figures.made_at.timestamp()),
        )
    return made


def document(content: Content, words: Words) -> dict[str, Any]:
    """What the template sets: texts in the report's language, and numbers for its plots."""
    report = content.figures
    made = report.made_at.astimezone(UTC)
    return {
        "language": words.language.value,
        "made": [made.year, made.month, made.day, made.hour, made.minute, made.second],
        "title": words("title"),
        "project": report.batch.project,
        "head": f"{words('head_label')} {report.head}",
        "page_of": words("page_of", page="PAGE", pages="ALL"),
        "words": {key: words(key) for key in _HEADINGS},
        "alarms": [{"what": one.what, "do": one.do} for one in alarms(content, words)],
        "status": _verdict(report.status, words),
        "headline": headline(content, words),
        "about": [[words("date"), days(report, words)], [words("batch"), report.batch.batch_id]],
        "tiles": [list(one) for one in tiles(content, words)],
        "remarks": remarks(content, words),
        "statistics": _statistics(content, words),
        "reconciliation": {
            "head": [words(key) for key in ("check", "status", "details")],
            "rows": [
                {
                    "name": words(f"level_{one.level}"),
                    "verdict": _verdict(one.status, words),
                    "details": details_of(one.said, words),
                }
                for one in report.reconciled
            ],
        },
        "levels": [_line(one) for one in level_lines(content, words)] if report.checks else [],
        "no_issues": words("no_issues"),
        "codes": [{**_line(one), "code": one.name} for one in code_lines(content, words)],
        "issues": _issues(content, words),
        "issues_more": _more(len(report.issues) - ISSUES_SHOWN, words),
        "performance": {
            "head": [words("metric"), words("value")],
            "rows": [list(one) for one in metrics(content, words)],
        },
        "plots": _plots(content, content.curves, words) if content.curves is not None else None,
        "steps": _steps(content, words) if content.steps.total else None,
        "quota": [_line(one) for one in quota_lines(content, words)] or None,
        "sign_off": _sign_off(content, words),
        "rollbacks": _rollbacks(content, words) if report.rollbacks else None,
        "in_full": _in_full(content, words) if report.checks else None,
        "basis": _basis(content, words),
    }


def _verdict(status: ReportStatus, words: Words) -> dict[str, str]:
    return {"kind": KINDS[status], "word": verdict(status, words)}


def _line(one: Line) -> dict[str, Any]:
    return {
        "name": one.name,
        "parts": _parts([(kind, amount) for kind, amount, _ in one.parts], one.whole),
        "told": one.told,
    }


def _parts(parts: Sequence[tuple[str, float]], whole: float) -> list[list[Any]]:
    """Kind and width in percent of each part that there is any of."""
    shares = widths([amount for _, amount in parts], whole)
    return [[kind, share] for (kind, _), share in zip(parts, shares, strict=True) if share]


def _statistics(content: Content, words: Words) -> dict[str, Any]:
    report, total = content.figures, content.figures.total
    rows = [(one.table, one, False) for one in report.tables] + [(words("total"), total, True)]
    return {
        "head": [*(words(key) for key in ("table", "source", "target", "success", "failed", "rate")), ""],
        "rows": [
            {
                "cells": [name, *counts(one), rate(one)],
                "is_total": is_total,
                "parts": _parts([(kind, rows) for kind, _, rows in fates(one)], one.source),
            }
            for name, one, is_total in rows
        ],
        "notes": [
            words("split_note", refused=total.refused, rejected=total.rejected),
            words("duplicates_note", duplicate=total.duplicate),
        ],
        "legend": [[kind, words(key), f"{rows:,}"] for kind, key, rows in fates(total) if rows],
    }


def _issues(content: Content, words: Words) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "line": words("issue_line", rows=one.group.rows, table=one.group.table_name, code=f"`{one.group.code}`"),
            "entries": [
                [words("cause"), cause(one, words)],
                [words("resolution"), resolution(one, words)],
                [words("fixed"), f"{one.fixed:,}"],
            ],
        }
        for number, one in enumerate(content.figures.issues[:ISSUES_SHOWN], start=1)
    ]


def _more(rows: int, words: Words) -> str | None:
    return words("and_more", rows=rows) if rows > 0 else None


def _plots(content: Content, curves: Curves, words: Words) -> dict[str, Any]:
    bins, edges = len(curves.done), list(times(curves, words))
    average = content.figures.performance.average
    rises = [[0.0, 0.0], *([(place + 1) / bins, value] for place, value in enumerate(curves.done))]
    steps = [
        point
        for place, value in enumerate(curves.rates)
        for point in ([place / bins, value], [(place + 1) / bins, value])
    ]
    line = {"value": average, "word": words("average_line", rows=f"{average:,.0f}")}
    return {
        "progress": {"ticks": _ticks(curves.done), "points": rises, "edges": edges, "line": None},
        "rate": {"ticks": _ticks([*curves.rates, average]), "points": steps, "edges": edges, "line": line},
    }


def _ticks(values: Sequence[float]) -> list[dict[str, Any]]:
    return [{"value": one, "word": short(one)} for one in ticks(max(values))]


def _steps(content: Content, words: Words) -> dict[str, Any]:
    return {
        "head": [words(key) for key in ("step", "seconds", "share", "in_parallel")],
        "bottleneck": bottleneck(content, words),
        "parts": _parts([(f"step_{one.step}", one.seconds) for one in content.steps.shares], content.steps.total),
        "rows": [{"kind": f"step_{step}", "cells": cells} for step, *cells in step_rows(content, words)],
        "note": words("steps_note"),
    }


def _sign_off(content: Content, words: Words) -> dict[str, Any]:
    rows = []
    for role in content.roles:
        signed = content.of_role(role)
        rows += [
            {
                "role": role,
                "name": one.name,
                "date": words.moment(one.at),
                "note": one.note or "",
                "stale": words("stale_because", why=words.told(one.why_stale or "")) if one.is_stale else "",
            }
            for one in signed
        ] or [{"role": role, "name": "", "date": "", "note": "", "stale": ""}]
    return {"head": [words(key) for key in ("role", "name", "date", "signature")], "rows": rows}


def _rollbacks(content: Content, words: Words) -> dict[str, Any]:
    total = content.figures.total
    return {
        "head": [words(key) for key in ("begun", "by", "reason", "ended")],
        "rows": [
            [words.moment(one.began_at), one.asked_by, one.reason, words.moment(one.ended_at)]
            for one in content.figures.rollbacks
        ],
        "note": words("rolled_back_note", rolled_back=total.rolled_back, kept=total.kept),
    }


def _in_full(content: Content, words: Words) -> dict[str, Any]:
    checks = content.figures.checks
    return {
        "head": [words(key) for key in ("level", "table", "check", "status", "source", "target", "reason")],
        "rows": [
            {
                "before": [str(one.level), one.table_name or "-", words.told(one.check_name)],
                "verdict": {
                    "kind": CHECK_KINDS[str(one.details["status"])],
                    "word": check_word(str(one.details["status"]), words),
                },
                "after": [
                    *(value_text(one.details.get(side)) for side in ("source", "target")),
                    words.told(str(one.details.get("reason") or "")),
                ],
            }
            for one in checks[:CHECKS_SHOWN]
        ],
        "more": _more(len(checks) - CHECKS_SHOWN, words),
    }


def _basis(content: Content, words: Words) -> list[str]:
    report = content.figures
    lines = [words("basis_note"), words("head_note", head=report.head, moment=report.made_at)]
    if words.language is Language.THAI:
        lines.append(words("era_be" if words.buddhist_era else "era_ce"))
    return lines
