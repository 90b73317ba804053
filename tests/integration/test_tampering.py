"""Whatever somebody changes past the program in a migration that lived is found by `audit verify`, and ends no look.

The quick tests take one change of a kind; the slow ones every column of every row kind, and many bytes of every file.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration import test_failed_retry as retries
from tests.integration.cli_migration import Migration

from forcelift.account.recorded import open_recorded
from forcelift.audit import cover, tables
from forcelift.errors import ForceliftError
from forcelift.handover.proving import prove
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

SEED = 20260131
ROLES = "roles: {second_person_for: [rollback]}\n"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migration]:
    """A retry, a rollback with a second person, notes, reports in all forms, sign-offs before and after."""
    folder = tmp_path_factory.mktemp("lived")
    retries.make_source(folder)
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": retries.OBJECTS}))
    try:
        with TwinServer(org) as server:
            patch.setenv("CLI_TEST_TOKEN", server.access_token)
            migration = Migration(folder=folder, org=org, server=server)
            _live(migration, patch)
            assert prove(migration.plan).faults == ()
            yield migration
    finally:
        org.close()
        patch.undo()


def _live(migration: Migration, patch: pytest.MonkeyPatch) -> None:
    def go(*words: str) -> None:
        done = migration.run(*words)
        assert done.returncode in (0, 1), (words, done.stderr)

    def plan(too_long: str) -> None:
        retries.write_plan(migration.folder, migration.server.url, too_long=too_long)
        migration.plan.write_text(migration.plan.read_text(encoding="utf-8") + ROLES, encoding="utf-8")

    plan("truncate")
    for command in ("check", "profile", "estimate"):
        go(command)
    go("signoff", "--phase", "before", "--role", "DBA", "--name", "A. Person")
    go("run", "--batch", "undone")
    assert migration.run("rollback", "undone", "--execute", "--reason", "wrong").returncode == 3
    with patch.context() as other:
        other.setattr("forcelift.account.recorded.login", lambda: "second")
        go("approve", "1", "--name", "B. Person")
    go("rollback", "undone", "--execute", "--reason", "wrong")
    plan("reject")
    go("run", "--batch", "first")
    go("failed", "resolve", "--batch", "first", "--table", "shops", "--note", "by hand", "--by", "A. Person")
    go("report", "note", "REJECTED_TOO_LONG", "--batch", "first", "--cause", "long", "--by", "A. Person")
    plan("truncate")
    go("failed", "retry", "--batch", "first", "--code", "REJECTED_TOO_LONG")
    go("validate", "first", "--levels", "all")
    for form in ("md", "html", "pdf", "json"):
        go("report", "first", "--out", f"report.{form}")
    go("signoff", "--phase", "after", "--role", "DBA", "--name", "A. Person", "--batch", "first")


def change(migration: Migration, statement: str, *values: Any) -> int:
    """Past the program: straight into the file."""
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        rows = audit.execute(statement, values).rowcount
        audit.commit()
    return rows


def values_of(migration: Migration, table: str, column: str) -> list[tuple[Any, Any]]:
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        audit.text_factory = bytes
        return audit.execute(f'SELECT rowid, "{column}" FROM "{table}"').fetchall()


def text(stored: Any) -> Any:
    return stored.decode() if isinstance(stored, bytes) else stored


def sealed(migration: Migration) -> list[Path]:
    """All files of the state and the reports, but the database, the source and the locks."""
    kept = {"source.duckdb", "forcelift.yaml"}
    files = (path for path in sorted(migration.folder.rglob("*")) if path.is_file())
    return [path for path in files if path.name not in kept and not path.name.startswith("audit.db")]


def test_an_earlier_state_of_a_ledger_counts_as_well(lived: Migration) -> None:
    """A retry and a rollback write the next state of a ledger beside the one before, which stays readable."""
    with open_recorded(lived.plan) as (_, state):
        now = {chunk.ledger_file for batch in ("first", "undone") for chunk in state.audit.chunks(batch)}
    root = lived.folder / "state" / "staging"
    earlier = [path for path in sealed(lived) if "/ledger/" in str(path) and str(path.relative_to(root)) not in now]
    assert earlier
    for path in earlier:
        before = path.read_bytes()
        path.write_bytes(before[:-1])
        [fault] = prove(lived.plan).faults
        assert "an earlier state of a ledger, was changed after its seal" in fault
        path.write_bytes(before)


def test_a_file_that_nothing_names_is_told(lived: Migration) -> None:
    folder = next(iter(sorted((lived.folder / "state" / "staging" / "ledger" / "first").iterdir())))
    added = folder / "c000009.g01.parquet"
    shutil.copy(next(iter(folder.glob("*.parquet"))), added)
    proof = prove(lived.plan)
    added.unlink()
    assert any("nothing recorded names the ledger file" in note and added.name in note for note in proof.notes)
    assert not any("nothing recorded names" in note for note in prove(lived.plan).notes)


def test_one_report_in_the_place_of_another_is_found(lived: Migration) -> None:
    """Both are known; but what was written there last belongs there."""
    file, other = lived.folder / "report.md", lived.folder / "report.html"
    before = file.read_bytes()
    file.write_bytes(other.read_bytes())
    assert prove(lived.plan).faults == (f"the report `{file}` was changed after it was written",)
    file.write_bytes(before)
    # Nor does what was written there earlier.
    file = lived.folder / "again.md"
    for words in (("report", "first", "--out", "again.md"), ("report", "first", "--lang", "th", "--out", "again.md")):
        before = file.read_bytes() if file.exists() else b""
        file.unlink(missing_ok=True)
        assert lived.run(*words).returncode in (0, 1)
    now = file.read_bytes()
    assert before != now
    file.write_bytes(before)
    assert prove(lived.plan).faults == (f"the report `{file}` was changed after it was written",)
    file.write_bytes(now)


def test_a_second_head_and_a_damaged_index_are_found(lived: Migration) -> None:
    change(lived, "INSERT INTO journal_head (one, seq, hash) SELECT 2, seq, hash FROM journal_head")
    assert any("recorded heads" in fault for fault in prove(lived.plan).faults)
    change(lived, "DELETE FROM journal_head WHERE one = 2")
    # An index that hides a row from who looks for it, while a look at the whole table still sees it.
    kept = lived.folder / "kept.db"
    with closing(sqlite3.connect(lived.audit_file)) as audit, closing(sqlite3.connect(kept)) as copy:
        audit.backup(copy)
    change(lived, "DROP INDEX IDX_AUDIT_BATCH")
    change(lived, "CREATE INDEX IDX_AUDIT_BATCH ON MIGRATION_AUDIT_LOG (BATCH_ID) WHERE CHUNK_ID > 1")
    with closing(sqlite3.connect(lived.audit_file)) as audit:
        audit.execute("PRAGMA writable_schema=ON")
        audit.execute("UPDATE sqlite_master SET sql = replace(sql, ' WHERE CHUNK_ID > 1', '') WHERE type = 'index'")
        audit.commit()
    assert any(fault.startswith("SQLite: ") for fault in prove(lived.plan).faults)
    put_back(lived, kept)


def put_back(migration: Migration, copy: Path) -> None:
    for path in migration.audit_file.parent.glob("audit.db-[sw]*"):
        path.unlink()
    copy.replace(migration.audit_file)
    assert prove(migration.plan).faults == ()


def test_an_older_copy_of_all_is_found_by_the_head_that_was_kept(lived: Migration, tmp_path: Path) -> None:
    """Nothing inside can tell an older copy of the whole database from the truth: that is what the head is for."""
    kept = tmp_path / "older.db"
    with closing(sqlite3.connect(lived.audit_file)) as audit, closing(sqlite3.connect(kept)) as copy:
        audit.backup(copy)
    head = lived.document("signoff", "--phase", "after", "--role", "QA Lead", "--name", "C", "--batch", "first")["head"]
    now = tmp_path / "now.db"
    with closing(sqlite3.connect(lived.audit_file)) as audit, closing(sqlite3.connect(now)) as copy:
        audit.backup(copy)
    put_back(lived, kept)
    [fault] = lived.document("audit", "verify", "--head", head["hash"], code=1)["faults"]
    assert fault.startswith(f"the head {head['hash']} is not in the journal")
    put_back(lived, now)
    assert lived.document("audit", "verify", "--head", head["hash"])["known_heads"] == [head["hash"]]


def test_two_rows_that_change_places_are_found(lived: Migration) -> None:
    """Digests and all: those of two chunks of one table are swapped, in the row and in the checklist's table."""
    for table, key, columns in (
        ("chunk", "audit_id", ("ledger_file", "ledger_sha256", "staged")),
        ("MIGRATION_AUDIT_LOG", "AUDIT_ID", ("SUCCESS_COUNT", "SOURCE_CHECKSUM", "SOURCE_COUNT")),
        ("sign_off", "sign_off_no", ("binds", "binds_sha256", "name")),
    ):
        with closing(sqlite3.connect(lived.audit_file)) as audit:
            rows = audit.execute(f"SELECT {key}, {', '.join(columns)} FROM {table} ORDER BY {key}").fetchall()
        one, two = next((a, b) for a in rows for b in rows if a[1:] != b[1:])
        sets = ", ".join(f"{column} = ?" for column in columns)
        for target, values in ((one[0], two[1:]), (two[0], one[1:])):
            assert change(lived, f"UPDATE {table} SET {sets} WHERE {key} = ?", *values, target) == 1
        assert len(prove(lived.plan).faults) >= 2
        for row in (one, two):
            change(lived, f"UPDATE {table} SET {sets} WHERE {key} = ?", *row[1:], row[0])
        assert prove(lived.plan).faults == ()


