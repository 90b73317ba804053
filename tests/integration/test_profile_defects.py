"""`profile` finds every planted defect in its exact number, in six kinds of sources alike, and what a run rejects."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration import profile_defects
from tests.integration.profile_defects import (
    COPIES_BY_RULE,
    COPIES_EQUAL,
    PEOPLE_FOUND,
    REPEATED_KEYS,
    make_project,
    sales_found,
    sales_rows,
)
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect
from tests.scenarios.scenario_support import Project

from forcelift.before.profile import Profile, TableProfile
from forcelift.preflight.profiling import ProfileSettings, profile_plan

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

KINDS = ("sqlite", "duckdb", "csv", "parquet", "postgresql", "oracle")


@pytest.fixture
def oracle_23ai() -> Iterator[OracleServer]:
    """An Oracle test server with a user that may make tables."""
    with OracleServer("23ai") as server:
        server.add_user("KPS", PASSWORD, "DBA", "CREATE TABLE", "SELECT_CATALOG_ROLE", "EXECUTE DBMS_FLASHBACK")
        yield server


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The planted tables in the source that the test names."""
    kind: str = request.param
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database: str = request.getfixturevalue("database")
        profile_defects.make_postgresql(postgres.dsn(database))
        return make_project(tmp_path, kind, url=postgres.url(database).replace("@/", "@localhost/"))
    if kind == "oracle":
        server: OracleServer = request.getfixturevalue("oracle_23ai")
        with connect(server) as connection:
            profile_defects.make_oracle(connection)
        monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
        url = f"oracle://127.0.0.1:{server.port}/{server.service}"
        return make_project(tmp_path, kind, url=url, user=', user: KPS, password: "${ORACLE_PASSWORD}"')
    return make_project(tmp_path, kind)


def found_in(table: TableProfile) -> dict[tuple[str, str, str], int]:
    return {(one.kind, one.column, str(one.action)): one.rows for one in table.findings}


def table_of(profile: Profile, name: str) -> TableProfile:
    return next(table for table in profile.tables if table.table == name)


@pytest.mark.parametrize("project", KINDS, indirect=True)
def test_every_planted_defect_is_found_in_its_number(project: Project) -> None:
    profile = profile_plan(project.plan)
    sales = table_of(profile, "sales")
    assert found_in(sales) == sales_found()
    assert found_in(table_of(profile, "people")) == PEOPLE_FOUND
    assert found_in(table_of(profile, "stores")) == {("too_long", "CODE", "rejected"): 1}
    invalid = next(one for one in sales.findings if one.kind == "invalid_date")
    assert dict(invalid.facts) == {"before_1700": 2, "after_4000": 2}
    rows = sales_rows()
    assert sales.rows == len(rows)
    assert (sales.null_keys, sales.repeated_keys) == (3, REPEATED_KEYS)
    assert (sales.copies_equal, sales.copies_by_rule) == (COPIES_EQUAL, COPIES_BY_RULE)
    norms = {row[0].strip().lower() for row in rows if row[0] is not None}
    assert sales.distinct_keys == len(norms)
    assert sales.to_send + sales.rejected + sales.dropped == sales.rows
    names = Counter(row[1] for row in rows)
    name = next(column for column in sales.columns if column.name == "NAME")
    assert (name.nulls, name.distinct, name.longest) == (0, len(names), 21)
    assert name.average_length == pytest.approx(sum(len(row[1]) for row in rows) / len(rows))
    assert (name.least, name.most, {one.value for one in name.top}) == (None, None, {"***"})
    amount = next(column for column in sales.columns if column.name == "AMOUNT")
    assert float(amount.least or "nan") == -1
    assert float(amount.most or "nan") == 1234567
    assert amount.average == pytest.approx(sum(float(row[3]) for row in rows) / len(rows))
    day = next(column for column in sales.columns if column.name == "SOLD_ON")
    assert ((day.least or "")[:10], (day.most or "")[:10]) == ("1650-01-01", "4500-01-01")


@pytest.mark.parametrize(
    "project", ["sqlite", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])], indirect=True
)
def test_what_it_says_will_be_refused_is_what_a_run_refuses(project: Project) -> None:
    """Row by row: key, code and all reasons; rows without a key by their number."""
    folder = project.folder / "keys"
    profile = profile_plan(project.plan, ProfileSettings(export=folder))
    screen = project.run("--batch", "real", "--json")
    assert screen.code == 1, screen.err
    outcomes = project.outcomes("real")
    for table in profile.tables:
        ledger = outcomes[table.table]
        rejected = sorted((key or "", code or "") for key, outcome, code in ledger if outcome == "rejected")
        failed = sorted((key or "", code or "") for key, outcome, code in ledger if outcome == "failed")
        assert refused_in(folder / f"{table.table}.rejected.csv") == rejected, table.table
        assert refused_in(folder / f"{table.table}.failed.csv") == failed, table.table
        assert table.dropped == sum(outcome == "duplicate" for _, outcome, _ in ledger)
        assert table.to_send - table.failed == sum(outcome == "created" for _, outcome, _ in ledger)
        assert dict(table.rejected_by) == Counter(code for _, code in rejected)


def refused_in(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return sorted((re.sub("^'", "", row["key"]), row["code"]) for row in csv.DictReader(file))
