"""In what company rows are sent again that were refused for a passing reason. Pure."""

from __future__ import annotations

SALESFORCE_BATCH_ROWS = 10_000
"""Salesforce cuts a job into batches of this size and works on several at once; rows of one batch come in turn."""

FILES_MAX = 20
"""Jobs of one re-send of a chunk, at most: each costs one of the day's 15,000 Salesforce batches."""


def resend_rows_max(attempt: int, rows: int) -> int:
    """Rows in one file of the re-send with that number (2 is the first), of `rows` in all.

    Locks come from rows that are worked on at the same time. So the first re-send goes in files of one Salesforce
    batch each, and each further one in files a quarter as large, as far as `FILES_MAX` allows.
    """
    wanted = SALESFORCE_BATCH_ROWS >> 2 * max(0, attempt - 2)
    return max(1, wanted, -(-rows // FILES_MAX))
