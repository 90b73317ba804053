"""Before-images of a retry: the records of its rows' keys as they stand just before its first job.

The image of the load does not do: it holds no rows that a rule had rejected, and others may have written since.

Reads:   the org; the upload files of the retry.
Writes:  `images/<batch>/<table>/c000001.retry0001.parquet`, sealed, then recorded before the job's intent.
Re-run:  an image that is recorded is never taken again; a file without its record is replaced.
"""

from __future__ import annotations

import polars as pl

from forcelift.after.retry.world import RetryWorld
from forcelift.audit.records import Chunk
from forcelift.jobs.by_ids import pages_by_ids
from forcelift.jobs.images import ImageHandlers, image_columns, images_folder, key_range
from forcelift.jobs.messages import TakeImage
from forcelift.jobs.parts import read_part
from forcelift.jobs.work import TableWork
from forcelift.rules import canonical_from_org, normalised_key
from forcelift.storage import segment

ASK_BY_KEY_MAX = 5_000
"""More keys than these are not asked for one by one: a range of them, or the whole object, is fetched at once."""


class RetryImages(ImageHandlers):
    """Takes before-images of a retry."""

    def __init__(self, world: RetryWorld) -> None:
        super().__init__(world)
        self._retry = world

    def take(self, command: TakeImage) -> int:
        """Seal and record the image of one chunk's rows. -> its records."""
        world = self._retry
        known = world.one(command.audit_id)
        if known.image_rows is not None:
            return known.image_rows
        chunk, work, _ = world.chunk(command.audit_id)
        assert chunk.staged is not None
        staged = pl.concat([read_part(world.storage, part) for part in chunk.staged.parts])
        keys = staged.select(work.key_field.name).collect().to_series()
        norms = normalised_key(work.key_field, keys).alias("norm").to_frame().unique()
        # What the batch has written already, as of emptied lookups, has its earlier values in an earlier image.
        written = world.lines(command.audit_id).filter(pl.col("id").is_not_null()).select("norm")
        norms = norms.join(written, on="norm", how="anti")
        image = self._now(work, chunk, keys).join(norms, on="norm", how="semi")
        with world.storage.write(self._image_name(chunk)) as file:
            image.write_parquet(file.path, compression="zstd")
            sealed = file.commit()
        recorded = world.audit.image_retry(
            world.retry.retry_no, chunk.audit_id, file=sealed.name, sha256=sealed.sha256, rows=image.height
        )
        return recorded.image_rows or 0

    def _now(self, work: TableWork, chunk: Chunk, keys: pl.Series) -> pl.DataFrame:
        """The records of these keys, and perhaps others, with `norm` beside the columns of an image."""
        if keys.len() > ASK_BY_KEY_MAX:
            bounds = key_range(work.key_field, keys)
            where = bounds.condition(work.key_field) if bounds is not None else f"{work.key_field.name} != null"
            return self._ask(work, chunk, where)
        columns = image_columns(work)
        ids = [one for one, _ in self._retry.org.find(work.spec.object, work.key_field, keys.unique().to_list())]
        frames = [pl.DataFrame(schema=dict.fromkeys(columns, pl.String))]
        if ids:
            soql = f"SELECT {', '.join(columns)} FROM {work.spec.object}"
            for page in pages_by_ids(self._retry.org, soql, "Id", pl.Series(ids, dtype=pl.String)):
                frame = pl.read_csv(page, infer_schema=False, raise_if_empty=False)
                if frame.height:
                    spelled = {name.lower(): name for name in frame.columns}
                    texts = {name: pl.col(spelled[name.lower()]) for name in columns}
                    frames.append(frame.select(pl.when(text != "").then(text).alias(n) for n, text in texts.items()))
        found = pl.concat(frames)
        norm = normalised_key(work.key_field, canonical_from_org(work.key_field, found[work.key_field.name]))
        return found.with_columns(norm.alias("norm").cast(pl.String))

    def _image_name(self, chunk: Chunk) -> str:
        folder = f"{images_folder(chunk.batch_id)}/{segment(chunk.table_name)}"
        return f"{folder}/c{chunk.chunk_no:06d}.retry{self._retry.retry.retry_no:04d}.parquet"
