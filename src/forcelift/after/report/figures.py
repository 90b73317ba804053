"""What a report says, counted from the audit database and the ledger alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, field

from forcelift.after.validate.checks import percent
from forcelift.audit.readings import ApiCalls, ChunkSpan, FailureGroup
from forcelift.audit.records import Batch, BatchState, ChunkStatus
from forcelift.audit.scope import Scope, batch_scope
from forcelift.audit.undo_records import Rollback
from forcelift.audit.validations import ValidationRow

_LEVELS: Final = (1, 2, 3, 4, 5)
_SUMS: Final = ("sum of ", "average of ")
_MADE: Final = "records made and records in the org"

Place = tuple[str, str]
"""A batch and a table of it."""


class ReportStatus(StrEnum):
    """How a batch, or one of its checks, stands."""

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    DRIFT = "drift"
    OPEN = "not checked"


class TableFigures(Struct, frozen=True, kw_only=True):
    """One table: rows read, records in the org of them, rows accepted, refused by the org, rejected by rules, dropped.

    `target` leaves out what a rollback took back, and has what it kept, and records of rows that were refused after
    they had been loaded.
    """

    table: str
    source: int
    target: int
    success: int
    refused: int
    rejected: int
    duplicate: int
    rolled_back: int
    kept: int

    @property
    def failed(self) -> int:
        """Refused and rejected."""
        return self.refused + self.rejected


class Said(Struct, frozen=True, kw_only=True):
    """Something to say in any language: a key of the report's words, and its figures."""

    key: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Reconciled(Struct, frozen=True, kw_only=True):
    """One level of validation over all tables, by its newest checks."""

    level: int
    status: ReportStatus
    said: tuple[Said, ...]
    taken_at: datetime | None


class Issue(Struct, frozen=True, kw_only=True):
    """Rows that failed for one reason; `fixed` are those that were resolved since."""

    group: FailureGroup
    cause: str
    remedy: str
    fixed: int
    notes: tuple[str, ...] = ()


class Performance(Struct, frozen=True, kw_only=True):
    """Rates in rows per second; the peak is the most that all chunks at work at one time did together.

    `is_at_least` says that a process made API calls which it could not tell of, as it is still at work or was killed.

    `seconds` of a project are those in which a batch was at work, without the pauses between batches.
    """

    began_at: datetime | None
    ended_at: datetime | None
    seconds: float
    average: float
    peak: float
    api_calls: int
    is_at_least: bool = False


class ReportFigures(Struct, frozen=True, kw_only=True):
    """Everything that a report says. `head` is the journal's, to which the figures are bound.

    Attributes:
        batch: The batch; of a project the newest.
        scope: What the report is about; figures of a project count each row once.
    """

    batch: Batch
    status: ReportStatus
    tables: tuple[TableFigures, ...]
    reconciled: tuple[Reconciled, ...]
    checks: tuple[ValidationRow, ...]
    issues: tuple[Issue, ...]
    performance: Performance
    rollbacks: tuple[Rollback, ...]
    roles: tuple[str, ...]
    notes: tuple[str, ...]
    head: str
    made_at: datetime
    scope: Scope

    @property
    def batches(self) -> tuple[Batch, ...]:
        """All batches that the report is about, in the order in which they were begun."""
        return self.scope.batches

    @property
    def total(self) -> TableFigures:
        """All tables together."""
        names = ("source", "target", "success", "refused", "rejected", "duplicate", "rolled_back", "kept")
        return TableFigures(table="TOTAL", **{name: sum(getattr(one, name) for one in self.tables) for name in names})


