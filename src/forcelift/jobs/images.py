"""Before-images: the records of a chunk's keys as they stand just before its first job.

Reads:   the org, by bulk query; the chunk's staged keys.
Writes:  `images/<batch>/<table>/c000001.g00.parquet`, sealed, then recorded and journaled before the job's intent;
         for a table whose keys cannot be asked for as a range, once `object.parquet` of the whole object.
Re-run:  an image that is recorded is never taken again; a file without its record is replaced.

A key without a line in the image stood for no record: that is the proof by which a rollback may delete what a lost
answer left in doubt. So an image never leaves out a key because texts are ordered otherwise than we think.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.audit.records import Chunk
from forcelift.audit.undo_records import TableImage
from forcelift.jobs.messages import TakeImage
from forcelift.jobs.org_pages import save_query, soql_moment
from forcelift.jobs.parts import read_part
from forcelift.jobs.work import TableWork
from forcelift.jobs.world import JobWorld
from forcelift.protocols.org import FieldDescribe
from forcelift.rules import canonical_from_org, normalised_key
from forcelift.storage import segment

STAMPS: Final = ("Id", "LastModifiedDate", "SystemModstamp")
SPREAD_MAX: Final = 20
"""Numbers between the smallest and the largest key for each row of the chunk, at most, for its keys to be asked for as
a range: wider ones would fetch records again and again that belong to other chunks."""

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the org's clock may be behind ours without a change being missed between two looks."""

_NUMBERS = frozenset({"double", "currency", "percent", "int", "long"})
_ID = FieldDescribe(name="Id", label="Id", type="id", length=18)
_EXACT_BELOW = 2.0**53  # above it two numbers may be one as a double, and their order is not certain
_RANGED = re.compile(r"([A-Za-z0-9_-]*?)([0-9]+)")


class KeyRange(Struct, frozen=True, kw_only=True):
    """Bounds between which every key of a chunk lies, however the org orders texts."""

    lowest: str
    highest: str

    def condition(self, field: FieldDescribe) -> str:
        """As SOQL; the bounds hold letters, digits, `_` and `-` alone."""
        quote = "" if field.type in _NUMBERS else "'"
        return f"{field.name} >= {quote}{self.lowest}{quote} AND {field.name} <= {quote}{self.highest}{quote}"


def key_range(field: FieldDescribe, keys: pl.Series) -> KeyRange | None:
    """The range of canonical keys, if it is certain in every order of texts, and narrow; else None.

    Numbers are ordered as such. Texts only where all have the same beginning and then equally many digits: any
    collation, minding case or not, orders those by the digits. Letters, Thai ones above all, are ordered by rules of
    the org's language that we do not know.
    """
    if keys.len() == 0 or keys.null_count():
        return None
    if field.type in _NUMBERS:
        values = keys.cast(pl.Float64, strict=False)
        if values.null_count() or not (values.abs() < _EXACT_BELOW).all():
            return None
        order = values.arg_sort()
        lowest, highest = keys[int(order[0])], keys[int(order[-1])]
        width = float(values[int(order[-1])]) - float(values[int(order[0])])
        return KeyRange(lowest=lowest, highest=highest) if width <= SPREAD_MAX * keys.len() else None
    lowest, highest = str(keys.min()), str(keys.max())
    first, last = _RANGED.fullmatch(lowest), _RANGED.fullmatch(highest)
    if first is None or last is None or len(lowest) != len(highest):
        return None
    prefix = _common(lowest, highest)
    digits = len(lowest) - len(prefix)
    pattern = f"^{re.escape(prefix)}[0-9]{{{digits}}}$"
    if not keys.str.contains(pattern).all():
        return None
    width = int(highest[len(prefix) :] or 0) - int(lowest[len(prefix) :] or 0)
    return KeyRange(lowest=lowest, highest=highest) if width <= SPREAD_MAX * keys.len() else None


