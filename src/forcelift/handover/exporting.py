"""Hand the audit database out for an auditor: every table as CSV or Parquet, with a manifest of digests.

Reads:   the audit database, in one state of it.
Writes:  a new folder: a file for each table and `manifest.json`; a row of the journal with the manifest's digest.
Re-run:  refuses a folder that holds something.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from msgspec import Struct

from forcelift.account.recorded import open_recorded, owner
from forcelift.audit import cover, tables
from forcelift.audit.chain import JournalHead, current_head
from forcelift.audit.types import Count, Document, Measure, Moment, clob
from forcelift.errors import StateConflict, StorageError
from forcelift.protocols.clock import Clock
from forcelift.storage.folder import sha256_of

if TYPE_CHECKING:
    import polars as pl

EXPORTED: Final = "audit_exported"
MANIFEST: Final = "manifest.json"
_FETCH: Final = 5_000  # of rows that may each hold a whole source row as JSON


class ExportedTable(Struct, frozen=True, kw_only=True):
    """One table's file."""

    table: str
    file: str
    rows: int
    sha256: str


class Export(Struct, frozen=True, kw_only=True):
    """All files. `head` is the journal's in the state that was exported; `sha256` is the manifest's."""

    folder: Path
    head: JournalHead
    tables: tuple[ExportedTable, ...]
    sha256: str


def export_audit(plan_file: str | Path, out: Path, *, form: str = "csv", clock: Clock | None = None) -> Export:
    """Write all tables into a new folder.

    Texts of CSV files are neutralised for spreadsheets (`people_csv`); Parquet has them as they are.

    Args:
        form: `csv` or `parquet`.
    Raises:
        StateConflict: The folder holds something.
        StorageError: It cannot be written.
    """
    _make_folder(out)
    with open_recorded(plan_file, clock=clock) as (loaded, state):
        with state.audit.read() as connection:
            head = current_head(connection)
            made = [_write(connection, table, out, form) for table in tables.metadata.sorted_tables]
        now = state.audit.clock.now()
        document = {
            "project": loaded.plan.project,
            "audit": state.audit.where,
            "made_at": now.isoformat(),
            "made_by": owner(),
            "form": form,
            "schema_version": tables.SCHEMA_VERSION,
            "journal_head": {"seq": head.seq, "hash": head.hash},
            "not_covered_by_the_journal": dict(cover.EXEMPT_TABLES),
            "tables": [{name: getattr(one, name) for name in one.__struct_fields__} for one in made],
        }
        manifest = out / MANIFEST
        _write_text(manifest, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        digest = sha256_of(manifest)
        payload = {"sha256": digest, "form": form, "by": owner(), "head": head.hash}
        state.audit.journal(EXPORTED, payload)
    return Export(folder=out, head=head, tables=tuple(made), sha256=digest)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise StateConflict(
                f"the folder `{out}` holds something", state="nothing was written", hint="name a new one by `--out`"
            )
    except OSError as error:
        raise StorageError(f"`{out}` cannot be written: {error.strerror}", state="nothing was written") from error


def _write_text(path: Path, text: str) -> None:
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"`{path}` cannot be written: {error.strerror}", state="the export is not whole") from error


def _write(connection: sa.Connection, table: sa.Table, out: Path, form: str) -> ExportedTable:
    import polars as pl
    import pyarrow.parquet as pq

    from forcelift.people_csv import append_frame

    file = out / f"{table.name}.{form}"
    schema = pl.Schema({column.name: _kind(column) for column in table.c})
    order = list(table.primary_key.columns) or list(table.c)[:3]
    query = sa.select(*(_readable(column) for column in table.c)).order_by(*order)
    rows = connection.execute(query, execution_options={"stream_results": True})
    count, writer = 0, None
    try:
        file.touch(mode=0o600, exist_ok=False)
        for part in rows.partitions(_FETCH):
            frame = _frame(part, schema)
            if form == "csv":
                append_frame(file, frame, is_new=count == 0)
            else:
                arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer = writer or pq.ParquetWriter(file, arrow.schema, compression="zstd")
                writer.write_table(arrow)
            count += frame.height
        if count == 0:
            _write_none(file, pl.DataFrame(schema=schema), form)
    except OSError as error:
        raise StorageError(f"`{file}` cannot be written: {error.strerror}", state="the export is not whole") from error
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        # An auditor is not to get an empty cell where somebody has put a text into a number.
        raise StorageError(
            f"table `{table.name}` holds a value that is none of its column's kind",
            state="the export is not whole",
            hint="`forcelift audit verify` tells which row was changed past the program",
        ) from error
    finally:
        if writer is not None:
            writer.close()
    return ExportedTable(table=table.name, file=file.name, rows=count, sha256=sha256_of(file))


def _write_none(file: Path, frame: pl.DataFrame, form: str) -> None:
    from forcelift.people_csv import append_frame

    if form == "csv":
        append_frame(file, frame, is_new=True)
    else:
        frame.write_parquet(file)


def _readable(column: sa.Column[Any]) -> Any:
    """A column as an auditor reads it; documents as the text that stands there."""
    return sa.type_coerce(column, clob()) if isinstance(column.type, Document) else column


def _kind(column: sa.Column[Any]) -> pl.DataType:
    import polars as pl

    if isinstance(column.type, Moment):
        return pl.Datetime("us", "UTC")
    if isinstance(column.type, sa.Integer | Count):
        return pl.Int64()
    if isinstance(column.type, Measure | sa.Float):
        return pl.Float64()
    return pl.String()


def _frame(rows: Any, schema: pl.Schema) -> pl.DataFrame:
    import polars as pl

    columns = zip(*rows, strict=True)
    return pl.DataFrame(
        [
            pl.Series(name, values, dtype=kind, strict=True)
            for (name, kind), values in zip(schema.items(), columns, strict=True)
        ]
    )
