"""The audit database: audit log, failed records, jobs, leases, budgets, control and journal."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forcelift.audit.chain import JournalHead
    from forcelift.audit.glances import PerformanceRow
    from forcelift.audit.lease import Lease
    from forcelift.audit.org_states import Holder, NewState, OrgState, digest
    from forcelift.audit.reader import AuditReader
    from forcelift.audit.readings import FailedRecord, StatusRow, TableTotals
    from forcelift.audit.shares import LeaseHolder, LeaseTimes
    from forcelift.audit.store import AuditStore

__all__ = [
    "AuditReader",
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

_PLACES = {
    "AuditReader": "reader",
    "AuditStore": "store",
    "FailedRecord": "readings",
    "Holder": "org_states",
    "JournalHead": "chain",
    "Lease": "lease",
    "LeaseHolder": "shares",
    "LeaseTimes": "shares",
    "NewState": "org_states",
    "OrgState": "org_states",
    "PerformanceRow": "glances",
    "StatusRow": "readings",
    "TableTotals": "readings",
    "digest": "org_states",
}


def __getattr__(name: str) -> Any:
    """Each name is imported when it is asked for: who only looks at a batch does without most of it."""
    if name in _PLACES:
        return getattr(importlib.import_module(f"forcelift.audit.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
