"""What lets the checklist's own statements run as written on databases that are not Oracle.

`SYSDATE` is a keyword of Oracle; SQLite and PostgreSQL offer no way to define a name that is read without parentheses.
So a statement that goes through an engine of ours has this one bare word replaced by the database's own word, outside
of texts, quoted names and comments. Statements typed into another client are not helped by this.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

# What must be left alone comes first, so that a match of it swallows a SYSDATE inside.
_TOKENS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\bSYSDATE\b", re.IGNORECASE | re.DOTALL)


def replace_sysdate(statement: str, present: str) -> str:
    """The statement with each bare SYSDATE replaced by the expression `present`."""
    return _TOKENS.sub(lambda match: present if match[0].upper() == "SYSDATE" else match[0], statement)


def native_dates(engine: sa.Engine) -> None:
    """Have the engine understand SYSDATE."""
    present = "CURRENT_TIMESTAMP" if engine.dialect.name == "sqlite" else "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"

    @sa.event.listens_for(engine, "before_cursor_execute", retval=True)
    def rewrite(
        connection: sa.Connection, cursor: object, statement: str, parameters: Any, context: object, many: bool
    ) -> tuple[str, Any]:
        if "sysdate" in statement.lower():
            statement = replace_sysdate(statement, present)
        return statement, parameters
