"""Where a plan keeps what it remembers: audit database, storage, ledger. Opened without source and org."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forcelift.audit import AuditStore, LeaseTimes
from forcelift.errors import NothingRecorded
from forcelift.ledger import LedgerCounts
from forcelift.plan import LoadedPlan
from forcelift.protocols.clock import Clock
from forcelift.storage import FolderStorage

if TYPE_CHECKING:
    from forcelift.ledger import Ledger

_SCAN_LEAST_MB = 128  # with less, two threads of DuckDB cannot even spill


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a plan keeps what it remembers."""

    audit: AuditStore
    storage: FolderStorage
    scan_mb: int = 512  # for one question over the ledger of a whole table; what does not fit spills

    @property
    def counted(self) -> LedgerCounts:
        """The ledger for those who only count its rows."""
        return LedgerCounts(self.storage, memory_mb=self.scan_mb)

    @property
    def ledger(self) -> Ledger:
        """The ledger, to be written and read as frames."""
        from forcelift.ledger import Ledger  # with polars, which those who only count do without

        return Ledger(self.storage, memory_mb=self.scan_mb)


@contextmanager
def open_state(
    loaded: LoadedPlan, *, clock: Clock, create: bool, lease_times: LeaseTimes | None = None
) -> Iterator[State]:
    """Open the audit database and the storage folder of a plan.

    Args:
        create: Whether they may be new; without it a plan that never ran is told so.
        lease_times: How soon a silent runner counts as dead; by default as in DESIGN.
    """
    root = Path(loaded.staging())
    with AuditStore.open(loaded.audit_url(), clock=clock, create=create, lease_times=lease_times) as audit:
        scan_mb = max(_SCAN_LEAST_MB, loaded.plan.limits.memory_mb // 16)
        yield State(audit=audit, storage=FolderStorage(root), scan_mb=scan_mb)


@contextmanager
def open_known_state(loaded: LoadedPlan, *, clock: Clock) -> Iterator[State | None]:
    """What a plan remembers, for those who do without; None if it never kept anything."""
    with ExitStack() as stack:
        try:
            state = stack.enter_context(open_state(loaded, clock=clock, create=False))
        except NothingRecorded:
            yield None
            return
        yield state
