"""Who works on a batch: one runner, or on a server several that share its chunks.

On SQLite an OS file lock beside the audit file decides: the system frees it when the process dies, also by `kill -9`.
In memory, where there is one process by nature, a lock of the process decides. The lease's row names the owner for
people, and its fencing token, which only grows, stands in every job that was made.

On a server the rows themselves decide, in the server's time: each runner writes down every few seconds that it lives,
and once it has been silent for its `patience_s` another may take over what it had. The old one, should it wake up,
finds that out before it makes or closes a job, and with each thing that it tries to write.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.database import Database
from forcelift.audit.journal import Journal, append
from forcelift.audit.records import ChunkStep
from forcelift.audit.shares import LeaseHolder, SilentClaim
from forcelift.errors import ForceliftError, LeaseLost, StateConflict, StorageError

# `status` holds the lock for a moment to see whether it is free; a runner that begins just then waits that long.
_PATIENCE_S = 1.0


class Lease:
    """The right to work on a batch, until it is given back or lost."""

    def __init__(self, store: Database, batch_id: str, *, owner: str, fence: int) -> None:
        self._store = store
        self.batch_id = batch_id
        self.owner = owner
        self.fence = fence

    def check(self) -> None:
        """Raise `LeaseLost` if another process has taken over."""
        with self._store.read() as connection:
            need_live(connection, self.batch_id, self.fence)

    def beat(self) -> None:
        """Write down that this process is alive; raises as `check` does."""
        self.check()
        mine = tables.lease.c
        live = (mine.batch_id == self.batch_id) & (mine.fence == self.fence) & _UNENDED
        # Not in turn: the heartbeat of a living process must not wait for another's long transaction.
        with self._store.write(in_turn=False) as connection:
            now = lease_time(self._store, connection)
            # Only forward, since another thread's later heartbeat may have been written in between.
            connection.execute(tables.lease.update().where(live, mine.heartbeat < now).values(heartbeat=now))


_UNENDED = tables.lease.c.released_at.is_(None) & tables.lease.c.lost_at.is_(None)


def lease_time(store: Database, connection: Connection) -> datetime:
    """The time by which leases are judged: the server's where there is one, as hosts' clocks differ."""
    return store.server_time(connection) if store.is_server else store.clock.now()


def need_live(connection: Connection, batch_id: str, fence: int) -> None:
    """Raise `LeaseLost` unless that runner's lease stands."""
    lease = tables.lease
    held = connection.execute(
        sa.select(lease).where(lease.c.batch_id == batch_id, lease.c.fence == fence)
    ).one_or_none()
    if held is None or held.released_at is not None or held.lost_at is not None:
        raise LeaseLost(
            f"this process no longer has the lease on batch `{batch_id}`; {taker_of(connection, batch_id, fence)} took "
            "it over",
            state="what it had done before stands; nothing was done since by this process",
            hint="let the other process work; see it by `forcelift status`",
        )


def taker_of(connection: Connection, batch_id: str, fence: int) -> str:
    """Who wrote that runner off, or else came last."""
    lease = tables.lease
    query = sa.select(lease.c.fence, lease.c.owner, lease.c.lost_to).where(lease.c.batch_id == batch_id)
    rows = connection.execute(query.order_by(lease.c.fence)).all()
    written_off_by = next((row.lost_to for row in rows if row.fence == fence), None)
    return str(written_off_by or (rows[-1].owner if rows and rows[-1].fence != fence else "another process"))


def living(store: Database, connection: Connection, batch_id: str, now: datetime) -> list[LeaseHolder]:
    """The runners that are alive by their rows, oldest first. Without a server, rows that were not given back."""
    query = sa.select(tables.lease).where(tables.lease.c.batch_id == batch_id, _UNENDED)
    rows = connection.execute(query.order_by(tables.lease.c.fence))
    return [_holder(row) for row in rows if not (store.can_share and _silence(row, now) > row.patience_s)]


