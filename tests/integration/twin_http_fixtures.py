"""What the tests of the twin's HTTP surface share: a schema, a served org, a client of a few lines."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import httpx

from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

BASE = "/services/data/v66.0"

# A connection that the twin cut: which of these a client sees depends on what was still on its way when it was cut.
CUT = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)

SCHEMA_DOCUMENT: dict[str, Any] = {
    "org": {"name": "Test", "sandbox": False},
    "users": [
        {"username": "etl@kpc.example", "name": "Ettl Lader", "email": "etl@kpc.example"},
        {"username": "other@kpc.example"},
        {"username": "gone@kpc.example", "active": False},
    ],
    "objects": {
        "Tenant__c": {
            "fields": {
                "Tenant_Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "Note__c": {"type": "textarea", "length": 4000},
            }
        },
        "Sale__c": {
            "fields": {
                "Sale_Id__c": {"type": "string", "length": 30, "externalId": True, "unique": True},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Sold_On__c": {"type": "date"},
                "Sold_At__c": {"type": "datetime"},
                "Count__c": {"type": "int"},
                "Paid__c": {"type": "boolean"},
                "Group__c": {"type": "string", "length": 20, "externalId": True},
                "Must__c": {"type": "string", "length": 5, "required": True},
                "Tenant__c": {
                    "type": "reference",
                    "referenceTo": "Tenant__c",
                    "relationshipName": "Tenant__r",
                    "childRelationshipName": "Sales__r",
                },
            }
        },
    },
}


def make_schema(**changes: Any) -> Schema:
    return schema_from_dict({**SCHEMA_DOCUMENT, **changes})


class Client(httpx.Client):
    """A signed-in client of a served twin."""

    def __init__(self, server: TwinServer, token: str | None = None) -> None:
        super().__init__(
            base_url=server.url,
            headers={"Authorization": f"Bearer {token or server.access_token}"},
            timeout=30,
            verify=False,  # plain HTTP; loading the list of authorities takes longer than most tests
        )
        self.server = server

    def create_job(self, **body: Any) -> str:
        answer = self.post(f"{BASE}/jobs/ingest", json={"object": "Tenant__c", "operation": "insert", **body})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def put_csv(self, job_id: str, content: bytes, **headers: str) -> httpx.Response:
        url = f"{BASE}/jobs/ingest/{job_id}/batches"
        return self.put(url, content=content, headers={"Content-Type": "text/csv", **headers})

    def close_job(self, job_id: str) -> httpx.Response:
        return self.patch(f"{BASE}/jobs/ingest/{job_id}", json={"state": "UploadComplete"})

    def wait(self, path: str) -> dict[str, Any]:
        """Poll a job until it has ended."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.get(path).json()
            if job["state"] in ("JobComplete", "Failed", "Aborted"):
                return job
            time.sleep(0.01)
        raise AssertionError(f"{path} did not end")

    def load(self, content: bytes, **body: Any) -> dict[str, Any]:
        """Create, upload, close and wait."""
        job_id = self.create_job(**body)
        assert self.put_csv(job_id, content).status_code == 201
        assert self.close_job(job_id).status_code == 200
        return self.wait(f"{BASE}/jobs/ingest/{job_id}")

    def results(self, job_id: str, kind: str) -> list[dict[str, str]]:
        answer = self.get(f"{BASE}/jobs/ingest/{job_id}/{kind}")
        assert answer.status_code == 200, answer.text
        return list(csv.DictReader(io.StringIO(answer.content.decode())))

    def query(self, soql: str) -> dict[str, Any]:
        answer = self.get(f"{BASE}/query", params={"q": soql})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def arm(self, *orders: dict[str, Any]) -> None:
        answer = self.post("/__twin__/faults", json=list(orders), headers=self.control_headers)
        assert answer.status_code == 201, answer.text

    @property
    def control_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.server.control_token}"}


def tenants(count: int, start: int = 0) -> bytes:
    rows = [f"T{number:06d},Tenant {number}" for number in range(start, start + count)]
    return "\n".join(["Tenant_Code__c,Name", *rows, ""]).encode()


__all__ = ["BASE", "SCHEMA_DOCUMENT", "Client", "TwinOrg", "make_schema", "tenants"]
