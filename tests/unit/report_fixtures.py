"""A report with everything in it, and values that try to break out of a page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from forcelift.after.report import Content, Issue, Said, Signed, SwitchedOff, figures_of
from forcelift.after.report.curves import curves, quota_use
from forcelift.after.report.figures import TableFigures
from forcelift.after.report.steps import Step, StepShare, StepShares
from forcelift.audit.readings import ApiCalls, ChunkSpan, FailureGroup
from forcelift.audit.records import Batch, BatchMode, BatchState, ChunkStatus
from forcelift.audit.step_times import ReservedHour
from forcelift.audit.undo_records import Rollback
from forcelift.audit.validations import ValidationRow

NOON = datetime(2024, 1, 15, 12, tzinfo=UTC)
HOSTILE = '"><script>alert(1)</script> | `x` #set page(fill: red) $x$ & \x01 ผู้ป่วย'
ROLES = ("Data Engineer", "DBA", "Business Owner", "QA Lead")


def content(project: str = "KPC TMS Data Migration", **changes: Any) -> Content:
    """The checklist's own figures; `changes` replace parts of the content."""
    batch = Batch(
        batch_id="kpc-1",
        project=project,
        mode=BatchMode.RUN,
        state=BatchState.DONE,
        org_id="00D",
        org_url="twin:",
        source_url="x",
        as_of=NOON,
        snapshot=None,
        plan_sha256="0" * 64,
        plan_revision=1,
        created_by="me",
        started_at=NOON,
    )
    spans = [
        ChunkSpan(began_at=NOON + timedelta(hours=n), ended_at=NOON + timedelta(hours=n + 2), rows=10_689_000)
        for n in range(45)
    ]
    figures = figures_of(
        batch=batch,
        tables=[
            _table("KPS_T_SALES_MD", 261_000_000, refused=4_000, rejected=568),
            _table("KPS_T_SALESPAY_MD", 109_000_000),
            _table(project, 111_000_000),
        ],
        statuses={ChunkStatus.PARTIAL: 1},
        validations=[
            _check(1, "records made and records in the org"),
            _check(3, "sampled records"),
            _check(4, project),
        ],
        issues=[_issue("STRING_TOO_LONG", 4_000, 4_000, project), _issue("REJECTED_TOO_LONG", 568, 0, project)],
        spans=spans,
        api_calls=[ApiCalls(calls=12_847, is_whole=True)],
        rollbacks=[
            Rollback(rollback_no=1, batch_id="kpc-1", scope={}, reason=project, asked_by="me", began_at=NOON, step=9)
        ],
        roles=ROLES,
        notes=[],
        head="ab" * 32,
        made_at=NOON + timedelta(days=3),
    )
    steps = StepShares(
        shares=tuple(
            StepShare(step=step, seconds=number * 1000.0, chunk_seconds=number * 3000.0)
            for number, step in enumerate((Step.SOURCE, Step.CLEANING, Step.NETWORK, Step.ORG, Step.QUOTA), start=1)
        )
    )
    hours = [ReservedHour(hour=NOON, rows=149_000_000, batches=14_900)]
    parts: dict[str, Any] = {
        "figures": figures,
        "steps": steps,
        "curves": curves(spans),
        "quota": quota_use(hours, since=NOON, rows_allowed=150_000_000, batches_allowed=15_000),
        "remarks": (Said(key="note_sample", figures={"percent": "1"}),),
        "switched_off": (
            SwitchedOff(kind="trigger", name=f"Trigger {project}", since=NOON, by="me@host:7"),
            SwitchedOff(kind="validation_rule", name="Rule", since=NOON, by="you@host:8"),
        ),
        "signed": (
            Signed(role="DBA", name=project, at=NOON, note="checked"),
            Signed(role="QA Lead", name="QA", at=NOON, is_stale=True, why_stale="the batch was rolled back"),
        ),
    }
    return Content(**{**parts, **changes})


def _table(name: str, source: int, *, refused: int = 0, rejected: int = 0) -> TableFigures:
    good = source - refused - rejected
    return TableFigures(
        table=name, source=source, target=good, success=good, refused=refused, rejected=rejected, duplicate=0,
        rolled_back=0, kept=0,
    )  # fmt: skip


def _check(level: int, name: str) -> ValidationRow:
    details = {"check": name, "status": "passed", "source": "100", "target": "100", "reason": None}
    return ValidationRow(
        batch_id="kpc-1", table_name="KPS_T_SALES_MD", level=level, check_name=name, passed=True, details=details,
        taken_at=NOON + timedelta(days=2),
    )  # fmt: skip


def _issue(code: str, rows: int, fixed: int, text: str) -> Issue:
    group = FailureGroup(
        table_name="KPS_T_SALES_MD", code=code, fields="Description__c", message=text, rows=rows, record_ids=()
    )
    return Issue(group=group, cause=text, remedy="Cut it.", fixed=fixed, notes=("Cut at 32 kB",) if fixed else ())
