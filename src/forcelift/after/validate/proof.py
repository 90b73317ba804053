"""Level 5: every field of every row, by hashes, joined out of core; TARGET_CHECKSUM of each chunk.

Reads:   the files of an `OrgScan`, the ledgers; for records that differ, the staged file or the source, and the org.
Gives:   checks, and the checksums of chunks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.after.validate.checks import Check, CheckStatus, Difference, Kind
from forcelift.after.validate.compare import Compared, compare
from forcelift.after.validate.org_rows import OrgShape
from forcelift.after.validate.org_scan import Scan
from forcelift.after.validate.population import Population, joined, text_literal
from forcelift.after.validate.sent_rows import SentRows, chunks_of
from forcelift.after.validate.undone import add_not_restored
from forcelift.after.validate.world import ValidateWorld
from forcelift.audit.records import Chunk, ChunkStatus
from forcelift.errors import SourceError
from forcelift.ledger import ACCEPTED
from forcelift.rules import ChunkSum, checksum

CHUNKS_READ_MAX = 50
"""Of records in so many chunks the fields are named: each chunk is read once more from its source."""

_MODULUS = 1 << 128
_LEVEL = 5


class Proof(Struct, frozen=True, kw_only=True):
    """What level 5 gives of one table: its checks, and TARGET_CHECKSUM by AUDIT_ID."""

    checks: tuple[Check, ...]
    checksums: dict[int, str]


class _Counts(Struct, frozen=True, kw_only=True):
    """Records of the object by what they are."""

    expected: int
    superseded: int
    missing: int
    differs: int
    extra: int
    not_undone: int
    elsewhere: int  # written by other batches of the project, or by this one and not accepted
    others: int
    kept: int = 0  # that a rollback could not undo: neither as they were sent nor as they were before
    rolled_back: int = 0
    untold: int = 0  # other hashes under `nulls: leave`, of which the fields were not looked at


def prove(world: ValidateWorld, population: Population, shape: OrgShape, scan: Scan) -> Proof:
    """Join what was sent with what the org has.

    Raises:
        StorageError: A ledger file is missing.
    """
    with (
        joined(population, world.ledger, scratch=world.scratch, memory_mb=_duckdb_mb(world)) as db,
        tempfile.TemporaryDirectory(prefix="proof-", dir=world.scratch) as folder,
    ):
        file = Path(folder) / "wrong.parquet"
        counts = _join(db, world, population, scan, file)
        wrong = pl.scan_parquet(file, glob=False)
        named, equal = _named(world, population, shape, _first(db, file, world.settings.named_max))
        extra = _extra(db, world.settings.named_max) if counts.extra else []
        undone = _not_undone(db, world.settings.named_max) if counts.not_undone else []
        untold: frozenset[int] = frozenset()
        if shape.work.plan.nulls == "leave" and counts.differs:
            # Only fields that the plan leaves alone may differ: a record is wrong if that was seen, and only then.
            wrong = wrong.filter(~pl.col("id").is_in(list(equal)))
            seen = {one.record_id for one in named if one.field is not None}
            others = wrong.filter(pl.col("org_hash").is_not_null() & ~pl.col("id").is_in(list(seen)))
            by_chunk = others.group_by("audit_id").len().collect()
            untold = frozenset(by_chunk["audit_id"].to_list())
            counts = replace(counts, differs=len(seen), untold=int(by_chunk["len"].sum()))
        checksums, unequal = _checksums(world, population, db, wrong, untold)
        checks = _checks(shape, population, counts, named, extra, undone)
        return Proof(
            checks=(*checks, *_chunk_checks(shape, population, checksums, unequal, counts)), checksums=checksums
        )


def _duckdb_mb(world: ValidateWorld) -> int:
    return max(128, world.memory_mb // 3)


def _join(
    db: duckdb.DuckDBPyConnection, world: ValidateWorld, population: Population, scan: Scan, file: Path
) -> _Counts:
    """Write what is wrong with rows of the batch to `file`, and leave tables `extra` and `not_undone`."""
    listed = ", ".join(text_literal(str(world.storage.path(name))) for name in scan.files)
    db.execute(f"CREATE VIEW org AS SELECT id, made, key, hash FROM read_parquet([{listed}])")
    db.execute(
        "CREATE VIEW expected AS SELECT * FROM mine"
        " WHERE outcome IN ('created', 'updated') AND id IS NOT NULL AND NOT superseded"
    )
    db.execute(
        "COPY (SELECT e.id, e.key, e.chunk_no, e.audit_id, e.hash AS sent_hash, o.hash AS org_hash"
        " FROM expected e LEFT JOIN org o ON o.id = e.id WHERE o.hash IS DISTINCT FROM e.hash"
        # A chunk's rows lie together, so that its checksum reads a part of the file, even where every record differs.
        " ORDER BY e.audit_id)"
        f" TO {text_literal(str(file))} (FORMAT parquet)"
    )
    since = _number(
        db,
        "SELECT min(o.made) FROM org o JOIN (SELECT id FROM mine WHERE created AND id IS NOT NULL"
        " UNION ALL SELECT id FROM older WHERE created) AS ours ON ours.id = o.id",
    )
    if since is None:
        since = int(population.since.timestamp())
    known = (
        "SELECT id FROM mine WHERE id IS NOT NULL UNION ALL SELECT id FROM older"
        " UNION ALL SELECT id FROM newer_lines WHERE id IS NOT NULL"
    )
    db.execute(
        f"CREATE TABLE extra AS SELECT o.id, o.key FROM org o ANTI JOIN ({known}) AS k ON k.id = o.id"
        f" WHERE o.key IS NOT NULL AND o.made >= {since}"
    )
    db.execute(
        "CREATE TABLE not_undone AS SELECT m.id, m.key, m.chunk_no FROM mine m JOIN org o ON o.id = m.id"
        " WHERE m.outcome = 'rolled_back' AND m.created AND NOT m.superseded"
    )
    add_not_restored(db, world, population)
    expected, superseded = db.execute(
        "SELECT count(*) FILTER (NOT superseded), count(*) FILTER (superseded AND NOT kept_later) FROM mine"
        " WHERE outcome IN ('created', 'updated') AND id IS NOT NULL"
    ).fetchall()[0]
    kept, rolled_back = db.execute(
        "SELECT count(*) FILTER (outcome = 'kept' OR (kept_later AND outcome IN ('created', 'updated'))),"
        " count(*) FILTER (outcome = 'rolled_back') FROM mine"
    ).fetchall()[0]
    wrong = f"read_parquet({text_literal(str(file))})"
    missing = _number(db, f"SELECT count(*) FROM {wrong} WHERE org_hash IS NULL") or 0
    differs = (_number(db, f"SELECT count(*) FROM {wrong}") or 0) - missing
    extra = _number(db, "SELECT count(*) FROM extra") or 0
    not_undone = _number(db, "SELECT count(*) FROM not_undone") or 0
    elsewhere = _number(db, f"SELECT count(*) FROM org o SEMI JOIN ({known}) AS k ON k.id = o.id") or 0
    return _Counts(
        expected=expected,
        superseded=superseded,
        missing=missing,
        differs=differs,
        extra=extra,
        not_undone=not_undone,
        elsewhere=elsewhere - (expected - missing),
        others=scan.rows - elsewhere - extra,
        kept=kept,
        rolled_back=rolled_back,
    )


def _first(db: duckdb.DuckDBPyConnection, file: Path, limit: int) -> pl.DataFrame:
    """The first records by key that differ: `id`, `key`, `chunk_no`, and `org_hash`, null where there is none."""
    found = db.execute(
        f"SELECT id, key, chunk_no, org_hash FROM read_parquet({text_literal(str(file))}) ORDER BY key, id LIMIT ?",
        [limit],
    ).fetchall()
    schema = {"id": pl.String, "key": pl.String, "chunk_no": pl.Int64, "org_hash": pl.Binary}
    return pl.DataFrame(found, schema=schema, orient="row")


def _named(
    world: ValidateWorld, population: Population, shape: OrgShape, first: pl.DataFrame
) -> tuple[list[Difference], frozenset[str]]:
    """Name the fields of records that differ. Also gives Ids that differ in nothing that is the plan's."""
    missing = first.filter(pl.col("org_hash").is_null())
    found = name_missing(world, shape, missing)
    differing = first.filter(pl.col("org_hash").is_not_null())
    if not differing.height:
        return found, frozenset()
    compared, unknown = name_fields(world, population, shape, differing.select("id", "key", "chunk_no"))
    return [*found, *compared.differences, *unknown], compared.equal_ids


