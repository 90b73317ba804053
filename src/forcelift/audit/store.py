"""The audit database as one object: what the engine writes down and what people read."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from forcelift.audit.batches import Batches
from forcelift.audit.chunks import Chunks
from forcelift.audit.database import OnStep, no_step, open_database
from forcelift.audit.jobs import Jobs
from forcelift.audit.lease import Leases
from forcelift.audit.readings import Readings
from forcelift.protocols.clock import Clock


class AuditStore(Batches, Chunks, Jobs, Leases, Readings):
    """An open audit database.

    Each method is one transaction; what it returns is committed. Methods may be called from several threads at once,
    and several processes may have the same database open.
    """

    @classmethod
    def open(cls, url: str, *, clock: Clock, create: bool = True, on_step: OnStep = no_step) -> Self:
        """Open the audit database, and make it if it is new.

        Args:
            url: As SQLAlchemy writes it: `sqlite:///path`, `sqlite://` for one in memory, `postgresql://host/db`.
            clock: What time it is.
            create: Whether a missing database is made; otherwise it is a `StateConflict`.
            on_step: Called just before and just after each commit, for a simulation of crashes; see `Database`.
        Raises:
            UsageError: The URL names no database that this build can use.
            StateConflict: It is missing, another program's, or made by another form of Forcelift.
            StorageError: Folder or file cannot be read or written, or are damaged, or the server does not answer.
        """
        return open_database(cls, url, clock=clock, create=create, on_step=on_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
