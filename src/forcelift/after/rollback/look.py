"""Look at what a batch wrote, as it stands in the org now, and decide on every record.

Reads:   ledger, before-images, the org by bulk query.
Writes:  for each chunk `*.looked.parquet`, with a decision per record; a database of links between records, in a
         temporary folder. No record is touched.
Re-run:  files are replaced; nothing counts before the whole rollback is sealed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

import polars as pl
from msgspec import Struct, field

from forcelift.after.rollback.decide import DECISIONS, Evidence, UndoTable, decide, long_numbers
from forcelift.after.rollback.later import Later, stamps_of
from forcelift.after.rollback.links import Decided, Links, open_links, table_layers
from forcelift.after.rollback.origins import Origin, Origins, before_of, written_ids
from forcelift.after.rollback.put_back import PutBack
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, Scope, UndoNames
from forcelift.after.rollback.states import States
from forcelift.audit import AuditStore
from forcelift.audit.records import Chunk, ChunkStatus, ChunkStep
from forcelift.jobs.images import CLOCKS_APART
from forcelift.jobs.org_pages import save_query
from forcelift.ledger import Ledger
from forcelift.protocols.org import Org
from forcelift.storage import Storage

REFUSED = "REFUSED"
"""Code of a record whose deletion the org refused in an earlier wave: it stays, and so does what it hangs on."""


class LookWorld(Struct, frozen=True, kw_only=True):
    """Everything that looking touches. `tables` are in load order; `folder` is where the rollback's files lie.

    `earlier` knows rollbacks that are through. `are_restored` tells that the restores were sent: what hangs on a record
    now goes on hanging on it. `refused` are Ids whose deletion was sent and refused. `later` has, in a preview of
    several batches, what rollbacks of later ones would do first; what this one would do is added to it.
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
    earlier: PutBack
    are_restored: bool = False
    refused: pl.Series | None = None
    later: Later | None = None

    def names(self, chunk: Chunk) -> UndoNames:
        return UndoNames(folder=self.folder, table=chunk.table_name, chunk_no=chunk.chunk_no)


class Looked(Struct, kw_only=True):
    """What was found: the chunks with something to undo, and what cannot be looked at or put back.

    Attributes:
        chunks: Chunks whose records were looked at, in load order.
        unsettled: Chunks of the scope that were sent and not settled.
        unfinished: Chunks that a resume had begun to load again; what stood of them is looked at once they are through.
        not_examined: Lookups of other objects that the org lets nobody query, as `Object.Field`.
        long_numbers: Values to be restored that have more digits than a number holds, by `Table.Field`.
        without_images: Tables that were loaded without before-images.
    """

    chunks: list[Chunk] = field(default_factory=list)
    unsettled: list[Chunk] = field(default_factory=list)
    unfinished: list[Chunk] = field(default_factory=list)
    not_examined: list[str] = field(default_factory=list)
    long_numbers: Counter[str] = field(default_factory=Counter)
    without_images: set[str] = field(default_factory=set)


def look(world: LookWorld) -> Looked:
    """Look at every chunk of the scope; decisions are final once `seal` has written them down."""
    found = Looked()
    sent = {job.audit_id for job in world.audit.jobs(world.batch_id) if job.sf_id is not None}
    chunks: dict[str, list[Chunk]] = {}
    for chunk in world.audit.chunks(world.batch_id):
        if not world.scope.takes(chunk.table_name, chunk.chunk_no) or chunk.status is ChunkStatus.ROLLED_BACK:
            continue
        if chunk.step is not ChunkStep.SETTLED:
            if chunk.audit_id in sent:
                found.unsettled.append(chunk)
            elif holds_records(world.audit, world.ledger, chunk):
                found.unfinished.append(chunk)
            continue
        if chunk.ledger_file is not None and chunk.table_name in world.tables:
            chunks.setdefault(chunk.table_name, []).append(chunk)
    origins = Origins.of(world.audit, world.ledger, world.storage, world.batch_id)
    with States(
        org=world.org,
        storage=world.storage,
        ledger=world.ledger,
        scratch=world.scratch,
        chunks=chunks,
        columns={name: _columns(world, name) for name in chunks},
        objects={name: world.tables[name].work.spec.object for name in chunks},
    ) as states:
        for mine in chunks.values():
            for chunk in mine:
                _look_at(world, chunk, origins, states, found)
    if world.scope.all_records:
        _take_all(world, found)
    with open_links(world.org, world.scratch) as links:
        _keep_parents(world, found, links)
    return found


def holds_records(audit: AuditStore, ledger: Ledger, chunk: Chunk) -> bool:
    """Whether records of a chunk's earlier load stand, which its new row counts only once it is through."""
    earlier = audit.predecessor(chunk.audit_id)
    if earlier is None or earlier.ledger_file is None:
        return False
    return int(ledger.standing([earlier.ledger_file]).select(pl.len()).collect().item()) > 0


def _columns(world: LookWorld, table_name: str) -> tuple[str, ...]:
    created_field = (world.scope.created_field or {}).get(table_name)
    return world.tables[table_name].state_columns((created_field,) if created_field is not None else ())