def name_fields(
    world: ValidateWorld, population: Population, shape: OrgShape, rows: pl.DataFrame
) -> tuple[Compared, list[Difference]]:
    """Look at records of the batch one by one, field by field.

    Args:
        rows: `id`, `key`, `chunk_no`.
    Returns: What was compared, and records of which the fields cannot be told, with the reason.
    """
    sent_rows = SentRows(world, shape.work.plan.table)
    numbers = rows["chunk_no"].unique(maintain_order=True).to_list()
    chunks = dict(zip(rows["id"].to_list(), rows["chunk_no"].to_list(), strict=True))
    sent: list[pl.DataFrame] = []
    reasons: dict[str, str] = {}
    for chunk in chunks_of(population.chunks, numbers[:CHUNKS_READ_MAX]):
        mine = rows.filter(pl.col("chunk_no") == chunk.chunk_no)["id"]
        try:
            of_chunk = sent_rows.of_chunk(chunk, among=mine)
        except SourceError as error:
            reasons |= dict.fromkeys(mine.to_list(), f"the source does not give the row: {error.message}")
            continue
        sent.append(of_chunk.rows)
        reasons |= dict.fromkeys(
            of_chunk.drift["id"].to_list(), "the row has changed in the source since, so that its fields cannot be told"
        )
    for number in numbers[CHUNKS_READ_MAX:]:
        late = rows.filter(pl.col("chunk_no") == number)["id"].to_list()
        reasons |= dict.fromkeys(late, f"its fields were not looked at: {CHUNKS_READ_MAX} other chunks were read")
    texts = pl.concat(sent) if sent else None
    compared = Compared(differences=(), equal_ids=frozenset())
    if texts is not None and texts.height:
        org = shape.fetch(world.org, texts["id"].to_list())
        compared = compare(shape, texts, org, chunks=chunks)
        # A record that differed a moment ago and is equal now was changed while it was looked at.
        gone = set(texts["id"].to_list()) - set(org["id"].to_list())
        reasons |= dict.fromkeys(gone, "it has gone since the query")
    keys = dict(zip(rows["id"].to_list(), rows["key"].to_list(), strict=True))
    unknown = [
        Difference(kind=Kind.DIFFERS, key=keys[one], record_id=one, chunk=chunks[one], note=reason)
        for one, reason in reasons.items()
    ]
    if shape.work.plan.nulls != "leave":
        unknown += [
            Difference(
                kind=Kind.DIFFERS,
                key=keys[one],
                record_id=one,
                chunk=chunks[one],
                note="it was changed back after the query",
            )
            for one in compared.equal_ids
        ]
        compared = replace(compared, equal_ids=frozenset())
    return compared, sorted(unknown, key=lambda one: one.key or "")


