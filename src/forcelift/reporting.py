"""The final report of a batch.

Reads:   the plan file, audit database and ledger: neither source nor org.
Writes:  the file that is asked for, and its digest in the journal.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from forcelift.after.report import Issue, ReportFigures, figures_of, markdown
from forcelift.after.report.figures import TableFigures
from forcelift.audit.readings import FailureGroup
from forcelift.audit.records import ChunkStatus
from forcelift.errors import StateConflict, StorageError
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.recorded import find_batch, open_recorded, owner
from forcelift.remedies import remedy_of
from forcelift.state import State
from forcelift.summary import NO_IMAGES, BatchSummary, summarise


def report_batch(plan_file: str | Path, batch_id: str | None = None, *, clock: Clock | None = None) -> ReportFigures:
    """Count what a report says of a batch, by default the plan's newest.

    Raises:
        StateConflict: There is no such batch, or it was a dry run, of which there is nothing to report.
    """
    clock = clock or SystemClock()
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        summary = summarise(state.audit, state.counted, batch)
        if summary.is_dry_run:
            raise StateConflict(
                f"batch `{batch.batch_id}` was a dry run: nothing of it is in the org",
                state="nothing was written",
                hint="name a batch that was loaded; `forcelift status` lists them",
            )
        statuses: dict[ChunkStatus, int] = {}
        for table in summary.tables:
            for status, chunks in table.chunks_by_status.items():
                statuses[ChunkStatus(status)] = statuses.get(ChunkStatus(status), 0) + chunks
        audit = state.audit
        return figures_of(
            batch=batch,
            tables=_tables(summary),
            statuses=statuses,
            validations=audit.validations(batch.batch_id),
            issues=[_issue(state, batch.batch_id, group) for group in audit.failure_groups(batch.batch_id)],
            spans=audit.chunk_spans(batch.batch_id),
            api_calls=audit.api_calls_used(batch.batch_id),
            rollbacks=audit.rollbacks(batch.batch_id),
            roles=loaded.plan.roles.sign_off,
            notes=_notes(summary),
            head=audit.journal_head().hash,
            made_at=clock.now(),
        )


def write_report(report: ReportFigures, plan_file: str | Path, out: Path, *, clock: Clock | None = None) -> str:
    """Write the page, and its SHA-256 into the journal. Returns that digest.

    Raises:
        StateConflict: The file is there.
        StorageError: It cannot be written.
    """
    content = markdown(report).encode()
    digest = hashlib.sha256(content).hexdigest()
    try:
        with out.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise StateConflict(f"`{out}` exists", state="it was not changed", hint="name another by `--out`") from None
    except OSError as error:
        raise StorageError(f"`{out}` cannot be written: {error.strerror}", state="no report was written") from error
    with open_recorded(plan_file, clock=clock or SystemClock()) as (_, state):
        payload = {"format": "markdown", "sha256": digest, "status": report.status.value, "by": owner()}
        state.audit.journal("report_made", payload, batch_id=report.batch.batch_id)
    return digest


def _tables(summary: BatchSummary) -> list[TableFigures]:
    return [
        TableFigures(
            table=table.table,
            source=table.source,
            target=table.created + table.updated + table.kept,
            success=table.created + table.updated + table.rolled_back + table.kept,
            refused=table.failed,
            rejected=table.rejected,
            duplicate=table.duplicate,
            rolled_back=table.rolled_back,
            kept=table.kept,
        )
        for table in summary.tables
    ]


def _notes(summary: BatchSummary) -> list[str]:
    found = list(summary.notes)
    if summary.sample_percent is not None:
        found.append(f"a sample of {summary.sample_percent} % of each table's keys, with all their parents")
    if not summary.before_images:
        found.append(NO_IMAGES)
    if summary.other_snapshots:
        found.append(f"{summary.other_snapshots:,} chunks were read from another state of the source than the batch's")
    return found


def _issue(state: State, batch_id: str, group: FailureGroup) -> Issue:
    fixed, notes = state.audit.resolved(batch_id, group)
    where = f" ({group.fields})" if group.fields else ""
    return Issue(
        group=group,
        cause=f"{group.message or group.code}{where}",
        remedy=remedy_of(group.code, group.message),
        fixed=fixed,
        notes=tuple(notes),
    )
