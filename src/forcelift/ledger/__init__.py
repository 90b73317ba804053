"""The ledger: per-record memory in Parquet files."""

from forcelift.ledger.ledger import ACCEPTED, EVIDENCES, LEDGER, OUTCOMES, Ledger, ledger_folder, ledger_name

__all__ = ["ACCEPTED", "EVIDENCES", "LEDGER", "OUTCOMES", "Ledger", "ledger_folder", "ledger_name"]
