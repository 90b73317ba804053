"""Records that rollbacks of later batches have put back: such a change is none of others'.

Reads:   the audit database, outcomes of rollbacks that are through, before-images.
"""

from __future__ import annotations

from datetime import datetime

import polars as pl
from msgspec import Struct

from forcelift.after.rollback.decide import PUT_BACK, moments
from forcelift.after.rollback.scope import RESTORE, rollback_folder
from forcelift.audit import AuditStore
from forcelift.audit.undo_records import Rollback
from forcelift.storage import Storage, segment


class PutBack(Struct, frozen=True, kw_only=True):
    """Rollbacks that are through, of any batch, with the files of what became of their records."""

    audit: AuditStore
    storage: Storage
    earlier: tuple[tuple[Rollback, tuple[str, ...]], ...]

    def find(self, table_name: str, ids: pl.Series, *, settled: datetime) -> pl.DataFrame:
        """Of these records those that rollbacks since their settling have put back, and when that was through.

        A later batch put back what it had found. Had somebody changed a record between this chunk and the first later
        one, that batch's image is younger than the chunk, and the record counts as changed since.
        """
        frames = [pl.DataFrame(schema={**PUT_BACK, "found": PUT_BACK["until"]})]
        wanted = ids.alias("id").to_frame().lazy()
        # Bounds let files of other chunks be passed over unread, as each tells its lowest and highest Id.
        is_near = pl.col("id").is_between(pl.lit(ids.min()), pl.lit(ids.max()))
        for rollback, files in self.earlier:
            mine = [name for name in files if f"/{segment(table_name)}/" in name]
            if mine and rollback.ended_at is not None and rollback.ended_at > settled:
                outcomes = pl.scan_parquet([self.storage.path(name) for name in mine], glob=False)
                done = outcomes.filter(is_near & (pl.col("action") == RESTORE) & (pl.col("outcome") == "rolled_back"))
                until = pl.lit(rollback.ended_at, dtype=PUT_BACK["until"]).alias("until")
                ours = done.join(wanted, on="id", how="semi").select("id", until).collect(engine="streaming")
                if ours.height:
                    frames.append(ours.join(self._stamps(rollback.batch_id, table_name, ours["id"]), on="id"))
        together = pl.concat(frames).group_by("id").agg(pl.col("until").max(), pl.col("found").min())
        return together.filter(pl.col("found") <= settled).select("id", "until")

    def _stamps(self, batch_id: str, table_name: str, ids: pl.Series) -> pl.DataFrame:
        """When these records had been changed last as the batch found them: `id`, `found`."""
        images = self.audit.images(batch_id)
        frames = [pl.DataFrame(schema={"id": pl.String(), "found": PUT_BACK["until"]})]
        wanted = ids.unique().alias("Id").to_frame()
        is_near = pl.col("Id").is_between(pl.lit(ids.min()), pl.lit(ids.max()))
        for chunk in self.audit.chunks(batch_id, with_superseded=True):
            image = images.get(chunk.audit_id)
            if chunk.table_name != table_name or image is None or image.file is None:
                continue
            lines = pl.scan_parquet(self.storage.path(image.file), glob=False).filter(is_near)
            lines = lines.select("Id", "LastModifiedDate")
            found = lines.join(wanted.lazy(), on="Id", how="semi").collect(engine="streaming")
            frames.append(pl.DataFrame([found["Id"].alias("id"), moments(found["LastModifiedDate"]).alias("found")]))
        return pl.concat(frames).group_by("id").agg(pl.col("found").min())


def earlier_rollbacks(audit: AuditStore, storage: Storage) -> PutBack:
    """All rollbacks that are through, of any batch, with the files of what became of their records."""
    earlier = tuple(
        (rollback, tuple(name for name in storage.list(folder) if name.endswith(".outcomes.parquet")))
        for batch in audit.batches()
        for rollback in audit.rollbacks(batch.batch_id)
        if rollback.ended_at is not None and (folder := rollback_folder(batch.batch_id, rollback.rollback_no))
    )
    return PutBack(audit=audit, storage=storage, earlier=earlier)
