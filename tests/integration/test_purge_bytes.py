"""After a purge no value of a row, and no key, is left in any byte of the state: tables, free pages, files, logs.

All values of the source hold a mark that stands nowhere else. It is then looked for as bytes, whoever reads them.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pytest
from tests.integration import test_failed_retry as retries
from tests.integration.cli_migration import Migration
from tests.oracle_audit_support import audit_url, new_user
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD

from forcelift.account.recorded import open_recorded
from forcelift.audit import AuditStore, cover, tables
from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

MARK = "QxZvKw"
PURGE = ("audit", "purge", "--older-than", "0d", "--execute", "--no-way-back", "--reason", "retention")


@pytest.fixture
def oracle_server() -> Iterator[OracleServer]:
    with OracleServer("23ai") as server:
        yield server


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.slow),
        pytest.param("oracle", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ]
)
def marked(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """A migration all of whose values are marked, with refused rows kept in full."""
    audit = ""
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        audit = f'audit: {{url: "{postgres.plan_url(request.getfixturevalue("database"))}"}}\n'
    elif request.param == "oracle":
        server = request.getfixturevalue("oracle_server")
        monkeypatch.setenv("AUDIT_PASSWORD", PASSWORD)
        audit = f'audit: {{url: "{audit_url(server, new_user(server), "${AUDIT_PASSWORD}")}"}}\n'
    with duckdb.connect(str(tmp_path / "source.duckdb")) as source:
        source.execute(
            f"CREATE TABLE shops AS SELECT '{MARK}S' || i AS code,"
            f" CASE WHEN i = 3 THEN repeat('{MARK}', 9) ELSE '{MARK}' END AS town FROM range(10) AS r(i)"
        )
        source.execute(
            f"CREATE TABLE notes AS SELECT '{MARK}N' || i AS note_id, CASE WHEN i % 7 = 0 THEN repeat('{MARK}', 9)"
            f" ELSE '{MARK} ' || i END AS text, '{MARK}S' || (i % 10) AS shop FROM range(300) AS r(i)"
        )
    monkeypatch.chdir(tmp_path)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": retries.OBJECTS}))
    try:
        with TwinServer(org) as server:
            retries.write_plan(tmp_path, server.url)
            plan = tmp_path / "forcelift.yaml"
            more = "retention: {record_data: full}\n" + audit
            plan.write_text(plan.read_text(encoding="utf-8") + more, encoding="utf-8")
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=org, server=server)
    finally:
        org.close()


def live(migration: Migration) -> None:
    """Everything that leaves values somewhere: a retry of a part, corrections, marks, validations, a rollback."""

    def go(*words: str) -> None:
        done = migration.run(*words)
        assert done.returncode in (0, 1), (words, done.stderr)

    go("profile")
    go("run", "--batch", "first")
    go("validate", "first", "--levels", "all")
    out, mended, keys = (migration.folder / name for name in ("notes.csv", "mended.csv", "keys.txt"))
    go("failed", "export", "--table", "notes", "--out", str(out))
    with out.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows[:5]:
        row["text"] = f"{MARK}2"
    with mended.open("w", encoding="utf-8-sig", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    go("failed", "import", str(mended), "--table", "notes")
    keys.write_text("\n".join(row["key"] for row in rows[:2]), encoding="utf-8")
    go("failed", "retry", "--table", "notes", "--keys", str(keys))
    keys.write_text(rows[9]["key"], encoding="utf-8")
    go("failed", "resolve", "--table", "notes", "--keys", str(keys), "--note", f"of {MARK}", "--by", "A. Person")
    go("run", "--batch", "second")
    go("rollback", "second", "--execute", "--reason", "wrong")
    for file in (out, mended, keys):
        file.unlink()
    staging = migration.folder / "state" / "staging"
    # What processes that were killed leave: a page of the org half read, and a file that was being written.
    (staging / "validate" / "first" / "notes").mkdir(parents=True)
    (staging / "validate" / "first" / "notes" / "page.parquet").write_text(MARK, encoding="utf-8")
    (staging / "ledger" / "first" / "notes" / ".c000001.g09.parquet.0a1b2c.tmp").write_text(MARK, encoding="utf-8")


def in_tables(migration: Migration) -> set[tuple[str, str]]:
    """Table and column of every value that holds the mark, as the driver gives it."""
    found = set()
    with open_recorded(migration.plan) as (_, state), state.audit.read() as connection:
        for table in tables.metadata.sorted_tables:
            query = cover.raw_select(table)
            for row in connection.execute(query):
                found |= {(table.name, name) for name, value in row._mapping.items() if MARK in str(value)}
    return found


def in_files(migration: Migration) -> set[str]:
    """Files of the state that hold the mark as bytes, or as values of a Parquet file."""
    found = set()
    state = migration.folder / "state"
    for path in (path for path in state.rglob("*") if path.is_file()):
        is_in = MARK.encode() in path.read_bytes()
        if path.suffix == ".parquet" and not is_in:
            is_in = MARK in str(pl.read_parquet(path).to_dicts())
        if is_in:
            found.add(str(path.relative_to(state)))
    return found


def test_no_byte_of_a_value_or_key_is_left(marked: Migration) -> None:
    live(marked)
    assert {("MIGRATION_FAILED_RECORDS", "record_data"), ("profile", "document")} <= in_tables(marked)
    assert any(name.startswith("staging/corrections/") for name in in_files(marked))
    done = marked.document(*PURGE)
    assert [one["done"] for one in done["batches"]] == [True, True]
    assert in_tables(marked) == set()
    assert in_files(marked) == set()
    proof = marked.document("audit", "verify")
    assert proof["is_whole"] is True, proof["faults"]
    assert sum("personal data of batch" in line for line in proof["purged"]) == 2
    for words in (
        ("failed", "retry", "--batch", "first"),
        ("failed", "export", "--batch", "first", "--table", "notes", "--out", "x.csv"),
        ("failed", "import", str(marked.plan), "--batch", "first", "--table", "notes"),
        ("rollback", "first"),
        ("validate", "first"),
    ):
        refused = marked.run(*words)
        assert (refused.returncode, "were purged at" in refused.stderr) == (ExitCode.STATE, True), refused.stderr
    for words in (("status", "--batch", "first"), ("report", "first"), ("failed", "list", "--batch", "first")):
        assert marked.run(*words).returncode in (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("marked", ["sqlite"], indirect=True)
@pytest.mark.parametrize("place", ["purge_chunk", "purge_examples", "erase_freed", "end_purge"])
def test_a_purge_that_died_anywhere_takes_all_in_its_second_try(
    marked: Migration, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    live(marked)
    real = getattr(AuditStore, place)

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(AuditStore, place, die)
        assert marked.run(*PURGE).returncode == ExitCode.INTERRUPTED
    assert getattr(AuditStore, place) is real
    proof = marked.document("audit", "verify")
    assert proof["is_whole"] is True
    assert any("not through: run it again" in line for line in proof["purged"])
    assert marked.run("failed", "retry", "--batch", "first").returncode == ExitCode.STATE
    assert all(one["done"] for one in marked.document(*PURGE)["batches"])
    assert in_tables(marked) == set()
    assert in_files(marked) == set()
    assert marked.document("audit", "verify")["is_whole"] is True


def test_a_reader_in_the_way_leaves_the_purge_open_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's file cannot be written anew while somebody reads it: that is told, and the same command goes on."""
    monkeypatch.setattr("forcelift.audit.database._BUSY_TIMEOUT_S", 0.1)
    store = AuditStore.open(f"sqlite:///{tmp_path}/audit.db", clock=_clock())
    with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as reader:
        reader.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="another process keeps it locked"):
            store.erase_freed()
        reader.execute("ROLLBACK")
    store.erase_freed()
    store.close()


def _clock() -> Any:
    from tests.unit.audit_fixtures import StillClock

    return StillClock()
