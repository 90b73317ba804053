"""Plan tables, stage chunks, stage links: the handlers that touch the source.

Reads:   the source; the ledger of parents.
Writes:  chunks and duplicate decisions when a table is planned; upload files, staged rows and counts for each chunk.
Re-run:  a chunk without a mark is staged again from the start, over the same names; a marked one is never read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from msgspec import Struct, field
from msgspec.structs import replace

from forcelift.audit import AuditStore
from forcelift.audit.records import FOLDS_KEYS, Batch, BatchMode, BatchTable, Chunk, ChunkStatus, JobKind
from forcelift.audit.shared_work import WorkState
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.parents import ParentIndex
from forcelift.during.extract.record_data import Detail
from forcelift.during.extract.sample_draw import DrawWorld
from forcelift.during.extract.sampled_source import SampledSource
from forcelift.during.extract.snapshots import View
from forcelift.during.extract.stage import ChunkStager
from forcelift.errors import DiskFull, SnapshotLost
from forcelift.jobs.chunk_size import auto_chunk_rows, even_chunk_rows
from forcelift.jobs.messages import ChunkStaged, PlanTable, StageChunk, StageLinks, TablePlanned
from forcelift.jobs.parts import PartWriter
from forcelift.jobs.repeats import find_repeats
from forcelift.jobs.shares import Shares
from forcelift.jobs.standing import standing_rows
from forcelift.jobs.work import StagedNames, TableWork, duplicates_name, staged_names
from forcelift.ledger import Ledger
from forcelift.protocols.clock import Clock
from forcelift.protocols.org import FieldDescribe, Org
from forcelift.protocols.source import ChunkPredicate, ForgetsSnapshot, Predicate, Source
from forcelift.rules import ChunkCleaner, DuplicateDecisions, SamplePercent, frame_of
from forcelift.storage import Storage

SAMPLE_ROWS = 2_000
SPILL_BYTES = 16_000_000
"""Free space below which a failed spill is the disk's fault; DuckDB writes blocks of up to a few MB."""


class ExtractWorld(Struct, frozen=True, kw_only=True):
    """Everything that extraction touches.

    `parent_keys` describes the field that each lookup is compared by; `own_fence` is this runner's on a batch that may
    be shared, else None. `renews_snapshot` lets a chunk be read as it is now once the source has forgotten the batch's
    state.
    """

    batch: Batch
    source: Source
    org: Org
    audit: AuditStore
    storage: Storage
    ledger: Ledger
    clock: Clock
    works: Mapping[str, TableWork]
    positions: Mapping[str, int]
    parent_keys: Mapping[tuple[str, str], FieldDescribe]  # (parent object, key field)
    chunk_rows: int | None  # None: by the sizes of a sample
    batch_rows: int
    readers: int
    memory_mb: int
    record_detail: Detail
    scratch: Path
    pace: Pace
    sample: SamplePercent | None = None  # None: all rows
    own_fence: int | None = None
    shares: Shares = field(default_factory=Shares)
    renews_snapshot: bool = True


