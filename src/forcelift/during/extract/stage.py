"""Stage one chunk: stream it from the source through the rules into sealed files.

The source's own count is taken before and after the read. A chunk whose rows did not hold still is read once more; if
it moves again it is refused rather than guessed at. One whose state the source has forgotten is read in shorter spans,
and then as it is now if the plan lets it; the state that was read stands with the chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct, field

from forcelift.allocators import give_back
from forcelift.audit.records import Chunk, Part, StagedChunk
from forcelift.during.extract.pace import Pace
from forcelift.during.extract.record_data import Detail, column_codecs, source_rows_json
from forcelift.during.extract.snapshots import View, views
from forcelift.errors import SnapshotLost, SourceChanged
from forcelift.jobs.parts import PartWriter
from forcelift.jobs.standing import STANDS, leave_out
from forcelift.jobs.work import StagedNames, TableWork
from forcelift.protocols.clock import Clock
from forcelift.protocols.source import Source
from forcelift.rules import ChunkCleaner, ChunkSum, Cleaned, checksum, frame_of, normalised_key
from forcelift.storage import SealedWriter, Storage

READS_MAX = 3
PIECE_BYTES = 32_000_000
"""So much of a batch is cleaned at once: where rows are wide, cleaning them takes several times their bytes."""
GIVE_BACK_PAUSE_S = 0.25
"""What batches leave behind goes back to the system so often: with every batch it would cost page faults."""
_DISTINCT = frozenset({"row", "key", "hash"})


def pieces_of(batch: pa.RecordBatch, *, bytes_max: int) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of so many bytes, more or less, in order; whole if it is small enough."""
    pieces = max(1, min(-(-batch.nbytes // bytes_max), batch.num_rows))
    rows = max(1, -(-batch.num_rows // pieces))
    if rows >= batch.num_rows:
        yield batch
        return
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


class FrameFile:
    """A Parquet file that grows by frames of one schema."""

    def __init__(self, stack: ExitStack, storage: Storage, name: str) -> None:
        self._stack, self._storage, self._name = stack, storage, name
        self._file: SealedWriter | None = None
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def write(self, frame: pl.DataFrame) -> None:
        table: pa.Table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._file = self._stack.enter_context(self._storage.write(self._name))
            self._writer = pq.ParquetWriter(
                self._file.path,
                table.schema,
                # Keys and hashes differ in every row: a dictionary of them costs time and saves nothing.
                compression={name: "none" if name == "hash" else "zstd" for name in table.schema.names},
                use_dictionary=[name for name in table.schema.names if name not in _DISTINCT],
            )
            self._stack.callback(self._writer.close)
        self._writer.write_table(table)
        self.rows += frame.height

    def seal(self) -> str | None:
        """The file's name in storage, or None if nothing was ever written."""
        if self._writer is None or self._file is None:
            return None
        self._writer.close()
        return str(self._file.commit().name)


class _Found(Struct, kw_only=True):
    """What one read of a chunk gave."""

    extracted: int = 0
    rejected: int = 0
    duplicate: int = 0
    standing: int = 0
    clean_seconds: float = 0.0
    checksum: ChunkSum = field(default_factory=ChunkSum)
    parts: tuple[Part, ...] = ()
    rows_file: str | None = None
    refused_file: str | None = None
    links_file: str | None = None


class ChunkStager:
    """Stages one chunk of one table."""

    def __init__(
        self,
        *,
        source: Source,
        storage: Storage,
        work: TableWork,
        clock: Clock,
        names: StagedNames,
        batch_rows: int,
        detail: Detail,
        pace: Pace,
        turn: AbstractContextManager[object],
        may_renew: bool = True,
        told: Callable[[View, SnapshotLost], None] = lambda view, lost: None,
        standing: pl.Series | None = None,
    ) -> None:
        self._source, self._storage, self._work, self._clock = source, storage, work, clock
        self._names, self._batch_rows, self._detail = names, batch_rows, detail
        self._pace, self._turn, self._may_renew, self._told = pace, turn, may_renew, told
        keys = standing if standing is not None else pl.Series([], dtype=pl.String)
        self._standing = normalised_key(work.key_field, keys).unique()
        self._changes: Counter[str] = Counter()

    def stage(self, chunk: Chunk, make_cleaner: Callable[[], ChunkCleaner]) -> StagedChunk:
        """Read until the source's count and the rows read agree, at most `READS_MAX` times.

        Args:
            make_cleaner: Gives a fresh cleaner, which remembers the rows of one read.

        Raises:
            SnapshotLost: The source has forgotten the state, and the plan wants no other.
            SourceChanged: Rows came or went during each read.
        """
        began = self._clock.monotonic()
        lost: SnapshotLost | None = None
        for view in views(self._source, chunk.table_name, dict(chunk.predicate), may_renew=self._may_renew):
            try:
                if lost is not None:
                    self._told(view, lost)
                return self._stage_by(view, chunk, make_cleaner, began)
            except SnapshotLost as error:
                lost = error
        assert lost is not None
        raise lost

    def _stage_by(
        self, view: View, chunk: Chunk, make_cleaner: Callable[[], ChunkCleaner], began: float
    ) -> StagedChunk:
        for _ in range(READS_MAX):
            before = self._count(view, chunk)
            found = self._read(view, chunk, make_cleaner())
            if found.extracted == before:
                return self._staged(view, found, count=before, seconds=self._clock.monotonic() - began)
            after = self._count(view, chunk)
            if found.extracted == after:
                self._changes["source_moved_while_read:"] = abs(after - before)
                return self._staged(view, found, count=after, seconds=self._clock.monotonic() - began)
        raise SourceChanged(
            f"table `{chunk.table_name}`, chunk {chunk.chunk_no}: rows came or went during each of {READS_MAX} reads",
            state="nothing of this chunk was sent",
            hint="stop the writers of this table, then go on with `forcelift run --resume`",
        )

    def _count(self, view: View, chunk: Chunk) -> int:
        return view.count(chunk.table_name, where=self._work.plan.where)

    def _read(self, view: View, chunk: Chunk, cleaner: ChunkCleaner) -> _Found:
        found = _Found()
        self._changes.clear()
        work, names = self._work, self._names
        with ExitStack() as stack:
            parts = stack.enter_context(PartWriter(self._storage, names.part, null_text=work.null_text))
            rows = FrameFile(stack, self._storage, names.rows)
            refused = FrameFile(stack, self._storage, names.refused)
            links = FrameFile(stack, self._storage, names.links)
            batches = view.read(
                chunk.table_name,
                columns=work.rules.source_columns,
                where=work.plan.where,
                order_by=work.rules.order_by,
                batch_rows=self._batch_rows,
            )
            for batch in self._pace.through(batches):
                came = self._clock.monotonic()
                for piece in pieces_of(batch, bytes_max=PIECE_BYTES):
                    with self._turn:
                        frame = frame_of(piece)
                        cleaned = leave_out(cleaner.clean(frame), work.key_field, self._standing)
                        parts.write(cleaned.accepted.drop("row"))
                        rows.write(cleaned.rows)
                        if cleaned.links is not None and cleaned.links.height:
                            links.write(cleaned.links)
                        self._keep_refused(refused, frame, cleaned, first_row=found.extracted)
                        self._count_up(found, cleaned)
                        del piece, frame, cleaned  # or they would be held until the next batch has come
                del batch
                give_back(least_s=GIVE_BACK_PAUSE_S)
                found.clean_seconds += self._clock.monotonic() - came
            came = self._clock.monotonic()
            cleaner.finish()
            if rows.rows == 0:
                rows.write(cleaner.clean(self._no_rows()).rows)
            found.parts = parts.finish()
            found.rows_file, found.refused_file, found.links_file = rows.seal(), refused.seal(), links.seal()
            found.clean_seconds += self._clock.monotonic() - came
        return found

    def _no_rows(self) -> pl.DataFrame:
        """A frame without rows but with the columns, so that an empty chunk has its (empty) file too."""
        types = {column.name: column.arrow for column in self._work.source.columns}
        schema = pa.schema([(name, types[name]) for name in self._work.rules.source_columns])
        frame = pl.from_arrow(schema.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _keep_refused(self, file: FrameFile, frame: pl.DataFrame, cleaned: Cleaned, *, first_row: int) -> None:
        rejected = cleaned.rows.filter(pl.col("outcome") == "rejected").select("row")
        if rejected.height == 0:
            return
        shown = frame[(rejected["row"].cast(pl.Int64) - first_row)]
        data = source_rows_json(
            shown,
            personal=self._work.rules.personal_columns,
            detail=self._detail,
            codecs=column_codecs(self._work.rules),
            numbers=self._work.rules.number_columns,
        )
        file.write(rejected.with_columns(data))

    def _count_up(self, found: _Found, cleaned: Cleaned) -> None:
        outcomes = dict(cleaned.rows.group_by("outcome").len().iter_rows())
        found.extracted += cleaned.rows.height
        found.rejected += outcomes.get("rejected", 0)
        found.duplicate += outcomes.get("duplicate", 0)
        found.standing += outcomes.get(STANDS, 0)
        found.checksum += checksum(cleaned.rows["hash"].drop_nulls())
        for (rule, column), count in cleaned.changes.items():
            self._changes[f"{rule}:{column}"] += count

    def _staged(self, view: View, found: _Found, *, count: int, seconds: float) -> StagedChunk:
        assert found.rows_file is not None
        if lost := self._standing.len() - found.standing:
            self._changes["standing_not_in_source:"] = lost
        return StagedChunk(
            source_count=count,
            extracted=found.extracted,
            transformed=found.extracted - found.rejected - found.duplicate,
            rejected=found.rejected,
            duplicate=found.duplicate,
            parts=found.parts,
            rows_file=found.rows_file,
            refused_file=found.refused_file,
            links_file=found.links_file,
            source_checksum=str(found.checksum),
            changes=dict(self._changes),
            seconds=round(seconds, 3),
            clean_seconds=round(found.clean_seconds, 3),
            snapshot=view.source.snapshot(),
            standing=found.standing,
        )
