"""The ledger: per-record memory in Parquet files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import ACCEPTED, EVIDENCES, OUTCOMES, RECORD_GONE, ledger_folder, ledger_name, marker_name

if TYPE_CHECKING:
    from forcelift.ledger.ledger import Ledger
    from forcelift.ledger.writing import LEDGER, LedgerWriter

__all__ = [
    "ACCEPTED",
    "EVIDENCES",
    "LEDGER",
    "OUTCOMES",
    "RECORD_GONE",
    "Ledger",
    "LedgerCounts",
    "LedgerWriter",
    "ledger_folder",
    "ledger_name",
    "marker_name",
]


def __getattr__(name: str) -> Any:
    """What handles frames is imported when it is asked for: who only counts does without polars."""
    if name == "Ledger":
        from forcelift.ledger.ledger import Ledger

        return Ledger
    if name in ("LEDGER", "LedgerWriter"):
        from forcelift.ledger import writing

        return getattr(writing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
