"""Seal a rollback: for each chunk its decisions and the files that will be uploaded, before a record is touched.

Reads:   the decisions of `look`, before-images.
Writes:  `*.decisions.parquet`, `*.delete.wWWW.NN.csv` (the export of the Ids) and `*.restore.NN.csv`, then their row.
Re-run:  until all is recorded in one transaction everything is decided anew; after it nothing is.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from forcelift.after.rollback.decide import UndoTable, restore_rows
from forcelift.after.rollback.links import DEPTH_MAX
from forcelift.after.rollback.look import Looked, LookWorld, write_frame
from forcelift.after.rollback.origins import Origins
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, UndoNames
from forcelift.audit.records import Chunk, Part
from forcelift.audit.undo_records import RollbackChunk
from forcelift.jobs.parts import PartWriter

NULL_TEXT = "#N/A"
"""Empties a field; an empty cell would leave it as it is."""


def seal_chunks(world: LookWorld, found: Looked, rollback_no: int) -> list[RollbackChunk]:
    """Write the files of every chunk on which something was decided."""
    origins = Origins.of(world.audit, world.ledger, world.storage, world.batch_id)
    return [_seal(world, chunk, origins, rollback_no) for chunk in found.chunks]


def _seal(world: LookWorld, chunk: Chunk, origins: Origins, rollback_no: int) -> RollbackChunk:
    names = world.names(chunk)
    decisions = pl.read_parquet(world.storage.path(names.looked), glob=False)
    file, sha256 = write_frame(world.storage, names.decisions, decisions)
    world.storage.delete(names.looked)
    restores: tuple[Part, ...] = ()
    ids = decisions.filter(pl.col("action") == RESTORE)["id"]
    before = origins.before(chunk) if ids.len() else None
    if before is not None:
        rows = restore_rows(world.tables[chunk.table_name], before, ids)
        restores = _write(world, names, RESTORE, rows)
    to_delete = decisions.filter((pl.col("action") == DELETE) & pl.col("code").is_null())
    to_delete = to_delete.select(pl.col("id").alias("Id"), pl.col("wave").fill_null(0))
    deletes: list[Part] = []
    for wave in sorted(to_delete["wave"].unique()):
        mine = to_delete.filter(pl.col("wave") == wave)
        # Where records hang on each other more deeply than there are waves, those made last go first.
        order = mine["Id"].sort(descending=True) if wave >= DEPTH_MAX else mine["Id"]
        deletes += _write(world, names, DELETE, order.to_frame(), wave=wave)
    return RollbackChunk(
        rollback_no=rollback_no,
        audit_id=chunk.audit_id,
        decisions_file=file,
        decisions_sha256=sha256,
        restores=restores,
        deletes=tuple(deletes),
    )


def _write(
    world: LookWorld, names: UndoNames, action: str, frame: pl.DataFrame, *, wave: int | None = None
) -> tuple[Part, ...]:
    with PartWriter(world.storage, lambda number: names.part(action, number, wave=wave), null_text=NULL_TEXT) as writer:
        writer.write(frame)
        return writer.finish()


def tally(world: LookWorld, found: Looked) -> dict[str, Counter[str]]:
    """Records by table: `delete`, `restore`, `leave`, `gone`, and `kept:REASON`."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in world.tables}
    for chunk in found.chunks:
        decisions = pl.read_parquet(world.storage.path(world.names(chunk).looked), glob=False)
        for action, code, rows in decisions.group_by("action", "code").len().iter_rows():
            name = f"kept:{code}" if action == KEEP else "gone" if action == DELETE and code else action
            counts[chunk.table_name][name] += rows
    return counts


def written_by(table: UndoTable) -> str:
    """The object that a table's records belong to."""
    return table.describe.name
