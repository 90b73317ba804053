"""Sign-offs: who signed what, bound by digests. Rows are added and withdrawn, never changed otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import RowMapping

from forcelift.audit import tables
from forcelift.audit.chain import JournalHead, current_head
from forcelift.audit.journal import Journal, append
from forcelift.audit.text import fit_text
from forcelift.audit.types import canonical_json
from forcelift.errors import StateConflict

SIGNED = "signed_off"
WITHDRAWN = "sign_off_withdrawn"
REPORTED = "report_made"
_TEXT_BYTES = 4000
_MOVES = ("chunk", "retr", "rollback", "purge", "failed_re")  # how actions that change a batch's data begin
_WORDS = ("report_note",)  # and those that change what is said of them
_VALIDATED = "validated"
_SEALING = ("chunk", "job_collected", "failed_corrected", "corrections_")  # and those that name files with their seals


class SignOffRow(Struct, frozen=True, kw_only=True):
    """A sign-off as it was written down.

    Attributes:
        phase: `before` or `after`.
        batch_id: None before a migration, and for a whole project.
        typed_by: The login at which it was typed. Names are what was typed there, and prove no more.
        binds: What was signed, with digests.
        head: The journal's last row before it.
    """

    sign_off_no: int
    project: str
    phase: str
    batch_id: str | None
    role: str
    name: str
    note: str
    typed_by: str
    signed_at: datetime
    binds: Mapping[str, Any]
    binds_sha256: str
    head: JournalHead
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    withdrawn_because: str | None


class NewSignOff(Struct, frozen=True, kw_only=True):
    """A sign-off that is to be written down."""

    project: str
    phase: str
    batch_id: str | None
    role: str
    name: str
    note: str
    typed_by: str
    binds: Mapping[str, Any]


class ReportMade(Struct, frozen=True, kw_only=True):
    """A report that was written: its file where that was recorded, and its digest."""

    batch_id: str | None
    seq: int
    at: datetime
    sha256: str
    file: str | None
    format: str
    project: str | None  # of a report of all its batches
    content: str | None  # digest of what it says, whatever the form and whoever has signed it


class SignOffs(Journal):
    """Sign-offs, and what they bind."""

    def add_sign_off(self, new: NewSignOff) -> SignOffRow:
        """Write a sign-off down. One of the same role, phase and batch that stands is withdrawn by it."""
        digest = sha256_of(new.binds)
        row = tables.sign_off.c
        with self.write() as connection:
            now = self.clock.now()
            standing = (row.project == new.project) & (row.phase == new.phase) & (row.role == new.role)
            standing &= row.withdrawn_at.is_(None)
            standing &= row.batch_id.is_(None) if new.batch_id is None else row.batch_id == new.batch_id
            replaced = list(connection.execute(sa.select(row.sign_off_no).where(standing)).scalars())
            if replaced:
                values = {"withdrawn_at": now, "withdrawn_by": new.typed_by, "withdrawn_because": "signed anew"}
                connection.execute(tables.sign_off.update().where(standing).values(**values))
            head = current_head(connection)
            made = connection.execute(
                tables.sign_off.insert().values(
                    project=new.project,
                    phase=new.phase,
                    batch_id=new.batch_id,
                    role=new.role,
                    name=new.name,
                    note=fit_text(new.note, _TEXT_BYTES),
                    typed_by=new.typed_by,
                    signed_at=now,
                    binds=dict(new.binds),
                    binds_sha256=digest,
                    journal_seq=head.seq,
                    journal_hash=head.hash,
                )
            )
            number = int(made.inserted_primary_key[0])  # type: ignore[index]  # an insert of one row has a key
            payload = {
                "sign_off": number,
                "phase": new.phase,
                "role": new.role,
                "name": new.name,
                "typed_by": new.typed_by,
                "sha256": digest,
                "instead_of": replaced,
            }
            append(connection, now, SIGNED, payload, batch_id=new.batch_id)
        return next(one for one in self.sign_offs(new.project) if one.sign_off_no == number)

    def withdraw_sign_off(self, project: str, number: int, *, by: str, because: str) -> SignOffRow:
        """Take a sign-off back. Raises `StateConflict` if there is none of that number that stands."""
        row = tables.sign_off.c
        mine = (row.project == project) & (row.sign_off_no == number) & row.withdrawn_at.is_(None)
        with self.write() as connection:
            now = self.clock.now()
            values = {"withdrawn_at": now, "withdrawn_by": by, "withdrawn_because": fit_text(because, _TEXT_BYTES)}
            batch_id = connection.execute(sa.select(row.batch_id).where(mine)).scalar_one_or_none()
            if not connection.execute(tables.sign_off.update().where(mine).values(**values)).rowcount:
                raise StateConflict(
                    f"there is no sign-off {number} of this project that stands",
                    state="nothing was changed",
                    hint="`forcelift signoff list` shows them",
                )
            append(connection, now, WITHDRAWN, {"sign_off": number, "by": by, "because": because}, batch_id=batch_id)
        return next(one for one in self.sign_offs(project) if one.sign_off_no == number)

    def sign_offs(self, project: str) -> list[SignOffRow]:
        """All sign-offs of a project, oldest first, withdrawn ones too."""
        row = tables.sign_off
        query = sa.select(row).where(row.c.project == project).order_by(row.c.sign_off_no)
        with self.read() as connection:
            return [_sign_off(found) for found in connection.execute(query).mappings()]

    def data_state(self, batch_id: str) -> dict[str, Any]:
        """What a batch's data are, in digests: per table one over all its chunks, and the newest change.

        Any move of a chunk (resume, retry, rollback, reload, purge) changes it.
        """
        log, chunk = tables.audit_log, tables.chunk
        columns = (
            chunk.c.table_name,
            log.c.audit_id,
            log.c.status,
            log.c.end_time,
            log.c.source_count,
            log.c.extracted_count,
            log.c.transformed_count,
            log.c.loaded_count,
            log.c.success_count,
            log.c.failed_count,
            log.c.skipped_count,
            chunk.c.superseded,
            chunk.c.ledger_sha256,
        )
        query = (
            sa.select(*columns)
            .join(chunk, chunk.c.audit_id == log.c.audit_id)
            .where(chunk.c.batch_id == batch_id)
            .order_by(chunk.c.table_name, log.c.audit_id)
        )
        found: dict[str, Any] = {}
        with self.read() as connection:
            for row in connection.execute(query):
                table = found.setdefault(row.table_name, {"sum": hashlib.sha256(), "chunks": 0, "changed_at": None})
                values = [value.isoformat() if isinstance(value, datetime) else value for value in row]
                table["sum"].update(canonical_json(values).encode())
                table["chunks"] += 1
                if row.end_time is not None:
                    table["changed_at"] = max(table["changed_at"] or row.end_time, row.end_time)
        return {
            name: {
                "sha256": one["sum"].hexdigest(),
                "chunks": one["chunks"],
                "changed_at": one["changed_at"].isoformat() if one["changed_at"] is not None else None,
            }
            for name, one in found.items()
        }

    def reports_of(self, batch_id: str | None, project: str) -> list[ReportMade]:
        """The reports of one batch, or with None of the whole project, oldest first."""
        if batch_id is None:
            return [one for one in self.reports_made() if one.project == project]
        return [one for one in self.reports_made() if one.batch_id == batch_id and one.project is None]

    def reports_made(self) -> list[ReportMade]:
        """All reports that were written, oldest first, by the journal."""
        journal = tables.journal.c
        query = sa.select(tables.journal).where(journal.action == REPORTED).order_by(journal.seq)
        with self.read() as connection:
            rows = connection.execute(query).mappings().all()
        found = []
        for row in rows:
            found += _reports(row)
        return found

    def journalled_seals(self, batch_id: str, kind: str) -> dict[str, tuple[str, ...]]:
        """The seals that a batch's files of one kind ever had, by file and oldest first, as the journal tells.

        Args:
            kind: `ledger` (of which the chunks know the last), `outcomes` (of rollbacks), `results` (of jobs) or
                `corrections`; one that was taken away has the empty seal.
        """
        found: dict[str, tuple[str, ...]] = {}
        for _, text in self._since(batch_id, 0, _SEALING):
            payload = json.loads(text)
            file = payload.get(f"{kind}_file")
            if file is not None:
                found[file] = (*found.get(file, ()), payload.get(f"{kind}_sha256") or "")
        return found

    def moves_since(self, batch_id: str, seq: int) -> list[str]:
        """What happened to a batch's chunks after a row of the journal: the actions, oldest first."""
        return [action for action, _ in self._since(batch_id, seq, _MOVES)]

    def words_since(self, batch_id: str, seq: int) -> list[str]:
        """What was noted for a batch's report, or taken out of it, after a row of the journal."""
        return [action for action, _ in self._since(batch_id, seq, _WORDS)]

    def found_different_since(self, batch_id: str, seq: int) -> list[tuple[int, str]]:
        """Level and table of each validation after a row of the journal that found what was loaded to be different."""
        told = [json.loads(payload) for _, payload in self._since(batch_id, seq, (_VALIDATED,))]
        return [(one["level"], one["table"]) for one in told if one["checks"].get("failed")]

    def _since(self, batch_id: str, seq: int, words: Sequence[str]) -> list[tuple[str, str]]:
        journal = tables.journal.c
        begins = sa.or_(*(journal.action.like(f"{word}%") for word in words))
        query = (
            sa.select(journal.action, journal.payload)
            .where(journal.batch_id == batch_id, journal.seq > seq, begins)
            .order_by(journal.seq)
        )
        with self.read() as connection:
            return [(action, payload) for action, payload in connection.execute(query)]


def sha256_of(value: Any) -> str:
    """SHA-256 of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def _sign_off(row: RowMapping) -> SignOffRow:
    names = [name for name in SignOffRow.__struct_fields__ if name != "head"]
    head = JournalHead(seq=row["journal_seq"], hash=row["journal_hash"])
    return SignOffRow(head=head, **{name: row[name] for name in names})


def _reports(row: RowMapping) -> list[ReportMade]:
    """The files of one writing: several formats may be written at once."""
    payload = json.loads(row["payload"])
    files = payload["files"] if isinstance(payload.get("files"), list) else [payload]
    return [
        ReportMade(
            batch_id=row["batch_id"],
            seq=row["seq"],
            at=datetime.fromisoformat(row["at"]),
            sha256=one["sha256"],
            file=one.get("file"),
            format=one.get("format", ""),
            project=payload.get("project"),
            content=one.get("content"),
        )
        for one in files
    ]
