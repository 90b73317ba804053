"""One runner at a time on a batch.

On SQLite an OS file lock beside the audit file decides: the system frees it when the process dies, also by `kill -9`.
The lease's row names the owner for people, and its fencing token, which only grows, stands in every job that was made.
In memory, where there is one process by nature, a lock of the process decides.

On a server the row itself decides, in the server's time: its holder writes down every few seconds that it lives, and
once it has been silent for `STALE_AFTER_S` another process may take over, with a higher token. The old one, should it
wake up, finds that out before it makes or closes a job.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine import Connection

from forcelift.audit import tables
from forcelift.audit.database import Database
from forcelift.audit.journal import Journal, append
from forcelift.audit.postgresql import server_time
from forcelift.errors import ForceliftError, StateConflict, StorageError

# `status` holds the lock for a moment to see whether it is free; a runner that begins just then waits that long.
_PATIENCE_S = 1.0

# Six heartbeats may be missed, so that a slow server or a paused machine does not cost a healthy runner its batch.
STALE_AFTER_S = 60.0
BEAT_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """Who works on a batch."""

    owner: str
    fence: int
    since: datetime
    heartbeat: datetime


class Lease:
    """The right to work on a batch, while its `with` block lasts."""

    def __init__(self, store: Database, batch_id: str, *, owner: str, fence: int) -> None:
        self._store = store
        self.batch_id = batch_id
        self.owner = owner
        self.fence = fence

    def check(self) -> None:
        """Raise `StateConflict` if another process has taken the batch over."""
        with self._store.read() as connection:
            query = sa.select(tables.lease).where(tables.lease.c.batch_id == self.batch_id)
            held = connection.execute(query).one()
        if held.fence != self.fence or held.released_at is not None:
            raise StateConflict(
                f"this process no longer has the lease on batch `{self.batch_id}`; {held.owner} took it over",
                state="nothing was done since by this process",
                hint="let the other process work; see it by `forcelift status`",
            )

    def beat(self) -> None:
        """Write down that this process is alive, for people who look at `status`; raises as `check` does."""
        self.check()
        ours = (tables.lease.c.batch_id == self.batch_id) & (tables.lease.c.fence == self.fence)
        # Not in turn: the heartbeat of a living process must not wait for another's long transaction.
        with self._store.write(in_turn=False) as connection:
            now = lease_time(self._store, connection)
            # Only forward, since another thread's later heartbeat may have been written in between.
            connection.execute(tables.lease.update().where(ours, tables.lease.c.heartbeat < now).values(heartbeat=now))


def lease_time(store: Database, connection: Connection) -> datetime:
    """The time by which leases are judged: the server's where there is one, as hosts' clocks differ."""
    return server_time(connection) if store.is_server else store.clock.now()


class _Heart(threading.Thread):
    """Says every few seconds that the holder lives, whatever its other threads are busy with."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(name=f"lease of {lease.batch_id}", daemon=True)
        self._lease = lease
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(BEAT_PAUSE_S):
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


class _ServerLock:
    """Nothing beside the lease's row, which `_write_lease` looks at and changes in one transaction."""

    def take(self, patience_s: float) -> bool:
        return True

    def free(self) -> None:
        pass


class _Lock(Protocol):
    def take(self, patience_s: float) -> bool: ...

    def free(self) -> None: ...


