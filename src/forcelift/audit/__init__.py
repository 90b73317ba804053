"""The audit database: audit log, failed records, jobs, leases, budgets, control and journal."""

from forcelift.audit.journal import JournalHead
from forcelift.audit.lease import Lease, LeaseHolder
from forcelift.audit.readings import FailedRecord, PerformanceRow, StatusRow, TableTotals
from forcelift.audit.store import AuditStore

__all__ = [
    "AuditStore",
    "FailedRecord",
    "JournalHead",
    "Lease",
    "LeaseHolder",
    "PerformanceRow",
    "StatusRow",
    "TableTotals",
]
