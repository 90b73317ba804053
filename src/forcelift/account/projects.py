"""What became of a project's rows over all of its batches: each row once, by the newest word on it.

Reads:  the audit database and, of tables that several batches have sent, the ledger.
Writes: nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field, to_builtins
from msgspec.structs import asdict

from forcelift.account.remedies import remedy_of
from forcelift.account.summary import BatchSummary, RefusedGroup, TableSummary, summarise
from forcelift.audit import AuditStore
from forcelift.audit.project_words import JobPlace
from forcelift.audit.records import FOLDS_KEYS, Batch, BatchState, BatchTable, Chunk, ChunkStatus
from forcelift.audit.scope import Scope
from forcelift.ledger import LedgerCounts
from forcelift.ledger.newest import NewestRefusals, WordFile, count_newest, newest_refusals, resolved_schema

if TYPE_CHECKING:
    import pyarrow as pa

_RESOLVED_ROWS = 20_000  # at once in memory

OPEN_STATUSES = frozenset({ChunkStatus.PENDING, ChunkStatus.RUNNING, ChunkStatus.FAILED, ChunkStatus.SKIPPED})
"""Of chunks that have not ended."""


class ProjectTable(Struct, frozen=True, kw_only=True):
    """One table's rows over all batches that sent it, each counted once.

    Attributes:
        batches: Ids of the batches that have the table, in the order in which they were begun.
        chunks_by_status: Of all of them; a chunk that was rolled back and loaded anew counts by its newest row.
        open_chunks: Chunks that have not ended, of which no later batch has read the whole table since.
        created, updated: Rows accepted; records that the project made, and that it found.
        in_org: Records in the org by the ledgers, also of rows that a later batch had refused.
        refused_by_code: Rows refused by their newest word.
        refusals: Of a table that several batches sent, also what later batches mended; empty for one batch.
    """

    table: str
    object: str
    batches: tuple[str, ...]
    chunks: int
    chunks_by_status: dict[str, int]
    open_chunks: int
    source: int
    created: int
    updated: int
    failed: int
    rejected: int
    duplicate: int
    unknown: int
    rolled_back: int
    kept: int
    in_org: int
    refused_by_code: tuple[RefusedGroup, ...]
    refusals: tuple[NewestRefusals, ...] = ()


class ProjectSummary(Struct, frozen=True, kw_only=True):
    """All batches of a project, table by table. `is_ended` tells whether no chunk is left that nobody has made up for.

    `batches` are the summaries of its batches, with the tables that only they have sent.
    """

    scope: Scope
    tables: tuple[ProjectTable, ...]
    batches: tuple[BatchSummary, ...]
    samples: dict[str, str] = field(default_factory=dict)

    @property
    def is_ended(self) -> bool:
        # The state of a batch does not tell: a rollback leaves it stopped, with all its chunks ended.
        return bool(self.tables) and not any(table.open_chunks for table in self.tables)

    @property
    def refused(self) -> int:
        """Rows refused by the org or by rules, by their newest word."""
        return sum(table.failed + table.rejected for table in self.tables)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know of the counts, and what the batches tell."""
        found = [f"batch `{one.batch.batch_id}`: {note}" for one in self.batches for note in dict.fromkeys(one.notes)]
        found += [
            f"batch `{batch_id}`: a sample of {percent} % of each table's keys, with all their parents"
            for batch_id, percent in self.samples.items()
        ]
        found += [
            f"`{table.table}`: {table.open_chunks:,} chunks have not ended; their rows are counted only where another "
            "batch has sent them"
            for table in self.tables
            if table.open_chunks
        ]
        if self.scope.other_orgs:
            others = ", ".join(f"`{batch.batch_id}`" for batch in self.scope.other_orgs)
            found.append(f"left out, as they went into other orgs: {others}")
        return tuple(found)

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "project": self.scope.project,
            "org_id": self.scope.org_id,
            "ended": self.is_ended,
            "batches": [
                {
                    "batch_id": one.batch.batch_id,
                    "mode": one.batch.mode.value,
                    "sample_percent": self.samples.get(one.batch.batch_id),
                    "state": one.batch.state.value,
                    "started_at": one.batch.started_at.isoformat(),
                    "ended_at": one.batch.ended_at.isoformat() if one.batch.ended_at else None,
                    "jobs": one.jobs,
                }
                for one in self.batches
            ],
            "other_orgs": [batch.batch_id for batch in self.scope.other_orgs],
            "tables": [
                {name: value for name, value in to_builtins(table).items() if name != "refusals"}
                for table in self.tables
            ],
            "notes": list(self.notes),
        }


