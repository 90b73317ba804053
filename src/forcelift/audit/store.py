"""The audit database as one object: what the engine writes down and what people read."""

from __future__ import annotations

import copy
from typing import Self

from forcelift.audit.backups import Backups
from forcelift.audit.claims import Claims
from forcelift.audit.consents import Consents
from forcelift.audit.jobs import Jobs
from forcelift.audit.lease import Lease
from forcelift.audit.notes import Notes
from forcelift.audit.profiles import Profiles
from forcelift.audit.project_words import ProjectWords
from forcelift.audit.purges import Purges
from forcelift.audit.reader import AuditReader
from forcelift.audit.readings import Readings
from forcelift.audit.reloads import Reloads
from forcelift.audit.retries import Retries
from forcelift.audit.rollbacks import Rollbacks
from forcelift.audit.step_times import StepTimes
from forcelift.audit.validations import Validations
from forcelift.audit.verifying import Verifying


class AuditStore(
    AuditReader,
    Backups,
    Jobs,
    Claims,
    Consents,
    Notes,
    Profiles,
    ProjectWords,
    Purges,
    Readings,
    Reloads,
    Retries,
    Rollbacks,
    StepTimes,
    Validations,
    Verifying,
):
    """An open audit database.

    Each method is one transaction; what it returns is committed. Methods may be called from several threads at once,
    and several processes may have the same database open.
    """

    def of_runner(self, lease: Lease) -> Self:
        """The same database for one runner: what it writes about chunks and jobs is refused once it lost them."""
        bound = copy.copy(self)
        bound.fence = lease.fence
        return bound
