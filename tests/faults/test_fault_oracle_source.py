"""Twenty batches, by seed, whose source fails in the middle of fetches: each ends complete, and no row comes twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration, check_accounting
from tests.integration.test_oracle_run import GOOD, oracle_migration
from tests.oracle_server.faults import Fault
from tests.oracle_server.server import PROFILES, OracleServer
from tests.oracle_support import serve_oracle

from forcelift.errors import ExitCode

SEEDS = 20
QUICK = 4
"""So many are part of `make test`; all of them of `make prove`."""
CALL_SECONDS = 0.7
RESUMES_MAX = 6

# What strikes, with its code: the session ends, the server answers with an error, or it is slow until the call's time
# is up and the client breaks in (ORA-01013 within the server).
KINDS: tuple[tuple[str, int], ...] = (
    ("drop", 0),
    ("error", 1555),
    ("error", 3113),
    ("error", 12170),
    ("error", 1013),
    ("slow", 0),
)


@pytest.fixture
def oracle(seed: int) -> Iterator[OracleServer]:
    """The profiles by turns."""
    yield from serve_oracle(PROFILES[seed % len(PROFILES)])


@pytest.fixture
def migration(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    # The pauses before a source is asked again are no part of what is proved.
    monkeypatch.setattr("forcelift.jobs.react_waits.source_pause", lambda board, tries: 0.05)
    # Small replies, so that a chunk takes several fetches.
    monkeypatch.setattr("forcelift.source.oracle._REPLY_ROWS_MAX", 60)
    yield from oracle_migration(oracle, tmp_path, monkeypatch, parts=f"?call_timeout={CALL_SECONDS}")


def faults(seed: int) -> list[Fault]:
    """Four to six, each of which strikes a fetch of sales after some rows; tenants are one fetch."""
    dice = random.Random(seed)
    kinds = [KINDS[seed % len(KINDS)], *(dice.choice(KINDS) for _ in range(dice.randint(3, 5)))]
    return [
        Fault(
            at="fetch",
            action=action,
            code=code,
            match='ORDER BY "sales"',
            after_rows=dice.choice((1, 60, 120, 180)),
            times=dice.randint(1, 2) if action != "slow" else 1,
            seconds=30.0,
        )
        for action, code in kinds
    ]


def records(migration: Migration, field: str, object_name: str) -> list[str]:
    """A field of every record that the org has."""
    url, found = "/services/data/v66.0/query", []
    query: dict[str, str] | None = {"q": f"SELECT {field} FROM {object_name}"}
    while url:
        answer = httpx.get(
            f"{migration.server.url}{url}",
            params=query,
            headers={"Authorization": f"Bearer {migration.server.access_token}"},
        )
        page = answer.raise_for_status().json()
        found += [record[field] for record in page["records"]]
        url, query = page.get("nextRecordsUrl", ""), None
    return found


@pytest.mark.parametrize(
    "seed", [pytest.param(one, marks=[] if one < QUICK else [pytest.mark.slow]) for one in range(SEEDS)]
)
def test_a_batch_whose_fetches_fail_ends_complete(oracle: OracleServer, migration: Migration, seed: int) -> None:
    """Goal: no row lost or doubled. Method: faults in the middle of fetches, resume until done, then ask the org."""
    text = migration.plan.read_text()
    assert "rows: 100" in text
    migration.plan.write_text(text.replace("rows: 100", "rows: 250"))
    ordered = faults(seed)
    for one in ordered:
        oracle.faults.order(one)
    done = migration.run("run", "--batch", "faulty")
    for _ in range(RESUMES_MAX):
        if done.returncode == ExitCode.ROWS_REFUSED:
            break
        assert done.returncode == ExitCode.SOURCE, done.stderr
        done = migration.run("run", "--resume", "faulty")
    assert done.returncode == ExitCode.ROWS_REFUSED, done.stderr
    assert oracle.faults.struck, f"seed {seed}: no fault has struck"
    good = [str(at) for at in range(ORPHANS, SALES)]
    assert sorted(records(migration, "Sale__c", "Sale__c"), key=int) == good
    assert len(records(migration, "Code__c", "Tenant__c")) == TENANTS
    outcomes = check_accounting(migration.audit_file, migration.folder / "state" / "staging", "faulty")
    assert outcomes["sales"] == {"created": GOOD, "rejected": ORPHANS}
