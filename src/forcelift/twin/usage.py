"""What the org has used of its limits: API requests, rows and Salesforce batches of the rolling day, data storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from forcelift.twin.clock import Clock
from forcelift.twin.schema import ObjectSchema, Schema
from forcelift.twin.schema_models import LIMIT_DEFAULTS, UNLISTED_LIMITS
from forcelift.twin.standard import SETUP_OBJECTS
from forcelift.twin.store import Store, table

RECORD_KB: Final = 2
# Objects whose records take another amount (section 7 of the salesforce-api reference); 0 is not counted at all.
OBJECT_KB: Final = {
    "Campaign": 8,
    "CampaignMember": 1,
    "Product2": 0,
    "Pricebook2": 0,
    "PricebookEntry": 0,
    "OpportunityLineItem": 0,
    "OrderItem": 0,
}
_DAY: Final = timedelta(days=1)


class Usage:
    """Counts against the org's limits. API requests are counted in memory and written by `flush`."""

    def __init__(self, store: Store, schema: Schema, clock: Clock) -> None:
        self._store = store
        self._schema = schema
        self._clock = clock
        self._limits = {**LIMIT_DEFAULTS, **schema.limits}
        if "batches_per_day" in schema.limits and "DailyBulkApiBatches" not in schema.limits:
            self._limits["DailyBulkApiBatches"] = schema.limits["batches_per_day"]
        elif "DailyBulkApiBatches" in schema.limits and "batches_per_day" not in schema.limits:
            self._limits["batches_per_day"] = schema.limits["DailyBulkApiBatches"]
        self._overrides: dict[str, int] = {}
        self._watched: dict[str, Callable[[], int]] = {}
        self._lock = threading.Lock()
        self._requests: dict[datetime, int] = {}
        self._unsaved: dict[datetime, int] = {}
        with store.read() as cursor:
            for minute, requests in cursor.execute(
                "SELECT moment, sum(requests) FROM meta.api_usage GROUP BY moment"
            ).fetchall():
                self._requests[minute] = int(requests)

    def limit(self, name: str) -> int:
        """The maximum of a limit by its name in `/limits`, or of one that `/limits` does not name."""
        return self._overrides.get(name, self._limits[name])

    def override(self, name: str, maximum: int) -> None:
        """Set a limit until `lift_overrides`, as a fault does. Raises KeyError for a limit that there is none of."""
        if name not in self._limits:
            raise KeyError(name)
        # The day's Salesforce batches have a name in `/limits` and one in the schema file.
        twins = {"DailyBulkApiBatches", "batches_per_day"}
        for each in twins if name in twins else {name}:
            self._overrides[each] = maximum

    def lift_overrides(self) -> None:
        """Back to the limits of the schema."""
        self._overrides.clear()

    def watch(self, name: str, used: Callable[[], int]) -> None:
        """Let `/limits` tell what is left of a limit that is counted elsewhere."""
        self._watched[name] = used

    def _minute(self) -> datetime:
        return self._clock.now().replace(tzinfo=None, second=0, microsecond=0)

    def count_request(self) -> int:
        """Count one API request; tell how many the rolling day has now, this one among them."""
        minute = self._minute()
        with self._lock:
            self._requests[minute] = self._requests.get(minute, 0) + 1
            self._unsaved[minute] = self._unsaved.get(minute, 0) + 1
        return self.api_requests_used()

    def api_requests_used(self) -> int:
        since = self._minute() - _DAY
        with self._lock:
            for minute in [minute for minute in self._requests if minute <= since]:
                del self._requests[minute]
            return sum(self._requests.values())

    @property
    def api_requests_max(self) -> int:
        return self.limit("DailyApiRequests")

    def flush(self) -> None:
        """Write counted requests to the data file; a kill loses at most what came after the last call."""
        with self._lock:
            unsaved, self._unsaved = self._unsaved, {}
        if unsaved:
            with self._store.write_meta() as cursor:
                cursor.executemany("INSERT INTO meta.api_usage VALUES (?, ?)", list(unsaved.items()))
                cursor.execute("DELETE FROM meta.api_usage WHERE moment <= ?", [self._minute() - _DAY])

    def count_bulk(self, cursor: duckdb.DuckDBPyConnection, *, rows: int, batches: int) -> None:
        """Count rows and Salesforce batches, in the transaction that processed them."""
        now = self._clock.now().replace(tzinfo=None, microsecond=0)
        cursor.execute("INSERT INTO meta.bulk_usage VALUES (?, ?, ?)", [now, rows, batches])

    def bulk_used(self) -> tuple[int, int]:
        """Rows and Salesforce batches of the last 24 hours."""
        with self._store.read() as cursor:
            row = cursor.execute(
                "SELECT coalesce(sum(records), 0), coalesce(sum(batches), 0) FROM meta.bulk_usage WHERE moment > ?",
                [self._clock.now().replace(tzinfo=None) - _DAY],
            ).fetchone()
        return (int(row[0]), int(row[1])) if row is not None else (0, 0)

    def bulk_left(self) -> tuple[int, int]:
        """Rows and Salesforce batches that may still be processed now."""
        rows, batches = self.bulk_used()
        return max(self.limit("rows_per_day") - rows, 0), max(self.limit("batches_per_day") - batches, 0)

    def record_counts(self) -> dict[str, int]:
        """Records by object, recycle bin left out; objects without any are left out, as `/limits/recordCount` does."""
        counts = {}
        with self._store.read() as cursor:
            for entry in self._schema.objects:
                row = cursor.execute(f"SELECT count(*) FROM {table(entry)} WHERE NOT IsDeleted").fetchone()
                if row is not None and row[0]:
                    counts[entry.name] = int(row[0])
        return counts

    def records_left(self) -> int:
        """How many more records fit into the data storage, at 2 KB each."""
        used_kb = sum(count * _kilobytes(self._schema.object(name)) for name, count in self.record_counts().items())
        return max((self.limit("DataStorageMB") * 1024 - used_kb) // RECORD_KB, 0)

    def limits_json(self) -> dict[str, Any]:
        """The document of `/limits`, as far as the twin has something to count."""
        rows_left, batches_left = self.bulk_left()
        del rows_left  # Salesforce has no key for the rows of the day: clients must count themselves.
        requests_max = self.limit("DailyApiRequests")
        remaining: Mapping[str, int] = {
            "DailyApiRequests": max(requests_max - self.api_requests_used(), 0),
            "DailyBulkApiBatches": batches_left,
            "DataStorageMB": self.records_left() * RECORD_KB // 1024,
        }
        watched = {name: max(self.limit(name) - used(), 0) for name, used in self._watched.items()}
        remaining = {**remaining, **watched}
        names = sorted(name for name in self._limits if name not in UNLISTED_LIMITS)
        return {name: {"Max": self.limit(name), "Remaining": remaining.get(name, self.limit(name))} for name in names}


def _kilobytes(entry: ObjectSchema | None) -> int:
    """What a record of the object takes of the data storage; users, groups and the like take nothing."""
    counts = entry is not None and entry.createable and entry.name not in SETUP_OBJECTS
    return OBJECT_KB.get(entry.name, RECORD_KB) if entry is not None and counts else 0
