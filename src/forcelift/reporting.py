"""The final report of a batch.

Reads:   the plan file, audit database and ledger: neither source nor org.
Writes:  the file that is asked for, and its digest in the journal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from forcelift.after.report import Content, Issue, Said, Words, figures_of, html_page, markdown, pdf_page
from forcelift.after.report.curves import QuotaUse, curves, quota_use
from forcelift.after.report.figures import TableFigures
from forcelift.after.report.steps import step_shares
from forcelift.audit.notes import StoredNote
from forcelift.audit.readings import FailureGroup
from forcelift.audit.records import Batch, ChunkStatus
from forcelift.before.estimate import BATCHES_PER_DAY
from forcelift.errors import StateConflict, StorageError, UsageError
from forcelift.plan.models import Limits
from forcelift.protocols.clock import Clock, SystemClock
from forcelift.recorded import find_batch, open_recorded, owner
from forcelift.remedies import remedy_of
from forcelift.state import State
from forcelift.summary import NO_IMAGES, BatchSummary, summarise

FORMS: Final = {".md": "markdown", ".html": "html", ".pdf": "pdf"}
"""The forms of a report by the extension of its file."""

NOTE_BYTES: Final = 4000
NAME_BYTES: Final = 255
_UNCHANGED: Final = "nothing was changed"


def report_batch(plan_file: str | Path, batch_id: str | None = None, *, clock: Clock | None = None) -> Content:
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
        notes = audit.notes([batch.batch_id])
        figures = figures_of(
            batch=batch,
            tables=_tables(summary),
            statuses=statuses,
            validations=audit.validations(batch.batch_id),
            issues=[_issue(state, batch.batch_id, group, notes) for group in audit.failure_groups(batch.batch_id)],
            spans=(spans := audit.chunk_spans(batch.batch_id)),
            api_calls=audit.api_calls_used(batch.batch_id),
            rollbacks=audit.rollbacks(batch.batch_id),
            roles=loaded.plan.roles.sign_off,
            notes=[note for note in summary.notes if note != NO_IMAGES],
            head=audit.journal_head().hash,
            made_at=clock.now(),
        )
        speed = figures.performance
        return Content(
            figures=figures,
            steps=step_shares(
                audit.step_events([batch.batch_id]),
                audit.work_times([batch.batch_id]),
                speed.began_at,
                speed.ended_at,
            ),
            curves=curves(spans),
            quota=_quota(state, batch, speed.began_at, speed.ended_at),
            remarks=tuple(_remarks(summary)),
            switched_off=tuple(one.name for one in audit.open_states(batch.org_id)),
        )


def write_report(
    report: Content,
    plan_file: str | Path,
    out: Path,
    *,
    form: str | None = None,
    words: Words | None = None,
    clock: Clock | None = None,
) -> str:
    """Write the report in the form that the file's extension names, and its SHA-256 into the journal.

    Args:
        report: What it says.
        plan_file: Whose audit database is told of it.
        out: Where to.
        form: `markdown`, `html` or `pdf`; as the file's extension says if left out.
        words: Its language; English if left out.

    Returns:
        The digest.

    Raises:
        UsageError: The extension is none of these, or what makes PDF is not installed.
        StateConflict: The file is there.
        StorageError: It cannot be written.
    """
    words = words or Words()
    form = form or form_of(out)
    content = _rendered(report, form, words)
    digest = hashlib.sha256(content).hexdigest()
    try:
        with out.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise _exists(out) from None
    except OSError as error:
        raise StorageError(f"`{out}` cannot be written: {error.strerror}", state="no report was written") from error
    with open_recorded(plan_file, clock=clock or SystemClock()) as (_, state):
        payload = {
            "format": form,
            "language": words.language.value,
            "sha256": digest,
            "status": report.figures.status.value,
            "by": owner(),
        }
        state.audit.journal("report_made", payload, batch_id=report.figures.batch.batch_id)
    return digest


def form_of(out: Path) -> str:
    """The form that a file's extension names: `markdown`, `html` or `pdf`."""
    form = FORMS.get(out.suffix.lower())
    if form is None:
        raise UsageError(
            f"`{out.name}` names no form of the report",
            state="nothing was written",
            hint=f"let it end in {', '.join(FORMS)}; `--json` prints the figures",
        )
    return form


def check_files(files: Sequence[tuple[Path, str | None]]) -> None:
    """Find out before anything is counted what could not be written: a form that is none, or a file that is there.

    Raises:
        UsageError: An extension names no form, or a file is named twice.
        StateConflict: A file is there.
    """
    for out, form in files:
        if form is None:
            form_of(out)
        if out.exists():
            raise _exists(out)
    if len({out for out, _ in files}) < len(files):
        raise UsageError("a file is named twice", state="nothing was written", hint="name each file once")


def _exists(out: Path) -> StateConflict:
    return StateConflict(f"`{out}` exists", state="it was not changed", hint="name another by `--out`")


