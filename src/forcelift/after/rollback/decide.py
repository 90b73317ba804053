"""What becomes of each record that a chunk wrote: delete, restore, keep with a reason, or leave. Pure, by columns."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl
from msgspec import Struct

from forcelift.after.rollback.scope import DELETE, KEEP, LEAVE, RESTORE
from forcelift.jobs.images import as_before, written_fields
from forcelift.jobs.work import TableWork
from forcelift.ledger import RECORD_GONE
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.rules import add_hashes, canonical_from_org

DECISIONS = pl.Schema(
    {
        "row": pl.UInt32(),
        "key": pl.String(),
        "id": pl.String(),
        "action": pl.String(),
        "code": pl.String(),
        "wave": pl.UInt16(),  # of a record that is to be deleted: those of one go together, lower ones first
    }
)
PUT_BACK = pl.Schema({"id": pl.String(), "until": pl.Datetime("us", "UTC")})
STAMPS = pl.Schema({"id": pl.String(), "found": pl.Datetime("us", "UTC")})
EXACT_DIGITS = 15
ALREADY_GONE = "ALREADY_GONE"
"""Beside `delete`: the org does not hold the record any more, so that nothing is sent for it."""

_NUMBERS = frozenset({"double", "currency", "percent", "int", "long"})


class UndoTable(Struct, frozen=True, kw_only=True):
    """A table with what the org tells of its object.

    `parent_keys` describes the key field of each lookup by (parent object, field name).
    """

    work: TableWork
    describe: ObjectDescribe
    parent_keys: Mapping[tuple[str, str], FieldDescribe]

    @property
    def compared(self) -> dict[str, FieldDescribe]:
        """The columns that row hashes are made of, with the field that tells each one's canonical form.

        None where a lookup may point to several objects: SOQL reads no key across those, so that only the time of the
        last change tells.
        """
        rules, found = self.work.rules, {}
        lookups = {info.target: info for info in rules.lookups.values()}
        for target in dict.fromkeys((*rules.target_columns, *rules.link_target_columns)):
            info = lookups.get(target)
            if info is None:
                found[target] = self.describe.fields[target]
            elif ":" in target:
                return {}
            else:
                found[target] = self.parent_keys[info.parent_object, info.key_field]
        return found

    @property
    def is_comparable(self) -> bool:
        """Whether a record's values can be compared with what was sent: not where nulls leave fields as they are."""
        return self.work.plan.nulls == "clear" and bool(self.compared)

    @property
    def restored(self) -> tuple[str, ...]:
        """The fields that a restore writes."""
        return tuple(name for name in written_fields(self.work) if self.describe.fields[name].updateable)

    @property
    def not_restorable(self) -> tuple[str, ...]:
        """Fields that the batch wrote and that cannot be written into a record that exists."""
        return tuple(name for name in written_fields(self.work) if not self.describe.fields[name].updateable)

    def state_columns(self, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        """What is asked of the org for each record."""
        stamps = ("Id", "LastModifiedDate", "LastModifiedById", "CreatedDate", "CreatedById")
        compared = tuple(self.compared) if self.is_comparable else ()
        return tuple(dict.fromkeys((*stamps, *compared, *more)))


class Evidence(Struct, frozen=True, kw_only=True):
    """What is known of a chunk beside its ledger.

    Attributes:
        settled_at: When the batch had settled it: a later change is somebody else's.
        image: Its before-image; None if none was taken, or it holds nothing.
        image_at: Since when a record of ours must have been created if the image does not hold it; None without proof
            of absence.
        user_id: Who loaded.
        put_back: Records that rollbacks of later batches have put back: `id`, and `until`, when that was through. Such
            a change is none of others'.
        to_be_put_back: Of a preview, records that rollbacks of later batches would put back first: `id`, and `found`,
            when each was changed last before those batches. What such a batch found unchanged is unchanged then.
        since: Only records created in the source since then are deleted, and none is restored.
        created_field: The field that tells it.
    """

    settled_at: datetime
    image: pl.DataFrame | None
    image_at: datetime | None
    user_id: str
    put_back: pl.DataFrame | None = None
    to_be_put_back: pl.DataFrame | None = None
    since: datetime | None = None
    created_field: str | None = None


def decide(table: UndoTable, ledger: pl.DataFrame, state: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """Decide on each row of a chunk that has a record.

    Args:
        ledger: The chunk's ledger.
        state: The records as they stand in the org: `UndoTable.state_columns`, as bulk queries print them.
    Returns:
        Columns of `DECISIONS`, one line for each Id that the chunk wrote and that is not rolled back yet.
    """
    rows = ledger.filter(
        pl.col("id").is_not_null() & pl.col("outcome").is_in(["created", "updated", "failed", "kept"])
    ).unique("id", keep="first", maintain_order=True)
    seen = _seen(table, state, evidence)
    put_back = evidence.put_back if evidence.put_back is not None else pl.DataFrame(schema=PUT_BACK)
    joined = rows.join(put_back, on="id", how="left", maintain_order="left")
    joined = joined.join(seen, left_on="id", right_on="Id", how="left").with_columns(
        is_there=pl.col("last_modified").is_not_null()
    )
    is_failed = pl.col("outcome") == "failed"
    # The hash of a row whose links were refused counts links that the record never got: there only times tell.
    joined = joined.with_columns(is_same=is_failed | _is_same(table))
    settled = pl.lit(evidence.settled_at, dtype=_MOMENT)
    stamps = evidence.to_be_put_back if evidence.to_be_put_back is not None else pl.DataFrame(schema=STAMPS)
    joined = joined.join(stamps, on="id", how="left", maintain_order="left")
    as_found = (pl.col("found") <= settled).fill_null(False)
    joined = joined.with_columns(pl.col("is_same") | as_found)
    ours = pl.col("created") | _created_by_us(evidence)
    image_ids = pl.Series([], dtype=pl.String) if evidence.image is None else evidence.image["Id"]
    has_image = pl.col("id").is_in(image_ids.implode())
    until = pl.coalesce("until", pl.lit(evidence.settled_at, dtype=_MOMENT))
    later = pl.col("last_modified") > pl.max_horizontal(until, pl.lit(evidence.settled_at, dtype=_MOMENT))
    later = ((later | _by_another(ours, evidence)) & ~as_found) | (pl.col("found") > settled).fill_null(False)
    # A refused row has changed a record only where its load was taken and its links were refused.
    since_image = pl.lit(evidence.image_at, dtype=_MOMENT)
    untouched = is_failed & ~ours & (~has_image | (pl.col("last_modified") < since_image).fill_null(True))
    outside = _outside(evidence, ours)
    code = (
        pl.when(~pl.col("is_there") & ~ours & ~untouched)
        .then(pl.lit(RECORD_GONE))
        .when(~pl.col("is_there") | untouched | outside)
        .then(None)
        .when(~pl.col("is_same"))
        .then(pl.lit("CHANGED_FIELDS"))
        .when(later)
        .then(pl.lit("CHANGED_LATER"))
        .when(~ours & ~has_image)
        .then(pl.lit("NO_IMAGE"))
    )
    action = (
        pl.when(outside | (untouched & pl.col("is_there")))
        .then(pl.lit(LEAVE))
        .when(pl.col("code_now").is_not_null())
        .then(pl.lit(KEEP))
        .when(ours)
        .then(pl.lit(DELETE))
        .when(pl.col("is_there"))
        .then(pl.lit(RESTORE))
        .otherwise(pl.lit(LEAVE))
    )
    return (
        joined.with_columns(code.alias("code_now"))
        .select("row", "key", "id", action.alias("action"), pl.col("code_now").alias("code"))
        .join(joined.select("id", "is_there"), on="id", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("action") == KEEP)
            .then("code")
            .when((pl.col("action") == DELETE) & ~pl.col("is_there"))
            .then(pl.lit(ALREADY_GONE))
            .alias("code")
        )
        .drop("is_there")
        .with_columns(wave=pl.lit(None))
        .cast(DECISIONS)
    )


def _seen(table: UndoTable, state: pl.DataFrame, evidence: Evidence) -> pl.DataFrame:
    """The records' state in canonical form: `Id`, times, who made it, and the hashes of what they hold."""
    columns = [
        canonical_from_org(_ID, state["Id"]).alias("Id"),
        moments(state["LastModifiedDate"]).alias("last_modified"),
        canonical_from_org(_ID, state["LastModifiedById"]).alias("last_modified_by"),
        moments(state["CreatedDate"]).alias("created_date"),
        canonical_from_org(_ID, state["CreatedById"]).alias("created_by"),
    ]
    if evidence.created_field is not None:
        columns.append(moments(state[evidence.created_field]).alias("source_created"))
    else:
        columns.append(pl.repeat(None, state.height, dtype=_MOMENT, eager=True).alias("source_created"))
    frame = pl.DataFrame(columns)
    if not table.is_comparable:
        empty = pl.repeat(None, state.height, dtype=pl.Binary, eager=True)
        return frame.with_columns(empty.alias("load_hash"), empty.alias("full_hash"))
    canonical = pl.DataFrame(
        [canonical_from_org(field, state[name]).alias(name) for name, field in table.compared.items()]
    )
    load = table.work.rules.hash_rows(canonical)
    full = add_hashes(load, table.work.rules.hash_links(canonical))
    return frame.with_columns(load.alias("load_hash"), full.alias("full_hash"))


def _is_same(table: UndoTable) -> pl.Expr:
    if not table.is_comparable:
        return pl.lit(True)
    # A row whose links were never sent has the load part alone as its hash.
    same = (pl.col("hash") == pl.col("full_hash")) | (pl.col("hash") == pl.col("load_hash"))
    return same.fill_null(False)


def _created_by_us(evidence: Evidence) -> pl.Expr:
    """Told as updated, although no record stood there: the first answer was lost, and the record is ours all the same.

    Besides the image, the org itself must say that our user made it within the chunk's time.
    """
    if evidence.image_at is None:
        return pl.lit(False)
    held = pl.Series([], dtype=pl.String) if evidence.image is None else evidence.image["Id"]
    in_time = pl.col("created_date").is_between(evidence.image_at, evidence.settled_at)
    ours = (pl.col("created_by") == evidence.user_id) & in_time
    return ((pl.col("outcome") != "failed") & ours & ~pl.col("id").is_in(held.implode())).fill_null(False)


def _by_another(ours: pl.Expr, evidence: Evidence) -> pl.Expr:
    """Whether somebody else wrote the record last: a batch may settle long after its jobs, and clocks differ.

    Who loaded a record that stood there before is not on it. Where the user of now wrote some of the chunk's records
    last, they loaded it; else only the time tells.
    """
    writer = pl.col("last_modified_by")
    another = writer != evidence.user_id
    loaded_by_us = (writer == evidence.user_id).any()
    return pl.when(ours).then(another & (writer != pl.col("created_by"))).otherwise(another & loaded_by_us)


def _outside(evidence: Evidence, ours: pl.Expr) -> pl.Expr:
    if evidence.since is None:
        return pl.lit(False)
    return ~(ours & (pl.col("source_created") >= evidence.since).fill_null(False))


def restore_rows(table: UndoTable, image: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """What a restore uploads: `Id` and each field as it was, null for no value."""
    wanted = image.join(ids.alias("Id").to_frame(), on="Id", how="semi").unique("Id", keep="first", maintain_order=True)
    return pl.DataFrame([wanted["Id"], *(_sent(table.describe.fields[name], wanted[name]) for name in table.restored)])


def is_restored(table: UndoTable, image: pl.DataFrame, state: pl.DataFrame) -> pl.DataFrame:
    """Of the records in both frames: `id`, and `same`, whether all restored fields hold what the image holds."""
    return as_before(table.describe.fields, table.restored, image, state)


def long_numbers(table: UndoTable, image: pl.DataFrame, ids: pl.Series) -> dict[str, int]:
    """How many values of each number field have more digits than a double holds: they come back rounded."""
    rows = restore_rows(table, image, ids)
    counts = {}
    for name in table.restored:
        if table.describe.fields[name].type in _NUMBERS:
            digits = rows[name].str.replace_all(r"[^0-9]", "").str.strip_chars_start("0")
            if found := int((digits.str.len_chars() > EXACT_DIGITS).sum()):
                counts[name] = found
    return counts


def _sent(field: FieldDescribe, values: pl.Series) -> pl.Series:
    """A value as an upload takes it: numbers plainly, all else as the API gave it."""
    return (canonical_from_org(field, values) if field.type in _NUMBERS else values).alias(field.name)


_ID = FieldDescribe(name="Id", label="Id", type="id", length=18)
_MOMENT = pl.Datetime("us", "UTC")


def moments(texts: pl.Series) -> pl.Series:
    """Instants as bulk queries print them; a date alone is its first moment in UTC."""
    return (
        texts.str.replace(r"\+0000$", "Z")
        .str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00Z")
        .str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", strict=False, time_unit="us")
        .dt.replace_time_zone("UTC")
    )
