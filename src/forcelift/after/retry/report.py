"""What a retry would send, or what became of it, by table and code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from msgspec import Struct, to_builtins

from forcelift.after.retry.choose import EMPTIED, EMPTIED_LINK
from forcelift.audit.records import Batch, Chunk
from forcelift.audit.retries import RetryChunk
from forcelift.errors import ExitCode


class RetriedGroup(Struct, frozen=True, kw_only=True):
    """Rows of one table that were refused with one code.

    Attributes:
        rows: Taken up by the retry.
        created, updated: Accepted by the org now; mended.
        refused: Refused by the org again, perhaps for another reason.
        rejected: Stopped by a rule, and not sent.
        duplicate: Another copy of the key counts.
        gone: The source has no row with this key any more; left as they were.
        unchanged: Rows that the org has, with a lookup whose parent is still missing.
    """

    table: str
    code: str
    rows: int
    created: int = 0
    updated: int = 0
    refused: int = 0
    rejected: int = 0
    duplicate: int = 0
    gone: int = 0
    unchanged: int = 0

    @property
    def mended(self) -> int:
        return self.created + self.updated


class RetryReport(Struct, frozen=True, kw_only=True):
    """A retry, or what one would do: then `retry_no` is None, and only `to_send` and what is not sent is known."""

    batch: Batch
    retry_no: int | None
    plan_revision: int
    plan_changes: tuple[str, ...]
    groups: tuple[RetriedGroup, ...]
    to_send: int = 0
    api_calls: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def mended(self) -> int:
        return sum(group.mended for group in self.groups)

    @property
    def still_refused(self) -> int:
        return sum(group.refused + group.rejected + group.gone for group in self.groups)

    @property
    def exit_code(self) -> ExitCode:
        """1 if rows that were taken up are still refused."""
        return ExitCode.ROWS_REFUSED if self.still_refused else ExitCode.DONE

    def document(self) -> dict[str, Any]:
        """The JSON document of `--json`."""
        return {
            "batch_id": self.batch.batch_id,
            "retry": self.retry_no,
            "executed": self.retry_no is not None,
            "plan_revision": self.plan_revision,
            "plan_changes": list(self.plan_changes),
            "rows": self.rows,
            "to_send": self.to_send,
            "mended": self.mended,
            "still_refused": self.still_refused,
            "api_calls": self.api_calls,
            "notes": list(self.notes),
            "exit_code": int(self.exit_code),
            "groups": [{**to_builtins(group), "mended": group.mended} for group in self.groups],
        }


def counted_lines(lines: pl.DataFrame, told: pl.DataFrame) -> list[list[str | int]]:
    """Of the rows that a retry took up in a chunk: code that they were refused with, what became of them, how many."""
    joined = lines.select("row", "code").join(told.select("row", "outcome"), on="row", how="left")
    left = pl.when(pl.col("code").is_in([EMPTIED, EMPTIED_LINK])).then(pl.lit("unchanged")).otherwise(pl.lit("gone"))
    outcome = pl.coalesce("outcome", left)
    counted = joined.group_by(pl.col("code").fill_null(""), outcome).len().sort("code", "outcome")
    return [list(row) for row in counted.iter_rows()]


def groups_of(retried: Iterable[RetryChunk], chunks: Mapping[int, Chunk]) -> tuple[RetriedGroup, ...]:
    """What became of the rows of a retry, as it was written down with each chunk."""
    counted = [
        (chunks[one.audit_id].table_name, code, outcome, rows)
        for one in retried
        for code, outcome, rows in (one.counts or {})["groups"]
    ]
    return as_groups(counted)


def as_groups(counted: Iterable[tuple[str, str, str, int]]) -> tuple[RetriedGroup, ...]:
    """Counts of rows by table, code and outcome as groups, the largest first."""
    words = {"failed": "refused"}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for table, code, outcome, rows in counted:
        group = found.setdefault((table, code), {})
        name = words.get(outcome, outcome)
        group[name] = group.get(name, 0) + rows
        group["rows"] = group.get("rows", 0) + (0 if name == "unchanged" else rows)
    names = RetriedGroup.__struct_fields__
    groups = [
        RetriedGroup(table=table, code=code, **{name: rows for name, rows in counts.items() if name in names})
        for (table, code), counts in found.items()
    ]
    return tuple(sorted(groups, key=lambda one: (-one.rows, one.table, one.code)))


def stored_groups(result: Mapping[str, Any]) -> tuple[RetriedGroup, ...]:
    """The groups as the result of a retry that has ended holds them."""
    return tuple(RetriedGroup(**group) for group in result["groups"])


def result_of(groups: Sequence[RetriedGroup]) -> dict[str, Any]:
    """What is written down when a retry ends."""
    return {
        "rows": sum(group.rows for group in groups),
        "mended": sum(group.mended for group in groups),
        "groups": [to_builtins(group) for group in groups],
    }
