"""The audit database: audit log, failed records, jobs, leases, budgets, control and journal."""

from forcelift.audit.journal import JournalHead
from forcelift.audit.lease import Lease
from forcelift.audit.readings import FailedRecord, PerformanceRow, StatusRow, TableTotals
from forcelift.audit.shares import LeaseHolder, LeaseTimes
from forcelift.audit.store import AuditStore

__all__ = [
    "AuditStore",
    "FailedRecord",
    "JournalHead",
    "Lease",
    "LeaseHolder",
    "LeaseTimes",
    "PerformanceRow",
    "StatusRow",
    "TableTotals",
]
