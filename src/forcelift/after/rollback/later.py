"""What rollbacks of later batches would do, so that a preview of an earlier one tells what comes after them.

Reads:   decisions that the previews of the later batches have written, and what their before-images say of times.
Writes:  `*.stamps.parquet` beside those decisions: when the records that would be put back had been changed last.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from msgspec import Struct, field

from forcelift.after.rollback.decide import STAMPS, moments
from forcelift.after.rollback.links import Decided
from forcelift.after.rollback.scope import RESTORE


class Later(Struct, kw_only=True):
    """Previews of later batches; each adds its own.

    Attributes:
        decided: Files of decisions, by chunk.
        stamps: Object and file of records that would be put back: `id`, and `found`, when each was changed last before
            its batch.
        folders: Of the previews, to be removed when all of them are done.
    """

    decided: list[Decided] = field(default_factory=list)
    stamps: list[tuple[str, Path]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    def put_back(self, object_name: str, ids: pl.Series) -> pl.DataFrame:
        """Of these records those that would be put back: `id`, and `found` as the earliest of the batches found it."""
        frames = [pl.DataFrame(schema=STAMPS), *self._stamps_of(object_name, ids)]
        return pl.concat(frames).group_by("id").agg(pl.col("found").min())

    def _stamps_of(self, object_name: str, ids: pl.Series) -> Iterator[pl.DataFrame]:
        wanted = ids.alias("id").to_frame().lazy()
        for name, file in self.stamps:
            if name == object_name:
                lines = pl.scan_parquet(file, glob=False).join(wanted, on="id", how="semi")
                yield lines.select("id", "found").collect(engine="streaming")


def stamps_of(decisions: pl.DataFrame, before: pl.DataFrame | None) -> pl.DataFrame:
    """Of the records that are to be restored: `id` and `found`, when the before-image says they were changed last."""
    restored = decisions.filter(pl.col("action") == RESTORE).select("id").unique()
    if before is None or not restored.height:
        return pl.DataFrame(schema=STAMPS)
    found = before.join(restored, left_on="Id", right_on="id", how="semi")
    stamps = pl.DataFrame([found["Id"].alias("id"), moments(found["LastModifiedDate"]).alias("found")])
    return stamps.group_by("id").agg(pl.col("found").min())
