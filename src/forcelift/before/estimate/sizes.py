"""How large a table is: its rows, and how many bytes of an upload file one of them takes.

Reads:   the source's count or its statistics, and a sample of each table.
Writes:  nothing.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from forcelift.jobs.chunk_size import auto_chunk_rows, even_chunk_rows, upload_row_bytes
from forcelift.plan import TablePlan
from forcelift.protocols.source import Source
from forcelift.rules import frame_of

SAMPLE_ROWS = 1_000


class Counted(StrEnum):
    """Where a number of rows comes from."""

    COUNTED = "counted"
    STATISTICS = "the database's statistics"
    GIVEN = "given"


class TableSize(Struct, frozen=True, kw_only=True):
    """One table as the forecast needs it.

    Attributes:
        group: Its place in the load order; tables of a cycle share one.
        rows: Rows within the plan's `where`.
        row_bytes: Bytes that a row takes in an upload file.
        chunk_rows: Rows of one chunk.
        has_links: Whether rows are sent a second time, once all parents are there.
    """

    table: str
    object: str
    operation: str
    group: int
    rows: int
    counted: Counted
    row_bytes: float
    chunk_rows: int
    has_links: bool = False


def measure_table(
    source: Source,
    plan: TablePlan,
    *,
    group: int,
    has_links: bool,
    rows: int | None,
    chunk_rows: int | None,
    readers: int,
    by_statistics: bool,
) -> TableSize:
    """Measure one table.

    Args:
        rows: How many rows it has, if that is given.
        chunk_rows: The plan's `chunks.rows`; None is `auto`.
        readers: Chunks that a run would read at once.
        by_statistics: Take the database's own estimate where it has one and the plan no `where`.
    """
    described = source.describe(plan.table)
    wanted = dict.fromkeys((*plan.key, *plan.fields))
    columns = [column.name for column in described.columns if column.name in wanted]
    counted = Counted.GIVEN
    if rows is None and by_statistics and plan.where is None and described.rows_estimate is not None:
        rows, counted = described.rows_estimate, Counted.STATISTICS
    if rows is None:
        rows, counted = source.count(plan.table, where=plan.where), Counted.COUNTED
    sample = frame_of(source.sample(plan.table, columns=columns, where=plan.where, rows=SAMPLE_ROWS))
    if chunk_rows is None:
        chunk_rows = auto_chunk_rows(sample)
        if plan.where is None:
            chunk_rows = even_chunk_rows(chunk_rows, total=rows, readers=readers)
    return TableSize(
        table=plan.table,
        object=plan.object,
        operation=plan.operation,
        group=group,
        rows=rows,
        counted=counted,
        row_bytes=upload_row_bytes(sample) if sample.height else 0.0,
        chunk_rows=chunk_rows,
        has_links=has_links,
    )
