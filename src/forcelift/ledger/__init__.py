"""The ledger: per-record memory in Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import ACCEPTED, EVIDENCES, OUTCOMES, ledger_folder, ledger_name

if TYPE_CHECKING:
    from forcelift.ledger.ledger import LEDGER, Ledger

__all__ = ["ACCEPTED", "EVIDENCES", "LEDGER", "OUTCOMES", "Ledger", "LedgerCounts", "ledger_folder", "ledger_name"]


def __getattr__(name: str) -> Any:
    """What handles frames is imported when it is asked for: who only counts does without polars."""
    if name in ("LEDGER", "Ledger"):
        from forcelift.ledger import ledger

        return getattr(ledger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
