"""Small tables with each kind of defect, from six kinds of source alike: outcomes, values, accounts.

What is expected was worked out by hand from the plan's rules; it stands in `every_rule/expect.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.oracle_support import PASSWORD, oracle_19c
from tests.scenarios.scenario_support import (
    SCENARIOS,
    OrgReader,
    Project,
    copy_case,
    make_csv,
    make_duckdb,
    make_oracle,
    make_parquet,
    make_postgresql,
    make_sqlite,
)

if TYPE_CHECKING:
    from tests.oracle_server.server import OracleServer
    from tests.postgres_support import Postgres

__all__ = ["oracle_19c"]
pytest_plugins = ["tests.postgres_support"]

CASE = "every_rule"
EXPECT: dict[str, dict[str, Any]] = json.loads((SCENARIOS / CASE / "expect.json").read_text(encoding="utf-8"))
KINDS = ("sqlite", "duckdb", "csv", "parquet", "postgresql", "oracle")
OPEN_COLUMNS = {"sales": {"TITLE", "Origin__c"}, "towns": {"TOWN"}, "people": {"BOSS"}}
URLS: dict[str, tuple[str, Callable[..., None]]] = {
    "sqlite": ("sqlite:///source.db", make_sqlite),
    "duckdb": ("duckdb:///source.duckdb", make_duckdb),
    "csv": ("files:./data", make_csv),
    "parquet": ("files:./data", make_parquet),
}


def make_project(folder: Path, kind: str, request: pytest.FixtureRequest) -> Project:
    project = copy_case(CASE, folder)
    script, rows = (folder / "source.sql").read_text(encoding="utf-8"), spread_rows(folder / "rows.json")
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        database: str = request.getfixturevalue("database")
        make_postgresql(postgres.dsn(database), script, rows)
        project.change_plan({"sqlite:///source.db": postgres.url(database).replace("@/", "@localhost/")})
        return project
    if kind == "oracle":
        server: OracleServer = request.getfixturevalue("oracle_19c")
        make_oracle(server.dsn, PASSWORD, script, rows)
        (folder / "password").write_text(PASSWORD)
        url = f"oracle://127.0.0.1:{server.port}/{server.service}"
        project.change_plan({"sqlite:///source.db": f"{url}\n  user: KPS\n  password: file:password"})
        return project
    url, make = URLS[kind]
    make(project, script, rows)
    if kind != "sqlite":
        project.change_plan({"sqlite:///source.db": url})
    return project


def spread_rows(file: Path) -> dict[str, list[list[Any]]]:
    """The rows of a file in which each row says only what differs from its table's `base`."""
    tables = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: [[as_bytes(value) for value in (table["base"] | row).values()] for row in table["rows"]]
        for name, table in tables.items()
    }


def as_bytes(value: Any) -> Any:
    """`hex:` begins a value that stands for bytes."""
    is_hex = isinstance(value, str) and value.startswith("hex:")
    return bytes.fromhex(value.removeprefix("hex:")) if is_hex else value


def expected_outcomes(table: Mapping[str, Any], *, accepted: str) -> list[tuple[str | None, str, str | None]]:
    return sorted(
        [
            *((key, accepted, None) for key in table["created"]),
            *((key, "rejected", f"REJECTED_{code}") for key, code in table.get("rejected", ())),
            *((key, "duplicate", None) for key in table.get("duplicate", ())),
            *((key, "failed", code) for key, code in table.get("failed", ())),
        ],
        key=lambda row: tuple(value or "" for value in row),
    )


def assert_outcomes(project: Project, batch_id: str, *, accepted: str) -> None:
    found = project.outcomes(batch_id)
    for name, table in EXPECT.items():
        assert [tuple(row) for row in found[name]] == expected_outcomes(table, accepted=accepted), name


def assert_sums_close(project: Project, batch_id: str) -> None:
    """SOURCE = EXTRACTED = TRANSFORMED + SKIPPED, TRANSFORMED = LOADED = SUCCESS + FAILED, with the right numbers."""
    for name, table in EXPECT.items():
        created, failed = len(table["created"]), len(table.get("failed", ()))
        skipped = len(table.get("rejected", ())) + len(table.get("duplicate", ()))
        rows = created + failed + skipped
        found = project.audit(
            "SELECT SUM(SOURCE_COUNT), SUM(EXTRACTED_COUNT), SUM(TRANSFORMED_COUNT), SUM(SKIPPED_COUNT),"
            " SUM(LOADED_COUNT), SUM(SUCCESS_COUNT), SUM(FAILED_COUNT), MIN(STATUS) FROM MIGRATION_AUDIT_LOG"
            f" WHERE TABLE_NAME = '{name}' AND BATCH_ID = '{batch_id}'"
        )
        status = "PARTIAL" if failed or table.get("rejected") else "SUCCESS"
        assert found == [(rows, rows, created + failed, skipped, created + failed, created, failed, status)], name


def assert_values(org: OrgReader) -> None:
    for name, table in EXPECT.items():
        fields = sorted({*table["base"], *(field for record in table["created"].values() for field in record)})
        found = org.records(table["object"], table["key"], fields)
        expected = {**table["created"], **table.get("in_org", {})}
        assert sorted(found) == sorted(expected), name
        for key, record in expected.items():
            wanted = table["base"] | record
            assert {field: found[key][field] for field in wanted} == wanted, (name, key)


