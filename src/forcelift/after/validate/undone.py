"""Records that a rollback put back: those that hold again, or still, what the batch had sent.

Reads:   before-images; of records that hold what was sent, the fields in the org once more, by bulk query.
Writes:  lines of the table `not_undone`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import polars as pl

from forcelift.after.validate.population import Population
from forcelift.after.validate.world import ValidateWorld
from forcelift.audit.records import Chunk
from forcelift.jobs.by_ids import conditions
from forcelift.jobs.images import as_before, written_fields
from forcelift.jobs.org_pages import save_query

_SCHEMA = {"id": pl.String, "key": pl.String, "chunk_no": pl.Int32}


def add_not_restored(db: duckdb.DuckDBPyConnection, world: ValidateWorld, population: Population) -> None:
    """Add records of rows that were rolled back, which are neither gone nor as they were before the batch.

    A record that holds other values than were sent was put back, or changed by others since. One that holds what was
    sent may have held it before, too: only its before-image tells.
    """
    db.execute(
        "CREATE TEMP TABLE as_sent AS SELECT m.id, m.key, m.chunk_no, m.audit_id FROM mine m JOIN org o ON o.id = m.id"
        " WHERE m.outcome = 'rolled_back' AND NOT m.created AND NOT m.superseded AND o.hash = m.hash"
    )
    for chunk in population.chunks:
        found = db.execute("SELECT id, key, chunk_no FROM as_sent WHERE audit_id = ?", [chunk.audit_id]).fetchall()
        if not found:
            continue
        rows = pl.DataFrame(found, schema=_SCHEMA, orient="row")
        wrong = rows.join(_as_before(world, chunk, rows["id"]), on="id", how="anti")
        if wrong.height:
            db.register("wrong_rows", wrong.to_arrow())
            db.execute("INSERT INTO not_undone SELECT id, key, chunk_no FROM wrong_rows")
            db.unregister("wrong_rows")


def _as_before(world: ValidateWorld, chunk: Chunk, ids: pl.Series) -> pl.DataFrame:
    """Of these records those that hold what their before-image holds: `id`. No image, no record."""
    image = _image(world, chunk, ids)
    if image is None or not image.height:
        return pl.DataFrame(schema={"id": pl.String})
    work = world.works[chunk.table_name]
    fields = world.org.describe(work.spec.object).fields
    # What the org lets nobody write into a record that exists was not put back, and that was told.
    names = [name for name in written_fields(work) if fields[name].updateable]
    columns = tuple(dict.fromkeys(("Id", *names)))
    soql = f"SELECT {', '.join(columns)} FROM {work.spec.object}"
    wanted = image.select("Id")
    frames = []
    with tempfile.TemporaryDirectory(prefix="undone-", dir=world.scratch) as folder:
        file = Path(folder) / "page.parquet"
        for condition in conditions("Id", image["Id"]):
            save_query(
                world.org,
                f"{soql} WHERE {condition}",
                file,
                columns=columns,
                finish=lambda page: page.join(wanted, on="Id", how="semi"),
            )
            frames.append(pl.read_parquet(file, glob=False))
    return as_before(fields, names, image, pl.concat(frames)).filter(pl.col("same")).select("id")


def _image(world: ValidateWorld, chunk: Chunk, ids: pl.Series) -> pl.DataFrame | None:
    """The lines of these records in the chunk's before-images, those of its earlier loads too; the earliest counts."""
    images = world.audit.images(chunk.batch_id)
    wanted = ids.alias("Id").to_frame()
    every = world.audit.chunks(chunk.batch_id, chunk.table_name, with_superseded=True)
    frames = []
    for one in sorted(every, key=lambda one: one.audit_id):
        image = images.get(one.audit_id)
        if one.chunk_no != chunk.chunk_no or image is None or image.file is None or image.sha256 is None:
            continue
        world.storage.verify(image.file, image.sha256)
        lines = pl.scan_parquet(world.storage.path(image.file), glob=False)
        frames.append(lines.join(wanted.lazy(), on="Id", how="semi").collect())
    return pl.concat(frames).unique("Id", keep="last", maintain_order=True) if frames else None
