"""Where a plan keeps what it remembers: audit database, storage, ledger. Opened without source and org."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from forcelift.audit.reader import AuditReader
from forcelift.errors import NothingRecorded
from forcelift.ledger import LedgerCounts
from forcelift.plan import LoadedPlan
from forcelift.protocols.clock import Clock
from forcelift.storage import FolderStorage

if TYPE_CHECKING:
    from forcelift.audit import AuditStore, LeaseTimes
    from forcelift.ledger import Ledger

_SCAN_LEAST_MB = 128  # with less, two threads of DuckDB cannot even spill


class Recorded(Struct, frozen=True, kw_only=True):
    """Where a plan keeps what it remembers, for those who only look at its batches."""

    audit: AuditReader
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


class State(Recorded, frozen=True, kw_only=True):
    """Where a plan keeps what it remembers."""

    audit: AuditStore


@contextmanager
def open_state(
    loaded: LoadedPlan, *, clock: Clock, create: bool, lease_times: LeaseTimes | None = None
) -> Iterator[State]:
    """Open the audit database and the storage folder of a plan.

    Args:
        create: Whether they may be new; without it a plan that never ran is told so.
        lease_times: How soon a silent runner counts as dead; by default as in DESIGN.
    """
    from forcelift.audit.store import AuditStore  # those who only look do without most of it

    with AuditStore.open(loaded.audit_url(), clock=clock, create=create, lease_times=lease_times) as audit:
        yield State(audit=audit, storage=FolderStorage(Path(loaded.staging())), scan_mb=_scan_mb(loaded))


@contextmanager
def open_to_look(loaded: LoadedPlan, *, clock: Clock) -> Iterator[Recorded]:
    """Open what is recorded of a plan's batches, for commands that only look at them."""
    with AuditReader.open(loaded.audit_url(), clock=clock, create=False) as audit:
        yield Recorded(audit=audit, storage=FolderStorage(Path(loaded.staging())), scan_mb=_scan_mb(loaded))


def _scan_mb(loaded: LoadedPlan) -> int:
    return max(_SCAN_LEAST_MB, loaded.plan.limits.memory_mb // 16)


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
