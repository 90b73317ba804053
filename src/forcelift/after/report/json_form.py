"""The figures of the report as a document, for programs. Pure."""

from __future__ import annotations

from typing import Any

from forcelift.after.report.content import Content, details_of
from forcelift.after.report.told import remarks, resolution
from forcelift.after.report.words import Words


def json_document(content: Content) -> dict[str, Any]:
    """The document of `report --json`; described in docs/reference/cli.md."""
    figures, words = content.figures, Words()
    speed, most = figures.performance, content.steps.bottleneck
    return {
        "batch_id": figures.batch.batch_id,
        "project": figures.batch.project,
        "scope": "project" if figures.scope.is_project else "batch",
        "batches": list(figures.scope.batch_ids),
        "status": figures.status.value,
        "tables": [
            {name: getattr(one, name) for name in (*one.__struct_fields__, "failed")}
            for one in (*figures.tables, figures.total)
        ],
        "reconciliation": [
            {
                "level": one.level,
                "check": words(f"level_{one.level}"),
                "status": one.status.value,
                "details": details_of(one.said, words),
            }
            for one in figures.reconciled
        ],
        "issues": [
            {
                "table": one.group.table_name,
                "code": one.group.code,
                "rows": one.group.rows,
                "cause": one.cause,
                "remedy": one.remedy,
                "resolution": resolution(one, words),
                "fixed": one.fixed,
            }
            for one in figures.issues
        ],
        "performance": {
            "seconds": round(speed.seconds, 3),
            "rows_per_second": round(speed.average, 1),
            "peak_rows_per_second": round(speed.peak, 1),
            "api_calls": speed.api_calls,
            "api_calls_are_all": not speed.is_at_least,
            "bottleneck": most.step.value if most is not None else None,
            "steps": [
                {
                    "step": one.step.value,
                    "seconds": round(one.seconds, 3),
                    "seconds_of_all_chunks": round(one.chunk_seconds, 3),
                }
                for one in content.steps.shares
            ],
        },
        "switched_off": [
            {"kind": one.kind, "name": one.name, "off_since": one.since.isoformat(), "by": one.by}
            for one in content.switched_off
        ],
        "rollbacks": len(figures.rollbacks),
        "notes": remarks(content, words),
        "journal_head": figures.head,
    }
