"""The statements that make the audit tables, as a database administrator reads and runs them."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from forcelift.audit import tables
from forcelift.audit.types import PresentMoment


def statements(dialect: sa.Dialect) -> Iterator[str]:
    """The statements that make the tables and their indexes, in an order in which each can be run.

    The version mark's table comes first: what was broken off behind it is known as ours, and completed.
    """
    rest = (table for table in tables.metadata.sorted_tables if table is not tables.schema_version)
    for table in (tables.schema_version, *rest):
        yield str(CreateTable(table).compile(dialect=dialect)).strip()
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            yield str(CreateIndex(index).compile(dialect=dialect)).strip()


def script(dialect_name: str) -> list[str]:
    """All that an empty database needs, up to the version mark by which Forcelift knows its tables."""
    dialect = sa.engine.url.URL.create(dialect_name).get_dialect()()
    mark = tables.schema_version
    now = PresentMoment().compile(dialect=dialect)
    names = ", ".join(column.name for column in mark.columns)
    insert = f"INSERT INTO {mark.name} ({names}) VALUES ('{tables.PRODUCT}', {tables.SCHEMA_VERSION}, {now})"
    return [*statements(dialect), insert, *(["COMMIT"] if dialect_name == "oracle" else [])]
