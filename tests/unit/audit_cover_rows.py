"""One row in every table that the journal covers, found by reflection: a new table or column is in it by itself."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from forcelift.audit import cover
from forcelift.audit.types import Count, Document, Measure, Moment

WHEN = datetime(2026, 1, 31, 22, 0, 1, 250_000, tzinfo=UTC)


def value_for(column: sa.Column[Any]) -> Any:
    """A value of a column's kind. Keys of one kind are equal in all tables, so that they refer to one another."""
    if isinstance(column.type, Moment):
        return WHEN
    if isinstance(column.type, Document):
        return {"purged": False, "text": "ก"}
    if isinstance(column.type, Measure | sa.Float):
        return 1.25
    if isinstance(column.type, sa.Integer | Count):
        return 1
    return "x"


def fill(store: Any) -> None:
    """Write one row into every covered table through the program's own connection."""
    given: dict[sa.Column[Any], Any] = {}  # numbers that the database gave out, for the rows that refer to them
    with store.write() as connection:
        for table in cover.covered_tables():
            values = {column.key: value_for(column) for column in table.c if column.identity is None}
            values |= {key.parent.key: given[key.column] for key in table.foreign_keys if key.column in given}
            made = connection.execute(table.insert().values(**values))
            for column in table.c:
                if column.identity is not None:
                    given[column] = made.inserted_primary_key[0]


def other_value(column: sa.Column[Any], stored: Any) -> Any:
    """A value that differs from the one stored, as the driver takes it."""
    if isinstance(stored, datetime):
        return stored + timedelta(microseconds=1)
    if isinstance(stored, str):
        return ("y" if stored[:1] != "y" else "z") + stored[1:]
    if stored is None:
        return 7
    return stored + 1


def columns() -> list[tuple[str, str]]:
    """Every column of every covered table, but those that are exempt with a reason."""
    return [
        (table.name, column.key)
        for table in cover.covered_tables()
        for column in table.c
        if (table.name, column.key) not in cover.EXEMPT_COLUMNS
    ]


def change_and_look(store: Any, seed: int, *, tables_most: int = 1000, kinds_most: int = 10) -> list[tuple[str, str]]:
    """Change one value of each kind in every covered table past the program, and see each found; and put back.

    Keys and what refers to them are left out: a server does not let them be changed one by one. Returns what was
    changed.
    """
    chance = random.Random(seed)
    done = []
    covered = cover.covered_tables()
    for table in chance.sample(covered, min(tables_most, len(covered))):
        fixed = {column.key for column in table.c if column.primary_key or column.unique or column.foreign_keys}
        fixed |= {column.key for one in table.foreign_key_constraints for column in one.columns}
        free = [column for column in table.c if column.key not in fixed | cover.exempt_columns(table)]
        kinds = {type(column.type): column for column in chance.sample(free, len(free))}
        for column in list(kinds.values())[:kinds_most]:
            with store.engine.connect() as connection:
                before = connection.execute(sa.select(column)).scalar_one()
            put(store, column, changed(before))
            assert store.verify_journal() != [], (seed, table.name, column.key)
            put(store, column, before)
            done.append((table.name, column.key))
    assert store.verify_journal() == []
    return done


def put(store: Any, column: sa.Column[Any], value: Any) -> None:
    """Past the program: a connection of its engine that nothing watches."""
    with store.engine.begin() as connection:
        connection.execute(column.table.update().values({column.key: value}))


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, datetime):
        return value + timedelta(microseconds=1)
    if isinstance(value, dict):
        return value | {"more": 1}
    return f"{value[:-1]}y" if isinstance(value, str) else value + 1