def figures_of(
    *,
    batch: Batch,
    tables: Sequence[TableFigures],
    statuses: Mapping[ChunkStatus, int],
    validations: Sequence[ValidationRow],
    issues: Sequence[Issue],
    spans: Sequence[ChunkSpan],
    api_calls: Sequence[ApiCalls],
    rollbacks: Sequence[Rollback],
    roles: Sequence[str],
    notes: Sequence[str],
    head: str,
    made_at: datetime,
    scope: Scope | None = None,
    is_ended: bool | None = None,
    senders: Mapping[str, Sequence[str]] | None = None,
) -> ReportFigures:
    """Put the figures together.

    Args:
        batch: The batch; of a project the newest.
        statuses: Chunks by status.
        validations: All checks that were ever made of the batches; the newest of each counts.
        spans: When each chunk that counts was worked on, and its rows.
        scope: What the figures are about; the batch alone if None.
        is_ended: Of a project, whether no chunk is left that has not ended.
        senders: Of a project, by table the batches that have sent it.
    """
    scope = scope or batch_scope(batch)
    newest = _newest(validations)
    if senders is None:
        places: list[Place] = [(batch.batch_id, one.table) for one in tables]
    else:
        places = [(batch_id, table) for table, batch_ids in senders.items() for batch_id in batch_ids]
    changed_at = _changed_at(spans, rollbacks, [table for _, table in places], is_project=scope.is_project)
    reconciled = tuple(
        _reconcile(level, [one for one in newest if one.level == level], places, changed_at) for level in _LEVELS
    )
    if is_ended is None:
        is_ended = batch.state is BatchState.DONE and not statuses.get(ChunkStatus.FAILED)
    return ReportFigures(
        batch=batch,
        scope=scope,
        status=_status(tables, reconciled, is_ended=is_ended),
        tables=tuple(tables),
        reconciled=reconciled,
        checks=tuple(newest),
        issues=tuple(issues),
        performance=_performance(spans, api_calls, is_project=scope.is_project),
        rollbacks=tuple(rollbacks),
        roles=tuple(roles),
        notes=tuple(notes),
        head=head,
        made_at=made_at,
    )


def _newest(validations: Sequence[ValidationRow]) -> list[ValidationRow]:
    """Of each batch, table and level the checks of its newest validation, which may be fewer than an earlier one's."""
    last: dict[tuple[str, str | None, int], datetime] = {}
    for one in validations:
        place = one.batch_id, one.table_name, one.level
        last[place] = max(one.taken_at, last.get(place, one.taken_at))
    return [one for one in validations if one.taken_at == last[one.batch_id, one.table_name, one.level]]


def _status(tables: Sequence[TableFigures], reconciled: Sequence[Reconciled], *, is_ended: bool) -> ReportStatus:
    if not is_ended:
        return ReportStatus.FAILED
    is_different = any(one.status is ReportStatus.FAIL for one in reconciled)
    if is_different or any(one.failed or one.rolled_back for one in tables):
        return ReportStatus.PARTIAL
    return ReportStatus.SUCCESS


def _changed_at(
    spans: Sequence[ChunkSpan], rollbacks: Sequence[Rollback], tables: Sequence[str], *, is_project: bool
) -> dict[str, datetime]:
    """When each table's records were changed last: what was validated before that says nothing of what is there now.

    A batch is looked at as a whole. A project's batches may lie far apart, and a table counts by its own changes.
    """
    found: dict[str, datetime] = {}
    undone = [(tuple(one.scope.get("tables") or ()), one.ended_at or one.began_at) for one in rollbacks]
    for table in tables:
        ends = [one.changed_at or one.ended_at for one in spans if not is_project or one.table_name == table]
        ends += [at for names, at in undone if not is_project or not names or table in names]
        if ends:
            found[table] = max(ends)
    return found


def _reconcile(
    level: int, checks: Sequence[ValidationRow], places: Sequence[Place], changed_at: Mapping[str, datetime]
) -> Reconciled:
    words = [str(one.details["status"]) for one in checks]
    told = [word for word in words if word != "not_checked"]
    taken_at = max((one.taken_at for one in checks), default=None)
    if not told:
        reason = next((str(one.details["reason"]) for one in checks if one.details.get("reason")), None)
        said = Said(key="not_validated_yet") if reason is None else Said(key="as_told", figures={"text": reason})
        return Reconciled(level=level, status=ReportStatus.OPEN, said=(said,), taken_at=taken_at)
    status = ReportStatus.PASS
    if "failed" in told:
        status = ReportStatus.FAIL
    elif "drift" in told:
        status = ReportStatus.DRIFT
    said_all = [_details(level, checks)]
    looked_at = {(one.batch_id, one.table_name) for one in checks}
    if left_out := [place for place in places if place not in looked_at]:
        said_all.append(Said(key="not_validated", figures={"tables": ", ".join(_named(left_out, places))}))
        # What was not looked at is never passed.
        status = ReportStatus.OPEN if status is ReportStatus.PASS else status
    late = [one.taken_at for one in checks if one.taken_at < changed_at.get(str(one.table_name), one.taken_at)]
    if late:
        said_all.append(Said(key="out_of_date", figures={"moment": min(late)}))
        status = ReportStatus.OPEN if status is ReportStatus.PASS else status
    return Reconciled(level=level, status=status, said=tuple(said_all), taken_at=taken_at)


def _named(left_out: Sequence[Place], places: Sequence[Place]) -> list[str]:
    """Tables in words; with the batch where several have sent the table."""
    of_table: dict[str, int] = {}
    for _, table in places:
        of_table[table] = of_table.get(table, 0) + 1
    return [table if of_table[table] == 1 else f"{table} of {batch_id}" for batch_id, table in left_out]


