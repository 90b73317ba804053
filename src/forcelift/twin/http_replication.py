"""REST calls that replicate data: several records by Id at once, and what was changed or deleted in a span of time.

Source: REST API Developer Guide, "sObject Get Deleted", "sObject Get Updated", "sObject Collections" (retrieve).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from forcelift.twin.clock import api_time
from forcelift.twin.deletes import RECYCLE_BIN_DAYS
from forcelift.twin.errors import ApiError
from forcelift.twin.http_core import Call, Reply, json_reply
from forcelift.twin.http_rest import FIELD_PATH, RestCalls, table_of
from forcelift.twin.ids import id18, is_id
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest import QueryPages, soql_text

IDS_MAX: Final = 2000
REPLICATED_DAYS: Final = 30
REPLICATED_MAX: Final = 600_000
MOMENT: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?(Z|[+ -]\d{2}:?\d{2})", re.ASCII | re.IGNORECASE
)


class ReplicationCalls:
    """Handlers of `/sobjects/{object}/updated`, `/deleted` and of retrieving collections."""

    def __init__(self, org: TwinOrg, read: RestCalls, pages: QueryPages) -> None:
        self._org = org
        self._read = read
        self._pages = pages

    def updated(self, call: Call) -> Reply:
        """Ids of the records created or changed in the span."""
        entry = self._read.object_named(call)
        start, end = self._span(call)
        ids = self._changed(f"SELECT Id FROM {table_of(entry)} WHERE NOT IsDeleted", start, end)
        return json_reply({"ids": [row[0] for row in ids], "latestDateCovered": api_time(end)})

    def deleted(self, call: Call) -> Reply:
        """Ids of the records deleted in the span and still in the recycle bin."""
        entry = self._read.object_named(call)
        start, end = self._span(call)
        rows = self._changed(f"SELECT Id, SystemModstamp FROM {table_of(entry)} WHERE IsDeleted", start, end)
        earliest = self._now() - timedelta(days=RECYCLE_BIN_DAYS)
        return json_reply(
            {
                "deletedRecords": [{"id": row[0], "deletedDate": api_time(row[1])} for row in rows],
                "earliestDateAvailable": api_time(earliest),
                "latestDateCovered": api_time(end),
            }
        )

    def retrieve(self, call: Call) -> Reply:
        """Records by Id, in the order of the Ids, null where there is none: `?ids=&fields=`, or both as JSON."""
        entry = self._read.object_named(call)
        if call.method == "POST":
            body = call.json_object()
            ids, fields = _texts(body.get("ids"), "ids"), _texts(body.get("fields"), "fields")
        else:
            ids, fields = (
                [part.strip() for part in call.query.get(name, "").split(",") if part.strip()]
                for name in ("ids", "fields")
            )
        if not ids or not fields:
            raise ApiError(400, "MISSING_ARGUMENT", "`ids` and `fields` are required")
        if len(ids) > IDS_MAX:
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {IDS_MAX} records")
        wanted = [record_id for record_id in ids if is_id(record_id)]
        found = self._records(call, entry.name, fields, wanted) if wanted else {}
        return json_reply([found.get(id18(record_id)) if is_id(record_id) else None for record_id in ids])

    def _records(self, call: Call, name: str, fields: Sequence[str], ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        for field in fields:
            if not FIELD_PATH.fullmatch(field):
                raise ApiError(400, "INVALID_FIELD", f"No such column '{field}' on entity '{name}'")
        listed = ", ".join(map(soql_text, dict.fromkeys(ids)))
        soql = f"SELECT {', '.join(dict.fromkeys(fields))} FROM {name} WHERE Id IN ({listed})"
        user_id = call.session.user_id
        compiled = self._pages.compile(soql, user_id=user_id)
        page = self._pages.first(compiled, user_id=user_id, page_rows=IDS_MAX, api_version=call.version)
        records = list(page.records)
        while page.next_locator is not None:
            page = self._pages.next(page.next_locator, user_id=user_id, api_version=call.version)
            records += page.records
        return {record["attributes"]["url"].rpartition("/")[2]: record for record in records}

    def _changed(self, sql: str, start: datetime, end: datetime) -> list[tuple[Any, ...]]:
        with self._org.cursor() as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(
                f"{sql} AND SystemModstamp >= ? AND SystemModstamp < ? ORDER BY Id LIMIT {REPLICATED_MAX + 1}",
                [start, end],
            ).fetchall()
        if len(rows) > REPLICATED_MAX:
            raise ApiError(400, "EXCEEDED_ID_LIMIT", f"more than {REPLICATED_MAX} records; take a shorter span of time")
        return rows

    def _span(self, call: Call) -> tuple[datetime, datetime]:
        """`start` and `end` of the query, seconds ignored as the real call does. Raises ApiError."""
        start, end = (_moment(call.query.get(name), name) for name in ("start", "end"))
        if start >= end:
            raise ApiError(400, "INVALID_REPLICATION_DATE", "startDate before endDate expected")
        if start < self._now() - timedelta(days=REPLICATED_DAYS):
            raise ApiError(400, "INVALID_REPLICATION_DATE", f"startDate is more than {REPLICATED_DAYS} days ago")
        return start, end

    def _now(self) -> datetime:
        return self._org.clock.now().astimezone(UTC).replace(tzinfo=None, second=0, microsecond=0)


def _moment(text: str | None, name: str) -> datetime:
    if not text:
        raise ApiError(400, "MISSING_ARGUMENT", f"Required parameter is missing: {name}")
    matched = MOMENT.fullmatch(text)
    try:
        if matched is None:
            raise ValueError(name)
        # A plus sign that was not escaped arrives as a blank.
        zone = matched[2].upper().replace(" ", "+").replace("Z", "+00:00")
        return datetime.fromisoformat(matched[1] + zone).astimezone(UTC).replace(tzinfo=None, second=0)
    except (ValueError, OverflowError):
        raise ApiError(400, "INVALID_REPLICATION_DATE", f"{name} is no date and time in ISO 8601 form") from None


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise ApiError(400, "JSON_PARSER_ERROR", f"`{name}` must be a list of texts")
    return value
