"""Sessions that are lost in the middle of fetches, twenty in a batch: every row of the source is in the org, once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.integration.cli_migration import CHUNK_ROWS, ORPHANS, SALES, TENANTS, Migration, check_accounting
from tests.integration.test_oracle_run import migration
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, serve_oracle

from forcelift.errors import ExitCode
from forcelift.source import open_source
from forcelift.source import oracle as adapter

__all__ = ["migration"]

ROWS, REPLY_ROWS, FAULTS = 2_400, 20, 20


@pytest.fixture(params=[pytest.param("19c", marks=pytest.mark.slow), "23ai"])
def oracle(request: pytest.FixtureRequest) -> Iterator[OracleServer]:
    """A server; waiting for a source that comes back takes its seconds, so that one profile has to do."""
    yield from serve_oracle(request.param)


def starts_of_chunks(server: OracleServer) -> list[str]:
    """The first ROWID of each chunk of the sales but the first."""
    source = open_source(f"oracle://127.0.0.1:{server.port}/{server.service}", user="KPS", password=PASSWORD)
    try:
        chunks = source.plan_chunks("sales", where=None, key=["sale_id"], rows_per_chunk=CHUNK_ROWS)
        return [one.predicate["from"] for one in chunks if one.predicate["from"] is not None]
    finally:
        source.close()


def records(migration: Migration, soql: str) -> list[dict[str, Any]]:
    """All records of a query, page by page."""
    headers = {"Authorization": f"Bearer {migration.server.access_token}"}
    found: list[dict[str, Any]] = []
    place: str | None = "/services/data/v66.0/query"
    parameters: dict[str, str] | None = {"q": soql}
    while place is not None:
        answer = httpx.get(f"{migration.server.url}{place}", params=parameters, headers=headers).raise_for_status()
        page, parameters = answer.json(), None
        found += page["records"]
        place = page.get("nextRecordsUrl")
    return found


@pytest.mark.parametrize("seed", [71, pytest.param(72, marks=pytest.mark.slow)])
def test_twenty_sessions_lost_in_the_middle_of_a_batch(
    oracle: OracleServer, migration: Migration, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)
    with connect(oracle) as connection:
        more = [(at, at + 0.25, f"T{at % TENANTS}") for at in range(SALES, ROWS)]
        connection.cursor().executemany('INSERT INTO "sales" VALUES (:1, :2, :3)', more)
        connection.commit()
    monkeypatch.setattr(adapter, "_REPLY_ROWS_MAX", REPLY_ROWS)
    for start in rng.sample(starts_of_chunks(oracle), FAULTS):
        oracle.faults.order(
            Fault(
                at="fetch",
                action=rng.choice(("drop", "error")),
                code=rng.choice((28, 603, 1089, 3113, 3135)),
                match=f"ROWID >= CHARTOROWID('{start}')",
                after_rows=REPLY_ROWS * rng.randint(1, 3),
            )
        )
    migration.document("run", "--batch", "broken", code=ExitCode.ROWS_REFUSED)
    assert len(oracle.faults.struck) == FAULTS
    with connect(oracle) as connection:
        stored = connection.cursor().execute('SELECT "sale_id", "amount", "tenant" FROM "sales"').fetchall()
    found = records(migration, "SELECT Sale__c, Amount__c, Tenant__r.Code__c FROM Sale__c")
    in_org = Counter((int(one["Sale__c"]), one["Amount__c"], one["Tenant__r"]["Code__c"]) for one in found)
    assert in_org == Counter((key, float(amount), tenant) for key, amount, tenant in stored if tenant != "NOBODY")
    assert set(in_org.values()) == {1}
    outcomes = check_accounting(migration.audit_file, migration.folder / "state" / "staging", "broken")
    assert outcomes["sales"] == {"created": ROWS - ORPHANS, "rejected": ORPHANS}


@pytest.mark.parametrize(
    ("times", "code"), [pytest.param(1, ExitCode.ROWS_REFUSED, marks=pytest.mark.slow), (2, ExitCode.SOURCE)]
)
def test_a_server_that_fails_inside_itself_is_asked_once_more(
    oracle: OracleServer, migration: Migration, times: int, code: ExitCode
) -> None:
    start = starts_of_chunks(oracle)[1]
    match = f"ROWID >= CHARTOROWID('{start}')"
    for _ in range(times):
        oracle.faults.order(Fault(at="execute", action="error", code=600, match=match))
    done = migration.run("run", "--batch", "internal")
    assert done.returncode == code, done.stderr
    if times > 1:
        assert "failed inside itself (ORA-00600)" in done.stderr
        assert migration.run("run", "--resume", "internal").returncode == ExitCode.ROWS_REFUSED
    assert migration.count("Sale__c") == SALES - ORPHANS
