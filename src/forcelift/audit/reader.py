"""The audit database for those who look at a batch: the part of it that every look needs.

What only loads, retries, rollbacks, profiles and the like ask of it is in `AuditStore`, which has all of this too; to
define it takes a twentieth of a short command.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from forcelift.audit.batches import Batches
from forcelift.audit.chunks import Chunks
from forcelift.audit.database import OnStep, no_step, open_database
from forcelift.audit.evidence import EvidenceRows
from forcelift.audit.failed_marks import FailedMarks
from forcelift.audit.glances import Glances
from forcelift.audit.lease import Leases
from forcelift.audit.org_states import OrgStates
from forcelift.audit.shares import LeaseTimes
from forcelift.audit.signoffs import SignOffs
from forcelift.protocols.clock import Clock


class AuditReader(Batches, Chunks, EvidenceRows, FailedMarks, Glances, Leases, OrgStates, SignOffs):
    """An open audit database, to be looked at."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Clock,
        create: bool = True,
        on_step: OnStep = no_step,
        lease_times: LeaseTimes | None = None,
        can_share: bool | None = None,
        beside_others: bool = False,
    ) -> Self:
        """Open the audit database, and make it if it is new.

        Args:
            url: As SQLAlchemy writes it: `sqlite:///path`, `sqlite://` for one in memory, `postgresql://host/db`,
                `oracle://user:password@host/service`.
            clock: What time it is.
            create: Whether a missing database is made; otherwise it is a `StateConflict`.
            on_step: Called just before and just after each commit, for a simulation of crashes; see `Database`.
            lease_times: How often a runner says that it lives, and when others count it as dead.
            can_share: Whether several runners may work on one batch; by default on a server only. A simulation shares
                one in memory, by its own clock.
            beside_others: Whether new tables may be made in an Oracle schema that holds other programs' tables.
        Raises:
            UsageError: The URL names no database that this build can use.
            StateConflict: It is missing, another program's, or made by another form of Forcelift.
            StorageError: Folder or file cannot be read or written, or are damaged, or the server does not answer.
        """
        store = open_database(
            cls,
            url,
            clock=clock,
            create=create,
            on_step=on_step,
            lease_times=lease_times,
            beside_others=beside_others,
        )
        store.can_share = store.can_share if can_share is None else can_share
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
