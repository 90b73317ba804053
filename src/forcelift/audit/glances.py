"""What every look at a batch needs: the speed of its chunks, the outcomes that were sealed, how many jobs it had."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.sql.selectable import TextualSelect

from forcelift.audit import tables
from forcelift.audit.journal import Journal
from forcelift.audit.text import short_batch_id
from forcelift.audit.types import Measure

_TEXT = sa.String()

READ_BACK = "read_back"
"""Action of the journal: a few records of a settled chunk were compared with what the org has."""


class PerformanceRow(Struct, frozen=True, kw_only=True):
    """One line of the dashboard's third query: the speed of a table's SUCCESS chunks."""

    table_name: str
    avg_records_per_sec: float | None
    avg_chunk_duration: float | None
    max_chunk_duration: float | None


class Glances(Journal):
    """Questions of those who look at a batch."""

    def performance(self, batch_id: str) -> list[PerformanceRow]:
        """The checklist's "Performance metrics" of a batch."""
        query = dashboard_query(
            "performance",
            ("table_name", _TEXT),
            ("avg_records_per_sec", Measure()),
            ("avg_chunk_duration", Measure()),
            ("max_chunk_duration", Measure()),
        )
        return [PerformanceRow(**row) for row in self._dashboard(query, batch_id)]

    def sealed_outcomes(self, batch_id: str) -> dict[tuple[str, str], dict[str, int]]:
        """By a ledger file's name and seal, how many of its rows have each outcome, as written when it was sealed.

        Files of chunks that were undone since, or settled without counting, are left out.
        """
        query = sa.select(tables.journal.c.payload).where(
            tables.journal.c.batch_id == batch_id, tables.journal.c.action.in_(["chunk_settled", "chunk_retried"])
        )
        with self.read() as connection:
            payloads = [json.loads(payload) for payload in connection.execute(query).scalars()]
        return {
            (one["ledger_file"], one["ledger_sha256"]): one["outcomes"]
            for one in payloads
            if one.get("ledger_file") is not None and "outcomes" in one
        }

    def jobs_made(self, batch_id: str) -> int:
        """How many jobs the batch had so far."""
        query = sa.select(sa.func.count()).select_from(tables.job).where(tables.job.c.batch_id == batch_id)
        with self.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _dashboard(self, query: TextualSelect, batch_id: str) -> list[dict[str, Any]]:
        with self.read() as connection:
            rows = connection.execute(query, {"current_batch_id": short_batch_id(batch_id)})
            names = [column.name for column in query.selected_columns]
            return [dict(zip(names, row, strict=True)) for row in rows]


@cache
def dashboard_sql(name: str) -> str:
    """The text of a dashboard query (`status`, `failed`, `performance`), as the checklist has it."""
    # By its path: what reads a package's files from anywhere brings archives, temporary files and copying with it.
    return Path(__file__).with_name("sql").joinpath(f"{name}.sql").read_text(encoding="utf-8")


def dashboard_query(name: str, *columns: tuple[str, Any]) -> TextualSelect:
    # Columns are matched by place: databases spell the names of these columns in different cases.
    statement = dashboard_sql(name).rstrip().removesuffix(";")
    return sa.text(statement).columns(*(sa.column(label, kind) for label, kind in columns))
