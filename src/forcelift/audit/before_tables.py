"""The tables about what is done around a migration: automations switched off, profiles, evidence."""

from __future__ import annotations

import sqlalchemy as sa

from forcelift.audit.schema import HASH, ID, NAME, WORD, metadata
from forcelift.audit.types import Count, Document, Moment, maybe_empty, varchar

# An automation of an org that was switched off, as it was before: one open row for each, whoever wants it off.
org_state = sa.Table(
    "org_state",
    metadata,
    sa.Column("state_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("org_id", varchar(18), nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("object", maybe_empty(80)),
    sa.Column("before", Document(), nullable=False, quote=True),
    # What it is to be while it is off; once it was read back, what it then was.
    sa.Column("off", Document(), nullable=False, quote=True),
    sa.Column("taken_at", Moment(), nullable=False),
    sa.Column("taken_by", maybe_empty(255)),
    # Set while a write may be on its way in the org: begun, and neither read back nor refused.
    sa.Column("writing_at", Moment()),
    sa.Column("off_at", Moment()),
    # Why it could not be put back; who restores it next tries again.
    sa.Column("stuck", varchar(1000)),
    sa.Column("restored_at", Moment()),
    sa.Column("restored_by", NAME),
    # `restored`, `found` (it was so already), `overwritten` or `kept` (somebody decided).
    sa.Column("ending", WORD),
    sqlite_autoincrement=True,
)
sa.Index("idx_org_state", org_state.c.org_id, org_state.c.kind, org_state.c.name)

# Who wants it off: batches by their id, and prepares by the name that they were given.
org_state_holder = sa.Table(
    "org_state_holder",
    metadata,
    sa.Column("state_no", sa.Integer, sa.ForeignKey(org_state.c.state_no), primary_key=True),
    sa.Column("kind", WORD, primary_key=True),
    sa.Column("holder", ID, primary_key=True),
    sa.Column("held_by", maybe_empty(255)),
    sa.Column("held_at", Moment(), nullable=False),
    sa.Column("released_at", Moment()),
)

profile = sa.Table(
    "profile",
    metadata,
    sa.Column("profile_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("profile_id", ID, nullable=False, unique=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("plan_sha256", HASH, nullable=False),
    sa.Column("org_id", NAME, nullable=False),
    sa.Column("sample_percent", WORD),
    sa.Column("open_findings", sa.Integer, nullable=False),
    sa.Column("document", Document(), nullable=False),
    sa.Column("taken_by", NAME, nullable=False),
    sa.Column("taken_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("idx_profile_project", profile.c.project)

accepted_finding = sa.Table(
    "accepted_finding",
    metadata,
    sa.Column("accepted_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("finding", varchar(1000), nullable=False),
    sa.Column("profile_id", ID, nullable=False),
    sa.Column("found_rows", Count(), nullable=False),
    sa.Column("accepted_by", NAME, nullable=False),
    sa.Column("reason", varchar(4000), nullable=False),
    sa.Column("accepted_at", Moment(), nullable=False),
    sa.Column("withdrawn_at", Moment()),
    sqlite_autoincrement=True,
)
sa.Index("idx_accepted_project", accepted_finding.c.project)

# What was looked at, ticked or waived before a migration: of one plan (by its digest) and one org.
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("evidence_no", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("project", NAME, nullable=False),
    sa.Column("kind", WORD, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("plan_sha256", HASH, nullable=False),
    sa.Column("org_id", varchar(18)),
    sa.Column("passed", sa.Integer),
    sa.Column("document", Document(), nullable=False),
    sa.Column("sha256", HASH, nullable=False),
    sa.Column("made_by", NAME, nullable=False),
    sa.Column("made_at", Moment(), nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("idx_evidence_project", evidence.c.project, evidence.c.kind)
