"""A loaded org to damage: a table with every kind of field, a served twin, and the one batch that filled it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx

from forcelift.after.validate.world import ValidateSettings
from forcelift.errors import ExitCode
from forcelift.migration.running import RunOptions, run_migration
from forcelift.twin.org import Options, TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer
from forcelift.validating.batch import Validated, validate_batch

_API = "/services/data/v66.0"
_TOKEN = "VALIDATE_TEST_TOKEN"

SCHEMA: dict[str, Any] = {
    "objects": {
        "Shop__c": {
            "fields": {
                "Name": {"type": "string", "length": 80},
                "Code__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
            }
        },
        "Sale__c": {
            "fields": {
                "Name": {"type": "string", "length": 80},
                # Not unique, so that a second record with the same key can be made behind the tool's back.
                "Key__c": {"type": "string", "length": 30, "externalId": True},
                "Title__c": {"type": "string", "length": 80},
                "Note__c": {"type": "textarea", "length": 255},
                "Mail__c": {"type": "email"},
                "Phone__c": {"type": "phone"},
                "Web__c": {"type": "url", "length": 255},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Rate__c": {"type": "double", "precision": 18, "scale": 6},
                "Share__c": {"type": "percent", "precision": 7, "scale": 2},
                "Pieces__c": {"type": "double", "precision": 18, "scale": 0},
                "Sold_On__c": {"type": "date"},
                "Sold_At__c": {"type": "datetime"},
                "Paid__c": {"type": "boolean"},
                "Status__c": {"type": "picklist", "values": ["Open", "Closed", "Void"]},
                "Tags__c": {"type": "multipicklist", "values": ["a", "b", "c"]},
                "Shop__c": {"type": "reference", "referenceTo": "Shop__c", "relationshipName": "Shop__r"},
                "Second__c": {"type": "reference", "referenceTo": "Shop__c", "relationshipName": "Second__r"},
                "Up__c": {"type": "reference", "referenceTo": "Sale__c", "relationshipName": "Up__r"},
            }
        },
    }
}

PLAN = """\
version: 1
project: Damage
source: {{url: "duckdb:///source.duckdb", timezone: Asia/Bangkok}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{{token}}}"}}
tables:
  - table: shops
    object: Shop__c
    key: code
    external_id: Code__c
    fields: {{name: Name}}
  - table: sales
    object: Sale__c
    key: sale_key
    external_id: Key__c
    fields:
      name: Name
      title: {{field: Title__c, personal: false}}
      note: {{field: Note__c, personal: false}}
      mail: Mail__c
      phone: Phone__c
      web: {{field: Web__c, personal: false}}
      amount: {{field: Amount__c, negative: keep}}
      rate: Rate__c
      share: Share__c
      pieces: {{field: Pieces__c, negative: keep}}
      sold_on: Sold_On__c
      sold_at: Sold_At__c
      paid: Paid__c
      status: {{field: Status__c, personal: false}}
      tags: {{field: Tags__c, personal: false}}
      shop: {{field: Shop__r.Code__c, parent: shops, missing_parent: reject}}
      second: {{field: Second__r.Code__c, parent: shops, missing_parent: to_null}}
      {up}
    checks:
      - {{name: amounts of shops, sum: amount, by: shop, tolerance: "0"}}
      - name: pieces of statuses
        sql: "SELECT status, sum(pieces) FROM sales WHERE shop <> 'NOBODY' GROUP BY status"
        soql: "SELECT Status__c, SUM(Pieces__c) FROM Sale__c WHERE Key__c != null GROUP BY Status__c"
chunks: {{rows: {rows}}}
limits: {{memory_mb: {memory_mb}}}
"""

SHOPS = 40

_SALES = """
CREATE TABLE sales AS SELECT
    'S' || lpad(CAST(i AS VARCHAR), 9, '0') AS sale_key,
    'Sale ' || i AS name,
    'Tïtle of ' || i || ' ร้านกาแฟ' AS title,
    CASE WHEN i % 7 <> 0 THEN 'first line of ' || i || chr(10) || 'second "line", it''s café 😀' END AS note,
    'buyer' || i || '@example.com' AS mail,
    '+66 2 ' || lpad(CAST(i % 10000000 AS VARCHAR), 7, '0') AS phone,
    'https://example.com/s/' || i AS web,
    CASE WHEN i % 11 <> 0 THEN CAST((i % 100000) * 1.25 - 1000 AS DECIMAL(18, 2)) END AS amount,
    CAST((i % 1000) / 7.0 AS DECIMAL(18, 6)) AS rate,
    CAST((i % 10000) / 100.0 AS DECIMAL(7, 2)) AS share,
    CAST(i % 97 AS INTEGER) AS pieces,
    CASE WHEN i % 13 <> 0 THEN DATE '2023-01-01' + CAST(i % 700 AS INTEGER) END AS sold_on,
    TIMESTAMP '2023-01-01 09:30:15' + INTERVAL (i % 500000) MINUTE AS sold_at,
    i % 3 = 0 AS paid,
    CASE i % 4 WHEN 0 THEN 'Open' WHEN 1 THEN 'Closed' WHEN 2 THEN 'Void' END AS status,
    CASE WHEN i % 5 <> 0 THEN 'a;c' END AS tags,
    CASE WHEN i = {rejected} THEN 'NOBODY' ELSE 'T' || (i % {shops}) END AS shop,
    CASE WHEN i % 2 = 0 THEN 'T' || ((i + 1) % {shops}) END AS second,
    CASE WHEN i % 17 = 1 THEN 'S' || lpad(CAST(i - 1 AS VARCHAR), 9, '0') END AS up