class ExtractHandlers:
    """Handlers of the commands that read."""

    def __init__(self, world: ExtractWorld) -> None:
        self._sampled: SampledSource | None = None
        if world.sample is not None and not world.sample.is_whole:
            self._sampled = SampledSource(
                DrawWorld(
                    batch_id=world.batch.batch_id,
                    percent=world.sample,
                    source=world.source,
                    storage=world.storage,
                    works=world.works,
                    chunk_rows=self._chunk_rows,
                    scratch=world.scratch,
                    memory_mb=world.memory_mb,
                    pace=world.pace,
                )
            )
            world = replace(world, source=self._sampled)
        self._world = world
        self._parents: dict[tuple[str, str, str | None, bool], ParentIndex] = {}
        self._duplicates: dict[str, DuplicateDecisions | None] = {}

    def handlers(self) -> dict[type, Callable[[Any], Any]]:
        """Handler by command type."""
        return {PlanTable: self.plan_table, StageChunk: self.stage_chunk, StageLinks: self.stage_links}

    def plan_table(self, command: PlanTable) -> TablePlanned | None:
        """Cut the table into chunks, find repeated keys, and write both down in one transaction.

        Returns:
            The chunks; None while another runner of a shared batch does it.
        """
        world, work = self._world, self._world.works[command.table]
        plan = work.plan
        if world.own_fence is not None:
            claimed = world.audit.claim_work(world.batch.batch_id, "plan", plan.table)
            if claimed.state is WorkState.ELSEWHERE:
                return None
            if claimed.state is WorkState.DONE:
                return TablePlanned(chunks=tuple(world.audit.chunks(world.batch.batch_id, plan.table)))
        fingerprint = world.source.fingerprint(plan.table)
        name = duplicates_name(world.batch.batch_id, plan.table, fence=world.own_fence)
        try:
            slices, repeats = self._cut(work, name, source=world.source)
        except SnapshotLost as lost:
            afresh = world.source.afresh() if isinstance(world.source, ForgetsSnapshot) else None
            if afresh is None or not world.renews_snapshot:
                raise
            payload = {"table": plan.table, "reason": lost.message, "lost": world.source.snapshot()}
            payload["read"] = afresh.snapshot()
            world.audit.journal("snapshot_replaced", payload, batch_id=world.batch.batch_id)
            slices, repeats = self._cut(work, name, source=afresh)
        table = BatchTable(
            batch_id=world.batch.batch_id,
            table_name=plan.table,
            object=plan.object,
            position=world.positions[plan.table],
            fingerprint=fingerprint,
            duplicates_file=name if repeats else None,
            source_count=sum(part.rows_estimate for part in slices),
            info={
                FOLDS_KEYS: not work.rules.key_case_sensitive,
                **(self._sampled.info(plan.table) if self._sampled is not None else {}),
            },
        )
        world.audit.plan_table(table, [(part.predicate, part.rows_estimate) for part in slices])
        return TablePlanned(chunks=tuple(world.audit.chunks(world.batch.batch_id, plan.table)))

    def _cut(self, work: TableWork, name: str, *, source: Source) -> tuple[list[ChunkPredicate], bool]:
        """The table's slices, and whether keys repeat: then the decisions are sealed under `name`."""
        plan, world = work.plan, self._world
        rows = self._chunk_rows(work, source)
        if world.chunk_rows is None and plan.where is None and self._sampled is None:
            total = source.describe(plan.table).rows_estimate
            rows = even_chunk_rows(rows, total=total, readers=world.readers)
        slices = source.plan_chunks(plan.table, where=plan.where, key=work.rules.key_columns, rows_per_chunk=rows)
        numbered = [(number, part.predicate) for number, part in enumerate(slices, start=1)]
        with _spilling(world.storage, plan.table):
            return slices, self._find_duplicates(work, numbered, name, source=source)

    def stage_chunk(self, command: StageChunk) -> ChunkStaged:
        """Read and clean one chunk and seal its files."""
        world = self._world
        chunk = world.audit.chunk(command.audit_id)
        work = world.works[chunk.table_name]
        if chunk.status is not ChunkStatus.RUNNING:
            world.audit.start_chunk(chunk.audit_id)
        staged = chunk.staged
        if staged is None:
            make_cleaner = partial(
                ChunkCleaner,
                work.rules,
                chunk_no=chunk.chunk_no,
                as_of=world.batch.as_of,
                duplicates=self._decisions(chunk.table_name),
                parents=self._lookups(work, links=False),
            )
            stager = ChunkStager(
                source=world.source,
                storage=world.storage,
                work=work,
                clock=world.clock,
                names=self._names(chunk),
                batch_rows=world.batch_rows,
                detail=world.record_detail,
                pace=world.pace,
                turn=world.shares.turn,
                may_renew=world.renews_snapshot,
                told=partial(self._tell_lost, chunk),
                standing=standing_rows(world.audit, world.ledger, world.storage, chunk.audit_id)["key"],
            )
            staged = stager.stage(chunk, make_cleaner)
            files = [*(part.file for part in staged.parts), staged.rows_file, staged.refused_file, staged.links_file]
            staged = replace(staged, bytes=sum(world.storage.size(name) for name in files if name is not None))
            world.audit.stage_chunk(chunk.audit_id, staged)
        return ChunkStaged(
            drafts=tuple(
                work.spec.draft(audit_id=chunk.audit_id, kind=JobKind.LOAD, part=part, attempt=1)
                for part in staged.parts
            ),
            extracted=staged.extracted,
            rejected=staged.rejected,
            duplicate=staged.duplicate,
            has_links=staged.links_file is not None,
            staged_bytes=staged.bytes or sum(part.bytes for part in staged.parts),
        )

    def _tell_lost(self, chunk: Chunk, view: View, lost: SnapshotLost) -> None:
        """Write down how a chunk is read whose state the source has forgotten."""
        world = self._world
        payload = {
            "table": chunk.table_name,
            "chunk": chunk.chunk_no,
            "reason": lost.message,
            "spans": len(view.slices),
            "lost": world.source.snapshot(),
            "read": view.source.snapshot(),
        }
        action = "snapshot_replaced" if view.is_afresh else "chunk_read_in_spans"
        world.audit.journal(action, payload, batch_id=chunk.batch_id)

    def stage_links(self, command: StageLinks) -> tuple[Any, ...]:
        """Resolve the links of a loaded chunk, now that all tables of its group stand in the org."""
        world = self._world
        chunk = world.audit.chunk(command.audit_id)
        work = world.works[chunk.table_name]
        names = self._names(chunk)
        assert chunk.staged is not None
        assert chunk.staged.links_file is not None
        assert chunk.ledger_file is not None
        accepted = world.ledger.accepted_keys([chunk.ledger_file]).select("key")
        links = (
            pl.scan_parquet(world.storage.path(chunk.staged.links_file), glob=False)
            .join(accepted, on="key", how="semi")
            .collect()
        )
        result = work.rules.finish_links(links, self._lookups(work, links=True))
        with world.storage.write(names.link_rows) as file:
            result.rows.write_parquet(file.path, compression="zstd")
            rows_file = file.commit().name
        with PartWriter(world.storage, names.link_part, null_text=work.null_text) as writer:
            writer.write(result.upload.drop("row"))
            parts = writer.finish()
        refused = int((result.rows["outcome"] == "rejected").sum())
        changes = {f"{rule}:{column}": rows for (rule, column), rows in result.changes.items()}
        world.audit.stage_links(chunk.audit_id, parts, refused, changes, rows_file=rows_file)
        return tuple(
            work.spec.draft(audit_id=chunk.audit_id, kind=JobKind.LINK, part=part, attempt=1) for part in parts
        )

    def _names(self, chunk: Chunk) -> StagedNames:
        return staged_names(chunk.batch_id, chunk.table_name, chunk.chunk_no, fence=self._world.own_fence)

    def _chunk_rows(self, work: TableWork, source: Source | None = None) -> int:
        if self._world.chunk_rows is not None:
            return self._world.chunk_rows
        sample = (source or self._world.source).sample(
            work.plan.table, columns=work.rules.source_columns, where=work.plan.where, rows=SAMPLE_ROWS
        )
        return auto_chunk_rows(frame_of(sample))

    def _find_duplicates(
        self, work: TableWork, slices: Sequence[tuple[int, Predicate]], name: str, *, source: Source
    ) -> bool:
        """Whether a key repeats; then the decisions are sealed under `name`."""

        def save(write: Callable[[Path], object]) -> None:
            with self._world.storage.write(name) as file:
                write(file.path)
                file.commit()

        found = find_repeats(
            work,
            slices,
            partial(self._frames, work, source=source),
            save,
            scratch=self._world.scratch,
            memory_mb=max(64, self._world.memory_mb // 4),
        )
        return found.keys > 0

    def _frames(
        self, work: TableWork, columns: Sequence[str], predicate: Predicate, source: Source
    ) -> Iterator[pl.DataFrame]:
        batches = source.read(
            work.plan.table,
            columns=columns,
            where=work.plan.where,
            predicate=predicate,
            batch_rows=self._world.batch_rows,
        )
        for batch in self._world.pace.through(batches):
            yield frame_of(batch)

    def _decisions(self, table: str) -> DuplicateDecisions | None:
        if table not in self._duplicates:
            recorded = next(
                row for row in self._world.audit.tables(self._world.batch.batch_id) if row.table_name == table
            )
            self._duplicates[table] = (
                DuplicateDecisions.load(self._world.storage.path(recorded.duplicates_file))
                if recorded.duplicates_file is not None
                else None
            )
        return self._duplicates[table]

    def _lookups(self, work: TableWork, *, links: bool) -> dict[str, ParentIndex]:
        return {
            column: self._parent(info.parent_object, info.key_field, info.parent_table, links=links)
            for column, info in work.rules.lookups.items()
            if info.is_link == links
        }

    def _parent(self, object_name: str, key_field: str, table: str | None, *, links: bool) -> ParentIndex:
        # Under `--extract-first` the load pass asks before its parents are sent and the link pass after that.
        name = (object_name, key_field, table, links)
        if name not in self._parents:
            self._parents[name] = ParentIndex(
                org=self._world.org,
                object_name=object_name,
                key=self._world.parent_keys[object_name, key_field],
                accepted=lambda: self._accepted(table, key_field),
            )
        return self._parents[name]

    def _accepted(self, table: str | None, key_field: str) -> pl.LazyFrame:
        """Keys that this batch has brought into the parent object; those that it would send where nothing is sent yet.

        That is in a dry run, and under `--extract-first` for chunks without a ledger.
        """
        nothing = pl.LazyFrame(schema={"key": pl.String})
        # A parent that this run leaves out, or is looked up by another field, is known to the org alone.
        work = self._world.works.get(table) if table is not None else None
        if table is None or work is None or work.key_field.name != key_field:
            return nothing
        chunks = self._world.audit.chunks(self._world.batch.batch_id, table)
        if self._world.batch.mode is BatchMode.DRY_RUN:
            would_send = self._would_send(chunks)
            return nothing if would_send is None else would_send
        files = [chunk.ledger_file for chunk in chunks if chunk.ledger_file is not None]
        # What a rollback kept is a parent as well: the record is there.
        ledger = self._world.ledger
        accepted = ledger.standing(files).filter(pl.col("outcome") != "failed").select("key") if files else nothing
        if self._world.batch.mode is not BatchMode.EXTRACT_FIRST:
            return accepted
        would_send = self._would_send([chunk for chunk in chunks if chunk.ledger_file is None])
        return accepted if would_send is None else pl.concat([accepted, would_send])

    def _would_send(self, chunks: Sequence[Chunk]) -> pl.LazyFrame | None:
        files = [self._world.storage.path(chunk.staged.rows_file) for chunk in chunks if chunk.staged is not None]
        return pl.scan_parquet(files, glob=False).filter(pl.col("outcome").is_null()).select("key") if files else None


@contextmanager
def _spilling(storage: Storage, table: str) -> Iterator[None]:
    """Tell a scan that ended because its spill found no room from one that ended otherwise.

    DuckDB's errors carry no number, so the disk itself is asked.
    """
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        if storage.disk().free >= SPILL_BYTES:
            raise
        raise DiskFull(
            f"table `{table}`: the scan for repeated keys cannot spill: the disk is full",
            state="nothing of this table was sent",
            hint="make room on the staging folder's disk",
        ) from error
