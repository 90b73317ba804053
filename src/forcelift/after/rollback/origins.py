"""Which row of the audit log wrote each record of a chunk, when that was settled, and what stood there before.

A chunk that was rolled back in part and loaded again holds records that its old row wrote: they were changed since if
they were changed after that one had settled, and their earlier values are in its before-image.

Reads:   ledger, before-images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl
from msgspec import Struct, field

from forcelift.audit import AuditStore
from forcelift.audit.records import Chunk
from forcelift.audit.retries import RetryChunk
from forcelift.audit.undo_records import BeforeImage
from forcelift.ledger import Ledger
from forcelift.storage import Storage

WROTE = ("created", "updated", "failed", "kept")
"""Outcomes of rows that may have a record of the batch."""


class Origin(Struct, frozen=True, kw_only=True):
    """Rows of a chunk's ledger that one row of the audit log wrote, the before-image of these, and when it settled.

    `image` is what was recorded; `before` its lines of these records, None without a file.
    """

    settled_at: datetime
    rows: pl.DataFrame
    image: BeforeImage | None
    before: pl.DataFrame | None


class Origins(Struct, frozen=True, kw_only=True):
    """Looks them up for the chunks of one batch.

    `writers` names the AUDIT_ID of each job; `retried` what a retry took up of its chunk, of each job of a retry.
    """

    audit: AuditStore
    ledger: Ledger
    storage: Storage
    images: Mapping[int, BeforeImage]
    writers: Mapping[int, int]
    retried: Mapping[int, RetryChunk] = field(default_factory=dict)

    @classmethod
    def of(cls, audit: AuditStore, ledger: Ledger, storage: Storage, batch_id: str) -> Origins:
        jobs = audit.jobs(batch_id)
        folders = {retry.retry_no: f"{retry.folder}/" for retry in audit.retries(batch_id)}
        retried = {
            job.job_no: one
            for one in audit.retried_chunks(batch_id)
            for job in jobs
            if job.audit_id == one.audit_id and job.part.file.startswith(folders[one.retry_no])
        }
        return cls(
            audit=audit,
            ledger=ledger,
            storage=storage,
            images=audit.images(batch_id),
            writers={job.job_no: job.audit_id for job in jobs},
            retried=retried,
        )

    def rows(self, chunk: Chunk) -> pl.DataFrame:
        """The chunk's ledger, its seal checked."""
        assert chunk.ledger_file is not None
        assert chunk.ledger_sha256 is not None
        self.storage.verify(chunk.ledger_file, chunk.ledger_sha256)
        return self.ledger.scan([chunk.ledger_file]).collect()

    def find(self, chunk: Chunk, rows: pl.DataFrame) -> list[Origin]:
        """The chunk's own rows first, then those that it took over, each with who wrote them."""
        own = pl.lit(chunk.audit_id, dtype=pl.Int64)
        numbers = {number: audit_id for number, audit_id in self.writers.items() if audit_id != chunk.audit_id}
        writer = (
            pl.col("job").replace_strict(numbers, default=own, return_dtype=pl.Int64).fill_null(own) if numbers else own
        )
        told = rows.with_columns(writer.alias("writer"))
        retry = (
            pl.col("job").replace_strict(
                {number: one.retry_no for number, one in self.retried.items()}, default=0, return_dtype=pl.Int64
            )
            if self.retried
            else pl.lit(0, dtype=pl.Int64)
        )
        told = told.with_columns(retry.fill_null(0).alias("retry"))
        audit_ids = [chunk.audit_id, *sorted(set(told["writer"].unique()) - {chunk.audit_id})]
        found = []
        for audit_id in audit_ids:
            mine = told.filter(pl.col("writer") == audit_id)
            found.append(self._origin(chunk, audit_id, mine.filter(pl.col("retry") == 0).drop("retry")))
            for (number,), rows in mine.filter(pl.col("retry") > 0).group_by("retry", maintain_order=True):
                found.append(self._of_retry(int(number), audit_id, rows.drop("retry")))
        return found

    def _of_retry(self, number: int, audit_id: int, told: pl.DataFrame) -> Origin:
        """Rows that a retry wrote last: settled with it. What they were before stands in the first image that has them.

        A retry takes no image of records that the batch had written before it: theirs is of an earlier retry, or of the
        load.
        """
        ones = {
            one.retry_no: one for one in self.retried.values() if one.audit_id == audit_id and one.retry_no <= number
        }
        settled_at = ones[number].settled_at
        assert settled_at is not None
        images = [_image_of_retry(ones[one]) for one in sorted(ones, reverse=True)]
        taken = [image for image in (*images, self.images.get(audit_id)) if image is not None]
        rows = told.drop("writer")
        ids = rows.select(Id="id").drop_nulls().unique()
        found = [before for image in taken if (before := image_of(self.storage, image)) is not None]
        before = pl.concat(found).unique("Id", keep="first", maintain_order=True) if found else None
        if before is not None:
            before = before.join(ids, on="Id", how="semi")
        return Origin(settled_at=settled_at, rows=rows, image=taken[0] if taken else None, before=before)

    def _origin(self, chunk: Chunk, audit_id: int, told: pl.DataFrame) -> Origin:
        wrote = chunk if audit_id == chunk.audit_id else self.audit.chunk(audit_id)
        image = self.images.get(audit_id)
        assert wrote.end_time is not None
        rows = told.drop("writer")
        before = image_of(self.storage, image)
        if before is not None:
            before = before.join(rows.select(Id="id").drop_nulls().unique(), on="Id", how="semi")
        return Origin(settled_at=wrote.end_time, rows=rows, image=image, before=before)

    def before(self, chunk: Chunk) -> pl.DataFrame | None:
        """The lines of all before-images for the records of a chunk; None if there is none."""
        return before_of(self.find(chunk, self.rows(chunk)))


def _image_of_retry(one: RetryChunk) -> BeforeImage | None:
    if one.image_file is None or one.image_at is None:
        return None
    return BeforeImage(
        audit_id=one.audit_id,
        generation=0,
        file=one.image_file,
        sha256=one.image_sha256,
        rows=one.image_rows or 0,
        taken_at=one.image_at,
    )


def before_of(origins: Sequence[Origin]) -> pl.DataFrame | None:
    """The before-images of several origins as one; no record stands in two."""
    frames = [one.before for one in origins if one.before is not None]
    return pl.concat(frames) if frames else None


def image_of(storage: Storage, image: BeforeImage | None) -> pl.DataFrame | None:
    """The sealed image as a frame; None if there is none, or it has no file."""
    if image is None or image.file is None or image.sha256 is None:
        return None
    storage.verify(image.file, image.sha256)
    return pl.read_parquet(storage.path(image.file), glob=False)


def written_ids(rows: pl.DataFrame) -> pl.Series:
    """The Ids of the records that a ledger's rows wrote, or may have."""
    wrote = pl.col("id").is_not_null() & pl.col("outcome").is_in(WROTE)
    return rows.filter(wrote)["id"].unique()
