"""How long it takes inside the org's limits: hour by hour, the calendar day by day. Pure.

The allowance of a rolling day is spread over the hours in which the plan may load. A load could send a day's allowance
in one burst and wait for the rest of the day, but it would end no sooner to speak of, and leave nothing to others.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from forcelift.before.estimate.sizes import TableSize
from forcelift.plan.windows import Hours

SALESFORCE_BATCH_ROWS = 10_000
BATCHES_PER_DAY = 15_000
CALENDAR_DAYS_MAX = 400
PART_BYTES_MAX = 100_000_000
TINY_BYTES = 90_000  # of the 100,000 of a tiny job: rows are measured by a sample, and there is a header

# Calls of one job: create, upload, close, the file of successes, and its share of the looks at its state.
CALLS_PER_JOB = 5
# Of a tiny upsert, which is created with its data and needs neither upload nor close.
CALLS_PER_TINY_JOB = 3
# Of one chunk: the few records that are read back once it has settled.
CALLS_PER_CHUNK = 1
# Of one chunk whose object holds records already: a bulk query of them (create, two looks, one page, delete).
CALLS_PER_IMAGE = 5
# Of a batch: signing in, the org's limits, its user, the lists of jobs at its beginning and end.
CALLS_PER_BATCH = 8
# Of one object: its describe, and whether it holds records.
CALLS_PER_OBJECT = 2
# Of one chunk of a rollback: what its records are now, by a bulk query, and that they are gone.
CALLS_PER_UNDONE_CHUNK = 7

_ID_ROW_BYTES = 21  # an Id of 18 characters, quoted, and the end of its line
_SECONDS_PER_HOUR = 3600

# Kilobytes of data storage that one record takes, where that is not 2.
_RECORD_KB: Mapping[str, int] = {
    "Campaign": 8,
    "CampaignMember": 1,
    "Product2": 0,
    "PricebookEntry": 0,
    "OpportunityLineItem": 0,
    "OrderItem": 0,
    "QuoteLineItem": 0,
}
RECORD_KB = 2


class Allowance(Struct, frozen=True, kw_only=True):
    """What may be used.

    Attributes:
        rows_per_day: Rows sent within any 24 hours.
        rate: Rows per second that source, machine and org are good for together; None if nobody knows.
        hours: In which the plan may load; None is always.
        spent: Rows that were sent in the last 24 hours already.
    """

    rows_per_day: int
    rate: float | None = None
    hours: Hours | None = None
    spent: int = 0


class TableForecast(Struct, frozen=True, kw_only=True):
    """One table's share. `ends_at` is None where the calendar ends before, and `expected_seconds` infinite then."""

    size: TableSize
    chunks: int
    files: int
    jobs: int
    rows_sent: int
    salesforce_batches: int
    api_calls: int
    api_calls_images: int
    staging_bytes: int
    storage_kb: int
    shortest_days: float
    expected_seconds: float | None
    begins_at: datetime | None
    ends_at: datetime | None


class Day(Struct, frozen=True, kw_only=True):
    """One day of the calendar: rows sent by table, in load order."""

    day: date
    rows: Mapping[str, int]
    salesforce_batches: int

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class Forecast(Struct, frozen=True, kw_only=True):
    """The whole migration.

    Attributes:
        shortest_days: Days that the rolling allowance of rows and of Salesforce batches takes; no machine is faster.
        expected_seconds: With the rate, the hours and the allowance together; None without a rate.
        ends_at: When the calendar ends; None if it is longer than `CALENDAR_DAYS_MAX` days.
    """

    tables: tuple[TableForecast, ...]
    days: tuple[Day, ...]
    begins_at: datetime
    ends_at: datetime | None
    shortest_days: float
    expected_seconds: float | None
    api_calls: int
    is_undo: bool

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(one.size.rows for one in self.tables)

    @property
    def rows_sent(self) -> int:
        """Rows of all jobs: those of link passes are sent twice."""
        return sum(one.rows_sent for one in self.tables)


