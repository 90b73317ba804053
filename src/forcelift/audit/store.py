"""The audit database as one object: what the engine writes down and what people read."""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Self

from forcelift.audit.backups import Backups
from forcelift.audit.batches import Batches
from forcelift.audit.chunks import Chunks
from forcelift.audit.claims import Claims
from forcelift.audit.consents import Consents
from forcelift.audit.database import OnStep, no_step, open_database
from forcelift.audit.evidence import EvidenceRows
from forcelift.audit.failed_marks import FailedMarks
from forcelift.audit.jobs import Jobs
from forcelift.audit.lease import Lease, Leases
from forcelift.audit.notes import Notes
from forcelift.audit.org_states import OrgStates
from forcelift.audit.profiles import Profiles
from forcelift.audit.project_words import ProjectWords
from forcelift.audit.purges import Purges
from forcelift.audit.readings import Readings
from forcelift.audit.reloads import Reloads
from forcelift.audit.retries import Retries
from forcelift.audit.rollbacks import Rollbacks
from forcelift.audit.shares import LeaseTimes
from forcelift.audit.signoffs import SignOffs
from forcelift.audit.step_times import StepTimes
from forcelift.audit.validations import Validations
from forcelift.audit.verifying import Verifying
from forcelift.protocols.clock import Clock


class AuditStore(
    Backups,
    Batches,
    Chunks,
    Jobs,
    Claims,
    Consents,
    EvidenceRows,
    FailedMarks,
    Leases,
    Notes,
    OrgStates,
    Profiles,
    ProjectWords,
    Purges,
    Readings,
    Reloads,
    Retries,
    Rollbacks,
    StepTimes,
    SignOffs,
    Validations,
    Verifying,
):
    """An open audit database.

    Each method is one transaction; what it returns is committed. Methods may be called from several threads at once,
    and several processes may have the same database open.
    """

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

    def of_runner(self, lease: Lease) -> Self:
        """The same database for one runner: what it writes about chunks and jobs is refused once it lost them."""
        bound = copy.copy(self)
        bound.fence = lease.fence
        return bound

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