def summarise_project(audit: AuditStore, ledger: LedgerCounts, scope: Scope) -> ProjectSummary:
    """Count a project. Of a table that one batch alone has sent, its own sums are taken; the ledger is not read again.

    Raises:
        StorageError: A ledger file is missing.
    """
    senders: dict[str, list[tuple[Batch, BatchTable]]] = {}
    for batch in scope.batches:
        for table in audit.tables(batch.batch_id):
            senders.setdefault(table.table_name, []).append((batch, table))
    samples = audit.sample_percents(list(scope.batch_ids))
    alone = {name: found[0][0].batch_id for name, found in senders.items() if len(found) == 1}
    summaries = {
        batch.batch_id: summarise(
            audit, ledger, batch, only={name for name, batch_id in alone.items() if batch_id == batch.batch_id}
        )
        for batch in scope.batches
    }
    places = audit.job_places(scope.batch_ids) if len(alone) < len(senders) else []
    tables = []
    for name, found in senders.items():
        if name in alone:
            (mine,) = (one for one in summaries[alone[name]].tables if one.table == name)
            tables.append(_of_one(found[0][0], mine))
        else:
            tables.append(_of_several(audit, ledger, found, places, samples))
    return ProjectSummary(scope=scope, tables=tuple(tables), batches=tuple(summaries.values()), samples=dict(samples))


def _uncut(batch: Batch, chunks: int) -> int:
    """A table that a batch has not come to cut into chunks counts as one that has not ended."""
    return int(not chunks and batch.state is not BatchState.DONE)


def _of_one(batch: Batch, mine: TableSummary) -> ProjectTable:
    return ProjectTable(
        table=mine.table,
        object=mine.object,
        batches=(batch.batch_id,),
        chunks=mine.chunks,
        chunks_by_status=mine.chunks_by_status,
        open_chunks=sum(
            chunks for status, chunks in mine.chunks_by_status.items() if ChunkStatus(status) in OPEN_STATUSES
        )
        + _uncut(batch, mine.chunks),
        source=mine.source,
        created=mine.created,
        updated=mine.updated,
        failed=mine.failed,
        rejected=mine.rejected,
        duplicate=mine.duplicate,
        unknown=mine.unknown,
        rolled_back=mine.rolled_back,
        kept=mine.kept,
        in_org=mine.created + mine.updated + mine.kept + mine.failed_in_org,
        refused_by_code=mine.refused_by_code,
    )


def _of_several(
    audit: AuditStore,
    ledger: LedgerCounts,
    senders: Sequence[tuple[Batch, BatchTable]],
    places: Sequence[JobPlace],
    samples: dict[str, str],
) -> ProjectTable:
    name = senders[0][1].table_name
    by_status: dict[str, int] = {}
    files: list[WordFile] = []
    open_chunks: dict[str, int] = {}
    readings = {batch.batch_id: _reading(audit, batch.batch_id, name) for batch, _ in senders}
    firsts: dict[int, int] = {}
    for one in places:
        firsts.setdefault(one.audit_id, one.place)
    intended = [one.intended_at for one in places]
    has_refused = False
    # All of them went into one org, so what one batch has noted of the field holds for the others.
    folds = any(table.info.get(FOLDS_KEYS, False) for _, table in senders)
    for number, (batch, _) in enumerate(senders):
        every = audit.chunks(batch.batch_id, name, with_superseded=True)
        current = [chunk for chunk in every if not chunk.superseded]
        for chunk in current:
            by_status[chunk.status.value] = by_status.get(chunk.status.value, 0) + 1
        open_chunks[batch.batch_id] = sum(chunk.status in OPEN_STATUSES for chunk in current) + _uncut(
            batch, len(current)
        )
        for chunk in _telling(every):
            assert chunk.ledger_file is not None
            has_refused |= bool(chunk.failed_count or chunk.staged is None or chunk.staged.rejected)
            files.append(
                WordFile(
                    name=chunk.ledger_file,
                    batch=number,
                    place=firsts.get(chunk.audit_id, _place_at(intended, chunk.start_time)),
                    reading=readings[batch.batch_id],
                    undone=chunk.status is ChunkStatus.ROLLED_BACK,
                    folds=folds,
                )
            )
    jobs = [(one.job_no, one.place) for one in places]
    counts = count_newest(ledger, files, jobs)
    resolved = _resolved(audit, [batch.batch_id for batch, _ in senders], name)
    refusals = newest_refusals(ledger, files, jobs, resolved) if has_refused or resolved is not None else []
    return ProjectTable(
        table=name,
        object=senders[-1][1].object,
        batches=tuple(batch.batch_id for batch, _ in senders),
        chunks=sum(by_status.values()),
        chunks_by_status=by_status,
        open_chunks=_not_made_up(senders, open_chunks, readings, samples),
        **asdict(counts),
        refused_by_code=_by_code(refusals),
        refusals=tuple(refusals),
    )


