"""What a retry made of a chunk's failed records, written into MIGRATION_FAILED_RECORDS.

A row that a retry mended keeps its code, as the reason why it was refused; one that is refused again shows the reason
of now. Rows are changed by FAILED_ID, in columns until the driver takes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import cover, tables
from forcelift.audit.columns import fit, record_id
from forcelift.audit.failed import insert_failed
from forcelift.audit.text import fit_text

MENDED, AGAIN, GONE = "mended", "again", "gone"
"""What became of a failed record in a retry: accepted, refused again, or not in the source any more."""

_LIST_MAX = 500  # values in one IN list: each database takes so many
_NOTES_BYTES = 4000


def record_ids_of(keys: pl.Series) -> tuple[str, ...]:
    """The RECORD_IDs of rows with these keys, none of them null."""
    frame = pl.DataFrame({"key": keys.cast(pl.String), "row": pl.repeat(0, keys.len(), eager=True)})
    return tuple(frame.select(record_id(pl.col("key"), pl.col("row"))).to_series().unique().sort().to_list())


def change_failed(
    connection: Connection, audit_id: int, table_name: str, changes: pl.DataFrame, *, now: datetime
) -> dict[str, Any]:
    """Write what a retry made of a chunk's failed records.

    Args:
        changes: One line for each row that was retried: `row`, `key`, `state` (`mended`, `again`, `gone`), `note`, and
            of `again` the `code`, `message`, `fields` and `data` of now. A row that had no failed record and is refused
            now gets one.
    Returns:
        What to remember in the chunk's row: FAILED_ID of its first and last record.
    """
    records, chunk = tables.failed_records, tables.chunk
    for table in (records, tables.failed_key):
        cover.touch_group(connection, table, audit_id)
    wanted = changes.with_columns(record_id=record_id(pl.col("key"), pl.col("row"))).sort("row")
    wanted = wanted.with_columns(number=pl.int_range(1, pl.len() + 1).over("record_id"))
    query = (
        sa.select(records.c.failed_id, records.c.record_id)
        .where(records.c.audit_id == audit_id, records.c.resolved == "N")
        .order_by(records.c.failed_id)
    )
    held = pl.DataFrame(
        [tuple(row) for row in connection.execute(query)],
        schema={"failed_id": pl.Int64, "record_id": pl.String},
        orient="row",
    ).with_columns(number=pl.int_range(1, pl.len() + 1).over("record_id"))
    joined = wanted.join(held, on=["record_id", "number"], how="left", maintain_order="left")
    known = joined.filter(pl.col("failed_id").is_not_null())
    for (state, note), rows in known.filter(pl.col("state") != AGAIN).group_by("state", "note"):
        mended = state == MENDED
        values = {
            "retry_count": records.c.retry_count + 1,
            "last_retry_date": now,
            "resolution_notes": fit_text(str(note), _NOTES_BYTES),
        } | ({"resolved": "Y", "resolved_date": now} if mended else {})
        ids = rows["failed_id"].to_list()
        for start in range(0, len(ids), _LIST_MAX):
            part = ids[start : start + _LIST_MAX]
            connection.execute(records.update().where(records.c.failed_id.in_(part)).values(**values))
    again = known.filter(pl.col("state") == AGAIN).select(
        b_id="failed_id",
        b_code=fit(pl.col("code"), tables.ERROR_CODE_BYTES),
        b_message=fit(pl.col("message"), tables.ERROR_MESSAGE_BYTES),
        b_fields=fit(pl.col("fields"), tables.ERROR_FIELDS_BYTES),
        b_data="data",
        b_note="note",
    )
    if again.height:
        statement = (
            records.update()
            .where(records.c.failed_id == sa.bindparam("b_id"))
            .values(
                retry_count=records.c.retry_count + 1,
                last_retry_date=now,
                sf_error_code=sa.bindparam("b_code"),
                sf_error_message=sa.bindparam("b_message"),
                sf_error_fields=sa.bindparam("b_fields"),
                record_data=sa.bindparam("b_data"),
                resolution_notes=sa.bindparam("b_note"),
            )
        )
        connection.execute(statement, again.to_dicts())
    held_ids = connection.execute(
        sa.select(chunk.c.failed_first, chunk.c.failed_last).where(chunk.c.audit_id == audit_id)
    ).one()
    first, last = held_ids.failed_first, held_ids.failed_last
    new = joined.filter(pl.col("failed_id").is_null() & (pl.col("state") == AGAIN))
    if new.height:
        made = insert_failed(connection, new, audit_id=audit_id, table_name=table_name, now=now)
        first, last = min(first or made[0], made[0]), max(last or made[1], made[1])
    return {"failed_first": first, "failed_last": last}
