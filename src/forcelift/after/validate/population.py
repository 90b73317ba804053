"""Which records the org must hold, by the ledgers: those of the batch, and what other batches of the project wrote.

Reads:   the audit database and ledger files.
Gives:   file names, and views in DuckDB, which joins them out of core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
from msgspec import Struct

from forcelift import embedded
from forcelift.after.validate.world import ValidateWorld
from forcelift.audit.records import BatchMode, Chunk, ChunkStatus, ChunkStep
from forcelift.ledger import RECORD_GONE, LedgerCounts

_ENDED = frozenset({ChunkStatus.SUCCESS, ChunkStatus.PARTIAL, ChunkStatus.ROLLED_BACK})


class Population(Struct, frozen=True, kw_only=True):
    """One table of the batch among all batches of the project that wrote to the same object of the same org.

    Attributes:
        chunks: The chunks that have ended and have a ledger, in order.
        open_chunks: Chunks that have not ended: nothing can be said of their rows.
        older, newer: Ledger files of other batches, begun before and after this one.
        since: When the first job of the project was closed, by our clock: before, it had made no record.
        places: Of the jobs of all these batches (number, place in the order of intent), where batches were at work at
            the same time or in turns, so that their order does not tell who wrote a record last; else empty.
    """

    chunks: tuple[Chunk, ...]
    open_chunks: int
    older: tuple[str, ...]
    newer: tuple[str, ...]
    since: datetime
    places: tuple[tuple[int, int], ...] = ()

    @property
    def may_be_superseded(self) -> bool:
        """Whether another batch may have written records of this one since."""
        return bool(self.newer or self.places)

    @property
    def files(self) -> tuple[str, ...]:
        """The ledger files of the batch's chunks."""
        return tuple(chunk.ledger_file for chunk in self.chunks if chunk.ledger_file is not None)

    @classmethod
    def of(cls, world: ValidateWorld, table: str) -> Population:
        """Of one table, as the audit database knows it now."""
        audit, batch = world.audit, world.batch
        mine = audit.chunks(batch.batch_id, table)
        ended = tuple(chunk for chunk in mine if _has_ended(chunk))
        object_name = world.works[table].spec.object
        batches = audit.batches(batch.project)
        place = next(number for number, one in enumerate(batches) if one.batch_id == batch.batch_id)
        older: list[str] = []
        newer: list[str] = []
        batch_ids: list[str] = []
        times: dict[int, list[Chunk]] = {place: mine}
        for number, one in enumerate(batches):
            if one.org_id != batch.org_id or one.mode is BatchMode.DRY_RUN:
                continue
            names = {row.table_name for row in audit.tables(one.batch_id) if row.object.lower() == object_name.lower()}
            if not names:
                continue
            batch_ids.append(one.batch_id)
            for chunk in audit.chunks(one.batch_id):
                if chunk.table_name not in names or chunk.ledger_file is None:
                    continue
                if number == place:
                    # Another table of the same batch that fills the same object counts as written before.
                    if chunk.table_name != table:
                        older.append(chunk.ledger_file)
                else:
                    (older if number < place else newer).append(chunk.ledger_file)
                    times.setdefault(number, []).append(chunk)
        took_turns = _took_turns(times)
        return cls(
            chunks=ended,
            open_chunks=len(mine) - len(ended),
            older=tuple(older),
            newer=tuple(newer),
            since=audit.first_closed_at(batch_ids) or batch.started_at,
            places=tuple((one.job_no, one.place) for one in audit.job_places(batch_ids)) if took_turns else (),
        )


def _took_turns(chunks: Mapping[int, Sequence[Chunk]]) -> bool:
    """Whether a chunk of a batch ended after one of a batch that was begun later had started."""
    latest: datetime | None = None
    for number in sorted(chunks):
        starts = [chunk.start_time for chunk in chunks[number] if chunk.start_time is not None]
        if latest is not None and starts and min(starts) < latest:
            return True
        ends = [chunk.end_time for chunk in chunks[number] if chunk.end_time is not None]
        latest = max([*ends, *([latest] if latest is not None else [])], default=None)
    return False


def _has_ended(chunk: Chunk) -> bool:
    return chunk.ledger_file is not None and chunk.step is ChunkStep.SETTLED and chunk.status in _ENDED


