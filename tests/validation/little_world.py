"""A small org and a plan of any source, served over HTTP: what needs more than the one table of the damage drill."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from tests.scenarios.scenario_support import Screen, run_words

from forcelift.errors import ExitCode
from forcelift.twin.clock import Clock
from forcelift.twin.fault_orders import named_order
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

API = "/services/data/v66.0"
_TOKEN = "LITTLE_WORLD_TOKEN"

FIELDS: Mapping[str, Mapping[str, Any]] = {
    "Name": {"type": "string", "length": 80},
    "Key__c": {"type": "string", "length": 40, "externalId": True},
    "Text__c": {"type": "string", "length": 80},
    "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
    "Day__c": {"type": "date"},
    "At__c": {"type": "datetime"},
}
SCHEMA: dict[str, Any] = {"objects": {"Thing__c": {"fields": dict(FIELDS)}}}

PLAN = """\
version: 1
project: Little
source: {{url: "{source}"{more}}}
target: {{url: "{target}", auth: {{flow: token, access_token: "${{{token}}}"}}}}
tables:
  - table: {table}
    object: Thing__c
    key: code
    external_id: Key__c
    {rules}
    fields: {fields}
    checks: {checks}
chunks: {{rows: {chunk_rows}}}
"""


@dataclass
class LittleWorld:
    """A served twin and the folder of a plan."""

    folder: Path
    org: TwinOrg
    server: TwinServer
    client: httpx.Client

    @property
    def plan(self) -> Path:
        return self.folder / "forcelift.yaml"

    def write_plan(
        self,
        source: str,
        *,
        table: str = "things",
        fields: str = "{text: {field: Text__c, personal: false}, amount: {field: Amount__c, negative: keep}}",
        checks: str = "[]",
        rules: str = "",
        more: str = "",
        chunk_rows: int = 50,
    ) -> None:
        """The plan; `more` goes into its source, `rules` are a line of the table."""
        text = PLAN.format(
            source=source,
            more=more,
            target=self.server.url,
            token=_TOKEN,
            table=table,
            fields=fields,
            checks=checks,
            rules=rules,
            chunk_rows=chunk_rows,
        )
        self.plan.write_text(text, encoding="utf-8")

    def run(self, *words: str) -> Screen:
        screen = run_words("run", "--plan", str(self.plan), *words)
        assert screen.code == ExitCode.DONE, screen.err
        return screen

    def validate(self, *words: str) -> Screen:
        return run_words("validate", "--plan", str(self.plan), "--json", *words)

    def arm(self, *names: str) -> None:
        """Faults by their names on the command line."""
        self.server.app.desk.arm([named_order(name) for name in names])

    def query(self, soql: str) -> list[dict[str, Any]]:
        answer = self.client.get(f"{API}/query", params={"q": soql})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["records"])

    def create(self, values: Mapping[str, Any]) -> str:
        answer = self.client.post(f"{API}/sobjects/Thing__c", json=dict(values))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def change(self, key: str, values: Mapping[str, Any]) -> None:
        record_id = self.query(f"SELECT Id FROM Thing__c WHERE Key__c = '{key}'")[0]["Id"]
        answer = self.client.patch(f"{API}/sobjects/Thing__c/{record_id}", json=dict(values))
        assert answer.status_code == 204, answer.text


def checks_of(screen: Screen, level: int, name: str | None = None) -> list[dict[str, Any]]:
    """The checks of a level out of `--json`."""
    found = [one for one in screen.document["checks"] if one["level"] == level]
    return [one for one in found if name is None or one["check"] == name]


@contextmanager
def little_world(
    folder: Path, *, clock: Clock | None = None, schema: Mapping[str, Any] = SCHEMA
) -> Iterator[LittleWorld]:
    """Serve an empty org of `schema`."""
    with (
        TwinOrg.open(folder / "org.duckdb", schema=schema_from_dict(dict(schema)), clock=clock) as org,
        TwinServer(org, session_lifetime=timedelta(days=4000)) as server,
    ):
        os.environ[_TOKEN] = server.access_token
        headers = {"Authorization": f"Bearer {server.access_token}"}
        with httpx.Client(base_url=server.url, headers=headers, verify=False, timeout=60) as client:
            yield LittleWorld(folder, org, server, client)
        assert server.internal_errors == []