def silence(connection: Connection, batch_id: str, fences: Collection[int], now: datetime) -> float:
    """Seconds since the most silent of those runners gave a sign of life; 0 if there are none."""
    lease = tables.lease
    query = sa.select(lease).where(lease.c.batch_id == batch_id, lease.c.fence.in_(fences))
    return max((_silence(row, now) for row in connection.execute(query)), default=0.0)


def bury_silent(
    store: Database, connection: Connection, batch_id: str, now: datetime, *, taker: str, all_others: bool = False
) -> None:
    """Write down that runners which have been silent for too long have lost what they had.

    Args:
        taker: Who says so, for the message that they meet when they wake up.
        all_others: Also those that time tells nothing of, as the lock of a file has shown that they are gone.
    """
    lease = tables.lease
    query = sa.select(lease).where(lease.c.batch_id == batch_id, _UNENDED)
    for row in connection.execute(query).all():
        if not all_others and _silence(row, now) <= row.patience_s:
            continue
        # The condition is judged again by the database: its heartbeat may have come since.
        same = (lease.c.batch_id == batch_id) & (lease.c.fence == row.fence) & (lease.c.heartbeat == row.heartbeat)
        gone = connection.execute(lease.update().where(same, _UNENDED).values(lost_at=now, lost_to=taker)).rowcount
        if gone and store.can_share:
            append(connection, now, "lease_lost", {"owner": row.owner, "fence": row.fence}, batch_id=batch_id)


def _silence(row: sa.Row[Any], now: datetime) -> float:
    return float((now - row.heartbeat).total_seconds())


def _holder(row: sa.Row[Any]) -> LeaseHolder:
    return LeaseHolder(**{name: getattr(row, name) for name in LeaseHolder.__struct_fields__})


class _Heart(threading.Thread):
    """Says every few seconds that the holder lives, whatever its other threads are busy with."""

    def __init__(self, lease: Lease, pause_s: float) -> None:
        super().__init__(name=f"lease of {lease.batch_id}", daemon=True)
        self._lease, self._pause_s = lease, pause_s
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            try:
                self._lease.beat()
            except StateConflict:
                # Taken over. The runner is told by its next `check`, which comes before it makes or closes a job.
                return
            except ForceliftError:
                # The server may be back before the lease is stale; if not, `check` will find another holder.
                continue

    def stop(self) -> None:
        self._stopped.set()
        self.join()


class _RowsDecide:
    """Nothing beside the lease's rows, which `enter` looks at and changes in one transaction."""

    def take(self, patience_s: float) -> bool:
        return True

    def free(self) -> None:
        pass


class _Lock(Protocol):
    def take(self, patience_s: float) -> bool: ...

    def free(self) -> None: ...


class _FileLock:
    def __init__(self, path: Path) -> None:
        from filelock import FileLock  # who only looks at a batch takes no lock

        # Not tied to a thread: worker threads may outlive the one that took it.
        self._lock = FileLock(path, mode=0o600, thread_local=False)

    def take(self, patience_s: float) -> bool:
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=patience_s, poll_interval=0.02)
        except Timeout:
            return False
        except OSError as error:
            raise StorageError(
                f"the lock file `{self._lock.lock_file}` beside the audit database cannot be used: {error.strerror}",
                state="nothing was begun",
                hint="give this user the right to write the folder of the audit database",
            ) from error
        return True

    def free(self) -> None:
        self._lock.release()


class _ProcessLock:
    def __init__(self, held: set[str], guard: threading.Lock, batch_id: str) -> None:
        self._held, self._guard, self._batch_id = held, guard, batch_id

    def take(self, patience_s: float) -> bool:
        with self._guard:
            if self._batch_id in self._held:
                return False
            self._held.add(self._batch_id)
            return True

    def free(self) -> None:
        with self._guard:
            self._held.discard(self._batch_id)


