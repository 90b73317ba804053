"""What became of a batch, counted from the audit database and the ledger, never from what the run remembers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct, to_builtins
from msgspec.structs import replace

from forcelift.account.remedies import remedy_of
from forcelift.audit import tables
from forcelift.audit.batches import takes_images
from forcelift.audit.failed_marks import FailedFilter
from forcelift.audit.glances import READ_BACK
from forcelift.audit.reader import AuditReader
from forcelift.audit.records import Batch, BatchMode, Chunk
from forcelift.errors import ExitCode, ForceliftError
from forcelift.jobs.staged_files import LEFT, REMOVED
from forcelift.ledger import LedgerCounts

NO_IMAGES = "no before-images are taken: a rollback could not put back the records that this batch changes"

# Of one job: create, upload, close and what it accepted. The files of refused and unprocessed rows are fetched only
# while rows are unaccounted, and asking for states is one call for all open jobs.
API_CALLS_PER_JOB = 4
_PLACES_SHOWN = 5


class RefusedGroup(Struct, frozen=True, kw_only=True):
    """Rows refused for one reason, with what to do about it."""

    code: str
    rows: int
    example: str
    remedy: str


class TableSummary(Struct, frozen=True, kw_only=True):
    """One table's rows. `sent` have an answer of the org; rates are rows per second of the chunks' own time.

    `to_send` passed the rules; they fill `upload_files` of `upload_bytes` in all, each a job, links not counted in.
    `sample_of` is None where all rows are taken; else the rows of the table within `where` that the sample is of.
    Of the `sample_rows` that it takes `sample_by_key` were drawn by their own key, the others as parents of rows drawn.
    `changes` counts values that a rule changed or doubted, by `rule:column`, of rows that were not rejected.
    """

    table: str
    object: str
    chunks: int
    chunks_by_status: dict[str, int]
    source: int
    extracted: int
    rejected: int
    duplicate: int
    to_send: int
    upload_files: int
    upload_bytes: int
    link_chunks: int
    sent: int
    created: int
    updated: int
    failed: int
    failed_in_org: int
    unknown: int
    refused_by_code: tuple[RefusedGroup, ...]
    changes: dict[str, int]
    started_at: datetime | None
    ended_at: datetime | None
    rolled_back: int = 0
    kept: int = 0
    sample_of: int | None = None
    sample_rows: int | None = None
    sample_by_key: int | None = None

    @property
    def seconds(self) -> float:
        if self.started_at is None or self.ended_at is None:
            return 0.0
        return (self.ended_at - self.started_at).total_seconds()

    @property
    def rows_per_second(self) -> float:
        return self.extracted / self.seconds if self.seconds else 0.0


class BatchSummary(Struct, frozen=True, kw_only=True):
    """One batch, table by table.

    `api_calls` is None where this process did not make them, `sample_percent` where the batch takes all rows. `notes`
    say what went wrong beside the rows, such as files that could not be removed. `at_work` names the processes that
    still work on it, and `stop_asked` tells whether an operator asked them all to stop; `other_snapshots` are chunks
    that were read from another state of the source than the batch's.
    """

    batch: Batch
    tables: tuple[TableSummary, ...]
    jobs: int
    api_calls: int | None
    errors: tuple[str, ...]
    sample_percent: str | None = None
    notes: tuple[str, ...] = ()
    at_work: tuple[str, ...] = ()
    stop_asked: bool = False
    other_snapshots: int = 0
    before_images: bool = True
    exit_code: ExitCode = ExitCode.DONE
    first_error: Exception | None = None

    @property
    def refused(self) -> int:
        return sum(table.failed + table.rejected for table in self.tables)

    @property
    def others_go_on(self) -> bool:
        """Whether other processes go on with what this one left: they are at work, and nobody asked all to stop."""
        return bool(self.at_work) and not self.stop_asked

    @property
    def is_dry_run(self) -> bool:
        return self.batch.mode is BatchMode.DRY_RUN

    @property
    def upload_bytes(self) -> int:
        return sum(table.upload_bytes for table in self.tables)

    @property
    def jobs_predicted(self) -> int:
        """Jobs that the staged files take: one a file, and one more for each chunk with links."""
        return sum(table.upload_files + table.link_chunks for table in self.tables)

    @property
    def api_calls_predicted(self) -> int:
        """API calls of those jobs as if none were created with its data: without polling, refused rows, re-sends."""
        return self.jobs_predicted * API_CALLS_PER_JOB

    def with_exit_code(self, code: ExitCode) -> BatchSummary:
        return replace(self, exit_code=code)

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        batch = self.batch
        return {
            "batch_id": batch.batch_id,
            "project": batch.project,
            "mode": batch.mode.value,
            "sample_percent": self.sample_percent,
            "state": batch.state.value,
            "started_at": batch.started_at.isoformat(),
            "ended_at": batch.ended_at.isoformat() if batch.ended_at else None,
            "exit_code": int(self.exit_code),
            "jobs": self.jobs,
            "api_calls": self.api_calls,
            "upload_bytes": self.upload_bytes,
            "jobs_predicted": self.jobs_predicted,
            "api_calls_predicted": self.api_calls_predicted,
            "errors": list(self.errors),
            "notes": list(self.notes),
            "before_images": self.before_images,
            "at_work": list(self.at_work),
            "chunks_of_other_snapshots": self.other_snapshots,
            "tables": [
                {
                    **{
                        name: value
                        for name, value in to_builtins(table, builtin_types=(datetime,)).items()
                        if not isinstance(value, datetime)
                    },
                    "seconds": round(table.seconds, 3),
                    "rows_per_second": round(table.rows_per_second, 1),
                }
                for table in self.tables
            ],
        }


def summarise(
    audit: AuditReader,
    ledger: LedgerCounts,
    batch: Batch,
    *,
    api_calls: int | None = None,
    errors: Sequence[Exception] = (),
    at_work: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> BatchSummary:
    """Count a batch; with `only`, of its tables these alone."""
    chunks = audit.chunks(batch.batch_id)
    # What a retry mended is not refused any more, though its record stays.
    refused = [one for one in audit.failed_counts(batch.batch_id, FailedFilter()) if one.rows > one.mended]
    sealed = audit.sealed_outcomes(batch.batch_id)
    summaries = []
    for table in audit.tables(batch.batch_id):
        if only is not None and table.table_name not in only:
            continue
        mine = [chunk for chunk in chunks if chunk.table_name == table.table_name]
        sample = table.info.get("sample", {})
        files = [chunk.ledger_file for chunk in mine if chunk.ledger_file is not None]
        outcomes = _outcomes(mine, sealed, ledger)
        staged = [chunk.staged for chunk in mine if chunk.staged is not None]
        by_status: dict[str, int] = {}
        changes: dict[str, int] = {}
        for chunk in mine:
            by_status[chunk.status.value] = by_status.get(chunk.status.value, 0) + 1
            for name, rows in chunk.staged.changes.items() if chunk.staged else ():
                changes[name] = changes.get(name, 0) + rows
        starts = [chunk.start_time for chunk in mine if chunk.start_time is not None]
        ends = [chunk.end_time for chunk in mine if chunk.end_time is not None]
        summaries.append(
            TableSummary(
                table=table.table_name,
                object=table.object,
                chunks=len(mine),
                chunks_by_status=by_status,
                source=sum(chunk.source_count or 0 for chunk in mine),
                extracted=sum(chunk.extracted_count or 0 for chunk in mine),
                rejected=sum(part.rejected for part in staged),
                duplicate=sum(part.duplicate for part in staged),
                to_send=sum(part.transformed - part.standing for part in staged),
                upload_files=sum(len(part.parts) for part in staged),
                upload_bytes=sum(file.bytes for part in staged for file in part.parts),
                link_chunks=sum(part.links_file is not None for part in staged),
                sent=sum(outcomes.get(name, 0) for name in ("created", "updated", "failed")),
                created=outcomes.get("created", 0),
                updated=outcomes.get("updated", 0),
                failed=outcomes.get("failed", 0),
                failed_in_org=ledger.failed_with_id(files) if outcomes.get("failed") else 0,
                unknown=outcomes.get("unknown", 0),
                rolled_back=outcomes.get("rolled_back", 0),
                kept=outcomes.get("kept", 0),
                refused_by_code=tuple(
                    RefusedGroup(
                        code=group.code,
                        rows=group.rows - group.mended,
                        example=group.message,
                        remedy=remedy_of(group.code, group.message),
                    )
                    for group in refused
                    if group.table_name == table.table_name
                ),
                changes=changes,
                started_at=min(starts, default=None),
                ended_at=max(ends, default=None),
                sample_of=sample.get("of"),
                sample_rows=sample.get("rows"),
                sample_by_key=sample.get("by_key"),
            )
        )
    return BatchSummary(
        batch=batch,
        tables=tuple(summaries),
        jobs=audit.jobs_made(batch.batch_id),
        api_calls=api_calls,
        at_work=tuple(at_work),
        stop_asked=audit.control(batch.batch_id).stop,
        other_snapshots=sum(
            chunk.staged is not None and chunk.staged.snapshot not in (None, batch.snapshot) for chunk in chunks
        ),
        errors=tuple(
            error.message if isinstance(error, ForceliftError) else f"a fault of the program ({type(error).__name__})"
            for error in errors
        ),
        first_error=errors[0] if errors else None,
        sample_percent=audit.sample_percent(batch.batch_id),
        before_images=(images := takes_images(audit.plan_document(batch.batch_id))),
        notes=(*_notes(audit, batch.batch_id), *(() if images else (NO_IMAGES,))),
    )


def _outcomes(
    chunks: Sequence[Chunk], sealed: Mapping[tuple[str, str], Mapping[str, int]], ledger: LedgerCounts
) -> dict[str, int]:
    """How many rows of these chunks have each outcome, as their ledger files say.

    What was counted when a file was sealed is not counted again: the file is the same as long as it bears that seal.
    """
    found: Counter[str] = Counter()
    uncounted: list[str] = []
    counted: list[str] = []
    for chunk in chunks:
        if chunk.ledger_file is None:
            continue
        known = sealed.get((chunk.ledger_file, chunk.ledger_sha256 or ""))
        (uncounted if known is None else counted).append(chunk.ledger_file)
        found.update(known or {})
    ledger.paths(counted)  # tells of files that are missing
    found.update(ledger.counts(uncounted))
    return dict(found)


def _notes(audit: AuditReader, batch_id: str) -> tuple[str, ...]:
    """What is left on disk although it should be gone; nothing once a later try has removed it."""
    query = (
        sa.select(tables.journal.c.action, tables.journal.c.payload)
        .where(tables.journal.c.batch_id == batch_id, tables.journal.c.action.in_([LEFT, REMOVED]))
        .order_by(tables.journal.c.seq.desc())
        .limit(1)
    )
    with audit.read() as connection:
        row = connection.execute(query).one_or_none()
    left = [] if row is None or row.action == REMOVED else [json.loads(row.payload)["reason"]]
    return (*(f"staged files could not be removed: {reason}" for reason in left), *_read_back(audit, batch_id))


def _read_back(audit: AuditReader, batch_id: str) -> tuple[str, ...]:
    """Chunks whose records were not as they were sent when a few of them were read back."""
    query = (
        sa.select(tables.journal.c.payload)
        .where(tables.journal.c.batch_id == batch_id, tables.journal.c.action == READ_BACK)
        .order_by(tables.journal.c.seq)
    )
    with audit.read() as connection:
        found = [json.loads(payload) for payload in connection.execute(query).scalars()]
    wrong = [one for one in found if one.get("missing") or one.get("differ")]
    if not wrong:
        return ()
    records = sum(one["missing"] + one["differ"] for one in wrong)
    places = ", ".join(f"`{one['table']}` chunk {one['chunk']}" for one in wrong[:_PLACES_SHOWN])
    more = f" and {len(wrong) - _PLACES_SHOWN} more" if len(wrong) > _PLACES_SHOWN else ""
    return (
        f"of the records read back {records} are not as they were sent ({places}{more}); "
        f"`forcelift validate {batch_id} --level 5` names them",
    )
