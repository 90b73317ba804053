"""`forcelift estimate` beside what a real load then uses, counted by the org."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli_migration import (
    CHUNK_ROWS,
    SALES,
    TENANTS,
    Migration,
    cli_schema,
    make_source,
    write_plan,
)

from forcelift.preflight.estimating import EstimateSettings, estimate_plan
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    with TwinOrg.open(schema=cli_schema()) as org, TwinServer(org) as server:
        write_plan(tmp_path, server)
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        yield Migration(folder=tmp_path, org=org, server=server)


def _calls_left(migration: Migration) -> int:
    report = estimate_plan(migration.plan)
    assert report.limits is not None
    assert report.limits.api_requests_left is not None
    return report.limits.api_requests_left


def test_a_real_load_uses_what_was_foretold(migration: Migration) -> None:
    foretold = migration.document("estimate")
    own = _calls_left(migration) - _calls_left(migration)  # what an estimate costs itself
    before = _calls_left(migration)
    done = migration.run("run")
    assert done.returncode == 1, "orphans are refused"
    used = before - _calls_left(migration) - own
    batch = migration.document("status")["batches"][0]
    jobs = sum(table["jobs"] for table in foretold["tables"])
    assert jobs == SALES // CHUNK_ROWS + 1
    assert {table["table"]: table["rows"] for table in foretold["tables"]} == {"tenants": TENANTS, "sales": SALES}
    assert [table["table"] for table in foretold["tables"]] == ["tenants", "sales"], "parents first"
    totals = foretold["totals"]
    assert used <= totals["api_calls"] + totals["api_calls_of_images"]
    assert used >= totals["api_calls"] / 2, "an estimate of twice the calls would be of little use"
    assert batch is not None


def test_the_rate_is_the_one_that_the_project_measured(migration: Migration) -> None:
    assert migration.document("estimate")["rate"] is None
    assert "no rate is given" in migration.run("estimate").stdout
    migration.run("run")
    assert migration.document("estimate")["rate"] is None, "600 rows say nothing about the rate"
    given = migration.document("estimate", "--rate", "2883")
    assert given["rate"] == {"rows_per_second": 2883.0, "origin": "given"}
    assert given["rows_sent_in_the_last_day"] > 0


def test_given_rows_storage_and_the_exit_code(migration: Migration) -> None:
    text = migration.run("estimate", "--rows", "sales=481,000,000").stdout
    assert "15,000 Salesforce batches" in text, "chunks of 100 rows waste them"
    write_plan(migration.folder, migration.server, rows=200_000)
    document = migration.document("estimate", "--rows", "sales=481_000_000", code=1)
    assert document["shortest_days"] >= 3.2
    assert len(document["days"]) >= 4
    (short,) = [one for one in document["short"] if "storage" in one["what"]]
    assert short["needed"] == -(-(481_000_000 + TENANTS) * 2 // 1024)
    text = migration.run("estimate", "--rows", "sales=481,000,000").stdout
    assert "at least 3.21 days" in text
    # How the rows fall on days depends on the hour of the begin: only their sums hold at any hour.
    lines = migration.run("estimate", "--rows", "sales=481,000,000", "--rate", "4000").stdout.splitlines()
    days = [found for line in lines if (found := re.match(r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d +([\d,]+) .*", line))]
    head = next(line for line in lines if line.startswith("order"))
    assert all(word in head for word in ("files=jobs", "days", "to expect"))
    assert next(line for line in lines if "in all" in line).endswith("min")
    assert f"tenants {TENANTS}, sales " in days[0][0], "each table's rows of each day"
    assert len(days) >= 3
    assert sum(int(day[1].replace(",", "")) for day in days) == 481_000_000 + TENANTS
    assert "too little: data storage of the org" in text


def test_offline_says_nothing_of_the_org_and_needs_no_sign_in(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLI_TEST_TOKEN", "wrong")
    assert migration.run("estimate").returncode == 5
    document = migration.document("estimate", "--offline", "--undo")
    assert document["org"] is None
    assert document["kind"] == "rollback"
    assert [table["table"] for table in document["tables"]] == ["sales", "tenants"], "children first"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "sales"], "TABLE=ROWS"),
        (["--rows", "sales=many"], "TABLE=ROWS"),
        (["--rows", "nobody=1"], "no table `nobody`"),
        (["--table", "nobody"], "no table `nobody`"),
        (["--begin", "tomorrow"], "no time such as"),
        (["--rate", "0"], "0"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(migration: Migration, words: list[str], said: str) -> None:
    done = migration.run("estimate", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_nothing_is_made_by_an_estimate(migration: Migration) -> None:
    estimate_plan(migration.plan, EstimateSettings(rate=10))
    assert not (migration.folder / "state").exists()