def name_missing(world: ValidateWorld, shape: OrgShape, rows: pl.DataFrame) -> list[Difference]:
    """Records that the org has no more; `rows` has `id`, `key`, `chunk_no`."""
    if not rows.height:
        return []
    field = shape.work.key_field
    keys = rows["key"].drop_nulls().to_list()
    by_key = {text.lower(): record_id for record_id, text in world.org.find(shape.object, field, keys)}
    return [
        Difference(
            kind=Kind.MISSING,
            key=key,
            record_id=record_id,
            chunk=chunk,
            note=f"another record has its key: {by_key[key.lower()]}" if key.lower() in by_key else None,
        )
        for record_id, key, chunk in rows.select("id", "key", "chunk_no").iter_rows()
    ]


def _extra(db: duckdb.DuckDBPyConnection, limit: int) -> list[Difference]:
    found = db.execute(
        "SELECT x.id, x.key, m.outcome, m.chunk_no FROM (SELECT * FROM extra ORDER BY key, id LIMIT ?) AS x"
        " LEFT JOIN mine m ON lower(m.key) = lower(x.key)"
        " QUALIFY row_number() OVER (PARTITION BY x.id ORDER BY m.outcome) = 1 ORDER BY 2, 1",
        [limit],
    ).fetchall()
    notes = {"created": "a second record with the key of a row", "updated": "a second record with the key of a row"}
    return [
        Difference(
            kind=Kind.EXTRA,
            key=key,
            record_id=record_id,
            chunk=chunk,
            note=None if outcome is None else notes.get(outcome, f"the row with its key is {outcome} in the ledger"),
        )
        for record_id, key, outcome, chunk in found
    ]


def _not_undone(db: duckdb.DuckDBPyConnection, limit: int) -> list[Difference]:
    found = db.execute("SELECT id, key, chunk_no FROM not_undone ORDER BY key LIMIT ?", [limit]).fetchall()
    return [
        Difference(kind=Kind.NOT_UNDONE, key=key, record_id=record_id, chunk=chunk) for record_id, key, chunk in found
    ]