def assert_failed_records(project: Project) -> None:
    """Each refused row is kept once for each run, its personal columns masked and the others legible."""
    records = project.failed_records()
    messages = project.audit(
        "SELECT SF_ERROR_MESSAGE FROM MIGRATION_FAILED_RECORDS WHERE SF_ERROR_CODE LIKE 'INVALID%'"
    )
    assert messages == [("Mail: invalid email address: <value>",)]
    for name, table in EXPECT.items():
        codes = [f"REJECTED_{code}" for _, code in table.get("rejected", ())]
        codes += [code for _, code in table.get("failed", ())]
        assert Counter(record[2] for record in records if record[0] == name) == Counter(codes), name
    for table, _, code, _, data in records:
        shown = {column for column, value in data.items() if value is not None and value != "***"}
        assert shown <= OPEN_COLUMNS.get(table, set()), (table, code, data)
    by_key: dict[str, Sequence[Any]] = {record[1]: record for record in records if record[0] == "sales"}
    assert by_key["long"][4]["TITLE"] == "12345678901"
    assert by_key["refused"][4]["TITLE"] == "Fine"
    assert by_key["two"][3] == "TITLE,SOLD_ON"
    assert by_key["must"][4]["MUST"] is None
    decoded = {record[1]: record[4]["TOWN"] for record in records if record[0] == "towns"}
    assert decoded == {"unused": "x\ufffd", "unused-too": "\ufffd", "townless": None}
    # A lookup of the link pass is shown as the source names it, masked where it is personal.
    linked = {record[1]: record[4] for record in records if record[0] == "people" and record[1] != "gus-too-long"}
    assert linked == {
        "eve": {"CODE": "***", "BOSS": "Nobody", "TEAM": "***"},
        "hal": {"CODE": "***", "BOSS": "gus-too-long", "TEAM": None},
    }


def changes_of(document: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {table["table"]: table["changes"] for table in document["tables"]}


def audited_changes(project: Project, batch_id: str) -> dict[str, Counter[str]]:
    """By table what the chunks' rows in the audit database say was changed, by rule and column."""
    found: dict[str, Counter[str]] = {name: Counter() for name in EXPECT}
    for table, staged in project.audit(f"SELECT table_name, staged FROM chunk WHERE batch_id = '{batch_id}'"):
        found[table] += Counter(json.loads(staged)["changes"])
    return found


JOBS = sum(table.get("jobs", 1) for table in EXPECT.values())
EXPECTED_CHANGES = {name: table.get("changes", {}) for name, table in EXPECT.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_ends_as_the_rules_say(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project = make_project(tmp_path, kind, request)
    screen = project.run("--batch", "first", "--json")
    assert screen.code == 1, screen.err
    assert screen.document["errors"] == []
    assert changes_of(screen.document) == EXPECTED_CHANGES
    assert audited_changes(project, "first") == EXPECTED_CHANGES
    assert_outcomes(project, "first", accepted="created")
    assert_sums_close(project, "first")
    assert_failed_records(project)
    with project.served() as org:
        assert_values(org)


@pytest.mark.parametrize(("kind", "rows"), [("sqlite", 16), ("csv", 17), ("postgresql", 24), ("oracle", 20)])
def test_chunks_change_nothing(kind: str, rows: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The same outcomes, values and counts by rule when tables are cut small, so that copies of a key lie apart."""
    project = make_project(tmp_path, kind, request)
    project.change_plan({"project: every rule\n": f"project: every rule\nchunks: {{rows: {rows}}}\n"})
    screen = project.run("--batch", "first", "--json")
    assert screen.code == 1, screen.err
    assert changes_of(screen.document) == EXPECTED_CHANGES
    assert audited_changes(project, "first") == EXPECTED_CHANGES
    assert_outcomes(project, "first", accepted="created")
    assert_failed_records(project)
    with project.served() as org:
        assert_values(org)


def test_a_dry_run_tells_the_same_and_a_second_run_only_updates(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    project = make_project(tmp_path, "csv", request)
    dry = project.run("--batch", "dry", "--dry-run", "--json")
    assert dry.code == 1, dry.err
    assert project.traces() == (0, 0)
    rejected = {
        name: sorted((f"REJECTED_{code}" for _, code in table.get("rejected", ()))) for name, table in EXPECT.items()
    }
    records = project.failed_records()
    assert {name: sorted(record[2] for record in records if record[0] == name) for name in EXPECT} == rejected
    for table in dry.document["tables"]:
        wanted = EXPECT[table["table"]]
        sent = len(wanted["created"]) + len(wanted.get("failed", ()))
        skipped = (len(wanted.get("rejected", ())), len(wanted.get("duplicate", ())))
        assert (table["extracted"], table["rejected"], table["duplicate"]) == (sent + sum(skipped), *skipped)
        assert (table["sent"], table["created"], table["updated"], table["failed"]) == (0, 0, 0, 0)
    assert dry.document["jobs_predicted"] == JOBS
    for batch, accepted in (("first", "created"), ("second", "updated")):
        screen = project.run("--batch", batch, "--json")
        assert screen.code == 1, screen.err
        assert screen.document["jobs"] == JOBS
        assert_outcomes(project, batch, accepted=accepted)
        assert_sums_close(project, batch)
    assert {table["created"] for table in screen.document["tables"]} == {0}
    with project.served() as org:
        assert_values(org)
