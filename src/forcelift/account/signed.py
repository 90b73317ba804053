"""Which sign-offs a project has, and whether what each was given for is still so.

Reads:   audit database, and the report files that were signed.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from forcelift.account.state import Recorded
from forcelift.audit.records import Batch, BatchMode
from forcelift.audit.signoffs import SignOffRow
from forcelift.storage.folder import sha256_of

BEFORE, AFTER = "before", "after"


class HasBatches(Protocol):
    """What a sign-off may be asked of: a batch, or a project's batches."""

    @property
    def batches(self) -> tuple[Batch, ...]: ...

    @property
    def is_project(self) -> bool: ...


class SignOff(Struct, frozen=True, kw_only=True):
    """A sign-off that was not withdrawn. `why_stale` says what has changed since; None while it stands."""

    number: int
    phase: str
    batch_id: str | None
    role: str
    name: str
    note: str
    at: datetime
    typed_by: str
    why_stale: str | None

    @property
    def is_stale(self) -> bool:
        return self.why_stale is not None


def signoffs_of(
    state: Recorded, scope: HasBatches, *, phase: str | None = None, plan_sha256: str | None = None
) -> tuple[SignOff, ...]:
    """The sign-offs of a scope, oldest first.

    Args:
        scope: A batch, whose own sign-offs and those before it are given; or a project, with those of all its batches.
        phase: Only `before` or only `after`.
        plan_sha256: Of the plan as it is now; by default as the newest batch of the scope has it.
    """
    batches = {batch.batch_id: batch for batch in scope.batches}
    newest = scope.batches[-1]
    plan_sha256 = plan_sha256 or newest.plan_sha256
    found = []
    for row in _standing(state, newest.project, phase):
        is_mine = row.phase == BEFORE or scope.is_project if row.batch_id is None else row.batch_id in batches
        if is_mine:
            found.append(_sign_off(row, why_stale(state, row, plan_sha256=plan_sha256)))
    return tuple(found)


def signoffs_of_project(state: Recorded, project: str, *, plan_sha256: str, phase: str | None = None) -> list[SignOff]:
    """All sign-offs of a project that were not withdrawn, whatever batch they are of."""
    rows = _standing(state, project, phase)
    return [_sign_off(row, why_stale(state, row, plan_sha256=plan_sha256)) for row in rows]


def why_stale(state: Recorded, row: SignOffRow, *, plan_sha256: str) -> str | None:
    """What has changed since a sign-off, in a sentence; None if nothing."""
    reasons = _changed_before(state, row, plan_sha256) if row.phase == BEFORE else _changed_after(state, row)
    return "; ".join(reasons) or None


def file_fault(file: str | None, sha256: str) -> str | None:
    """What is wrong with a report's file; None if it is there as it was written."""
    if file is None:
        return "it is not recorded where the report was written"
    try:
        found = sha256_of(Path(file))
    except FileNotFoundError:
        return f"the report `{file}` is gone"
    except OSError as error:
        return f"the report `{file}` cannot be read: {error.strerror}"
    return None if found == sha256 else f"the report `{file}` was changed after it was written"


def lacking_roles(roles: Sequence[str], signed: Iterable[SignOff]) -> list[str]:
    """The roles of the plan of which no sign-off stands."""
    there = {one.role for one in signed if not one.is_stale}
    return [role for role in roles if role not in there]


def _standing(state: Recorded, project: str, phase: str | None) -> list[SignOffRow]:
    rows = state.audit.sign_offs(project)
    return [row for row in rows if row.withdrawn_at is None and phase in (None, row.phase)]


def _sign_off(row: SignOffRow, stale: str | None) -> SignOff:
    return SignOff(
        number=row.sign_off_no,
        phase=row.phase,
        batch_id=row.batch_id,
        role=row.role,
        name=row.name,
        note=row.note,
        at=row.signed_at,
        typed_by=row.typed_by,
        why_stale=stale,
    )


def _changed_before(state: Recorded, row: SignOffRow, plan_sha256: str) -> Iterator[str]:
    if row.binds["plan"]["sha256"] != plan_sha256:
        yield "the plan has changed since"
    check = row.binds.get("check")
    if check is not None:
        of_org = [one for one in state.audit.evidence(row.project, "check") if one.org_id == row.binds["org_id"]]
        later = [one for one in of_org if one.evidence_no > check["evidence"]]
        if later and later[-1].passed is False:
            yield f"a later check failed (evidence {later[-1].evidence_no})"


def _changed_after(state: Recorded, row: SignOffRow) -> Iterator[str]:
    audit = state.audit
    for batch_id, tables in row.binds["data"].items():
        now = audit.data_state(batch_id)
        for name in sorted(tables.keys() | now.keys()):
            if tables.get(name, {}).get("sha256") != now.get(name, {}).get("sha256"):
                yield f"the data of table `{name}` of batch `{batch_id}` have changed since"
        # By the journal's order and not by times, since clocks go backwards and differ from host to host.
        moves = audit.moves_since(batch_id, row.head.seq)
        if any(move.startswith("purge") for move in moves):
            yield f"personal data of batch `{batch_id}` were purged since"
        batch = audit.batch(batch_id)
        if batch is None or batch.plan_sha256 != row.binds["plan"][batch_id]["sha256"]:
            yield f"the plan of batch `{batch_id}` has changed since"
        if any(move.startswith("failed_re") for move in moves):
            yield f"refused rows of batch `{batch_id}` were marked as resolved, or opened again, since"
        different = audit.found_different_since(batch_id, row.head.seq)
        if different:
            level, name = different[0]
            yield f"a later validation (level {level}) found table `{name}` of batch `{batch_id}` to be different"
    if row.batch_id is None:
        # All that had sent rows into the org were bound; dry runs and other orgs are no part of it.
        begun = [one for one in audit.batches(row.project) if one.mode is not BatchMode.DRY_RUN]
        bound = row.binds["data"].keys()
        orgs = {one.org_id for one in begun if one.batch_id in bound}
        others = [one.batch_id for one in begun if one.batch_id not in bound and one.org_id in orgs]
        if others:
            yield f"batch `{others[0]}` was begun since"
    report = row.binds.get("report")
    if report is not None:
        made = audit.reports_of(row.batch_id, row.project)
        newer = [one for one in made if one.seq > report["seq"] and one.content != report["content"]]
        if newer:
            # One that says the same in another form, or shows who has signed, is no other report.
            yield f"a newer report that says something else was written at {newer[-1].at:%Y-%m-%d %H:%M} UTC"
        for one in (report, *report["also"]):
            fault = file_fault(one["file"], one["sha256"])
            if fault is not None:
                yield fault
