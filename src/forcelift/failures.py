"""Refused rows of a batch for those who look at them: by table and code, with what to do about each.

Reads:   the audit database.
Writes:  nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forcelift.audit.failed_marks import FailedCount, FailedFilter
from forcelift.audit.readings import FailedRecord
from forcelift.recorded import find_batch, open_recorded
from forcelift.remedies import remedy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedReport:
    """What a batch had refused.

    Attributes:
        groups: By table and code, the most open rows first; `remedies` in the same order.
        rows: Some of the rows, if they were asked for.
    """

    batch_id: str
    project: str
    groups: tuple[FailedCount, ...]
    remedies: tuple[str, ...]
    rows: tuple[FailedRecord, ...]

    @property
    def open(self) -> int:
        return sum(group.open for group in self.groups)

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "batch_id": self.batch_id,
            "project": self.project,
            "rows": sum(group.rows for group in self.groups),
            "open": self.open,
            "groups": [
                {**asdict(group), "remedy": remedy} for group, remedy in zip(self.groups, self.remedies, strict=True)
            ],
            "records": [
                {
                    "table": row.table_name,
                    "key": row.record_key if row.record_key is not None else row.record_id,
                    "code": row.code,
                    "message": row.message,
                    "fields": row.fields,
                    "retry_count": row.retry_count,
                    "resolved": row.resolved,
                    "data": row.data,
                }
                for row in self.rows
            ],
        }


def failed_of(
    plan_file: str | Path,
    batch_id: str | None = None,
    *,
    tables: tuple[str, ...] = (),
    codes: tuple[str, ...] = (),
    rows: int = 0,
) -> FailedReport:
    """Refused rows of a batch, the plan's newest if none is named.

    Args:
        rows: How many of the rows themselves are wanted.
    """
    chosen = FailedFilter(tables=tables, codes=codes)
    with open_recorded(plan_file) as (loaded, state):
        batch = find_batch(loaded, state, batch_id)
        groups = state.audit.failed_counts(batch.batch_id, chosen)
        wanted: list[FailedRecord] = []
        if rows:
            for table in tables or (None,):
                for code in codes or (None,):
                    left = rows - len(wanted)
                    wanted.extend(state.audit.failed_records(batch.batch_id, table, code, left) if left > 0 else ())
        return FailedReport(
            batch_id=batch.batch_id,
            project=batch.project,
            groups=tuple(groups),
            remedies=tuple(remedy_of(group.code, group.message) for group in groups),
            rows=tuple(wanted),
        )
