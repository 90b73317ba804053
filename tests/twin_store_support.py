"""An org in memory and short ways to run jobs in it, for the tests of the twin's store."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import Options, TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict

SCHEMA: dict[str, Any] = {
    "users": [
        {"username": "loader@example.com", "name": "Loader", "permissions": ["bulk_hard_delete"]},
        {"username": "plain@example.com"},
    ],
    "objects": {
        "Plane__c": {"fields": {"Tail__c": {"type": "string", "length": 10, "externalId": True, "unique": True}}},
        "Trip__c": {
            "label": "Trip",
            "fields": {
                "Ext__c": {"type": "string", "length": 20, "externalId": True, "unique": True, "label": "Ext"},
                "Code__c": {"type": "string", "length": 5, "unique": True, "caseSensitive": True},
                "Loose__c": {"type": "string", "length": 10, "externalId": True},
                "Plane__c": {"type": "reference", "referenceTo": ["Plane__c"]},
                "Next__c": {"type": "reference", "referenceTo": ["Trip__c"]},
                "Place__c": {"type": "string", "length": 10, "required": True},
                "Miles__c": {"type": "double", "precision": 8, "scale": 2},
                "Seats__c": {"type": "int"},
                "Open__c": {"type": "boolean", "defaultValue": True},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Mail__c": {"type": "email"},
                "State__c": {
                    "type": "picklist",
                    "restrictedPicklist": True,
                    "values": [{"value": "New", "defaultValue": True}, "Done", {"value": "Old", "active": False}],
                },
                "Free__c": {"type": "picklist", "values": ["A"]},
                "Sum__c": {"type": "double", "calculated": True},
            },
            "recordTypes": [{"name": "Long haul", "developerName": "LongHaul"}],
        },
        "Leg__c": {
            "fields": {
                "Name": {"type": "autoNumber", "displayFormat": "L-{0000}"},
                "Trip__c": {"type": "reference", "referenceTo": "Trip__c", "relationshipOrder": 0},
                "Plane__c": {"type": "reference", "referenceTo": "Plane__c", "restrictedDelete": True},
                "Any__c": {"type": "reference", "referenceTo": ["Trip__c", "Plane__c"]},
            }
        },
    },
}


def make_schema(**changes: Any) -> Schema:
    return schema_from_dict({**SCHEMA, **changes})


def make_org(path: Path | None = None, *, options: Options | None = None, **changes: Any) -> TwinOrg:
    options = options or Options(threads=1, commit_batches=2)
    return TwinOrg.open(path, schema=make_schema(**changes), clock=ManualClock(), seed=7, options=options)


def clock_of(org: TwinOrg) -> ManualClock:
    """The org's clock, which the test moves."""
    assert isinstance(org.clock, ManualClock)
    return org.clock


@dataclass
class Done:
    """A job that was processed, with its result files as parsed rows."""

    job: dict[str, Any]
    saved: list[dict[str, str]]
    failed: list[dict[str, str]]
    unprocessed: list[dict[str, str]]

    def errors(self, column: str) -> dict[str, str]:
        """`sf__Error` by the text of one column."""
        return {row[column]: row["sf__Error"] for row in self.failed}


def run_job(
    org: TwinOrg, operation: str, name: str, content: str | bytes, *, key: str | None = None, user: int = 0, **body: str
) -> Done:
    """Create, fill, close and process a job, and fetch what came of it."""
    request = {"operation": operation, "object": name, **body}
    if key is not None:
        request["externalIdFieldName"] = key
    job = org.jobs.create(request, org.users[user])
    org.jobs.put_content(job["id"], [content.encode() if isinstance(content, str) else content])
    org.jobs.patch(job["id"], "UploadComplete")
    org.run_until_idle()
    return finished(org, job["id"])


def finished(org: TwinOrg, job_id: str) -> Done:
    files = [
        read_csv(org.results(job_id, kind)) for kind in ("successfulResults", "failedResults", "unprocessedrecords")
    ]
    return Done(org.jobs.get(job_id), *files)


def read_csv(pieces: Iterable[bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(pieces).decode(), newline="")))


def write_csv(names: list[str], rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return file.getvalue()


def records(org: TwinOrg, name: str, *columns: str, where: str = "NOT IsDeleted") -> list[tuple[Any, ...]]:
    """Stored records in the order of their Ids."""
    cursor = org.cursor()
    try:
        return cursor.execute(f'SELECT {", ".join(columns)} FROM data."{name}" WHERE {where} ORDER BY Id').fetchall()
    finally:
        cursor.close()
