"""The audit database: audit log, failed records, jobs, leases, budgets, control and journal."""

from forcelift.audit.journal import JournalHead
from forcelift.audit.lease import Lease
from forcelift.audit.org_states import Holder, NewState, OrgState, digest
from forcelift.audit.readings import FailedRecord, PerformanceRow, StatusRow, TableTotals
from forcelift.audit.shares import LeaseHolder, LeaseTimes
from forcelift.audit.store import AuditStore

__all__ = [
    "AuditStore",
    "FailedRecord",
    "Holder",
    "JournalHead",
    "Lease",
    "LeaseHolder",
    "LeaseTimes",
    "NewState",
    "OrgState",
    "PerformanceRow",
    "StatusRow",
    "TableTotals",
    "digest",
]