def forecast(
    sizes: Sequence[TableSize],
    allowance: Allowance,
    *,
    begins_at: datetime,
    is_undo: bool = False,
    one_call: bool = False,
) -> Forecast:
    """Foretell a load of these tables, or its rollback.

    Args:
        sizes: In load order.
        begins_at: When the first row is sent, aware; the days of the calendar are those of its zone.
        is_undo: Deletes of everything that the load creates, children first.
        one_call: Whether tiny upserts are created together with their data.
    """
    ordered = list(reversed(sizes)) if is_undo else list(sizes)
    parts = [_part(size, is_undo=is_undo, one_call=one_call) for size in ordered]
    days, spans, ends_at = _calendar(parts, allowance, begins_at)
    tables = tuple(_with_times(part, allowance, spans.get(part.size.table)) for part in parts)
    # Not the sum of the tables' own: one that uses up the rows and one that uses up the batches share a day.
    shortest = max(
        sum(one.rows_sent for one in parts) / allowance.rows_per_day,
        sum(one.salesforce_batches for one in parts) / BATCHES_PER_DAY,
    )
    expected = None
    if allowance.rate is not None:
        expected = (ends_at - begins_at).total_seconds() if ends_at is not None else math.inf
    objects = len({size.object for size in sizes})
    return Forecast(
        tables=tables,
        days=tuple(days),
        begins_at=begins_at,
        ends_at=ends_at,
        shortest_days=shortest,
        expected_seconds=expected,
        api_calls=CALLS_PER_BATCH + CALLS_PER_OBJECT * objects + sum(one.api_calls for one in tables),
        is_undo=is_undo,
    )


def record_kb(object_name: str) -> int:
    """Kilobytes of data storage of one record."""
    return _RECORD_KB.get(object_name, RECORD_KB)


