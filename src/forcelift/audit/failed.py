"""MIGRATION_FAILED_RECORDS: a chunk's refused rows, written in bulk, columns until the driver takes them.

Re-run: the records of a chunk are replaced as a whole. They are found by their range of FAILED_ID, which the chunk's
row remembers, so that replacing them never scans the records of all other chunks. Keys that RECORD_ID had to cut stand
whole in a table beside it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import cover, tables
from forcelift.audit.columns import fit, record_id
from forcelift.audit.text import short_table_name

FAILED_COLUMNS = ("row", "key", "code", "message", "fields", "data")
_SLICE_ROWS = 20_000
_INSERTED = (
    "audit_id",
    "table_name",
    "record_id",
    "sf_error_code",
    "sf_error_message",
    "sf_error_fields",
    "retry_count",
    "resolved",
    "record_data",
    "created_date",
)


def replace_failed(
    connection: Connection, audit_id: int, table_name: str, failed: pl.DataFrame | None, *, now: datetime
) -> dict[str, Any]:
    """Replace a chunk's failed records.

    Args:
        connection: A transaction under way.
        audit_id: The chunk.
        table_name: Its table, as the plan spells it.
        failed: Columns row, key, code, message, fields, data (JSON text); None for no records.
        now: CREATED_DATE of the records.
    Returns:
        What to remember in the chunk's row: FAILED_ID of its first and last record.
    """
    for table in (tables.failed_records, tables.failed_key):
        cover.touch_group(connection, table, audit_id)
    _delete_failed(connection, audit_id)
    if failed is None or failed.is_empty():
        return {"failed_first": None, "failed_last": None}
    missing = [name for name in FAILED_COLUMNS if name not in failed.columns]
    if missing:
        raise ValueError(f"failed records lack the columns {', '.join(missing)}")
    first, last = insert_failed(connection, failed, audit_id=audit_id, table_name=table_name, now=now)
    return {"failed_first": first, "failed_last": last}


def insert_failed(
    connection: Connection, failed: pl.DataFrame, *, audit_id: int, table_name: str, now: datetime
) -> tuple[int, int]:
    """Write failed records beside those that a chunk has; FAILED_ID of the first and last. Columns as there."""
    _insert_keys(connection, failed, audit_id=audit_id)
    first, last = (_last_id(connection) or 0) + 1, 0
    for start in range(0, failed.height, _SLICE_ROWS):
        part = failed.slice(start, _SLICE_ROWS)
        made = _insert(connection, part, audit_id=audit_id, table_name=table_name, now=now)
        if made is not None:
            first, last = min(first, made[0]), max(last, made[1])
    return first, last or _last_id(connection) or 0


def _delete_failed(connection: Connection, audit_id: int) -> None:
    chunk, records = tables.chunk, tables.failed_records
    found = connection.execute(
        sa.select(chunk.c.failed_first, chunk.c.failed_last).where(chunk.c.audit_id == audit_id)
    ).one()
    if found.failed_first is not None:
        connection.execute(
            records.delete().where(
                records.c.failed_id.between(found.failed_first, found.failed_last), records.c.audit_id == audit_id
            )
        )
        connection.execute(tables.failed_key.delete().where(tables.failed_key.c.audit_id == audit_id))


def _last_id(connection: Connection) -> int | None:
    last: int | None = connection.execute(sa.select(sa.func.max(tables.failed_records.c.failed_id))).scalar_one()
    return last


def _insert_keys(connection: Connection, failed: pl.DataFrame, *, audit_id: int) -> None:
    key = pl.col("key").cast(pl.String)
    frame = (
        failed.lazy()
        .select(audit_id=pl.lit(audit_id), record_id=record_id(key, pl.col("row")), record_key=key)
        .filter(pl.col("record_key").is_not_null(), pl.col("record_key") != "")
        .filter(pl.col("record_id") != pl.col("record_key"))
        .unique("record_id", keep="first", maintain_order=True)
        .collect()
    )
    for start in range(0, frame.height, _SLICE_ROWS):
        part = frame.slice(start, _SLICE_ROWS)
        if connection.dialect.name == "postgresql":
            _copy_rows(connection, tables.failed_key, part)
        else:
            _insert_rows(connection, tables.failed_key, part)


def _insert(
    connection: Connection, failed: pl.DataFrame, *, audit_id: int, table_name: str, now: datetime
) -> tuple[int, int] | None:
    """Write records; their least and greatest FAILED_ID where the database hands them back."""
    key = pl.col("key").cast(pl.String)
    frame = (
        failed.lazy()
        .select(
            audit_id=pl.lit(audit_id),
            table_name=pl.lit(short_table_name(table_name)),
            record_id=record_id(key, pl.col("row")),
            sf_error_code=fit(pl.col("code").cast(pl.String), tables.ERROR_CODE_BYTES),
            sf_error_message=fit(pl.col("message").cast(pl.String), tables.ERROR_MESSAGE_BYTES),
            sf_error_fields=fit(pl.col("fields").cast(pl.String), tables.ERROR_FIELDS_BYTES),
            retry_count=pl.lit(0),
            resolved=pl.lit("N"),
            record_data=pl.col("data").cast(pl.String),
            created_date=pl.lit(_as_stored(connection, now)),
        )
        .select(_INSERTED)
        .collect()
    )
    if connection.dialect.name == "oracle":
        # Numbers of an identity need not grow with time where several instances serve one database.
        from forcelift.audit.oracle import insert_returning

        return insert_returning(connection, tables.failed_records, frame, tables.failed_records.c.failed_id)
    if connection.dialect.name == "postgresql":
        # COPY took 100,000 records a second where executemany took 36,000.
        _copy_rows(connection, tables.failed_records, frame)
    else:
        _insert_rows(connection, tables.failed_records, frame)
    return None


def _insert_rows(connection: Connection, table: sa.Table, rows: pl.DataFrame) -> None:
    if connection.dialect.name == "oracle":
        from forcelift.audit.oracle import insert_rows

        return insert_rows(connection, table, rows)
    # The driver is called directly: SQLAlchemy's own way turns each row into a dict first and takes five times as long.
    statement = table.insert().compile(dialect=connection.dialect, column_keys=rows.columns)
    connection.exec_driver_sql(str(statement), rows.select(statement.positiontup or rows.columns).rows())
    return None


def _as_stored(connection: Connection, now: datetime) -> Any:
    """A time as this database's driver takes it, since the driver is called without SQLAlchemy's conversions."""
    kind = tables.failed_records.c.created_date.type.dialect_impl(connection.dialect)
    convert = kind.bind_processor(connection.dialect)
    return now if convert is None else convert(now)


def _copy_rows(connection: Connection, table: sa.Table, rows: pl.DataFrame) -> None:
    """Write rows by COPY. The frame's columns are named as the table's.

    PostgreSQL's texts cannot hold U+0000; it is written as U+FFFD.
    """
    # The text format, since a line `\.` inside a quoted value of CSV ends the data before PostgreSQL 18.
    escaped = (
        pl.col(pl.String)
        .str.replace_all("\\", "\\\\", literal=True)
        .str.replace_all("\n", "\\n", literal=True)
        .str.replace_all("\r", "\\r", literal=True)
        .str.replace_all("\t", "\\t", literal=True)
        .str.replace_all("\x00", "\ufffd", literal=True)
    )
    lines = (
        rows.lazy()
        .with_columns(escaped)
        .select(pl.concat_str(pl.all().cast(pl.String).fill_null("\\N"), separator="\t").str.join("\n"))
        .collect()
        .item()
    )
    names = ", ".join(rows.columns)
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({names}) FROM STDIN") as copy:
        copy.write(lines.encode())
