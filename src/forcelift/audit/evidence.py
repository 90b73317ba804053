"""Evidence of what was looked at, ticked or waived before a migration: rows only added, digests in the journal."""

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


class Evidence(Struct, frozen=True, kw_only=True):
    """One thing that was looked at, ticked or waived.

    Attributes:
        kind: `check`, `tick`, `waiver`, `rehearsal` and the like.
        name: Which one of its kind: the item of a tick, the check of a waiver.
        plan_sha256: Of the plan as it was.
        org_id: Of which org it is; None where no org was asked.
        passed: None where there is nothing to pass.
    """

    evidence_no: int
    project: str
    kind: str
    name: str
    plan_sha256: str
    org_id: str | None
    passed: bool | None
    document: Mapping[str, Any]
    sha256: str
    made_by: str
    made_at: datetime


class EvidenceRows(Journal):
    """Evidence."""

    def add_evidence(
        self,
        *,
        project: str,
        kind: str,
        name: str,
        plan_sha256: str,
        org_id: str | None,
        passed: bool | None,
        document: Mapping[str, Any],
        by: str,
    ) -> Evidence:
        """Write it down, with its digest in the journal. The document holds no personal values."""
        sha256 = hashlib.sha256(canonical_json(document).encode("utf-8", "surrogatepass")).hexdigest()
        with self.write() as connection:
            now = self.clock.now()
            values = {
                "project": project,
                "kind": kind,
                "name": name,
                "plan_sha256": plan_sha256,
                "org_id": org_id,
                "passed": None if passed is None else int(passed),
                "document": dict(document),
                "sha256": sha256,
                "made_by": by,
                "made_at": now,
            }
            made = connection.execute(tables.evidence.insert().values(**values))
            number = int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has a key
            payload = {
                "evidence": number,
                "project": project,
                "kind": kind,
                "name": name,
                "plan": plan_sha256,
                "org": org_id,
                "passed": passed,
                "sha256": sha256,
                "by": by,
            }
            append(connection, now, "evidence", payload)
        return Evidence(**{**values, "evidence_no": number, "passed": passed})  # type: ignore[arg-type]  # as just written

    def evidence(self, project: str, kind: str | None = None) -> list[Evidence]:
        """All evidence of a project, oldest first."""
        row = tables.evidence.c
        query = sa.select(tables.evidence).where(row.project == project).order_by(row.evidence_no)
        if kind is not None:
            query = query.where(row.kind == kind)
        with self.read() as connection:
            return [
                Evidence(**{**found, "passed": None if found["passed"] is None else bool(found["passed"])})
                for found in connection.execute(query).mappings()
            ]
