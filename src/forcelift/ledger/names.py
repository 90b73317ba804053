"""Where ledger files lie, and the words that stand in them."""

from __future__ import annotations

from forcelift.storage import segment

OUTCOMES = frozenset({"created", "updated", "failed", "rejected", "duplicate", "unknown", "rolled_back", "kept"})
EVIDENCES = frozenset({"result", "queried", "rule", "staged"})
ACCEPTED = ("created", "updated")
RECORD_GONE = "RECORD_GONE"
"""Code beside `kept`: a record that was to be put back and is in the org no more."""


def ledger_folder(batch_id: str) -> str:
    """Where a batch's ledger files lie in storage."""
    return f"ledger/{segment(batch_id)}"


def marker_name(batch_id: str) -> str:
    """The file by which a process tells that it sees the folder that a batch works in.

    It lies beside the ledger, which stays: staged files go once a batch is done, and a batch that is rolled back
    afterwards is loaded anew.
    """
    return f"{ledger_folder(batch_id)}/marker.txt"


def ledger_name(batch_id: str, table_name: str, chunk_no: int, generation: int) -> str:
    """The name in storage of a chunk's ledger file."""
    return f"{ledger_folder(batch_id)}/{segment(table_name)}/c{chunk_no:06d}.g{generation:02d}.parquet"
