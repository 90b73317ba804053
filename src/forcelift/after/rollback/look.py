"""Look at what a batch wrote, as it stands in the org now, and decide on every record.

Reads:   ledger, before-images, the org by bulk query.
Writes:  for each chunk `*.looked.parquet`, with a decision per record; a database of links between records, in a
         temporary folder. No record is touched.
Re-run:  files are replaced; nothing counts before the whole rollback is sealed.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl

from forcelift.after.rollback.decide import DECISIONS, PUT_BACK, Evidence, UndoTable, decide, long_numbers, moments
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, Scope, UndoNames, rollback_folder
from forcelift.audit import AuditStore
from forcelift.audit.records import BeforeImage, Chunk, ChunkStatus, ChunkStep, Rollback
from forcelift.embedded import connect
from forcelift.errors import OrgNotFound, OrgRefused
from forcelift.jobs.images import CLOCKS_APART
from forcelift.jobs.org_pages import save_query
from forcelift.ledger import Ledger
from forcelift.protocols.org import Org
from forcelift.storage import Storage, segment

IN_LIST_MAX = 2000
"""Ids in one condition; a query of Bulk API 2.0 may have 100,000 letters."""

MEMORY_MB = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class LookWorld:
    """Everything that looking touches. `tables` are in load order; `folder` is where the rollback's files lie.

    `earlier` are rollbacks that are through, with the files of what became of their records. `are_restored` tells that
    the restores were sent: what hangs on a record now goes on hanging on it.
    """

    batch_id: str
    org: Org
    audit: AuditStore
    storage: Storage
    ledger: Ledger
    tables: Mapping[str, UndoTable]
    scope: Scope
    folder: str
    scratch: Path
    earlier: tuple[tuple[Rollback, tuple[str, ...]], ...] = ()
    are_restored: bool = False

    def names(self, chunk: Chunk) -> UndoNames:
        return UndoNames(folder=self.folder, table=chunk.table_name, chunk_no=chunk.chunk_no)


@dataclass(slots=True, kw_only=True)
class Looked:
    """What was found: the chunks with something to undo, and what cannot be looked at or put back.

    Attributes:
        chunks: Chunks whose records were looked at, in load order.
        unsettled: Chunks of the scope that were sent and not settled.
        not_examined: Lookups of other objects that the org lets nobody query, as `Object.Field`.
        long_numbers: Values to be restored that have more digits than a number holds, by `Table.Field`.
        without_images: Tables that were loaded without before-images.
    """

    chunks: list[Chunk] = field(default_factory=list)
    unsettled: list[Chunk] = field(default_factory=list)
    not_examined: list[str] = field(default_factory=list)
    long_numbers: Counter[str] = field(default_factory=Counter)
    without_images: set[str] = field(default_factory=set)


def look(world: LookWorld) -> Looked:
    """Look at every chunk of the scope; decisions are final once `keep_parents` and `seal` have gone over them."""
    found = Looked()
    images = world.audit.images(world.batch_id)
    sent = {job.audit_id for job in world.audit.jobs(world.batch_id) if job.sf_id is not None}
    for chunk in world.audit.chunks(world.batch_id):
        if not world.scope.takes(chunk.table_name, chunk.chunk_no) or chunk.status is ChunkStatus.ROLLED_BACK:
            continue
        if chunk.step is not ChunkStep.SETTLED:
            if chunk.audit_id in sent:
                found.unsettled.append(chunk)
            continue
        if chunk.ledger_file is None or chunk.table_name not in world.tables:
            continue
        _look_at(world, chunk, images.get(chunk.audit_id), found)
    if world.scope.all_records:
        _take_all(world, found)
    with _links(world) as database:
        _collect_links(world, found, database)
        _keep_parents(world, found, database)
    return found


def image_of(storage: Storage, image: BeforeImage | None) -> pl.DataFrame | None:
    """The sealed image as a frame; None if there is none, or it has no file."""
    if image is None or image.file is None or image.sha256 is None:
        return None
    storage.verify(image.file, image.sha256)
    return pl.read_parquet(storage.path(image.file), glob=False)


def read_state(
    org: Org, storage: Storage, name: str, table: UndoTable, ids: pl.Series, columns: Sequence[str]
) -> pl.DataFrame:
    """The records with these Ids as they stand in the org now; those that are gone have no line."""
    if ids.len() == 0:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    wanted = ids.alias("Id").to_frame()
    soql = f"SELECT {', '.join(columns)} FROM {table.work.spec.object} WHERE {_condition('Id', ids)}"
    with storage.write(name) as file:
        save_query(org, soql, file.path, columns=columns, finish=lambda page: page.join(wanted, on="Id", how="semi"))
        return pl.read_parquet(file.path, glob=False)


def _condition(field_name: str, ids: pl.Series) -> str:
    """Ids are letters and digits, ordered by their codes: Salesforce's own chunking by primary key relies on it."""
    if ids.len() <= IN_LIST_MAX:
        texts = ", ".join(f"'{one}'" for one in ids.to_list())
        return f"{field_name} IN ({texts})"
    lowest, highest = str(ids.sort()[0]), str(ids.sort()[-1])
    return f"{field_name} >= '{lowest}' AND {field_name} <= '{highest}'"


