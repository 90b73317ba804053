"""The final report of a batch, or of a whole project.

Reads:   the plan file, audit database and ledger: neither source nor org.
Writes:  the file that is asked for, and its digest in the journal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from forcelift.account.projects import OPEN_STATUSES, ProjectSummary, summarise_project
from forcelift.account.recorded import find_batch, open_recorded, owner, scope_of
from forcelift.account.remedies import remedy_of
from forcelift.account.signed import AFTER, signoffs_of
from forcelift.account.state import State
from forcelift.account.summary import NO_IMAGES, BatchSummary, summarise
from forcelift.after.report import Content, Issue, Said, SwitchedOff, Words, figures_of, html_page, markdown, pdf_page
from forcelift.after.report.content import Signed
from forcelift.after.report.curves import QuotaUse, curves, quota_use
from forcelift.after.report.figures import ReportFigures, TableFigures
from forcelift.after.report.json_form import json_document
from forcelift.after.report.steps import step_shares, without_pauses
from forcelift.after.report.told import OPEN_CHUNKS
from forcelift.audit.notes import StoredNote
from forcelift.audit.readings import OWN_WORDS, FailureGroup
from forcelift.audit.records import Batch, BatchState, ChunkStatus
from forcelift.audit.scope import Scope
from forcelift.audit.tables import RECORD_ID_BYTES
from forcelift.audit.text import fit_text, short_table_name
from forcelift.before.estimate import BATCHES_PER_DAY
from forcelift.errors import StateConflict, StorageError, UsageError
from forcelift.plan.models import Limits
from forcelift.protocols.clock import Clock, SystemClock

FORMS: Final = {".md": "markdown", ".html": "html", ".pdf": "pdf", ".json": "json"}
"""The forms of a report by the extension of its file."""

NOTE_BYTES: Final = 4000
NAME_BYTES: Final = 255
_UNCHANGED: Final = "nothing was changed"


def report_batch(
    plan_file: str | Path, batch_id: str | None = None, *, project: bool = False, clock: Clock | None = None
) -> Content:
    """Count what a report says of a batch, by default the plan's newest, or with `project` of the plan's whole project.

    Raises:
        StateConflict: There is no such batch, or it was a dry run, of which there is nothing to report.
        UsageError: A batch and the project are both asked for.
    """
    clock = clock or SystemClock()
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        scope = scope_of(loaded, state, batch_id, project=project)
        audit, ids = state.audit, scope.batch_ids
        spans = [span for one in ids for span in audit.chunk_spans(one)]
        common: dict[str, Any] = {
            "batch": scope.newest,
            "scope": scope,
            "validations": [row for one in ids for row in audit.validations(one)],
            "spans": spans,
            "api_calls": [audit.api_calls_used(one) for one in ids],
            "rollbacks": sorted((row for one in ids for row in audit.rollbacks(one)), key=lambda row: row.began_at),
            "roles": loaded.plan.roles.sign_off,
            "head": audit.journal_head().hash,
            "made_at": clock.now(),
        }
        figures, remarks = (_of_project if project else _of_batch)(state, scope, audit.notes(ids), common)
        speed = figures.performance
        steps = step_shares(audit.step_events(ids), audit.work_times(ids), speed.began_at, speed.ended_at)
        return Content(
            figures=figures,
            steps=without_pauses(steps, sum(one.seconds for one in steps.shares) - speed.seconds),
            curves=curves(spans),
            quota=_quota(state, scope.newest, speed.began_at, speed.ended_at),
            remarks=tuple(remarks),
            switched_off=tuple(
                SwitchedOff(kind=one.kind, name=one.name, since=one.off_at or one.taken_at, by=one.taken_by)
                for one in audit.open_states(scope.org_id)
            ),
            signed=_signed(state, scope),
        )


def _of_batch(
    state: State, scope: Scope, notes: Sequence[StoredNote], common: Mapping[str, Any]
) -> tuple[ReportFigures, list[Said]]:
    audit, batch = state.audit, scope.newest
    summary = summarise(audit, state.counted, batch)
    if summary.is_dry_run:
        raise StateConflict(
            f"batch `{batch.batch_id}` was a dry run: nothing of it is in the org",
            state="nothing was written",
            hint="name a batch that was loaded; `forcelift status` lists them",
        )
    figures = figures_of(
        **common,
        tables=_tables(summary),
        statuses=_statuses([table.chunks_by_status for table in summary.tables]),
        issues=[_issue(state, batch.batch_id, group, notes) for group in audit.failure_groups(batch.batch_id)],
        notes=[note for note in summary.notes if note != NO_IMAGES],
    )
    return figures, list(_remarks(summary))


def _of_project(
    state: State, scope: Scope, notes: Sequence[StoredNote], common: Mapping[str, Any]
) -> tuple[ReportFigures, list[Said]]:
    summary = summarise_project(state.audit, state.counted, scope)
    figures = figures_of(
        **common,
        tables=_project_tables(summary),
        statuses=_statuses([table.chunks_by_status for table in summary.tables]),
        issues=_project_issues(state, summary, notes),
        notes=[*summary.notes, *_other_snapshots(summary)],
        is_ended=summary.is_ended,
        senders={table.table: table.batches for table in summary.tables},
    )
    return figures, []


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
        form: `markdown`, `html`, `pdf` or `json`; as the file's extension says if left out.
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
        payload: dict[str, Any] = {
            "format": form,
            "language": words.language.value,
            "sha256": digest,
            "status": report.figures.status.value,
            "by": owner(),
            "file": str(out.resolve()),
            "content": content_sha256(report),
        }
        if (scope := report.figures.scope).is_project:
            payload |= {"project": scope.project, "batches": list(scope.batch_ids)}
        state.audit.journal("report_made", payload, batch_id=report.figures.batch.batch_id)
    return digest


def content_sha256(report: Content) -> str:
    """A digest of what a report says, without when it was made and who has signed: two that say the same have one."""
    figures = replace(report.figures, head="", made_at=report.figures.batch.started_at)
    return hashlib.sha256(repr(replace(report, figures=figures, signed=())).encode()).hexdigest()


def _signed(state: State, scope: Scope) -> tuple[Signed, ...]:
    return tuple(
        Signed(
            role=one.role,
            name=one.name,
            at=one.at,
            note=one.note or None,
            is_stale=one.is_stale,
            why_stale=one.why_stale,
        )
        for one in signoffs_of(state, scope, phase=AFTER)
    )


def form_of(out: Path) -> str:
    """The form that a file's extension names: `markdown`, `html`, `pdf` or `json`."""
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
    if form == "json":
        return f"{json.dumps(json_document(report), ensure_ascii=False, indent=2)}\n".encode()
    if form == "pdf":
        return pdf_page(report, words)
    return markdown(report, words).encode()


