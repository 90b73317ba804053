"""How `forcelift estimate` looks, on a terminal and as JSON."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from forcelift.before.estimate import BATCHES_PER_DAY, CALENDAR_DAYS_MAX, Day, TableForecast
from forcelift.cli.options import again
from forcelift.cli.output import count, duration, plural, size, table_lines
from forcelift.preflight.estimating import EstimateReport

_BAR_CELLS = 30
_WORTH_A_WORD_DAYS = 0.5
_BY_BATCHES = 1.05  # so much longer than by rows alone, and small chunks are worth a word


def days_text(days: float) -> str:
    """Days with two digits, rounded up: a bound is never said to be less than it is."""
    return f"{math.ceil(days * 100 - 1e-9) / 100:.2f}"


def estimate_document(report: EstimateReport) -> dict[str, Any]:
    """The document of `estimate --json`; described in docs/reference/cli.md."""
    foretold = report.forecast
    return {
        "project": report.project,
        "evidence": report.evidence_no,
        "kind": "rollback" if foretold.is_undo else "load",
        "begins_at": foretold.begins_at.isoformat(),
        "ends_at": foretold.ends_at.isoformat() if foretold.ends_at is not None and report.rate is not None else None,
        "rows": foretold.rows,
        "rows_sent": foretold.rows_sent,
        "rows_per_day_max": report.rows_per_day,
        "rows_sent_in_the_last_day": report.spent,
        "window": report.window,
        "rate": None
        if report.rate is None
        else {"rows_per_second": report.rate.rows_per_second, "origin": report.rate.origin},
        "shortest_days": foretold.shortest_days,
        "expected_seconds": _finite(foretold.expected_seconds),
        "totals": _totals(report),
        "tables": [_table_document(one) for one in foretold.tables],
        "days": [
            {
                "day": day.day.isoformat(),
                "rows": dict(day.rows),
                "total": day.total,
                "salesforce_batches": day.salesforce_batches,
            }
            for day in foretold.days
        ],
        "staging": {
            "bytes_if_extracted_first": sum(one.staging_bytes for one in foretold.tables),
            "bytes_max": report.staging_bytes_max,
            "disk_bytes_free": report.disk.free,
        },
        "org": None
        if report.limits is None
        else {
            "api_requests_left": report.limits.api_requests_left,
            "salesforce_batches_left": report.limits.bulk_batches_left,
            "storage_mb_left": report.limits.storage_mb_left,
        },
        "short": [
            {"what": one.what, "needed": one.needed, "there": one.there, "unit": one.unit, "remedy": one.remedy}
            for one in report.shortages
        ],
    }


def _totals(report: EstimateReport) -> dict[str, int]:
    tables = report.forecast.tables
    return {
        "chunks": sum(one.chunks for one in tables),
        "files": sum(one.files for one in tables),
        "jobs": sum(one.jobs for one in tables),
        "salesforce_batches": sum(one.salesforce_batches for one in tables),
        "api_calls": report.forecast.api_calls,
        "api_calls_of_images": sum(one.api_calls_images for one in tables),
        "storage_kb": sum(one.storage_kb for one in tables),
    }


def _table_document(one: TableForecast) -> dict[str, Any]:
    return {
        "table": one.size.table,
        "object": one.size.object,
        "group": one.size.group + 1,
        "rows": one.size.rows,
        "rows_are": one.size.counted.value,
        "rows_sent": one.rows_sent,
        "bytes_a_row": round(one.size.row_bytes, 1),
        "rows_a_chunk": one.size.chunk_rows,
        "chunks": one.chunks,
        "files": one.files,
        "jobs": one.jobs,
        "salesforce_batches": one.salesforce_batches,
        "api_calls": one.api_calls,
        "api_calls_of_images": one.api_calls_images,
        "staging_bytes": one.staging_bytes,
        "storage_kb": one.storage_kb,
        "shortest_days": one.shortest_days,
        "expected_seconds": _finite(one.expected_seconds),
        "begins_at": one.begins_at.isoformat() if one.begins_at is not None else None,
        "ends_at": one.ends_at.isoformat() if one.ends_at is not None else None,
    }


def _finite(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else seconds


def show_estimate(console: Console, report: EstimateReport, plan_file: Path) -> None:
    """Tables in load order, how long, the calendar, and what is short."""
    foretold = report.forecast
    kind = "rollback of everything that the load creates" if foretold.is_undo else "load"
    console.print(Text.assemble((report.project, "bold"), f": {kind}, {plural(foretold.rows, 'row')}"))
    _show_tables(console, report)
    _show_time(console, report)
    _show_days(console, report)
    _show_room(console, report)
    for one in report.shortages:
        console.print(
            Text(f"too little: {one.what}: {count(one.needed)} {one.unit} needed, {count(one.there)} there", "bold red")
        )
        console.print(f"  {one.remedy}")
    if report.rate is None:
        console.print("To learn the rate, load a sample into a rehearsal org, or give one:")
        console.print(f"  {again('estimate --rate 4000', plan_file)}")


def _show_tables(console: Console, report: EstimateReport) -> None:
    foretold = report.forecast
    # Each upload file has a job of its own, so that the two are one number.
    headers = [
        "order",
        "table",
        "rows",
        "chunks",
        "files=jobs",
        "SF batches",
        "API calls",
        "staged",
        "org storage",
        "days",
    ]
    if report.rate is not None:
        headers.append("to expect")
    rows = [
        (
            str(one.size.group + 1),
            f"{one.size.table} > {one.size.object}",
            count(one.size.rows),
            count(one.chunks),
            count(one.jobs),
            count(one.salesforce_batches),
            count(one.api_calls),
            size(one.staging_bytes),
            "-" if foretold.is_undo else size(one.storage_kb * 1024),
            days_text(one.shortest_days),
            *([_expected(one.expected_seconds)] if report.rate is not None else []),
        )
        for one in foretold.tables
    ]
    totals = _totals(report)
    total = (
        "",
        "in all",
        count(foretold.rows),
        count(totals["chunks"]),
        count(totals["jobs"]),
        count(totals["salesforce_batches"]),
        count(totals["api_calls"]),
        size(sum(one.staging_bytes for one in foretold.tables)),
        "-" if foretold.is_undo else size(totals["storage_kb"] * 1024),
        days_text(foretold.shortest_days),
        *([_expected(foretold.expected_seconds)] if report.rate is not None else []),
    )
    for line in table_lines(headers, [*rows, total], left=(1,)):
        console.print(line)
    for one in foretold.tables:
        if one.size.counted.value != "counted":
            console.print(f"rows of {one.size.table}: {one.size.counted.value}, not counted")
        if one.size.has_links and not foretold.is_undo:
            console.print(f"rows of {one.size.table} are sent twice: their lookups follow once all records are there")
    if images := totals["api_calls_of_images"]:
        console.print(f"up to {count(images)} API calls more where objects hold records already: before-images")


def _expected(seconds: float | None) -> str:
    """As the calendar has it; one that is longer than the calendar has no end."""
    found = _finite(seconds)
    return f"over {CALENDAR_DAYS_MAX} d" if found is None else duration(found)


def _show_time(console: Console, report: EstimateReport) -> None:
    foretold = report.forecast
    console.print()
    by_rows = foretold.rows_sent / report.rows_per_day
    what = f"{count(report.rows_per_day)} rows"
    is_by_batches = foretold.shortest_days > max(by_rows * _BY_BATCHES, _WORTH_A_WORD_DAYS)
    if is_by_batches:
        what = f"{count(BATCHES_PER_DAY)} Salesforce batches"
    console.print(
        Text.assemble(
            "at least ",
            (f"{days_text(foretold.shortest_days)} days", "bold"),
            f": the org takes {what} in any 24 hours",
        )
    )
    if is_by_batches:
        console.print(
            f"  larger chunks (`chunks.rows: auto`) make fewer batches: {days_text(by_rows)} days by rows alone"
        )
    if report.spent:
        console.print(f"of which {count(report.spent)} were sent in the last day already")
    if report.window is not None:
        console.print(f"only within {report.window}")
    if report.rate is None:
        console.print("how long to expect: unknown, as no rate is given and none was measured")
        return
    assert foretold.expected_seconds is not None
    origin = f"{report.rate.rows_per_second:,.0f} rows/s, {report.rate.origin}"
    if foretold.ends_at is None:
        console.print(f"to expect: more than {CALENDAR_DAYS_MAX} days, at {origin}")
        return
    console.print(
        Text.assemble(
            "to expect: ",
            (duration(foretold.expected_seconds), "bold"),
            f" ({days_text(foretold.expected_seconds / 86400)} days), at {origin}",
        )
    )
    console.print(f"from {_moment(foretold.begins_at)} to {_moment(foretold.ends_at)}")


def _show_days(console: Console, report: EstimateReport) -> None:
    days = report.forecast.days
    if not days:
        return
    pace = "at that rate" if report.rate is not None else "as fast as the org allows"
    console.print()
    console.print(Text(f"day by day, {pace}", style="bold"))
    most = max(day.total for day in days) or 1
    rows = [(f"{day.day:%a %Y-%m-%d}", count(day.total), _bar(day.total, most), _names(day)) for day in days]
    for line in table_lines(("day", "rows", "", "tables"), rows, left=(0, 2, 3)):
        console.print(line)


def _bar(rows: int, most: int) -> str:
    return "█" * max(1 if rows else 0, round(_BAR_CELLS * rows / most))


def _names(day: Day) -> str:
    there = {name: rows for name, rows in day.rows.items() if rows}
    names = [f"{name} {count(rows)}" for name, rows in there.items()] if len(there) > 1 else list(there)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _show_room(console: Console, report: EstimateReport) -> None:
    staged = sum(one.staging_bytes for one in report.forecast.tables)
    console.print()
    console.print(
        f"staging: {size(staged)} if all is extracted first; {size(report.disk.free)} free on the disk, "
        f"{size(report.staging_bytes_max)} allowed by `limits.staging_gb`"
    )
    if report.limits is not None:
        left = report.limits
        console.print(
            f"the org has left: {count(left.api_requests_left)} API requests today, "
            f"{count(left.bulk_batches_left)} Salesforce batches, {count(left.storage_mb_left)} MB of data storage"
        )
    if report.forecast.is_undo:
        console.print("deleted records keep using storage for 15 days, unless they are deleted for good (--hard)")


def _moment(moment: datetime) -> str:
    return f"{moment:%a %Y-%m-%d %H:%M %Z}"
