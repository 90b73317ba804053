"""Refused rows are sent again: chosen from the ledger, read from the source by key, settled into the same chunks."""