FROM range({rows}) AS r(i)
"""

REJECTED = 3
"""The row whose shop does not exist."""


def key_of(number: int) -> str:
    """The key of a row."""
    return f"S{number:09d}"


@dataclass
class DamageWorld:
    """An org that a batch has filled, and somebody who can change it by REST."""

    folder: Path
    server: TwinServer
    client: httpx.Client
    rows: int

    @property
    def plan(self) -> Path:
        return self.folder / "forcelift.yaml"

    def validate(self, *levels: int, **settings: Any) -> Validated:
        """Validate the batch on these levels, the table `sales` alone."""
        tables = settings.pop("tables", ("sales",))
        return validate_batch(self.plan, None, ValidateSettings(levels=tuple(levels), tables=tables, **settings))

    def query(self, soql: str) -> list[dict[str, Any]]:
        """The first page of a query."""
        answer = self.client.get(f"{_API}/query", params={"q": soql})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["records"])

    def sale(self, number: int) -> dict[str, Any]:
        """The record of a row, with all fields."""
        names = ["Id", *SCHEMA["objects"]["Sale__c"]["fields"]]
        (record,) = self.query(f"SELECT {', '.join(names)} FROM Sale__c WHERE Key__c = '{key_of(number)}'")
        return {name: record[name] for name in names}

    def shop_id(self, number: int) -> str:
        """The Id of a shop."""
        return str(self.query(f"SELECT Id FROM Shop__c WHERE Code__c = 'T{number}'")[0]["Id"])

    def change(self, record_id: str, values: dict[str, Any]) -> None:
        answer = self.client.patch(f"{_API}/sobjects/Sale__c/{record_id}", json=values)
        assert answer.status_code == 204, answer.text

    def create(self, values: dict[str, Any]) -> str:
        answer = self.client.post(f"{_API}/sobjects/Sale__c", json=values)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def delete(self, record_id: str) -> None:
        answer = self.client.delete(f"{_API}/sobjects/Sale__c/{record_id}")
        assert answer.status_code == 204, answer.text

    def undelete(self, record_ids: Sequence[str]) -> None:
        headers = {"Authorization": f"Bearer {self.server.control_token}"}
        answer = self.client.post("/__twin__/undelete", json={"ids": list(record_ids)}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert all(result["success"] for result in answer.json()), answer.text


@contextmanager
def damage_world(
    folder: Path, *, rows: int, chunk_rows: int, memory_mb: int = 1024, links: bool = True
) -> Iterator[DamageWorld]:
    """Load the table into a new twin. One row is rejected, so the run ends with 1."""
    with duckdb.connect(str(folder / "source.duckdb")) as source:
        source.execute(
            f"CREATE TABLE shops AS SELECT 'T' || i AS code, 'Shop ' || i AS name FROM range({SHOPS}) AS r(i)"
        )
        source.execute(_SALES.format(rows=rows, shops=SHOPS, rejected=REJECTED))
    # The twin's own memory is no part of the proof: by default a bulk query of 300,000 records may run out of it.
    options = Options(memory_mb=2048)
    with (
        TwinOrg.open(folder / "org.duckdb", schema=schema_from_dict(SCHEMA), options=options) as org,
        TwinServer(org) as server,
    ):
        os.environ[_TOKEN] = server.access_token
        up = "up: {field: Up__r.Key__c, parent: sales, missing_parent: to_null}" if links else ""
        plan = PLAN.format(url=server.url, token=_TOKEN, rows=chunk_rows, memory_mb=memory_mb, up=up)
        (folder / "forcelift.yaml").write_text(plan, encoding="utf-8")
        summary = run_migration(folder / "forcelift.yaml", RunOptions())
        assert summary.exit_code is ExitCode.ROWS_REFUSED, summary.errors
        assert summary.refused == 1
        headers = {"Authorization": f"Bearer {server.access_token}"}
        with httpx.Client(base_url=server.url, headers=headers, verify=False, timeout=60) as client:
            yield DamageWorld(folder, server, client, rows)
        assert server.internal_errors == []
