"""Batches, the plan revisions under them, and what an operator asks of a batch that runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.codec import batch_from
from forcelift.audit.journal import Journal, append
from forcelift.audit.moves import check_batch_move
from forcelift.audit.records import NO_REASON, Asked, Batch, BatchState, Control
from forcelift.audit.text import fit_text, short_batch_id
from forcelift.errors import StateConflict

SAMPLE_KEY = "sample_percent"
"""Beside the plan in a batch's first revision: how many percent of the keys it takes, as text; null for all rows."""

IMAGES_KEY = "before_images"
"""Beside the plan in a batch's first revision: whether it keeps the records that it may change as they were."""


def takes_images(plan_document: Mapping[str, Any]) -> bool:
    """Whether a batch of that plan document takes before-images; batches of earlier versions did not."""
    return bool(plan_document.get(IMAGES_KEY))


class _Undone(Exception):
    """Ends a transaction without its writes."""


class Batches(Journal):
    """Batches and their control rows."""

    def begin_batch(self, batch: Batch, *, plan_document: Mapping[str, Any]) -> Batch:
        """Record a new batch with its plan, which must hold no secrets.

        Raises:
            StateConflict: There is a batch of that id already.
        """
        with self.write() as connection:
            if find_batch(connection, batch.batch_id) is not None:
                raise StateConflict(
                    f"there is a batch `{batch.batch_id}` already",
                    state="nothing was changed in it",
                    hint=f"go on with it by `forcelift run --resume {batch.batch_id}`, or name another by `--batch`",
                )
            row = {name: getattr(batch, name) for name in Batch.__struct_fields__}
            row |= {"mode": batch.mode.value, "state": batch.state.value, "short_id": short_batch_id(batch.batch_id)}
            connection.execute(tables.batch.insert(), row)
            _insert_revision(connection, batch, plan_document, made_at=batch.started_at, made_by=batch.created_by)
            payload = {
                "project": batch.project,
                "mode": batch.mode.value,
                "org_id": batch.org_id,
                "plan_sha256": batch.plan_sha256,
                "as_of": batch.as_of.isoformat(),
            }
            if plan_document.get(SAMPLE_KEY) is not None:
                payload[SAMPLE_KEY] = plan_document[SAMPLE_KEY]
            append(connection, self.clock.now(), "batch_begun", payload, batch_id=batch.batch_id)
        return batch

    def batch(self, batch_id: str) -> Batch | None:
        """The batch of that id, or None."""
        with self.read() as connection:
            return find_batch(connection, batch_id)

    def batches(self, project: str | None = None) -> list[Batch]:
        """All batches, of one project if named, in the order in which they were begun."""
        query = sa.select(tables.batch).order_by(tables.batch.c.batch_no)
        if project is not None:
            query = query.where(tables.batch.c.project == project)
        with self.read() as connection:
            return [batch_from(row) for row in connection.execute(query).mappings()]

    def newest_batch(self, project: str | None = None, unfinished: bool = False) -> Batch | None:
        """The batch begun last; with `unfinished`, the last of those that are not done."""
        query = sa.select(tables.batch).order_by(tables.batch.c.batch_no.desc()).limit(1)
        if project is not None:
            query = query.where(tables.batch.c.project == project)
        if unfinished:
            query = query.where(tables.batch.c.state != BatchState.DONE.value)
        with self.read() as connection:
            row = connection.execute(query).mappings().one_or_none()
            return None if row is None else batch_from(row)

    def set_batch_state(self, batch_id: str, state: BatchState) -> Batch:
        """Move a batch; `ended_at` is set unless it runs. The same state again changes nothing.

        Raises:
            StateConflict: There is no such batch.
            IllegalMove: The move is not allowed.
        """
        with self.write() as connection:
            return move_batch(connection, batch_id, state, self.clock.now())

    def reopen_batch(self, batch_id: str) -> Batch:
        """Let a batch run again. Its SKIPPED and FAILED chunks stay so until each is started."""
        return self.set_batch_state(batch_id, BatchState.RUNNING)

    def plan_document(self, batch_id: str, number: int | None = None) -> dict[str, Any]:
        """A revision of the batch's plan, the newest if it has no number. Raises `StateConflict` for none."""
        revision = tables.plan_revision
        query = sa.select(revision.c.document).where(revision.c.batch_id == batch_id)
        if number is not None:
            query = query.where(revision.c.revision == number)
        with self.read() as connection:
            document = connection.execute(query.order_by(revision.c.revision.desc()).limit(1)).scalar_one_or_none()
        if document is None:
            raise _no_batch(batch_id)
        return dict(document)

    def sample_percent(self, batch_id: str) -> str | None:
        """How many percent of the keys the batch was begun with; None if with all rows."""
        return self.sample_percents([batch_id]).get(batch_id)

    def sample_percents(self, batch_ids: Collection[str]) -> dict[str, str]:
        """Of these batches those that are samples, with their percent."""
        revision = tables.plan_revision
        query = sa.select(revision.c.batch_id, revision.c.document).where(revision.c.revision == 1)
        with self.read() as connection:
            found = connection.execute(query.where(revision.c.batch_id.in_(batch_ids))).all()
        percents = {row.batch_id: row.document.get(SAMPLE_KEY) for row in found}
        return {batch_id: percent for batch_id, percent in percents.items() if percent is not None}

    def check_sample(self, batch_id: str, asked: str | None) -> None:
        """Raise `StateConflict` if a sample of `asked` percent is asked for and the batch was begun otherwise."""
        begun = self.sample_percent(batch_id)
        if asked is None or asked == begun:
            return
        was = f"as a sample of {begun} %" if begun is not None else "with all rows"
        raise StateConflict(
            f"batch `{batch_id}` was begun {was}, not as a sample of {asked} %",
            state="the batch is left as it was; nothing was read or written",
            hint="leave `--sample-percent` out to resume, or begin a new batch with `forcelift run`",
        )

    def add_plan_revision(
        self, batch_id: str, *, plan_document: Mapping[str, Any], plan_sha256: str, made_by: str
    ) -> Batch:
        """Record a change of the plan under a batch and return the batch as it stands now."""
        with self.write() as connection:
            batch = need_batch(connection, batch_id)
            now = self.clock.now()
            changed = replace(batch, plan_revision=batch.plan_revision + 1, plan_sha256=plan_sha256)
            _insert_revision(connection, changed, plan_document, made_at=now, made_by=made_by)
            connection.execute(
                tables.batch.update()
                .where(tables.batch.c.batch_id == batch_id)
                .values(plan_revision=changed.plan_revision, plan_sha256=plan_sha256)
            )
            payload = {"revision": changed.plan_revision, "plan_sha256": plan_sha256}
            append(connection, now, "plan_revised", payload, batch_id=batch_id)
            return changed

    def control(self, batch_id: str) -> Control:
        """What an operator asked of the batch; nothing asked is the default `Control`."""
        with self.read() as connection:
            return _find_control(connection, batch_id)

    def request_stop(self, batch_id: str, *, now: bool, by: str, reason: str | None = None) -> Control:
        """Ask that the batch stops: after what is in flight, or with `now` by aborting its jobs."""
        return self._ask(batch_id, "stop_asked", {"stop": True, "stop_now": now}, by=by, reason=reason)

    def request_pause(self, batch_id: str, *, by: str, reason: str | None = None) -> Control:
        """Ask that nothing new is begun until `request_resume`."""
        return self._ask(batch_id, "pause_asked", {"paused": True}, by=by, reason=reason)

    def request_resume(self, batch_id: str, *, by: str, reason: str | None = None) -> Control:
        """Undo a pause."""
        return self._ask(batch_id, "resume_asked", {"paused": False}, by=by, reason=reason)

    def request_throttle(self, batch_id: str, jobs: int | None, *, by: str, reason: str | None = None) -> Control:
        """Ask that at most so many jobs are open at once; None lifts it."""
        return self._ask(batch_id, "throttle_asked", {"throttle_jobs": jobs}, by=by, reason=reason)

    def clear_control(self, batch_id: str, by: str) -> Control:
        """Take back all that was asked."""
        nothing = {"stop": False, "stop_now": False, "paused": False, "throttle_jobs": None}
        return self._ask(batch_id, "control_cleared", nothing, by=by, reason=None)

    def try_control(self, batch_id: str) -> None:
        """See that the batch's control row can be written, in a transaction that is undone.

        Raises:
            StateConflict: There is no such batch.
            StorageError: It cannot be written.
        """
        try:
            with self.write() as connection:
                need_batch(connection, batch_id)
                row = {"stop": 0, "stop_now": 0, "paused": 0}
                found = connection.execute(
                    tables.control.update().where(tables.control.c.batch_id == batch_id).values(**row)
                )
                if found.rowcount == 0:
                    connection.execute(tables.control.insert(), {"batch_id": batch_id, **row})
                raise _Undone
        except _Undone:
            return

    def asked(self, batch_id: str) -> dict[str, Asked]:
        """Who asked for what, and why: the last `pause`, `throttle` and `stop` since all was taken back.

        Each has a reason of its own, which the control row has not: it holds that of the last wish.
        """
        journal = tables.journal
        names = {"pause_asked": "pause", "throttle_asked": "throttle", "stop_asked": "stop"}
        query = (
            sa.select(journal.c.action, journal.c.payload, journal.c.at)
            .where(journal.c.batch_id == batch_id, journal.c.action.in_([*names, "control_cleared"]))
            .order_by(journal.c.seq.desc())
        )
        found: dict[str, Asked] = {}
        with self.read() as connection:
            for row in connection.execute(query):
                if row.action == "control_cleared":
                    break
                payload = json.loads(row.payload)
                asked = Asked(
                    by=payload["by"], at=datetime.fromisoformat(row.at), reason=payload.get("reason") or NO_REASON
                )
                found.setdefault(names[row.action], asked)
        return found

    def _ask(self, batch_id: str, action: str, change: dict[str, Any], *, by: str, reason: str | None) -> Control:
        with self.write() as connection:
            need_batch(connection, batch_id)
            now = self.clock.now()
            old = _find_control(connection, batch_id)
            new = replace(old, **change, by=by, at=now, reason=fit_text(reason, 1000))
            row = {
                "stop": int(new.stop),
                "stop_now": int(new.stop_now),
                "paused": int(new.paused),
                "throttle_jobs": new.throttle_jobs,
                "reason": new.reason,
                "asked_by": by,
                "asked_at": now,
            }
            found = connection.execute(
                tables.control.update().where(tables.control.c.batch_id == batch_id).values(**row)
            )
            if found.rowcount == 0:
                connection.execute(tables.control.insert(), {"batch_id": batch_id, **row})
            append(connection, now, action, {**change, "by": by, "reason": new.reason}, batch_id=batch_id)
            return new