def _common(one: str, other: str) -> str:
    """What two texts of equal length begin with alike, without digits at its end."""
    length = next((at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
    return one[:length].rstrip("0123456789")


def written_fields(work: TableWork) -> tuple[str, ...]:
    """API names of the fields that the table's jobs write, lookups as the fields that hold the parent's Id."""
    lookups = {info.target: info.field for info in work.rules.lookups.values()}
    targets = (*work.rules.target_columns, *work.rules.link_target_columns)
    return tuple(dict.fromkeys(lookups.get(target, target) for target in targets))


def image_columns(work: TableWork) -> tuple[str, ...]:
    """The columns of an image, `norm` (the key as the org compares it) beside them."""
    return tuple(dict.fromkeys((work.key_field.name, *STAMPS, *written_fields(work))))


def as_before(
    fields: Mapping[str, FieldDescribe], names: Sequence[str], image: pl.DataFrame, state: pl.DataFrame
) -> pl.DataFrame:
    """Of the records in an image and in the org: `id`, and `same`, whether these fields hold what the image holds."""
    before = _canonical(fields, names, image.unique("Id", keep="first"))
    now = _canonical(fields, names, state)
    same = pl.all_horizontal(pl.lit(True), *(pl.col(name).eq_missing(pl.col(f"{name}__now")) for name in names))
    return before.join(now, on="Id", suffix="__now").select(pl.col("Id").alias("id"), same.alias("same"))


def _canonical(fields: Mapping[str, FieldDescribe], names: Sequence[str], frame: pl.DataFrame) -> pl.DataFrame:
    columns = [canonical_from_org(fields[name], frame[name]).alias(name) for name in names]
    return pl.DataFrame([canonical_from_org(_ID, frame["Id"]).alias("Id"), *columns])


def images_folder(batch_id: str) -> str:
    """Where a batch's before-images lie in storage; they stay when staged files go."""
    return f"images/{segment(batch_id)}"


class ImageHandlers:
    """Takes before-images."""

    def __init__(self, world: JobWorld) -> None:
        self._world = world
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def take(self, command: TakeImage) -> int:
        """Seal and record one chunk's image, unless its object held no record before the batch. -> its records."""
        world = self._world
        known = world.audit.image(command.audit_id)
        if known is not None:
            return known.rows
        chunk, work, _ = world.chunk(command.audit_id)
        assert chunk.staged is not None
        with self._lock_of(chunk.table_name):
            decided = self._decide(chunk, work)
        if not decided.held_records:
            # One small record for each chunk says why there is no file; no call of the org is spent on it.
            return world.audit.record_image(chunk.audit_id, file=None, sha256=None, rows=0).rows
        staged = pl.concat([read_part(world.storage, part) for part in chunk.staged.parts])
        keys = staged.select(work.key_field.name).collect().to_series()
        bounds = key_range(work.key_field, keys)
        frame = (
            self._ask(work, chunk, bounds.condition(work.key_field))
            if bounds is not None
            else self._of_object(work, chunk, keys)
        )
        norms = normalised_key(work.key_field, keys).alias("norm").to_frame().unique()
        image = frame.join(norms, on="norm", how="semi")
        with world.storage.write(self._name(chunk)) as file:
            image.write_parquet(file.path, compression="zstd")
            sealed = file.commit()
        recorded = world.audit.record_image(chunk.audit_id, file=sealed.name, sha256=sealed.sha256, rows=image.height)
        return recorded.rows

    def _decide(self, chunk: Chunk, work: TableWork) -> TableImage:
        """One cheap question for each table of a batch: an empty object has nothing to remember."""
        world = self._world
        known = world.audit.table_image(chunk.batch_id, chunk.table_name)
        if known is not None:
            return known
        held = any(True for _ in world.org.query(f"SELECT Id FROM {work.spec.object} LIMIT 1"))
        return world.audit.decide_images(chunk.batch_id, chunk.table_name, held_records=held)

    def _of_object(self, work: TableWork, chunk: Chunk, keys: pl.Series) -> pl.DataFrame:
        """A chunk's records out of the table's one file of all, with what others have changed or made since."""
        world = self._world
        with self._lock_of(chunk.table_name):
            whole = self._whole(work, chunk)
        assert whole.file is not None
        assert whole.asked_at is not None
        norms = normalised_key(work.key_field, keys).alias("norm").to_frame().unique()
        early = pl.scan_parquet(world.storage.path(whole.file), glob=False).join(norms.lazy(), on="norm", how="semi")
        since = soql_moment(whole.asked_at - CLOCKS_APART)
        others = f"SystemModstamp >= {since} AND LastModifiedById != '{world.org.user_id}'"
        late = self._ask(work, chunk, others)
        return pl.concat([early.collect(engine="streaming").join(late.select("Id"), on="Id", how="anti"), late])

    def _whole(self, work: TableWork, chunk: Chunk) -> TableImage:
        world = self._world
        known = world.audit.table_image(chunk.batch_id, chunk.table_name)
        assert known is not None
        if known.file is not None:
            return known
        asked_at = world.clock.now()
        with world.storage.write(self._own_name(chunk, "object.parquet")) as file:
            rows = self._save(work, f"{work.key_field.name} != null", file.path)
            sealed = file.commit()
        return world.audit.share_image(
            replace(known, file=sealed.name, sha256=sealed.sha256, rows=rows, asked_at=asked_at)
        )

    def _ask(self, work: TableWork, chunk: Chunk, where: str) -> pl.DataFrame:
        """Records as a frame, by way of a file that does not outlast the call."""
        with self._world.storage.write(self._own_name(chunk, f"c{chunk.chunk_no:06d}.asked.parquet")) as file:
            self._save(work, where, file.path)
            return pl.read_parquet(file.path, glob=False)

    def _save(self, work: TableWork, where: str, path: Path) -> int:
        columns = image_columns(work)
        field = work.key_field
        names = ", ".join(columns)

        def with_norm(page: pl.DataFrame) -> pl.DataFrame:
            norm = normalised_key(field, canonical_from_org(field, page[field.name])).alias("norm")
            return page.with_columns(norm.cast(pl.String))

        soql = f"SELECT {names} FROM {work.spec.object} WHERE {where}"
        return save_query(self._world.org, soql, path, columns=columns, finish=with_norm)

    def _name(self, chunk: Chunk) -> str:
        return self._own_name(chunk, f"c{chunk.chunk_no:06d}.g{chunk.generation:02d}.parquet")

    def _own_name(self, chunk: Chunk, name: str) -> str:
        """On a shared batch each runner writes files of its own: none may replace what another has sealed."""
        fence = self._world.own_fence
        own = "" if fence is None else f"r{fence:04d}/"
        return f"{images_folder(chunk.batch_id)}/{segment(chunk.table_name)}/{own}{name}"

    def _lock_of(self, table: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(table, threading.Lock())
