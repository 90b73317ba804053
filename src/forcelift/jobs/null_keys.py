"""The error of `null_key: stop`."""

from __future__ import annotations

from forcelift.errors import SourceError
from forcelift.jobs.work import TableWork


def has_null_keys(work: TableWork, rows: int) -> SourceError:
    """The error for rows without a key where the plan says that they stop the batch."""
    return SourceError(
        f"table `{work.plan.table}`: {rows:,} rows have no key ({', '.join(work.plan.key)}), "
        "and `null_key: stop` is asked",
        state="nothing was written to the org",
        hint="fill these keys, leave the rows out by `where`, or choose `null_key: reject`",
    )
