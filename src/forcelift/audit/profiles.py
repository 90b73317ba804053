"""Profiles of a plan's tables, and the findings that a person accepted: rows that are only added.

Who cites a profile (a checklist, a sign-off) names its id; `newest_profile` gives the last one of a project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.journal import Journal, append
from forcelift.audit.types import canonical_json

PROFILED = "profiled"
ACCEPTED = "finding_accepted"
WITHDRAWN = "finding_reopened"


class ProfileRow(Struct, frozen=True, kw_only=True):
    """A profile as it was written down. `document` is that of `profile --json`; its personal values are masked."""

    profile_id: str
    project: str
    plan_sha256: str
    org_id: str
    sample_percent: str | None
    open_findings: int
    document: Mapping[str, Any]
    taken_by: str
    taken_at: datetime


class AcceptedRow(Struct, frozen=True, kw_only=True):
    """A finding that somebody accepted by name, as it was then."""

    finding: str
    profile_id: str
    found_rows: int
    accepted_by: str
    reason: str
    accepted_at: datetime


class Profiles(Journal):
    """What `profile` found, and what people decided about it."""

    def add_profile(self, row: ProfileRow) -> None:
        """Write a profile down, with its digest in the journal."""
        with self.write() as connection:
            connection.execute(
                tables.profile.insert().values(
                    profile_id=row.profile_id,
                    project=row.project,
                    plan_sha256=row.plan_sha256,
                    org_id=row.org_id,
                    sample_percent=row.sample_percent,
                    open_findings=row.open_findings,
                    document=dict(row.document),
                    taken_by=row.taken_by,
                    taken_at=row.taken_at,
                )
            )
            payload = {
                "profile_id": row.profile_id,
                "project": row.project,
                "open_findings": row.open_findings,
                "sha256": hashlib.sha256(canonical_json(dict(row.document)).encode()).hexdigest(),
            }
            append(connection, self.clock.now(), PROFILED, payload)

    def profile(self, profile_id: str) -> ProfileRow | None:
        """The profile of that id; None if there is none."""
        return self._profile(tables.profile.c.profile_id == profile_id)

    def newest_profile(self, project: str) -> ProfileRow | None:
        """The last profile of a project; None if there is none."""
        return self._profile(tables.profile.c.project == project)

    def _profile(self, condition: sa.ColumnElement[bool]) -> ProfileRow | None:
        profile = tables.profile
        query = sa.select(profile).where(condition).order_by(profile.c.profile_no.desc()).limit(1)
        with self.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return ProfileRow(**{name: row[name] for name in ProfileRow.__struct_fields__})

    def accept_finding(self, project: str, row: AcceptedRow) -> None:
        """Remember that a person accepts a finding; what was accepted of it before is withdrawn."""
        with self.write() as connection:
            self._withdraw(connection, project, row.finding, row.accepted_at)
            connection.execute(
                tables.accepted_finding.insert().values(
                    project=project,
                    finding=row.finding,
                    profile_id=row.profile_id,
                    found_rows=row.found_rows,
                    accepted_by=row.accepted_by,
                    reason=row.reason,
                    accepted_at=row.accepted_at,
                )
            )
            payload = {"project": project, "finding": row.finding, "rows": row.found_rows, "by": row.accepted_by}
            append(connection, self.clock.now(), ACCEPTED, {**payload, "profile_id": row.profile_id})

    def withdraw_acceptance(self, project: str, finding: str, *, by: str) -> bool:
        """Let a finding be open again. False if it was not accepted."""
        with self.write() as connection:
            withdrawn = self._withdraw(connection, project, finding, self.clock.now())
            if withdrawn:
                payload = {"project": project, "finding": finding, "by": by}
                append(connection, self.clock.now(), WITHDRAWN, payload)
            return withdrawn

    def accepted_findings(self, project: str) -> dict[str, AcceptedRow]:
        """The findings of a project that are accepted now, by name."""
        accepted = tables.accepted_finding
        query = (
            sa.select(accepted)
            .where(accepted.c.project == project, accepted.c.withdrawn_at.is_(None))
            .order_by(accepted.c.accepted_no)
        )
        with self.read() as connection:
            rows = connection.execute(query).mappings().all()
        names = AcceptedRow.__struct_fields__
        return {row["finding"]: AcceptedRow(**{name: row[name] for name in names}) for row in rows}

    def _withdraw(self, connection: sa.Connection, project: str, finding: str, at: datetime) -> bool:
        accepted = tables.accepted_finding
        mine = (accepted.c.project == project) & (accepted.c.finding == finding) & accepted.c.withdrawn_at.is_(None)
        return connection.execute(accepted.update().where(mine).values(withdrawn_at=at)).rowcount > 0