@contextmanager
def joined(
    population: Population, ledger: LedgerCounts, *, scratch: Path, memory_mb: int
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB over the ledgers, within `memory_mb`; what does not fit is spilled.

    Views:
        mine: the batch's lines with `chunk_no` and `audit_id`; `superseded` where a newer batch owns the record, also
            `kept_later` where that batch was rolled back and the record was kept.
        older: all lines of earlier batches that name a record.
    """
    with tempfile.TemporaryDirectory(prefix="validate-", dir=scratch) as folder:
        settings: dict[str, str | bool | int] = {
            "memory_limit": f"{memory_mb}MB",
            "temp_directory": folder,
            "threads": 2,
            "preserve_insertion_order": False,
        }
        with embedded.connect(config=settings) as connection:
            connection.execute("CREATE TABLE files (filename VARCHAR, audit_id BIGINT, chunk_no INTEGER)")
            paths = ledger.paths(population.files)
            rows = [
                [str(path), chunk.audit_id, chunk.chunk_no]
                for path, chunk in zip(paths, population.chunks, strict=True)
            ]
            if rows:
                connection.executemany("INSERT INTO files VALUES (?, ?, ?)", rows)
            _view(connection, "own", [str(path) for path in paths])
            _view(connection, "older_lines", [str(path) for path in ledger.paths(population.older)])
            _view(connection, "newer_lines", [str(path) for path in ledger.paths(population.newer)])
            connection.execute(
                "CREATE VIEW older AS SELECT id, key, outcome, created FROM older_lines WHERE id IS NOT NULL"
            )
            (_mine_by_jobs if population.places else _mine_by_batches)(connection, population.places)
            yield connection


def _mine_by_batches(connection: duckdb.DuckDBPyConnection, places: Sequence[tuple[int, int]]) -> None:
    """One batch ended before the next began: what a newer one has accepted is its own."""
    assert not places
    connection.execute(
        "CREATE VIEW mine AS SELECT own.*, files.audit_id, files.chunk_no,"
        " own.id IS NOT NULL AND own.id IN (SELECT id FROM newer_lines WHERE id IS NOT NULL"
        f" AND (outcome IN ('created', 'updated') OR {_KEPT})) AS superseded,"
        f" own.id IS NOT NULL AND own.id IN (SELECT id FROM newer_lines WHERE {_KEPT}) AS kept_later"
        " FROM own JOIN files USING (filename)"
    )


def _mine_by_jobs(connection: duckdb.DuckDBPyConnection, places: Sequence[tuple[int, int]]) -> None:
    """Batches were at work in turns: who sent a record last tells whose it is."""
    connection.execute(
        "CREATE TABLE job_place AS SELECT unnest($jobs::BIGINT[]) AS job, unnest($places::BIGINT[]) AS place",
        {"jobs": [job for job, _ in places], "places": [place for _, place in places]},
    )
    connection.execute(
        f"CREATE VIEW others AS SELECT id, max(place) AS place, arg_max({_KEPT}, place) AS is_kept FROM"
        " (SELECT id, outcome, code, job FROM older_lines UNION ALL SELECT id, outcome, code, job FROM newer_lines)"
        " JOIN job_place USING (job)"
        f" WHERE id IS NOT NULL AND (outcome IN ('created', 'updated') OR {_KEPT}) GROUP BY id"
    )
    connection.execute(
        "CREATE VIEW mine AS SELECT own.*, files.audit_id, files.chunk_no,"
        " coalesce(others.place > own_job.place, false) AS superseded,"
        " coalesce(others.place > own_job.place AND others.is_kept, false) AS kept_later"
        " FROM own JOIN files USING (filename) LEFT JOIN job_place AS own_job ON own_job.job = own.job"
        " LEFT JOIN others ON others.id = own.id"
    )


_COLUMNS = (
    '"row" UINTEGER, key VARCHAR, id VARCHAR, outcome VARCHAR, code VARCHAR, created BOOLEAN, hash BLOB,'
    " job BIGINT, filename VARCHAR"
)
# What a newer batch's rollback kept holds that batch's values, or others'; what it found gone is simply missing.
_KEPT = f"(id IS NOT NULL AND outcome = 'kept' AND code IS DISTINCT FROM '{RECORD_GONE}')"


def _view(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[str]) -> None:
    if not paths:
        connection.execute(f"CREATE TABLE {name} ({_COLUMNS})")
        return
    listed = ", ".join(text_literal(_no_pattern(path)) for path in paths)
    connection.execute(
        f'CREATE VIEW {name} AS SELECT "row", key, id, outcome, code, created, hash, job, filename'
        f" FROM read_parquet([{listed}], filename = true)"
    )


def _no_pattern(path: str) -> str:
    """DuckDB reads patterns in names."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in path)


def text_literal(text: str) -> str:
    """A text as SQL, for the places of a statement that take no parameter."""
    return "'" + text.replace("'", "''") + "'"