def _look_at(world: LookWorld, chunk: Chunk, image: BeforeImage | None, found: Looked) -> None:
    table, names = world.tables[chunk.table_name], world.names(chunk)
    assert chunk.ledger_file is not None
    assert chunk.ledger_sha256 is not None
    world.storage.verify(chunk.ledger_file, chunk.ledger_sha256)
    ledger = world.ledger.scan([chunk.ledger_file]).collect()
    created_field = (world.scope.created_field or {}).get(chunk.table_name)
    columns = table.state_columns((created_field,) if created_field is not None else ())
    written = ledger.filter(
        pl.col("id").is_not_null() & pl.col("outcome").is_in(["created", "updated", "failed", "kept"])
    )["id"].unique()
    state = read_state(world.org, world.storage, names.state, table, written, columns)
    before = image_of(world.storage, image)
    if image is None and written.len() and table.work.spec.operation == "upsert":
        found.without_images.add(chunk.table_name)
    # The only table of an empty object: what others of the batch made there would look like this chunk's own.
    is_alone = sum(other.work.spec.object == table.work.spec.object for other in world.tables.values()) == 1
    proves = image is not None and (image.file is not None or is_alone)
    decisions = decide(
        table,
        ledger,
        state,
        Evidence(
            settled_at=_settled_at(chunk),
            image=before,
            image_at=image.taken_at - CLOCKS_APART if image is not None and proves else None,
            user_id=world.org.user_id,
            put_back=_put_back(world, chunk, written),
            since=world.scope.since,
            created_field=created_field,
        ),
    )
    if before is not None:
        restored = decisions.filter(pl.col("action") == RESTORE)["id"]
        for name, values in long_numbers(table, before, restored).items():
            found.long_numbers[f"{chunk.table_name}.{name}"] += values
    write_frame(world.storage, names.looked, decisions)
    found.chunks.append(chunk)


def _put_back(world: LookWorld, chunk: Chunk, ids: pl.Series) -> pl.DataFrame:
    """Of these records those that rollbacks since the chunk's settling have put back, and when that was through.

    A later batch put back what it had found. Had somebody changed a record between this chunk and the first later one,
    that batch's image is younger than the chunk, and the record counts as changed since.
    """
    settled = _settled_at(chunk)
    frames = [pl.DataFrame(schema={**PUT_BACK, "found": PUT_BACK["until"]})]
    wanted = ids.alias("id").to_frame().lazy()
    for rollback, files in world.earlier:
        mine = [name for name in files if f"/{segment(chunk.table_name)}/" in name]
        if mine and rollback.ended_at is not None and rollback.ended_at > settled:
            outcomes = pl.scan_parquet([world.storage.path(name) for name in mine], glob=False)
            done = outcomes.filter((pl.col("action") == RESTORE) & (pl.col("outcome") == "rolled_back"))
            until = pl.lit(rollback.ended_at, dtype=PUT_BACK["until"]).alias("until")
            ours = done.join(wanted, on="id", how="semi").select("id", until).collect(engine="streaming")
            if ours.height:
                frames.append(ours.join(_stamps(world, rollback.batch_id, chunk.table_name, ours["id"]), on="id"))
    together = pl.concat(frames).group_by("id").agg(pl.col("until").max(), pl.col("found").min())
    return together.filter(pl.col("found") <= settled).select("id", "until")


