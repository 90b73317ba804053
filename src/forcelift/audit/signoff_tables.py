"""The tables of who signed what, of second persons' consents, and of purges of personal data."""

from __future__ import annotations

import sqlalchemy as sa

from forcelift.audit.schema import HASH, ID, NAME, WORD, metadata
from forcelift.audit.types import Document, Moment, maybe_empty, varchar

# A sign-off binds what it was given for by digests: whoever reads it later sees whether that is still so.
sign_off = sa.Table(
    "sign_off",
    metadata,
    sa.Column("sign_off_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", NAME, nullable=False),
    # `before` or `after`.
    sa.Column("phase", WORD, nullable=False),
    # Null before a migration, and where it spans a whole project.
    sa.Column("batch_id", ID),
    sa.Column("role", NAME, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("note", maybe_empty(4000)),
    # The login at which it was typed: user, host and process.
    sa.Column("typed_by", NAME, nullable=False),
    sa.Column("signed_at", Moment(), nullable=False),
    sa.Column("binds_sha256", HASH, nullable=False),
    # The journal's last row before this sign-off.
    sa.Column("journal_seq", sa.BigInteger, nullable=False),
    sa.Column("journal_hash", HASH, nullable=False),
    sa.Column("withdrawn_at", Moment()),
    sa.Column("withdrawn_by", NAME),
    sa.Column("withdrawn_because", varchar(4000)),
    # Documents come last, and long texts before them: Oracle wants it so (ORA-24816).
    sa.Column("binds", Document(), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("idx_sign_off_project", sign_off.c.project, sign_off.c.phase)

# A step that destroys something, asked for by one person and consented to by another.
consent = sa.Table(
    "consent",
    metadata,
    sa.Column("consent_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("step", WORD, nullable=False),
    sa.Column("subject", varchar(1000), nullable=False),
    sa.Column("sha256", HASH, nullable=False),
    sa.Column("asked_by", NAME, nullable=False),
    sa.Column("asked_at", Moment(), nullable=False),
    sa.Column("name", NAME),
    sa.Column("typed_by", NAME),
    sa.Column("shared_login", sa.Integer),
    sa.Column("note", maybe_empty(4000)),
    sa.Column("approved_at", Moment()),
    sa.Column("expires_at", Moment()),
    sa.Column("used_at", Moment()),
    # What would be destroyed, whose digest stands above: a consent to something else is none.
    sa.Column("details", Document(), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("idx_consent_sha256", consent.c.sha256)

# Personal data of a batch that were removed: begun before the first of them goes, ended after the last.
purge = sa.Table(
    "purge",
    metadata,
    sa.Column("purge_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("batch_id", ID, nullable=False),
    sa.Column("asked_by", NAME, nullable=False),
    sa.Column("reason", maybe_empty(4000)),
    sa.Column("began_at", Moment(), nullable=False),
    sa.Column("ended_at", Moment()),
    sa.Column("result", Document()),
    sqlite_autoincrement=True,
)
sa.Index("idx_purge_batch", purge.c.batch_id)