class Leases(Journal):
    """Leases on batches."""

    @contextmanager
    def lease(
        self,
        batch_id: str,
        owner: str,
        *,
        join: bool = False,
        reads: str | None = None,
        exports: str | None = None,
    ) -> Iterator[Lease]:
        """Work on the batch while the block lasts.

        Args:
            batch_id: The batch; it need not have begun yet.
            owner: Who works, for people: `user@host pid 4711`.
            join: Beside those that work on it already; otherwise alone.
            reads, exports: The state of the source that it sees, and its name for others that would see the same.
        Raises:
            StateConflict: Another process, or this one, works on the batch already. Names it, and since when. With
                `join`: none does, or this database cannot be shared.
        """
        lock = self._lock_of(batch_id)
        if not lock.take(_PATIENCE_S):
            raise self._taken(batch_id)
        try:
            lease = self.enter(batch_id, owner, join=join, reads=reads, exports=exports)
            heart = _Heart(lease, self.lease_times.beat_pause_s) if self.is_server else None
            if heart is not None:
                heart.start()
            try:
                yield lease
            finally:
                if heart is not None:
                    heart.stop()
                self._release(batch_id, lease.fence)
        finally:
            lock.free()

    def enter(
        self,
        batch_id: str,
        owner: str,
        *,
        join: bool = False,
        reads: str | None = None,
        exports: str | None = None,
    ) -> Lease:
        """Write down that this process works on the batch; its heart is the caller's to keep beating. See `lease`."""
        with self.write() as connection:
            now = lease_time(self, connection)
            if self.can_share:
                bury_silent(self, connection, batch_id, now, taker=owner)
                # Only now: the heartbeat of one that seemed silent may have come in between.
                alive = living(self, connection, batch_id, lease_time(self, connection))
                if join and not alive:
                    raise _nobody_there(batch_id)
                if not join and alive:
                    raise _alive(batch_id, alive, now, self.lease_times.stale_after_s)
                if not join:
                    _begin_session(connection, batch_id)
            elif join:
                raise not_shareable(batch_id)
            else:
                bury_silent(self, connection, batch_id, now, taker=owner, all_others=True)
            lease = tables.lease
            last = connection.execute(sa.select(sa.func.max(lease.c.fence)).where(lease.c.batch_id == batch_id))
            fence = int(last.scalar_one() or 0) + 1
            row = {
                "batch_id": batch_id,
                "fence": fence,
                "owner": owner,
                "since": now,
                "heartbeat": now,
                "patience_s": self.lease_times.stale_after_s,
                "reads": reads,
                "exports": exports,
            }
            connection.execute(lease.insert(), row)
            action = "runner_joined" if join else "lease_taken"
            append(connection, now, action, {"owner": owner, "fence": fence}, batch_id=batch_id)
            return Lease(self, batch_id, owner=owner, fence=fence)

    def lease_holder(self, batch_id: str) -> LeaseHolder | None:
        """Who works on the batch, the longest of several; None if no process does, also after one died in silence."""
        return next(iter(self.runners(batch_id)), None)

    def runners(self, batch_id: str) -> list[LeaseHolder]:
        """All who work on the batch at this moment, oldest first."""
        with self.read() as connection:
            alive = living(self, connection, batch_id, lease_time(self, connection))
        if self.can_share or not alive:
            return alive
        lock = self._lock_of(batch_id)
        if lock.take(0):
            lock.free()
            return []
        return alive[-1:]

    def silent_claim(self, batch_id: str) -> SilentClaim | None:
        """The runner whose silence the others wait for; None unless all that is left is in the hands of such.

        A runner that was not heard of for half of its patience may be dead; once all of it is used up, the others take
        over.
        """
        chunk = tables.chunk
        with self.read() as connection:
            now = lease_time(self, connection)
            runners = living(self, connection, batch_id, now)
            left = sa.select(chunk.c.claim, sa.func.count()).where(
                chunk.c.batch_id == batch_id, chunk.c.step != ChunkStep.SETTLED.value
            )
            held = {row[0]: int(row[1]) for row in connection.execute(left.group_by(chunk.c.claim))}
            silent = [one for one in runners if (now - one.heartbeat).total_seconds() > one.patience_s / 2]
        if not held or len(silent) == len(runners) or not set(held) <= {one.fence for one in silent}:
            return None
        last = max((one for one in silent if one.fence in held), key=lambda one: one.heartbeat)
        silent_s = (now - last.heartbeat).total_seconds()
        return SilentClaim(
            owner=last.owner,
            chunks=sum(held.values()),
            silent_s=silent_s,
            free_in_s=max(0.0, last.patience_s - silent_s),
        )

    def _lock_of(self, batch_id: str) -> _Lock:
        if self.can_share:
            return _RowsDecide()
        if self.file is None:
            return _ProcessLock(self.held_in_memory, self.memory_guard, batch_id)
        digest = hashlib.sha256(batch_id.encode()).hexdigest()[:16]
        return _FileLock(self.file.with_name(f"{self.file.name}-lease-{digest}.lock"))

    def _taken(self, batch_id: str) -> StateConflict:
        with self.read() as connection:
            alive = living(self, connection, batch_id, lease_time(self, connection))
        who = f"{alive[-1].owner}, since {alive[-1].since:%Y-%m-%d %H:%M:%S} UTC" if alive else "another process"
        return StateConflict(
            f"batch `{batch_id}` is being worked on by {who}",
            state="nothing was changed by this process",
            hint="watch it by `forcelift status`, or end it by `forcelift stop`",
        )

    def _release(self, batch_id: str, fence: int) -> None:
        with self.write() as connection:
            release(connection, batch_id, fence, lease_time(self, connection))