def _stamps(world: LookWorld, batch_id: str, table_name: str, ids: pl.Series) -> pl.DataFrame:
    """When these records had been changed last as the batch found them: `id` and `found`, of those in its images."""
    images = world.audit.images(batch_id)
    frames = [pl.DataFrame(schema={"id": pl.String(), "found": PUT_BACK["until"]})]
    wanted = ids.unique().alias("Id").to_frame()
    for chunk in world.audit.chunks(batch_id, with_superseded=True):
        image = images.get(chunk.audit_id)
        if chunk.table_name != table_name or image is None or image.file is None:
            continue
        lines = pl.scan_parquet(world.storage.path(image.file), glob=False).select("Id", "LastModifiedDate")
        found = lines.join(wanted.lazy(), on="Id", how="semi").collect(engine="streaming")
        frames.append(pl.DataFrame([found["Id"].alias("id"), moments(found["LastModifiedDate"]).alias("found")]))
    return pl.concat(frames).group_by("id").agg(pl.col("found").min())


def earlier_rollbacks(audit: AuditStore, storage: Storage) -> tuple[tuple[Rollback, tuple[str, ...]], ...]:
    """All rollbacks that are through, of any batch, with the files of what became of their records."""
    return tuple(
        (rollback, tuple(name for name in storage.list(folder) if name.endswith(".outcomes.parquet")))
        for batch in audit.batches()
        for rollback in audit.rollbacks(batch.batch_id)
        if rollback.ended_at is not None and (folder := rollback_folder(batch.batch_id, rollback.rollback_no))
    )


def _take_all(world: LookWorld, found: Looked) -> None:
    """Whatever stands in the object since the date is deleted, whoever made or changed it.

    Records that no chunk knows are put down with the table's first chunk.
    """
    assert world.scope.since is not None
    for table_name, field_name in (world.scope.created_field or {}).items():
        mine = [chunk for chunk in found.chunks if chunk.table_name == table_name]
        if not mine:
            continue
        table, first = world.tables[table_name], mine[0]
        since = f"{world.scope.since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = since if table.describe.fields[field_name].type == "datetime" else since[:10]
        soql = f"SELECT Id FROM {table.work.spec.object} WHERE {field_name} >= {text}"
        with world.storage.write(world.names(first).all_records) as file:
            save_query(world.org, soql, file.path, columns=("Id",))
            everything = pl.scan_parquet(file.path, glob=False).select(id="Id").unique()
            known = pl.scan_parquet([world.storage.path(world.names(chunk).looked) for chunk in mine], glob=False)
            unknown = everything.join(known.select("id"), on="id", how="anti").collect(engine="streaming")
            for chunk in mine:
                name = world.names(chunk).looked
                decisions = pl.read_parquet(world.storage.path(name), glob=False)
                taken = decisions.lazy().join(everything, on="id", how="semi").select("id").collect()["id"]
                is_taken = pl.col("id").is_in(taken.implode())
                decisions = decisions.with_columns(
                    pl.when(is_taken).then(pl.lit(DELETE)).otherwise("action").alias("action"),
                    pl.when(is_taken).then(None).otherwise("code").alias("code"),
                )
                if chunk is first:
                    strangers = unknown.select(
                        row=pl.lit(None), key=pl.lit(None), id="id", action=pl.lit(DELETE), code=pl.lit(None)
                    )
                    decisions = pl.concat([decisions, strangers.cast(DECISIONS)])
                write_frame(world.storage, name, decisions.cast(DECISIONS))


def _settled_at(chunk: Chunk) -> datetime:
    assert chunk.end_time is not None
    return chunk.end_time


def write_frame(storage: Storage, name: str, frame: pl.DataFrame) -> tuple[str, str]:
    """Seal a frame as Parquet; its name and seal."""
    with storage.write(name) as file:
        frame.write_parquet(file.path, compression="zstd")
        sealed = file.commit()
    return sealed.name, sealed.sha256