def _part(size: TableSize, *, is_undo: bool, one_call: bool) -> TableForecast:
    chunks = max(1, -(-size.rows // size.chunk_rows))
    row_bytes = _ID_ROW_BYTES if is_undo else size.row_bytes
    rows_per_file = max(1, min(size.chunk_rows, int(PART_BYTES_MAX / row_bytes))) if row_bytes else size.chunk_rows
    passes = 2 if size.has_links and not is_undo else 1
    full, rest = divmod(size.rows, size.chunk_rows)
    files = full * -(-size.chunk_rows // rows_per_file) + -(-rest // rows_per_file)
    batches = full * _batches(size.chunk_rows, rows_per_file) + _batches(rest, rows_per_file)
    jobs = files * passes
    tiny = 0
    if one_call and size.operation == "upsert" and not is_undo:
        tiny = full * (size.chunk_rows * row_bytes <= TINY_BYTES) + (0 < rest * row_bytes <= TINY_BYTES)
    job_calls = jobs * CALLS_PER_JOB - tiny * passes * (CALLS_PER_JOB - CALLS_PER_TINY_JOB)
    per_chunk = CALLS_PER_UNDONE_CHUNK if is_undo else CALLS_PER_CHUNK
    return TableForecast(
        size=size,
        chunks=chunks,
        files=jobs,
        jobs=jobs,
        rows_sent=size.rows * passes,
        salesforce_batches=batches * passes,
        api_calls=job_calls + (chunks if size.rows else 0) * per_chunk,
        api_calls_images=chunks * CALLS_PER_IMAGE if size.operation == "upsert" and size.rows and not is_undo else 0,
        staging_bytes=int(size.rows * row_bytes) * passes,
        storage_kb=size.rows * record_kb(size.object),
        shortest_days=0.0,
        expected_seconds=None,
        begins_at=None,
        ends_at=None,
    )


def _batches(rows: int, rows_per_file: int) -> int:
    """Salesforce batches of files that hold so many rows together: a part of 10,000 rows costs a whole one."""
    full, rest = divmod(rows, rows_per_file)
    return full * -(-rows_per_file // SALESFORCE_BATCH_ROWS) + -(-rest // SALESFORCE_BATCH_ROWS)


def _with_times(
    part: TableForecast, allowance: Allowance, span: tuple[datetime, datetime | None] | None
) -> TableForecast:
    shortest = max(part.rows_sent / allowance.rows_per_day, part.salesforce_batches / BATCHES_PER_DAY)
    return replace(
        part,
        shortest_days=shortest,
        expected_seconds=_expected_seconds(span) if allowance.rate else None,
        begins_at=span[0] if span else None,
        ends_at=span[1] if span else None,
    )


def _expected_seconds(span: tuple[datetime, datetime | None] | None) -> float:
    """From a table's first row to its last, with the rate, the hours and the allowance together."""
    if span is None or span[1] is None:
        return math.inf
    return (span[1] - span[0]).total_seconds()


def _calendar(
    parts: Sequence[TableForecast], allowance: Allowance, begins_at: datetime
) -> tuple[list[Day], dict[str, tuple[datetime, datetime | None]], datetime | None]:
    """Spend the allowance hour by hour. Returns the days, each table's first and last instant, and the end."""
    queue = deque((part.size.table, part.rows_sent, _day_rows(part, allowance)) for part in parts)
    batches_of = {part.size.table: part.salesforce_batches / max(1, part.rows_sent) for part in parts}
    spans: dict[str, tuple[datetime, datetime | None]] = {}
    days: dict[date, dict[str, float]] = {}
    now, end = begins_at, begins_at
    table, left, day_rows = "", 0.0, 1.0
    while queue or left > 0:
        if now - begins_at > timedelta(days=CALENDAR_DAYS_MAX):
            return _days(days, batches_of), spans, None
        open_share = _open_share(allowance.hours, now)
        hour_left = 1.0  # of this hour, what is not used yet, as a part of what it may send
        # What was sent in the day before comes back in the course of the first day.
        is_first_day = now - begins_at < timedelta(hours=24)
        budget = max(0.0, 1.0 - allowance.spent / allowance.rows_per_day) if is_first_day else 1.0
        while hour_left > 1e-12 and open_share > 0:
            if left <= 0:
                if not queue:
                    break
                table, rows, day_rows = queue.popleft()
                left = float(rows)
                begun = now + timedelta(hours=1 - hour_left)
                spans[table] = (begun, begun if left == 0 else None)
                continue
            capacity = _hour_rows(allowance, day_rows, open_share, now, budget)
            if capacity <= 0:
                break
            sent = min(left, capacity * hour_left)
            hour_left -= sent / capacity
            left -= sent
            end = now + timedelta(hours=1 - max(0.0, hour_left))
            by_table = days.setdefault(now.date(), {})
            by_table[table] = by_table.get(table, 0.0) + sent
            if left < 0.5:
                left = 0.0
                spans[table] = (spans[table][0], end)
        now += timedelta(hours=1)
    return _days(days, batches_of), spans, end


def _day_rows(part: TableForecast, allowance: Allowance) -> float:
    """Rows of this table that a rolling day takes: its rows may fill Salesforce batches badly."""
    by_batches = BATCHES_PER_DAY * part.rows_sent / part.salesforce_batches if part.salesforce_batches else math.inf
    return min(float(allowance.rows_per_day), by_batches)


def _hour_rows(allowance: Allowance, day_rows: float, open_share: float, now: datetime, budget: float) -> float:
    """Rows that this hour may send."""
    open_hours = _open_hours(allowance.hours, now)
    by_day = day_rows * budget * open_share / open_hours if open_hours else 0.0
    by_rate = allowance.rate * _SECONDS_PER_HOUR * open_share if allowance.rate is not None else math.inf
    return min(by_day, by_rate)


def _open_share(hours: Hours | None, now: datetime) -> float:
    """How much of the hour from `now` lies inside the plan's hours."""
    if hours is None:
        return 1.0
    return sum(hours.contains(now + timedelta(minutes=minute)) for minute in range(0, 60, 5)) / 12


def _open_hours(hours: Hours | None, now: datetime) -> float:
    """Hours of the rolling day around `now` that lie inside the plan's hours."""
    if hours is None:
        return 24.0
    return sum(hours.contains(now + timedelta(minutes=15 * quarter)) for quarter in range(-48, 48)) / 4


def _days(days: Mapping[date, Mapping[str, float]], batches_of: Mapping[str, float]) -> list[Day]:
    """Whole rows, such that the sums of all days are the tables' rows."""
    carried: dict[str, float] = {}
    result = []
    for day, by_table in sorted(days.items()):
        rows = {}
        for table, sent in by_table.items():
            exact = sent + carried.get(table, 0.0)
            rows[table] = round(exact)
            carried[table] = exact - rows[table]
        batches = sum(sent * batches_of[table] for table, sent in by_table.items())
        result.append(Day(day=day, rows=rows, salesforce_batches=math.ceil(batches)))
    return result
