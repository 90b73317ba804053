"""The twin's data file: one DuckDB database that holds records, metadata, jobs and uploads.

Writes:  schema `meta` (tables of store.sql) and schema `data` (a table per object, a column per stored field).
Re-run:  opening a file again goes on with what it holds; DuckDB's log makes every commit survive a kill.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

import duckdb

from forcelift.twin.database import connect
from forcelift.twin.errors import SchemaChanged, StoreError
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema
from forcelift.twin.values import match_key
from forcelift.twin.values import name as quoted

FORMAT: Final = "2"
# Of an org in memory, which has its records there, and of any org while it is opened.
MEMORY_MB: Final = 1024
# Of an org in a file: a bound for the database, which would else keep what it has read and written until it is full.
# A save holds some blocks of 256 KiB for each column at once: with 256 MB, 200 columns failed, and
# 500; 200 ran with 384 MB, 500 with 400.
_FILE_MEMORY_MB: Final = 256
_COLUMN_MEMORY_MB: Final = 1


class Store:
    """An open data file.

    Writers take turns: `write()` for records, `write_meta()` for short changes of jobs and counters. DuckDB refuses
    two open transactions that change the same rows, so whoever changes a table holds its lock until the commit.
    """

    uploads: Path
    """The folder of uploads; it belongs to the data file and moves with it."""

    def __init__(self, path: Path | None, *, memory_mb: int | None = None, threads: int | None = None) -> None:
        config: dict[str, Any] = {"memory_limit": f"{memory_mb or MEMORY_MB}MB", "checkpoint_threshold": "64MB"}
        # A full row group is compressed and written at once: five of them, the default, cost memory and save no time.
        config["write_buffer_row_group_count"] = 1
        self._memory_mb = memory_mb
        config["threads"] = database_threads() if threads is None else threads
        if path is not None:
            config["temp_directory"] = f"{path}.tmp"
        try:
            self._connection = connect(":memory:" if path is None else str(path), config=config)
        except duckdb.Error as error:
            raise StoreError(f"the twin's data file `{path}` cannot be opened: {error}") from error
        # Trying every method on every column costs more than all else that a load does; this one is small and quick.
        self._connection.execute("PRAGMA force_compression = 'zstd'")
        self.path = path
        self._temporary = tempfile.TemporaryDirectory(prefix="twin-") if path is None else None
        self.uploads = Path(f"{path}.uploads") if self._temporary is None else Path(self._temporary.name)
        self.uploads.mkdir(parents=True, exist_ok=True)
        self._data_lock = threading.RLock()
        self._meta_lock = threading.RLock()
        self._closed = False
        with self.write_meta() as cursor:
            cursor.execute(resources.files("forcelift.twin").joinpath("store.sql").read_text(encoding="utf-8"))
            found = self.info(cursor).get("format", FORMAT)
        if found != FORMAT:
            self.close()
            raise StoreError(f"the twin's data file `{path}` has form {found}; this version reads form {FORMAT}")

    def bound_memory(self, schema: Schema) -> None:
        """Bound the database's memory by the widest object, whatever the number of records; it spills beyond that.

        Does nothing for an org in memory, nor if the caller has said how much memory the database may take.
        """
        if self.path is None or self._memory_mb is not None:
            return
        widest = max((len(entry.stored_fields) for entry in schema.objects), default=0)
        with self.read() as cursor:
            cursor.execute(f"SET memory_limit = '{_FILE_MEMORY_MB + widest * _COLUMN_MEMORY_MB}MB'")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same database, for one thread. The caller closes it."""
        return self._connection.cursor()

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor that is closed at the end; each statement sees the last commit."""
        cursor = self.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction over records; committed at the end, rolled back on any error."""
        with self._data_lock, self._transaction() as cursor:
            yield cursor

    @contextmanager
    def write_meta(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A short transaction over jobs, counters and usage."""
        with self._meta_lock, self._transaction() as cursor:
            yield cursor

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self.cursor()
        try:
            cursor.begin()
            try:
                yield cursor
            except BaseException:
                cursor.rollback()
                raise
            cursor.commit()
        finally:
            cursor.close()

    def info(self, cursor: duckdb.DuckDBPyConnection) -> dict[str, str]:
        """The facts of `meta.info` by name."""
        return dict(cursor.execute("SELECT name, value FROM meta.info").fetchall())

    def set_info(self, cursor: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
        cursor.execute("DELETE FROM meta.info WHERE name = ?", [key])
        cursor.execute("INSERT INTO meta.info VALUES (?, ?)", [key, value])

    def take_numbers(self, counter: str, count: int = 1) -> int:
        """Take `count` running numbers and tell the first. They are never given twice; gaps may stay after a crash."""
        with self.write_meta() as cursor:
            row = cursor.execute("SELECT next FROM meta.counter WHERE name = ?", [counter]).fetchone()
            if row is None:
                cursor.execute("INSERT INTO meta.counter VALUES (?, ?)", [counter, 1 + count])
                return 1
            cursor.execute("UPDATE meta.counter SET next = next + ? WHERE name = ?", [count, counter])
            return int(row[0])

    def stored_schema(self) -> Schema | None:
        """The schema that the file was made from, or None if it is new."""
        with self.read() as cursor:
            document = self.info(cursor).get("schema")
        return None if document is None else Schema.from_document(json.loads(document))

    def install_schema(self, cursor: duckdb.DuckDBPyConnection, schema: Schema, *, earlier: Schema | None) -> None:
        """Make tables and columns for the schema, in the caller's transaction.

        Raises:
            SchemaChanged: The file holds a schema of which this one is not merely an extension.
        """
        if earlier is not None:
            problems = schema_conflicts(earlier, schema)
            if problems:
                raise SchemaChanged(problems, source=str(self.path) if self.path else None)
        for entry in schema.objects:
            _install_object(cursor, entry, earlier.object(entry.name) if earlier is not None else None)
        if earlier is None:
            self.set_info(cursor, "hash", _hash_form(cursor))
        self.set_info(cursor, "format", FORMAT)
        self.set_info(cursor, "schema", json.dumps(schema.to_document()))

    def check_hashes(self, schema: Schema) -> None:
        """Make the hashes of keys anew if they are missing, or were made by a DuckDB that hashes otherwise."""
        with self.write() as cursor:
            made = _hash_form(cursor)
            if self.info(cursor).get("hash") == made:
                return
            for entry in schema.objects:
                for field in hashed_fields(entry):
                    column = hash_column(field)
                    cursor.execute(f"ALTER TABLE {table(entry)} ADD COLUMN IF NOT EXISTS {column} UBIGINT")
                    cursor.execute(f"UPDATE {table(entry)} SET {column} = {key_hash(field, quoted(field.name))}")
            self.set_info(cursor, "hash", made)

    def close(self) -> None:
        """Close the file; what was committed stays."""
        if not self._closed:
            self._closed = True
            self._connection.close()
            if self._temporary is not None:
                self._temporary.cleanup()


def database_threads() -> int:
    """Threads of the database, if nobody says how many: half of the cores that this process may use.

    The other half reads the next upload meanwhile. Threads of DuckDB beyond that take time from it and save none: on
    two cores an insert costs a quarter more CPU with two threads than with one.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Only Linux tells which cores a process may use.
        cores = os.cpu_count() or 1
    return max(cores // 2, 1)


def table(entry: ObjectSchema) -> str:
    """The SQL name of an object's table."""
    return f"data.{quoted(entry.name)}"


def _hash_form(cursor: duckdb.DuckDBPyConnection) -> str:
    """A text that differs between versions of DuckDB that hash differently."""
    row = cursor.execute(
        "SELECT CAST(hash('forcelift') AS VARCHAR) || '/' || CAST(hash(1::BIGINT) AS VARCHAR)"
    ).fetchone()
    assert row is not None  # one row without a table
    return str(row[0])


def hashed_fields(entry: ObjectSchema) -> list[FieldSchema]:
    """Fields whose values records are found by while a load runs; each has a column more, with hashes of them.

    A hash of eight bytes is scanned many times faster than the text: the cost of a match grows slowly with the table.
    """
    return [field for field in entry.stored_fields if (field.external_id or field.unique) and field.type != "id"]


def hash_column(field: FieldSchema) -> str:
    """The SQL name of the column with the field's hashes. No field can have it: API names hold no `#`."""
    return quoted(f"#{field.name}")


def key_hash(field: FieldSchema, value: str) -> str:
    """The hash of a value, as SQL, equal for values that match; null for null."""
    key = match_key(field, value)
    return f"CASE WHEN {value} IS NOT NULL THEN hash({key}) END"


def _compression(field: FieldSchema) -> str:
    """How a column of few values that repeat is stored, as SQL: as a dictionary. Others are stored as all are."""
    repeats = field.type == "picklist" or "User" in field.reference_to
    return " USING COMPRESSION dict_fsst" if repeats and field.sql_type == "VARCHAR" else ""


def _install_object(cursor: duckdb.DuckDBPyConnection, entry: ObjectSchema, earlier: ObjectSchema | None) -> None:
    hashes = [hash_column(field) for field in hashed_fields(entry)]
    if earlier is None:
        columns = [f"{quoted(field.name)} {field.sql_type}{_compression(field)}" for field in entry.stored_fields]
        columns += [f"{column} UBIGINT" for column in hashes]
        cursor.execute(f"CREATE TABLE {table(entry)} ({', '.join(columns)})")
        return
    for column in hashes:
        cursor.execute(f"ALTER TABLE {table(entry)} ADD COLUMN IF NOT EXISTS {column} UBIGINT")
    for field in entry.stored_fields:
        if earlier.field(field.name) is None:
            default = " DEFAULT false" if field.type == "boolean" else ""
            cursor.execute(f"ALTER TABLE {table(entry)} ADD COLUMN {quoted(field.name)} {field.sql_type}{default}")


_MAY_DIFFER: Final = frozenset(
    {"picklist_values", "label", "inline_help_text", "roll_up", "nillable", "defaulted_on_create", "track_history"}
)


def schema_conflicts(earlier: Schema, schema: Schema) -> list[str]:
    """Why the schema is not merely an extension of the earlier one; empty if it is.

    Limits, org facts other than the Id, users, picklist values, history, what a roll-up tells and whether a field
    needs a value may differ: they touch no stored record, as in an org. A field that holds values cannot become a
    roll-up: it would no longer be writable.
    """
    problems = []
    if schema.org.id is not None and earlier.org.id is not None and schema.org.id[:15] != earlier.org.id[:15]:
        problems.append(f"org.id: the file's org is {earlier.org.id}, the schema says {schema.org.id}")
    for old in earlier.objects:
        new = schema.object(old.name)
        if new is None:
            problems.append(f"objects.{old.name}: the file has this object, the schema lacks it")
            continue
        if new.name != old.name or new.key_prefix != old.key_prefix:
            problems.append(f"objects.{old.name}: name or key prefix changed to {new.name}, {new.key_prefix}")
        for field in old.fields:
            other = new.field(field.name)
            place = f"objects.{old.name}.fields.{field.name}"
            if other is None:
                problems.append(f"{place}: the file has this field, the schema lacks it")
                continue
            problems.extend(
                f"{place}.{attribute}: {getattr(field, attribute)!r} in the file, "
                f"{getattr(other, attribute)!r} in the schema"
                for attribute in field.__dataclass_fields__
                if attribute not in _MAY_DIFFER and getattr(field, attribute) != getattr(other, attribute)
            )
    return problems