@contextmanager
def _links(world: LookWorld) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of records and links, which spills to disk."""
    with (
        tempfile.TemporaryDirectory(dir=world.scratch, prefix="rollback-") as folder,
        connect(Path(folder) / "links.duckdb", config={"memory_limit": f"{MEMORY_MB}MB", "threads": 2}) as database,
    ):
        database.execute("CREATE TABLE doomed (id VARCHAR, object VARCHAR)")
        database.execute("CREATE TABLE moved (id VARCHAR)")
        database.execute("CREATE TABLE link (child VARCHAR, parent VARCHAR)")
        yield database


def _collect_links(world: LookWorld, found: Looked, database: duckdb.DuckDBPyConnection) -> None:
    """Which records hang on those to be deleted, by every lookup that points at their objects."""
    for chunk in found.chunks:
        path = str(world.storage.path(world.names(chunk).looked))
        object_name = world.tables[chunk.table_name].work.spec.object
        database.execute(
            "INSERT INTO doomed SELECT id, $object FROM read_parquet($file) WHERE action = $action AND code IS NULL",
            {"object": object_name, "file": path, "action": DELETE},
        )
        if not world.are_restored:
            database.execute(
                "INSERT INTO moved SELECT id FROM read_parquet($file) WHERE action = $action",
                {"file": path, "action": RESTORE},
            )
    described = {table.describe.name: table.describe for table in world.tables.values()}
    for object_name, describe in described.items():
        ids = _frame(database, "SELECT id FROM doomed WHERE object = $object ORDER BY id", object=object_name)["id"]
        if ids.len() == 0:
            continue
        for relationship in describe.child_relationships:
            child, lookup = relationship.child_object, relationship.field
            try:
                if not any(True for _ in world.org.query(f"SELECT Id FROM {child} WHERE {lookup} != null LIMIT 1")):
                    continue
                for frame in _children(world, child, lookup, ids):
                    database.register("page", frame.to_arrow())
                    database.execute("INSERT INTO link SELECT child, parent FROM page")
                    database.unregister("page")
            except (OrgRefused, OrgNotFound):
                # Some system objects cannot be queried by themselves; a person is told which.
                found.not_examined.append(f"{child}.{lookup}")


def _frame(database: duckdb.DuckDBPyConnection, query: str, **values: str) -> pl.DataFrame:
    frame = pl.from_arrow(database.sql(query, params=values).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _children(world: LookWorld, child: str, lookup: str, ids: pl.Series) -> Iterable[pl.DataFrame]:
    wanted = ids.alias("parent").to_frame()
    soql = f"SELECT Id, {lookup} FROM {child} WHERE {_condition(lookup, ids)}"
    for page in world.org.bulk_query(soql):
        frame = pl.read_csv(page, infer_schema=False, raise_if_empty=False)
        if frame.height:
            links = frame.select(pl.nth(0).alias("child"), pl.nth(1).alias("parent"))
            yield links.join(wanted, on="parent", how="semi")


def _keep_parents(world: LookWorld, found: Looked, database: duckdb.DuckDBPyConnection) -> None:
    """A record stays on which one hangs that stays; so does the one above it, up to the top."""
    database.execute("CREATE TABLE held (id VARCHAR)")
    while True:
        kept = _frame(
            database,
            "DELETE FROM doomed WHERE id IN (SELECT parent FROM link WHERE child NOT IN (SELECT id FROM doomed) "
            "AND child NOT IN (SELECT id FROM moved)) RETURNING id",
        )
        if kept.height == 0:
            break
        database.register("kept", kept.to_arrow())
        database.execute("INSERT INTO held SELECT id FROM kept")
        database.unregister("kept")
    held = _frame(database, "SELECT DISTINCT id FROM held")
    if held.height == 0:
        return
    for chunk in found.chunks:
        name = world.names(chunk).looked
        decisions = pl.read_parquet(world.storage.path(name), glob=False)
        stays = (pl.col("action") == DELETE) & pl.col("id").is_in(held["id"].implode())
        changed = decisions.with_columns(
            pl.when(stays).then(pl.lit(KEEP)).otherwise("action").alias("action"),
            pl.when(stays).then(pl.lit("CHILDREN_OF_OTHERS")).otherwise("code").alias("code"),
        )
        write_frame(world.storage, name, changed.cast(DECISIONS))
