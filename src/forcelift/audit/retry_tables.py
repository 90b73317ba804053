"""The tables of retries: what each one takes up, and how far each of its chunks has come."""

from __future__ import annotations

import sqlalchemy as sa

from forcelift.audit.schema import FILE, HASH, ID, NAME, WORD, metadata
from forcelift.audit.types import Document, Moment, whole_number

retry = sa.Table(
    "retry",
    metadata,
    sa.Column("retry_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, sa.ForeignKey("batch.batch_id"), nullable=False),
    # Where its files lie in storage: named before the row is written, as what it takes up is sealed there first.
    sa.Column("folder", FILE, nullable=False),
    sa.Column("selection", Document(), nullable=False),
    sa.Column("plan_revision", sa.Integer, nullable=False),
    sa.Column("asked_by", NAME, nullable=False),
    sa.Column("began_at", Moment(), nullable=False),
    sa.Column("ended_at", Moment()),
    sa.Column("result", Document()),
    sqlite_autoincrement=True,
)
sa.Index("idx_retry_batch", retry.c.batch_id)

# The rows of one chunk that a retry takes up. The audit row stays as it was until they are settled.
retry_chunk = sa.Table(
    "retry_chunk",
    metadata,
    sa.Column("retry_no", sa.Integer, sa.ForeignKey(retry.c.retry_no), primary_key=True),
    sa.Column("audit_id", whole_number(), primary_key=True, autoincrement=False),
    sa.Column("lines_file", FILE, nullable=False),
    sa.Column("lines_sha256", HASH, nullable=False),
    sa.Column("lines_rows", sa.BigInteger, nullable=False),
    sa.Column("step", WORD, nullable=False),
    sa.Column("staged", Document()),
    sa.Column("link_parts", Document()),
    sa.Column("gone", sa.BigInteger, nullable=False),
    # The records of the rows' keys as they stood just before the first job of this retry.
    sa.Column("image_file", FILE),
    sa.Column("image_sha256", HASH),
    sa.Column("image_rows", sa.BigInteger),
    sa.Column("image_at", Moment()),
    sa.Column("settled_at", Moment()),
    sa.Column("counts", Document()),
)