def _checksums(
    world: ValidateWorld,
    population: Population,
    db: duckdb.DuckDBPyConnection,
    wrong: pl.LazyFrame,
    untold: frozenset[int],
) -> tuple[dict[int, str], list[Chunk]]:
    """TARGET_CHECKSUM of each chunk that the batch alone owns, and the chunks in which it is not SOURCE_CHECKSUM.

    Args:
        untold: Chunks with records of which it is not known whether they are as they were sent.
    """
    # SOURCE_CHECKSUM counts all rows that the load had accepted: where some were undone, no sum can equal it.
    not_summed = {
        audit_id
        for (audit_id,) in db.execute(
            "SELECT DISTINCT audit_id FROM mine WHERE superseded OR outcome IN ('rolled_back', 'kept')"
        ).fetchall()
    }
    touched = set(wrong.select("audit_id").unique().collect().to_series().to_list())
    sums: dict[int, str] = {}
    unequal: list[Chunk] = []
    for chunk in population.chunks:
        if chunk.audit_id in not_summed or chunk.audit_id in untold or chunk.status is ChunkStatus.ROLLED_BACK:
            continue
        assert chunk.ledger_file is not None
        lines = world.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED)).select("hash")
        # Where every hash of the org is the ledger's, their sums are the same; the others are exchanged one by one.
        total = checksum(lines.collect()["hash"])
        if chunk.audit_id in touched:
            mine = wrong.filter(pl.col("audit_id") == chunk.audit_id).select("sent_hash", "org_hash").collect()
            sent, org = checksum(mine["sent_hash"]), checksum(mine["org_hash"])
            total = ChunkSum(
                count=total.count - sent.count + org.count, total=(total.total - sent.total + org.total) % _MODULUS
            )
        sums[chunk.audit_id] = str(total)
        if str(total) != chunk.source_checksum:
            unequal.append(chunk)
    return sums, unequal


def _checks(
    shape: OrgShape,
    population: Population,
    counts: _Counts,
    named: Sequence[Difference],
    extra: Sequence[Difference],
    undone: Sequence[Difference],
) -> list[Check]:
    table = shape.work.plan.table
    wrong = counts.missing + counts.differs
    parts = [
        f"{counts.missing:,} missing" if counts.missing else "",
        f"{counts.differs:,} differ" if counts.differs else "",
        f"{counts.untold:,} differ, perhaps only in fields that `nulls: leave` leaves alone: `--named N` looks at more"
        if counts.untold
        else "",
        f"{counts.superseded:,} are owned by newer batches and were not compared" if counts.superseded else "",
        f"{counts.rolled_back:,} were rolled back" if counts.rolled_back else "",
        f"{counts.kept:,} were kept by a rollback and were not compared" if counts.kept else "",
    ]
    checks = [
        Check(
            level=_LEVEL,
            table=table,
            name="records",
            status=CheckStatus.FAILED if wrong else CheckStatus.NOT_CHECKED if counts.untold else CheckStatus.PASSED,
            source=str(counts.expected),
            target=str(counts.expected - wrong - counts.untold),
            difference=str(wrong),
            reason="; ".join(part for part in parts if part) or None,
            examples=tuple(named),
        ),
        Check(
            level=_LEVEL,
            table=table,
            name="records that nobody sent",
            status=CheckStatus.FAILED if counts.extra else CheckStatus.PASSED,
            source="0",
            target=str(counts.extra),
            difference=str(counts.extra),
            reason=f"beside them {counts.elsewhere:,} written by other batches or not accepted,"
            f" {counts.others:,} others'",
            examples=tuple(extra),
        ),
    ]
    if counts.not_undone:
        checks.append(
            Check(
                level=_LEVEL,
                table=table,
                name="records rolled back",
                status=CheckStatus.FAILED,
                source="0",
                target=str(counts.not_undone),
                difference=str(counts.not_undone),
                examples=tuple(undone),
            )
        )
    if population.open_chunks:
        checks.append(open_chunks_check(_LEVEL, table, population))
    return checks


def open_chunks_check(level: int, table: str, population: Population) -> Check:
    """What must not look checked: chunks that have not ended."""
    return Check(
        level=level,
        table=table,
        name="chunks that have not ended",
        status=CheckStatus.NOT_CHECKED,
        source=str(population.open_chunks),
        reason="their rows are neither sent for certain nor refused; end the batch by `forcelift run --resume`",
    )


def _chunk_checks(
    shape: OrgShape,
    population: Population,
    checksums: dict[int, str],
    unequal: Sequence[Chunk],
    counts: _Counts,
) -> list[Check]:
    """One check for all chunks together, and one for each whose checksum differs."""
    table = shape.work.plan.table
    skipped = len(population.chunks) - len(checksums)
    checks = [
        Check(
            level=_LEVEL,
            table=table,
            name="checksums of chunks",
            status=CheckStatus.FAILED if unequal else CheckStatus.PASSED,
            source=str(len(checksums)),
            target=str(len(checksums) - len(unequal)),
            difference=str(len(unequal)),
            reason=f"{skipped:,} chunks have none: rolled back, in part or whole, owned by newer batches, or not told"
            if skipped
            else None,
        )
    ]
    checks += [
        Check(
            level=_LEVEL,
            table=table,
            name="checksum",
            chunk=chunk.chunk_no,
            status=CheckStatus.FAILED,
            source=chunk.source_checksum,
            target=checksums[chunk.audit_id],
        )
        for chunk in unequal
    ]
    return checks


def _number(db: duckdb.DuckDBPyConnection, query: str) -> int | None:
    ((value,),) = db.execute(query).fetchall()
    return None if value is None else int(value)