class _FileLock:
    def __init__(self, path: Path) -> None:
        # Not tied to a thread: worker threads may outlive the one that took it.
        self._lock = FileLock(path, mode=0o600, thread_local=False)

    def take(self, patience_s: float) -> bool:
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
    def lease(self, batch_id: str, owner: str) -> Iterator[Lease]:
        """Hold the batch while the block lasts.

        Args:
            batch_id: The batch; it need not have begun yet.
            owner: Who holds it, for people: `user@host pid 4711`.
        Raises:
            StateConflict: Another process, or this one, works on the batch already. Names it, and since when.
        """
        lock = self._lock_of(batch_id)
        if not lock.take(_PATIENCE_S):
            raise self._taken(batch_id)
        try:
            lease = Lease(self, batch_id, owner=owner, fence=self._write_lease(batch_id, owner))
            heart = _Heart(lease) if self.is_server else None
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

    def lease_holder(self, batch_id: str) -> LeaseHolder | None:
        """Who works on the batch at this moment; None if no process does, also after one died without a word."""
        with self.read() as connection:
            row = connection.execute(sa.select(tables.lease).where(tables.lease.c.batch_id == batch_id)).one_or_none()
            silent_s = 0.0 if row is None else _silence(self, connection, row.heartbeat)
        if row is None or row.released_at is not None or silent_s > STALE_AFTER_S:
            return None
        if self.is_server:
            return LeaseHolder(owner=row.owner, fence=row.fence, since=row.since, heartbeat=row.heartbeat)
        lock = self._lock_of(batch_id)
        if lock.take(0):
            lock.free()
            return None
        return LeaseHolder(owner=row.owner, fence=row.fence, since=row.since, heartbeat=row.heartbeat)

    def _lock_of(self, batch_id: str) -> _Lock:
        if self.is_server:
            return _ServerLock()
        if self.file is None:
            return _ProcessLock(self.held_in_memory, self.memory_guard, batch_id)
        digest = hashlib.sha256(batch_id.encode()).hexdigest()[:16]
        return _FileLock(self.file.with_name(f"{self.file.name}-lease-{digest}.lock"))

    def _taken(self, batch_id: str) -> StateConflict:
        with self.read() as connection:
            row = connection.execute(sa.select(tables.lease).where(tables.lease.c.batch_id == batch_id)).one_or_none()
        who = "another process" if row is None else f"{row.owner}, since {row.since:%Y-%m-%d %H:%M:%S} UTC"
        return StateConflict(
            f"batch `{batch_id}` is being worked on by {who}",
            state="nothing was changed by this process",
            hint="watch it by `forcelift status`, or end it by `forcelift stop`",
        )

    def _write_lease(self, batch_id: str, owner: str) -> int:
        with self.write() as connection:
            held = connection.execute(sa.select(tables.lease).where(tables.lease.c.batch_id == batch_id)).one_or_none()
            now = lease_time(self, connection)
            if self.is_server and held is not None and held.released_at is None:
                _refuse_if_alive(batch_id, held, _silence(self, connection, held.heartbeat))
            old: int | None = None if held is None else held.fence
            row = {"owner": owner, "fence": (old or 0) + 1, "since": now, "heartbeat": now, "released_at": None}
            if old is None:
                connection.execute(tables.lease.insert(), {"batch_id": batch_id, **row})
            else:
                connection.execute(tables.lease.update().where(tables.lease.c.batch_id == batch_id).values(**row))
            append(connection, now, "lease_taken", {"owner": owner, "fence": row["fence"]}, batch_id=batch_id)
            return (old or 0) + 1

    def _release(self, batch_id: str, fence: int) -> None:
        with self.write() as connection:
            now = lease_time(self, connection)
            released = connection.execute(
                tables.lease.update()
                .where(tables.lease.c.batch_id == batch_id, tables.lease.c.fence == fence)
                .values(released_at=now)
            )
            if released.rowcount:
                append(connection, now, "lease_released", {"fence": fence}, batch_id=batch_id)


def _silence(store: Database, connection: Connection, heartbeat: datetime) -> float:
    """Seconds since the heartbeat, where the time since tells something: on a server."""
    return (lease_time(store, connection) - heartbeat).total_seconds() if store.is_server else 0.0


def _refuse_if_alive(batch_id: str, held: sa.Row[Any], silent_s: float) -> None:
    if silent_s > STALE_AFTER_S:
        return
    raise StateConflict(
        f"batch `{batch_id}` is being worked on by {held.owner}, since {held.since:%Y-%m-%d %H:%M:%S} UTC; its last "
        f"sign of life is {max(silent_s, 0):.0f} s old",
        state="nothing was changed by this process",
        hint="watch it by `forcelift status`, or end it by `forcelift stop`; if it died, the batch is free "
        f"{max(STALE_AFTER_S - silent_s, 0):.0f} s from now",
    )