def _look_at(world: LookWorld, chunk: Chunk, origins: Origins, states: States, found: Looked) -> None:
    table, names = world.tables[chunk.table_name], world.names(chunk)
    ledger = origins.rows(chunk)
    written = written_ids(ledger)
    state = states.read(chunk, names.state, written, _columns(world, chunk.table_name))
    wrote = origins.find(chunk, ledger)
    decisions = pl.concat([_decide(world, chunk, one, state, found) for one in wrote])
    if world.refused is not None:
        is_refused = (pl.col("action") == DELETE) & pl.col("code").is_null()
        is_refused &= pl.col("id").is_in(world.refused.implode())
        decisions = decisions.with_columns(
            pl.when(is_refused).then(pl.lit(KEEP)).otherwise("action").alias("action"),
            pl.when(is_refused).then(pl.lit(REFUSED)).otherwise("code").alias("code"),
        )
    before = before_of(wrote)
    if before is not None:
        restored = decisions.filter(pl.col("action") == RESTORE)["id"]
        for name, values in long_numbers(table, before, restored).items():
            found.long_numbers[f"{chunk.table_name}.{name}"] += values
    write_frame(world.storage, names.looked, decisions)
    if world.later is not None:
        write_frame(world.storage, names.stamps, stamps_of(decisions, before))
    found.chunks.append(chunk)


def _decide(world: LookWorld, chunk: Chunk, origin: Origin, state: pl.DataFrame, found: Looked) -> pl.DataFrame:
    """Decide on the records that one row of the audit log wrote."""
    table = world.tables[chunk.table_name]
    written, image = written_ids(origin.rows), origin.image
    if image is None and written.len() and table.work.spec.operation == "upsert":
        found.without_images.add(chunk.table_name)
    # The only table of an empty object: what others of the batch made there would look like this chunk's own.
    is_alone = sum(other.work.spec.object == table.work.spec.object for other in world.tables.values()) == 1
    proves = image is not None and (image.file is not None or is_alone)
    return decide(
        table,
        origin.rows,
        state,
        Evidence(
            settled_at=origin.settled_at,
            image=origin.before,
            image_at=image.taken_at - CLOCKS_APART if image is not None and proves else None,
            user_id=world.org.user_id,
            to_be_put_back=world.later.put_back(table.describe.name, written) if world.later is not None else None,
            put_back=world.earlier.find(chunk.table_name, written, settled=origin.settled_at),
            since=world.scope.since,
            created_field=(world.scope.created_field or {}).get(chunk.table_name),
        ),
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
                        row=pl.lit(None),
                        key=pl.lit(None),
                        id="id",
                        action=pl.lit(DELETE),
                        code=pl.lit(None),
                        wave=pl.lit(None),
                    )
                    decisions = pl.concat([decisions, strangers.cast(DECISIONS)])
                write_frame(world.storage, name, decisions.cast(DECISIONS))


def write_frame(storage: Storage, name: str, frame: pl.DataFrame) -> tuple[str, str]:
    """Seal a frame as Parquet; its name and seal."""
    with storage.write(name) as file:
        frame.write_parquet(file.path, compression="zstd")
        sealed = file.commit()
    return sealed.name, sealed.sha256


def _keep_parents(world: LookWorld, found: Looked, links: Links) -> None:
    """A record stays on which one hangs that stays; of those that go, each goes after what hangs on it."""
    layers = table_layers(world.tables)
    for chunk in found.chunks:
        links.add(
            Decided(
                file=world.storage.path(world.names(chunk).looked),
                object=world.tables[chunk.table_name].describe.name,
                layer=layers[chunk.table_name],
            ),
            are_restored=world.are_restored,
        )
    links.collect(world.tables.values())
    for decided in world.later.decided if world.later is not None else ():
        links.add(decided, are_restored=False)  # what is gone by then holds nothing
    found.not_examined.extend(links.not_examined)
    held = links.held()
    links.waves()
    for chunk in found.chunks:
        name = world.names(chunk).looked
        decisions = pl.read_parquet(world.storage.path(name), glob=False)
        stays = (pl.col("action") == DELETE) & pl.col("id").is_in(held["id"].implode())
        changed = decisions.with_columns(
            pl.when(stays).then(pl.lit(KEEP)).otherwise("action").alias("action"),
            pl.when(stays).then(pl.lit("CHILDREN_OF_OTHERS")).otherwise("code").alias("code"),
        )
        waves = links.wave_of(decisions.filter(pl.col("action") == DELETE)["id"])
        changed = changed.drop("wave").join(waves, on="id", how="left", maintain_order="left")
        write_frame(world.storage, name, changed.select(DECISIONS.names()).cast(DECISIONS))
    if world.later is not None:
        for chunk in found.chunks:
            table, names = world.tables[chunk.table_name].describe.name, world.names(chunk)
            decided = Decided(file=world.storage.path(names.looked), object=table, layer=layers[chunk.table_name])
            world.later.decided.append(decided)
            world.later.stamps.append((table, world.storage.path(names.stamps)))