def find_batch(connection: Connection, batch_id: str) -> Batch | None:
    """The batch of that id, or None."""
    query = sa.select(tables.batch).where(tables.batch.c.batch_id == batch_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else batch_from(row)


def move_batch(connection: Connection, batch_id: str, state: BatchState, now: datetime) -> Batch:
    """Move a batch; see `Batches.set_batch_state`."""
    batch = need_batch(connection, batch_id)
    if batch.state is state:
        return batch
    check_batch_move(batch_id, batch.state, state)
    ended_at = None if state is BatchState.RUNNING else now
    connection.execute(
        tables.batch.update().where(tables.batch.c.batch_id == batch_id).values(state=state.value, ended_at=ended_at)
    )
    append(connection, now, f"batch_{state.value}", {}, batch_id=batch_id)
    return replace(batch, state=state, ended_at=ended_at)


def need_batch(connection: Connection, batch_id: str) -> Batch:
    """The batch of that id; `StateConflict` if there is none."""
    batch = find_batch(connection, batch_id)
    if batch is None:
        raise _no_batch(batch_id)
    return batch


def _no_batch(batch_id: str) -> StateConflict:
    return StateConflict(
        f"there is no batch `{batch_id}`",
        state="nothing was changed",
        hint="see which there are by `forcelift status`, or begin one by `forcelift run`",
    )


def _insert_revision(
    connection: Connection, batch: Batch, document: Mapping[str, Any], *, made_at: Any, made_by: str
) -> None:
    connection.execute(
        tables.plan_revision.insert(),
        {
            "batch_id": batch.batch_id,
            "revision": batch.plan_revision,
            "plan_sha256": batch.plan_sha256,
            "document": dict(document),
            "made_at": made_at,
            "made_by": made_by,
        },
    )


def _find_control(connection: Connection, batch_id: str) -> Control:
    row = connection.execute(sa.select(tables.control).where(tables.control.c.batch_id == batch_id)).one_or_none()
    if row is None:
        return Control()
    return Control(
        stop=bool(row.stop),
        stop_now=bool(row.stop_now),
        paused=bool(row.paused),
        throttle_jobs=row.throttle_jobs,
        reason=row.reason,
        by=row.asked_by,
        at=row.asked_at,
    )
