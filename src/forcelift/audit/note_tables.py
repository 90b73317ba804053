"""The table of what people say of an issue in the report: its cause, and how it was resolved."""

from __future__ import annotations

import sqlalchemy as sa

from forcelift.audit.schema import ID, NAME, metadata
from forcelift.audit.types import Moment, varchar

report_note = sa.Table(
    "report_note",
    metadata,
    sa.Column("note_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("batch_id", ID, nullable=False),
    sa.Column("code", varchar(255), nullable=False),
    # Null where the note is for the code in all tables.
    sa.Column("table_name", NAME),
    sa.Column("cause", varchar(4000)),
    sa.Column("resolution", varchar(4000)),
    sa.Column("made_by", NAME, nullable=False),
    sa.Column("made_at", Moment(), nullable=False),
    sa.Column("removed_by", NAME),
    sa.Column("removed_at", Moment()),
    sqlite_autoincrement=True,
)
sa.Index("idx_report_note_batch", report_note.c.batch_id)