def test_a_plan_beside_another_in_one_database_proves_its_own_files(lived: Migration) -> None:
    """Two projects share the database and not the storage: what lies with the other is not lost."""
    other = lived.folder / "other.yaml"
    text = lived.plan.read_text(encoding="utf-8").replace("project: Retries", "project: Another")
    other.write_text(text + "staging: elsewhere/staging\n", encoding="utf-8")
    proof = prove(other)
    assert proof.faults == ()
    assert any("of project `Retries` are not in this storage" in note for note in proof.notes)
    # A file of one's own project that is not there is lost, wherever the plan says that it is.
    other.write_text(text.replace("Another", "Retries") + "staging: elsewhere/staging\n", encoding="utf-8")
    assert any("is lost" in fault for fault in prove(other).faults)
    shutil.rmtree(lived.folder / "elsewhere")
    other.unlink()


def cells() -> list[tuple[str, str]]:
    """Every column of every table but those that are exempt by name; the journal and its head are in it."""
    exempt = set(cover.EXEMPT_TABLES) - {"journal", "journal_head"}
    return [
        (table.name, str(column.name))
        for table in tables.metadata.sorted_tables
        for column in table.c
        if table.name not in exempt and (table.name, column.key) not in cover.EXEMPT_COLUMNS
    ]