def _details(level: int, checks: Sequence[ValidationRow]) -> Said:
    if level == 1:
        # Records of an object are counted for the project as a whole, so that batches of one table say the same.
        pairs = [one.details for one in _newest_of_table(checks) if one.details["check"] == _MADE]
        source, target = _total(pairs, "source"), _total(pairs, "target")
        if not source and not target:
            return Said(key="count_none")
        return Said(key="count_match", figures={"percent": percent(min(source, target), max(source, target))})
    if level == 2:
        sums = [one.details for one in checks if str(one.details["check"]).startswith(_SUMS)]
        different = sum(1 for one in sums if one["status"] == "failed")
        shares = [_variance(one) for one in sums]
        widest = max((share for share in shares if share is not None), default=Decimal(0))
        agree = len(sums) - different
        return Said(key="sum_match", figures={"agree": agree, "sums": len(sums), "widest": f"{widest:f}"})
    if level == 3:
        pairs = [one.details for one in checks if one.details["check"] == "sampled records"]
        source, target = _total(pairs, "source"), _total(pairs, "target")
        return Said(key="sample_match", figures={"found": target, "sampled": source})
    if level == 5:
        pairs = [one.details for one in checks if one.details["check"] == "records"]
        source, target = _total(pairs, "source"), _total(pairs, "target")
        share = percent(min(source, target), source)
        return Said(key="proof_match", figures={"percent": share, "records": source})
    passed = sum(1 for one in checks if one.passed)
    return Said(key="rules_hold", figures={"held": passed, "rules": sum(1 for one in checks if one.passed is not None)})


def _newest_of_table(checks: Sequence[ValidationRow]) -> list[ValidationRow]:
    """Of each table the checks of the batch that was validated last."""
    last = {one.table_name: one.batch_id for one in sorted(checks, key=lambda one: one.taken_at)}
    return [one for one in checks if last[one.table_name] == one.batch_id]


def _total(details: Sequence[Mapping[str, Any]], side: str) -> int:
    return sum(int(Decimal(str(one[side]))) for one in details if one.get(side) is not None)


def _variance(details: Mapping[str, Any]) -> Decimal | None:
    """Percent, rounded up to four decimals: a variance is never said to be less than it is."""
    if details.get("source") is None or details.get("target") is None:
        return None
    source, target = Decimal(str(details["source"])), Decimal(str(details["target"]))
    if source == target:
        return Decimal(0)
    share = abs(source - target) * 100 / abs(source) if source else Decimal(100)
    return share.quantize(Decimal("0.0001"), rounding="ROUND_UP")


def _performance(
    spans: Sequence[ChunkSpan],
    api_calls: Sequence[ApiCalls],
    *,
    is_project: bool,
) -> Performance:
    began_at = min((one.began_at for one in spans), default=None)
    ended_at = max((one.ended_at for one in spans), default=None)
    by_batch: dict[str, list[ChunkSpan]] = {}
    for one in spans:
        by_batch.setdefault(one.batch_id if is_project else "", []).append(one)
    seconds = _together(
        (min(one.began_at for one in mine), max(one.ended_at for one in mine)) for mine in by_batch.values()
    )
    rows = sum(one.rows for one in spans)
    return Performance(
        began_at=began_at,
        ended_at=ended_at,
        seconds=seconds,
        average=rows / seconds if seconds > 0 else 0.0,
        peak=_peak(spans),
        api_calls=sum(one.calls for one in api_calls),
        is_at_least=not all(one.is_whole for one in api_calls),
    )


def merged(times: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """In order and without overlaps."""
    found: list[tuple[datetime, datetime]] = []
    for began, ended in sorted(times):
        if found and began <= found[-1][1]:
            found[-1] = found[-1][0], max(ended, found[-1][1])
        else:
            found.append((began, ended))
    return found


def _together(times: Iterable[tuple[datetime, datetime]]) -> float:
    """Seconds in which at least one of these was under way."""
    return sum((ended - began).total_seconds() for began, ended in merged(times))


def _peak(spans: Sequence[ChunkSpan]) -> float:
    """The most rows per second of all chunks at work at one time, each taken as even from its beginning to its end."""
    steps: list[tuple[datetime, float]] = []
    for one in spans:
        seconds = (one.ended_at - one.began_at).total_seconds()
        if seconds > 0:
            steps += [(one.began_at, one.rows / seconds), (one.ended_at, -one.rows / seconds)]
    now = most = 0.0
    for _, change in sorted(steps):  # at one instant ends come before beginnings
        now += change
        most = max(most, now)
    return most
