"""A run and somebody who looks at it, in one process: both may have the audit database open."""

from __future__ import annotations

from pathlib import Path

from forcelift.audit import AuditStore
from forcelift.protocols.clock import SystemClock


def test_opening_it_again_does_not_drop_the_locks_of_the_first(tmp_path: Path) -> None:
    """POSIX drops all of a process's locks on a file as soon as any descriptor of it is closed."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    with AuditStore.open(url, clock=SystemClock()) as first:
        for number in range(30):
            first.journal("first", {"number": number})
            with AuditStore.open(url, clock=SystemClock(), create=False) as second:
                second.journal("second", {"number": number})
        assert first.verify_journal() == []
        assert first.journal_head().seq == 60