def release(connection: Connection, batch_id: str, fence: int, now: datetime) -> None:
    """Give a lease back; one that is lost, or was given back before, is left as it is."""
    mine = (tables.lease.c.batch_id == batch_id) & (tables.lease.c.fence == fence)
    if connection.execute(tables.lease.update().where(mine, _UNENDED).values(released_at=now)).rowcount:
        append(connection, now, "lease_released", {"fence": fence}, batch_id=batch_id)


def _begin_session(connection: Connection, batch_id: str) -> None:
    """Whoever works alone on a batch begins anew: what earlier runners gave up may be claimed again."""
    chunk = tables.chunk
    connection.execute(
        chunk.update()
        .where(chunk.c.batch_id == batch_id, chunk.c.step != ChunkStep.SETTLED.value, chunk.c.claim.is_not(None))
        .values(claim=None)
    )
    connection.execute(tables.claim.delete().where(tables.claim.c.batch_id == batch_id))


def not_shareable(batch_id: str) -> StateConflict:
    """The error for a batch whose audit database only one process may use."""
    return StateConflict(
        f"batch `{batch_id}` cannot be joined: its audit database is a SQLite file, which lets one process of one host "
        "work on a batch",
        state="nothing was changed by this process",
        hint="raise `limits.parallel_jobs` of the one process, or keep the audit database of the next batch on "
        "PostgreSQL or Oracle (see Share a batch)",
    )


def _nobody_there(batch_id: str) -> StateConflict:
    return StateConflict(
        f"batch `{batch_id}` cannot be joined: no process is at work on it",
        state="nothing was changed by this process",
        hint=f"go on with it by `forcelift run --resume {batch_id}`; others may then join",
    )


def _alive(batch_id: str, alive: list[LeaseHolder], now: datetime, stale_after_s: float) -> StateConflict:
    silent_s = min(max((now - one.heartbeat).total_seconds(), 0) for one in alive)
    who = " and ".join(f"{one.owner}, since {one.since:%Y-%m-%d %H:%M:%S} UTC" for one in alive)
    return StateConflict(
        f"batch `{batch_id}` is being worked on by {who}; the last sign of life is {silent_s:.0f} s old",
        state="nothing was changed by this process",
        hint=f"help by `forcelift run --join {batch_id}`, watch by `forcelift status`, or end it by `forcelift stop`; "
        f"if it died, the batch is free {max(stale_after_s - silent_s, 0):.0f} s from now",
    )