def _resolved(audit: AuditStore, batch_ids: Sequence[str], table: str) -> pa.RecordBatchReader | None:
    """Refused rows of a table that a retry or a person has resolved, as `RESOLVED` has them; None if there are none."""
    rows = (
        (key, code, fields, message, None if by_retry else number)
        for number, batch_id in enumerate(batch_ids)
        for key, code, fields, message, by_retry in audit.resolved_rows(batch_id, table)
    )
    first = next(rows, None)
    if first is None:
        return None
    import pyarrow as pa  # who only counts does without it

    schema = resolved_schema()

    def parts() -> Iterator[pa.RecordBatch]:
        every = chain([first], rows)
        while part := list(islice(every, _RESOLVED_ROWS)):
            columns = zip(zip(*part, strict=True), schema.types, strict=True)
            yield pa.record_batch([pa.array(values, kind) for values, kind in columns], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, parts())


def _telling(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Of each chunk the row whose ledger counts: the newest that has one.

    While a chunk that was rolled back is loaded anew, its earlier row tells what stands.
    """
    found: dict[int, Chunk] = {}
    for chunk in sorted(chunks, key=lambda one: (one.superseded == 0, one.superseded)):
        if chunk.ledger_file is not None:
            found[chunk.chunk_no] = chunk
    return list(found.values())


def _place_at(intended: Sequence[datetime], moment: datetime | None) -> int:
    """Where a chunk that sent nothing stands among the jobs: after those that were intended before it began."""
    return bisect_right(intended, moment) if moment is not None else 0


def _reading(audit: AuditStore, batch_id: str, table: str) -> str:
    """What the batch's plan reads of the table."""
    tables = audit.plan_document(batch_id).get("tables") or ()
    return next((str(one.get("where") or "") for one in tables if one.get("table") == table), "")


def _not_made_up(
    senders: Sequence[tuple[Batch, BatchTable]],
    open_chunks: dict[str, int],
    readings: dict[str, str],
    samples: dict[str, str],
) -> int:
    """Chunks that have not ended, unless a later batch has read all that theirs was to read, and has ended."""
    whole = [
        batch.state is BatchState.DONE and not open_chunks[batch.batch_id] and batch.batch_id not in samples
        for batch, _ in senders
    ]
    return sum(
        open_chunks[batch.batch_id]
        for number, (batch, _) in enumerate(senders)
        if not _is_read_again(number, senders, whole, readings)
    )


def _is_read_again(
    number: int, senders: Sequence[tuple[Batch, BatchTable]], whole: Sequence[bool], readings: dict[str, str]
) -> bool:
    """Whether a later batch has read the table by the same `where`, wholly."""
    mine = readings[senders[number][0].batch_id]
    return any(
        whole[later] and readings[senders[later][0].batch_id] == mine for later in range(number + 1, len(senders))
    )


def tables_read_again(audit: AuditStore, scope: Scope) -> dict[str, frozenset[str]]:
    """By batch the tables that a later batch has read again, by the same `where` and to the end."""
    senders: dict[str, list[tuple[Batch, BatchTable]]] = {}
    for batch in scope.batches:
        for table in audit.tables(batch.batch_id):
            senders.setdefault(table.table_name, []).append((batch, table))
    samples = audit.sample_percents(list(scope.batch_ids))
    found: dict[str, set[str]] = {batch_id: set() for batch_id in scope.batch_ids}
    for name, mine in senders.items():
        if len(mine) < 2:
            continue
        readings = {batch.batch_id: _reading(audit, batch.batch_id, name) for batch, _ in mine}
        whole = [
            batch.state is BatchState.DONE
            and batch.batch_id not in samples
            and not any(chunk.status in OPEN_STATUSES for chunk in audit.chunks(batch.batch_id, name))
            for batch, _ in mine
        ]
        for number, (batch, _) in enumerate(mine):
            if _is_read_again(number, mine, whole, readings):
                found[batch.batch_id].add(name)
    return {batch_id: frozenset(names) for batch_id, names in found.items()}


def _by_code(refusals: Sequence[NewestRefusals]) -> tuple[RefusedGroup, ...]:
    rows: dict[str, int] = {}
    examples: dict[str, str] = {}
    for one in refusals:
        if one.rows:
            rows[one.code] = rows.get(one.code, 0) + one.rows
            examples.setdefault(one.code, one.message)
    return tuple(
        RefusedGroup(code=code, rows=count, example=examples[code], remedy=remedy_of(code, examples[code]))
        for code, count in sorted(rows.items(), key=lambda one: (-one[1], one[0]))
    )