def _quota(state: State, batch: Batch, began: datetime | None, ended: datetime | None) -> QuotaUse | None:
    if began is None or ended is None:
        return None
    hours = state.audit.reserved_hours(batch.org_id, began, ended)
    limits = state.audit.plan_document(batch.batch_id).get("limits") or {}
    rows_allowed = int(limits.get("rows_per_day") or Limits().rows_per_day)
    if not hours:
        return None
    return quota_use(hours, since=began, rows_allowed=rows_allowed, batches_allowed=BATCHES_PER_DAY)


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
            target=table.created + table.updated + table.kept + table.failed_in_org,
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
    yield from _open(summary)
    if not summary.before_images:
        yield Said(key="note_no_images")
    if summary.other_snapshots:
        yield Said(key="note_snapshots", figures={"chunks": summary.other_snapshots})


def _open(summary: BatchSummary) -> Iterator[Said]:
    """What is not known yet of a batch that runs, was stopped, or broke off."""
    statuses = _statuses([table.chunks_by_status for table in summary.tables])
    if summary.batch.state is not BatchState.DONE and (
        uncut := [one.table for one in summary.tables if not one.chunks]
    ):
        yield Said(key="note_uncut", figures={"tables": ", ".join(uncut)})
    if not (chunks := sum(statuses.get(status, 0) for status in OPEN_STATUSES)):
        return
    known = sum(one.success + one.failed + one.duplicate for one in _tables(summary))
    rows = max(0, sum(one.source for one in summary.tables) - known)
    yield Said(key=OPEN_CHUNKS, figures={"open": chunks, "chunks": sum(statuses.values()), "rows": rows})


def _project_tables(summary: ProjectSummary) -> list[TableFigures]:
    return [
        TableFigures(
            table=table.table,
            source=table.source,
            target=table.in_org,
            success=table.created + table.updated + table.rolled_back + table.kept,
            refused=table.failed,
            rejected=table.rejected,
            duplicate=table.duplicate,
            rolled_back=table.rolled_back,
            kept=table.kept,
        )
        for table in summary.tables
    ]


def _statuses(by_table: Sequence[Mapping[str, int]]) -> dict[ChunkStatus, int]:
    statuses: dict[ChunkStatus, int] = {}
    for counts in by_table:
        for status, chunks in counts.items():
            statuses[ChunkStatus(status)] = statuses.get(ChunkStatus(status), 0) + chunks
    return statuses


def _project_issues(state: State, summary: ProjectSummary, stored: Sequence[StoredNote]) -> list[Issue]:
    """Why rows were refused. Of a table that several batches sent, a row that a later one loaded counts as fixed."""
    shared = {short_table_name(table.table): table for table in summary.tables if len(table.batches) > 1}
    found: list[Issue] = []
    told: dict[_Reason, list[str]] = {}
    for batch_id in summary.scope.batch_ids:
        for group in state.audit.failure_groups(batch_id):
            if group.table_name not in shared:
                found.append(_issue(state, batch_id, group, stored))
                continue
            _, notes = state.audit.resolved(batch_id, group)
            reason = _reason(group)
            told[reason] = list(dict.fromkeys([*told.get(reason, []), *notes]))
    for name, table in shared.items():
        for refusal in table.refusals:
            group = FailureGroup(
                table_name=name,
                code=refusal.code,
                fields=refusal.fields,
                message=refusal.message,
                rows=refusal.rows + refusal.mended,
                record_ids=tuple(fit_text(key, RECORD_ID_BYTES) or "" for key in refusal.keys),
            )
            found.append(_told(group, refusal.mended + refusal.closed, told.get(_reason(group), []), stored))
    return sorted(found, key=lambda one: (-one.group.rows, one.group.table_name, one.group.code))


_Reason = tuple[str, str, str | None, str | None]


def _reason(group: FailureGroup) -> _Reason:
    """What a group is told by, in one batch as in another."""
    return group.table_name, group.code, group.fields or None, group.message if group.code in OWN_WORDS else None


def _other_snapshots(summary: ProjectSummary) -> list[str]:
    return [
        f"batch `{one.batch.batch_id}`: {one.other_snapshots:,} chunks were read from another state of the source than "
        "the batch's"
        for one in summary.batches
        if one.other_snapshots
    ]


def _issue(state: State, batch_id: str, group: FailureGroup, stored: Sequence[StoredNote]) -> Issue:
    return _told(group, *state.audit.resolved(batch_id, group), stored)


def _told(group: FailureGroup, fixed: int, notes: Sequence[str], stored: Sequence[StoredNote]) -> Issue:
    """A person's note of the table counts before one of all tables, a later one before an earlier one."""
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