def _rendered(report: Content, form: str, words: Words) -> bytes:
    if form == "html":
        return html_page(report, words).encode()
    if form == "pdf":
        return pdf_page(report, words)
    return markdown(report, words).encode()


def _quota(state: State, batch: Batch, began: datetime | None, ended: datetime | None) -> QuotaUse | None:
    if began is None or ended is None:
        return None
    hours = state.audit.reserved_hours(batch.org_id, began, ended)
    limits = state.audit.plan_document(batch.batch_id).get("limits") or {}
    rows_allowed = int(limits.get("rows_per_day") or Limits().rows_per_day)
    return quota_use(hours, rows_allowed=rows_allowed, batches_allowed=BATCHES_PER_DAY) if hours else None


def add_note(
    plan_file: str | Path,
    batch_id: str | None,
    *,
    code: str,
    table: str | None,
    cause: str | None,
    resolution: str | None,
    by: str | None,
    clock: Clock | None = None,
) -> StoredNote:
    """Say of an issue of a batch, by default the plan's newest, what caused it and what was done.

    Raises:
        StateConflict: There is no such batch.
        UsageError: Nothing is said or nobody says it, or no row failed so.
    """
    cause, resolution = _said(cause), _said(resolution)
    if cause is None and resolution is None:
        raise UsageError(
            "a note says a cause, a resolution, or both", state=_UNCHANGED, hint="give `--cause` and `--resolution`"
        )
    person = _person(by)
    with open_recorded(plan_file, clock=clock or SystemClock()) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        groups = state.audit.failure_groups(batch.batch_id)
        if not any(one.code == code and table in (one.table_name, None) for one in groups):
            known = ", ".join(sorted({one.code for one in groups if table in (one.table_name, None)}))
            of = f" of table `{table}`" if table is not None else ""
            raise UsageError(
                f"no row{of} of batch `{batch.batch_id}` failed with `{code}`",
                state=_UNCHANGED,
                hint=f"its codes are {known}" if known else "none of its rows failed",
            )
        return state.audit.add_note(
            batch.batch_id, code=code, table_name=table, cause=cause, resolution=resolution, by=person
        )


def notes_of(plan_file: str | Path, batch_id: str | None = None, *, clock: Clock | None = None) -> list[StoredNote]:
    """The notes of a batch that stand, oldest first."""
    with open_recorded(plan_file, clock=clock or SystemClock()) as (loaded, state):
        return state.audit.notes([find_batch(loaded, state, batch_id).batch_id])


def remove_note(
    plan_file: str | Path, batch_id: str | None, note_no: int, *, by: str | None, clock: Clock | None = None
) -> None:
    """Take a note out of the report. Raises `StateConflict` if there is none, `UsageError` if nobody does it."""
    person = _person(by)
    with open_recorded(plan_file, clock=clock or SystemClock()) as (loaded, state):
        state.audit.remove_note(find_batch(loaded, state, batch_id).batch_id, note_no, by=person)


def _said(text: str | None) -> str | None:
    """None for what says nothing; refused if the audit database could not hold it."""
    said = " ".join(text.split()) if text else ""
    if len(said.encode()) > NOTE_BYTES:
        raise UsageError(
            f"a cause or resolution takes at most {NOTE_BYTES:,} bytes", state=_UNCHANGED, hint="make it shorter"
        )
    return said or None


def _person(by: str | None) -> str:
    if not by or not by.strip() or len(by.encode()) > NAME_BYTES:
        raise UsageError("who says so must be named", state=_UNCHANGED, hint=f"give `--by`, at most {NAME_BYTES} bytes")
    return by.strip()


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


def _remarks(summary: BatchSummary) -> Iterator[Said]:
    if summary.sample_percent is not None:
        yield Said(key="note_sample", figures={"percent": summary.sample_percent})
    if not summary.before_images:
        yield Said(key="note_no_images")
    if summary.other_snapshots:
        yield Said(key="note_snapshots", figures={"chunks": summary.other_snapshots})


def _issue(state: State, batch_id: str, group: FailureGroup, stored: Sequence[StoredNote]) -> Issue:
    """A person's note of the table counts before one of all tables, a later one before an earlier one."""
    fixed, notes = state.audit.resolved(batch_id, group)
    mine = [one for one in stored if one.code == group.code and one.table_name in (group.table_name, None)]
    mine.sort(key=lambda one: (one.table_name is not None, one.note_no))
    causes = [one.cause for one in mine if one.cause]
    resolutions = [one.resolution for one in mine if one.resolution]
    where = f" ({group.fields})" if group.fields else ""
    return Issue(
        group=group,
        cause=causes[-1] if causes else f"{group.message or group.code}{where}",
        remedy=remedy_of(group.code, group.message),
        fixed=fixed,
        notes=tuple(resolutions[-1:]) or tuple(notes),
    )