STRANGE = (b"\xff\xfe", "", "[]", "x" * 5000, -1, 2**62, 1.5, None)
"""What somebody may write into a column of any kind: no UTF-8, nothing, other types, far too much."""


@pytest.mark.slow
def test_a_strange_value_in_any_column_of_any_row_is_found_and_ends_no_look(lived: Migration) -> None:
    """One value of each column gets two of the strange ones, by a seed; `prove` goes on to the end and tells it."""
    chance = random.Random(SEED)
    empty: set[str] = set()
    missed: list[Any] = []
    for table, column in cells():
        rows = values_of(lived, table, column)
        if not rows:
            empty.add(table)
            continue
        place, before = chance.choice(rows)
        for value in chance.sample(STRANGE, 3):
            if value == text(before):
                continue
            try:
                assert change(lived, f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', value, place) == 1
            except sqlite3.IntegrityError:
                continue  # the database itself does not let it in
            try:
                if not prove(lived.plan).faults:
                    missed.append((table, column, place, value))
            except ForceliftError as error:
                missed.append((table, column, place, value, error.message))
            finally:
                if not change(lived, f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', text(before), place):
                    # The column is the row's number itself.
                    change(lived, f'UPDATE "{table}" SET "{column}" = ? WHERE "{column}" IS ?', text(before), value)
    assert missed == []
    assert prove(lived.plan).faults == ()
    print("tables without a row here, which a unit test fills:", sorted(empty))


@pytest.mark.slow
def test_any_byte_of_any_file_is_found(lived: Migration) -> None:
    """Changed, put in, taken out, cut off: at places that a seed names, in every file of the state and every report."""
    chance = random.Random(SEED)
    for path in sealed(lived):
        before = path.read_bytes()
        for kind in ("flip", "insert", "delete", "cut"):
            content, place = bytearray(before), chance.randrange(len(before))
            if kind == "flip":
                content[place] ^= 1 << chance.randrange(8)
            elif kind == "insert":
                content.insert(place, chance.randrange(256))
            elif kind == "delete":
                del content[place]
            else:
                del content[place:]
            path.write_bytes(bytes(content))
            assert any(path.name in fault for fault in prove(lived.plan).faults), (SEED, path, kind, place)
        path.unlink()
        proof = prove(lived.plan)
        # Answers to jobs were settled, and earlier states of a ledger replaced: they may go, and are not told.
        may_go = path.name.startswith("answers.") or "/ledger/" in str(path)
        assert may_go or any(path.name in line for line in (*proof.faults, *proof.notes)), path
        path.write_bytes(before)
    assert prove(lived.plan).faults == ()


@pytest.mark.slow
def test_any_bit_of_the_database_file_is_found_or_holds_nothing(lived: Migration) -> None:
    """Bits of the raw file: either the look finds it, or every row that is covered is as it was."""
    with closing(sqlite3.connect(lived.audit_file)) as audit:
        audit.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file, chance = lived.audit_file, random.Random(SEED)
    before = file.read_bytes()
    expected, found = _dump(file), 0
    for _ in range(150):
        content, place = bytearray(before), chance.randrange(len(before))
        content[place] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(content))
        try:
            is_found = bool(prove(lived.plan).faults)
        except ForceliftError:
            is_found = True  # damaged, and said so
        found += is_found
        assert is_found or _dump(file) == expected, (SEED, place)
        for path in file.parent.glob("audit.db-[sw]*"):
            path.unlink()
    file.write_bytes(before)
    assert found > 20
    assert prove(lived.plan).faults == ()


def _dump(file: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(file)) as audit:
        audit.text_factory = bytes
        columns: dict[str, list[str]] = {}
        for table, column in cells():
            columns.setdefault(table, []).append(f'"{column}"')
        return {
            table: audit.execute(f'SELECT {", ".join(names)} FROM "{table}" NOT INDEXED').fetchall()
            for table, names in columns.items()
        }
