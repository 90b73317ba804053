"""`forcelift backup` on every kind of source: what the database then holds is asked of the database."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
from tests.integration.cli_migration import Migration

from forcelift.before.backup import BackupPlanned, DropDecision, check_room_of_all
from forcelift.cli.main import run_command
from forcelift.errors import SourceError, SourceUnavailable, StateConflict, StorageError, UsageError
from forcelift.preflight.backing_up import BackupSettings, back_up, drop_backups, list_backups
from forcelift.protocols.backups import Room

pytest_plugins = ["tests.postgres_support"]

ROWS, WITHIN = 100, 60
PLAN = """\
version: 1
project: Backup test
source: {{url: "{url}"}}
target: {{url: "twin:./org.duckdb"}}
tables:
  - table: sales
    object: Sale__c
    key: sale_id
    external_id: Sale__c
    where: sale_id < 60
    fields: {{note: Name}}
"""
RANGE = f"WITH RECURSIVE r (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM r WHERE i < {ROWS - 1})"


class Clock:
    """A clock that stands."""

    def __init__(self, now: datetime) -> None:
        self.present = now

    def now(self) -> datetime:
        return self.present

    def monotonic(self) -> float:
        return self.present.timestamp()

    def sleep(self, seconds: float) -> None:
        self.present += timedelta(seconds=seconds)


NOON = datetime(2024, 1, 15, 5, tzinfo=UTC)
NAME = f"sales_BKP_{NOON.astimezone():%Y%m%d}"


class Place:
    """A source, its plan, and a way to ask it that is not the tool's."""

    def __init__(self, folder: Path, url: str, ask: Callable[[str], list[Any]]) -> None:
        self.ask = ask
        self.plan = folder / "forcelift.yaml"
        self.plan.write_text(PLAN.format(url=url), encoding="utf-8")

    def recorded(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.plan.parent / "state" / "audit.db")) as audit:
            query = "SELECT TABLE_NAME, BACKUP_TABLE, ROW_COUNT, DROPPED_DATE IS NULL FROM MIGRATION_BACKUP_LOG"
            return audit.execute(query).fetchall()


def _sqlite(folder: Path) -> Place:
    def ask(query: str) -> list[Any]:
        with closing(sqlite3.connect(folder / "s.db")) as connection:
            rows = connection.execute(query).fetchall()
            connection.commit()
            return rows

    ask(f"CREATE TABLE sales AS {RANGE} SELECT i AS sale_id, 'หมายเหตุ ' || i AS note FROM r")
    return Place(folder, "sqlite:///s.db", ask)


def _duckdb(folder: Path) -> Place:
    def ask(query: str) -> list[Any]:
        with duckdb.connect(str(folder / "s.duckdb")) as connection:
            return connection.execute(query).fetchall()

    ask(f"CREATE TABLE sales AS SELECT i AS sale_id, 'หมายเหตุ ' || i AS note FROM range({ROWS}) AS r(i)")
    return Place(folder, "duckdb:///s.duckdb", ask)


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return _sqlite(tmp_path)
    if request.param == "duckdb":
        return _duckdb(tmp_path)
    postgres, name = request.getfixturevalue("postgres"), request.getfixturevalue("database")

    def ask(query: str) -> list[Any]:
        with psycopg.connect(postgres.dsn(name), autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    ask(f"CREATE TABLE sales AS {RANGE} SELECT i AS sale_id, 'หมายเหตุ ' || i AS note FROM r")
    return Place(tmp_path, postgres.plan_url(name), ask)


def test_a_copy_within_the_plans_filter_is_counted_and_recorded(place: Place) -> None:
    report = back_up(place.plan, clock=Clock(NOON))
    ((planned, copied),) = [(one.planned, one.copied) for one in report.made]
    assert (planned.name, copied.rows, copied.source_rows, copied.is_one_state) == (NAME, WITHIN, WITHIN, True)
    assert place.ask(f'SELECT count(*), min(sale_id), max(sale_id) FROM "{NAME}"') == [(WITHIN, 0, WITHIN - 1)]
    assert place.ask(f'SELECT count(*) FROM "{NAME}" b JOIN sales s ON s.sale_id = b.sale_id AND s.note = b.note') == [
        (WITHIN,)
    ]
    assert place.recorded() == [("sales", NAME, WITHIN, 1)]
    assert [row.created_date for row in list_backups(place.plan)] == [NOON]


def test_nothing_is_overwritten(place: Place) -> None:
    back_up(place.plan, clock=Clock(NOON))
    place.ask(f'DELETE FROM "{NAME}" WHERE sale_id = 7')
    with pytest.raises(StateConflict, match=NAME):
        back_up(place.plan, clock=Clock(NOON))
    assert place.ask(f'SELECT count(*) FROM "{NAME}"') == [(WITHIN - 1,)]
    back_up(place.plan, BackupSettings(name="sales_second", all_rows=True), clock=Clock(NOON))
    assert place.ask("SELECT count(*) FROM sales_second") == [(ROWS,)]


@pytest.mark.parametrize("end", ["1 = 1) ; DROP TABLE sales; --", "1 = 1); CREATE TABLE planted AS SELECT (1"])
def test_a_condition_is_one_condition(place: Place, end: str) -> None:
    text = place.plan.read_text(encoding="utf-8").replace("where: sale_id < 60", f'where: "{end}"')
    place.plan.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError):
        back_up(place.plan, clock=Clock(NOON))
    assert place.ask("SELECT count(*) FROM sales") == [(ROWS,)]
    assert place.recorded() == []
    place.ask(f'CREATE TABLE "{NAME}" AS SELECT 1 AS one')  # there is none yet
    place.ask("CREATE TABLE planted AS SELECT 1 AS one")


def test_ctrl_c_in_the_middle_of_a_duckdb_copy_leaves_nothing(tmp_path: Path) -> None:
    place = _duckdb(tmp_path)
    place.ask("CREATE TABLE digits AS SELECT range AS d FROM range(2000)")
    # A condition that takes minutes, so that the signal comes while the copy is made.
    slow = "(SELECT count(*) FROM digits a, digits b, digits c WHERE a.d * b.d % 7 = c.d % 5) > sale_id"
    text = place.plan.read_text(encoding="utf-8").replace("where: sale_id < 60", f'where: "{slow}"')
    place.plan.write_text(text, encoding="utf-8")
    process = _started(tmp_path)
    assert process.stderr is not None
    assert "copying sales" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "bug" not in err
    assert place.ask("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%BKP%'") == [(0,)]
    assert place.recorded() == []


def test_two_backups_at_once_make_one_copy(place: Place) -> None:
    started = [_started(place.plan.parent) for _ in range(2)]
    ends = [one.communicate(timeout=120)[1] for one in started]
    assert sorted(one.returncode == 0 for one in started) == [False, True], ends
    ((table, name, rows, is_there),) = place.recorded()
    assert (table, rows, is_there) == ("sales", WITHIN, 1)
    assert place.ask(f'SELECT count(*) FROM "{name}"') == [(WITHIN,)]
    assert not [err for err in ends if "Traceback" in err], ends


def test_two_backups_of_files_at_once_make_one_whole_copy(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i AS sale_id, 'x' AS note FROM range({ROWS}) r(i)) TO '{tmp_path}/data/sales.parquet'"
        )
    text = PLAN.format(url="files:./data").replace("    where: sale_id < 60\n", "")
    (tmp_path / "forcelift.yaml").write_text(text, encoding="utf-8")
    started = [_started(tmp_path) for _ in range(3)]
    ends = [one.communicate(timeout=120)[1] for one in started]
    assert sorted(one.returncode == 0 for one in started) == [False, False, True], ends
    (recorded,) = list_backups(tmp_path / "forcelift.yaml")
    assert recorded.row_count == ROWS
    report = drop_backups(
        tmp_path / "forcelift.yaml", older_than_days=0, clock=Clock(datetime.now(UTC) + timedelta(days=1))
    )
    assert [one.decision for one in report.items] == [DropDecision.DROP], "its checksums hold"
    assert not list(tmp_path.rglob("*.tmp"))


def _started(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "forcelift", "backup"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_old_copies_are_shown_then_dropped_and_changed_ones_are_kept(place: Place) -> None:
    back_up(place.plan, clock=Clock(NOON))
    back_up(place.plan, BackupSettings(name="sales_changed"), clock=Clock(NOON))
    back_up(place.plan, BackupSettings(name="sales_gone"), clock=Clock(NOON))
    place.ask("DELETE FROM sales_changed WHERE sale_id = 7")
    place.ask("DROP TABLE sales_gone")
    later = Clock(NOON + timedelta(days=31))
    back_up(place.plan, BackupSettings(name="sales_young"), clock=later)
    shown = drop_backups(place.plan, older_than_days=30, clock=later)
    decisions = {one.backup.backup_table: one.decision for one in shown.items}
    assert decisions == {
        NAME: DropDecision.DROP,
        "sales_changed": DropDecision.CHANGED,
        "sales_gone": DropDecision.GONE,
    }
    assert place.ask(f'SELECT count(*) FROM "{NAME}"') == [(WITHIN,)], "shown, not done"
    drop_backups(place.plan, older_than_days=30, execute=True, clock=later)
    with pytest.raises(Exception, match=NAME):
        place.ask(f'SELECT count(*) FROM "{NAME}"')
    assert place.ask("SELECT count(*) FROM sales_changed") == [(WITHIN - 1,)]
    assert place.ask("SELECT count(*) FROM sales_young") == [(WITHIN,)]
    assert {name for _, name, _, is_there in place.recorded() if is_there} == {"sales_changed", "sales_young"}


def test_copies_that_others_recorded_are_never_dropped(place: Place) -> None:
    back_up(place.plan, clock=Clock(NOON))
    with closing(sqlite3.connect(place.plan.parent / "state" / "audit.db")) as audit:
        audit.execute(
            "INSERT INTO MIGRATION_BACKUP_LOG (TABLE_NAME, BACKUP_TABLE, ROW_COUNT, CREATED_DATE)"
            " VALUES ('sales', 'sales', 100, '2020-01-01 00:00:00.000000')"
        )
        audit.commit()
    report = drop_backups(place.plan, older_than_days=0, execute=True, clock=Clock(NOON + timedelta(days=1)))
    decisions = {one.backup.backup_table: one.decision for one in report.items}
    assert decisions["sales"] is DropDecision.OTHERS
    assert place.ask("SELECT count(*) FROM sales") == [(ROWS,)]


def test_a_fault_leaves_neither_copy_nor_record(place: Place) -> None:
    place.plan.write_text(place.plan.read_text().replace("sale_id < 60", "no_such_column < 60"))
    with pytest.raises(SourceError, match="no_such_column"):
        back_up(place.plan, clock=Clock(NOON))
    assert place.recorded() == []
    back_up(place.plan, BackupSettings(all_rows=True), clock=Clock(NOON))
    assert place.ask(f'SELECT count(*) FROM "{NAME}"') == [(ROWS,)]


def test_too_little_room_is_told_before_anything_is_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
    with pytest.raises(StateConflict, match="free"):
        back_up(place.plan, clock=Clock(NOON))
    assert place.recorded() == []
    back_up(place.plan, BackupSettings(check_room=False), clock=Clock(NOON))
    assert place.recorded() == [("sales", NAME, WITHIN, 1)]


def test_copies_that_fit_one_by_one_and_not_together_are_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    place = _sqlite(tmp_path)
    place.ask(f"CREATE TABLE other AS {RANGE} SELECT i AS sale_id, printf('%0200d', i) AS note FROM r")
    text = place.plan.read_text(encoding="utf-8")
    again = text[text.index("  - table:") :].replace("table: sales", "table: other")
    place.plan.write_text(text + again, encoding="utf-8")
    sizes = [
        size for (size,) in place.ask("SELECT sum(pgsize) FROM dbstat WHERE name IN ('sales', 'other') GROUP BY name")
    ]
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=int(max(sizes) * 1.1)))
    with pytest.raises(StateConflict, match="copies of 2 tables may need"):
        back_up(place.plan, clock=Clock(NOON))
    assert place.recorded() == []
    assert place.ask("SELECT count(*) FROM sqlite_master WHERE name LIKE '%BKP%'") == [(0,)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=int(sum(sizes) * 1.1)))
    assert len(back_up(place.plan, clock=Clock(NOON)).made) == 2


def test_room_for_all_is_told_by_place_and_no_more_than_a_whole_file() -> None:
    def planned(needed: int | None, free: int | None, where: str = "a disk", most: int | None = None) -> BackupPlanned:
        room = Room(needed=needed, free=free, where=where, needed_by_all=most)
        return BackupPlanned(table="t", name="n", where=None, room=room)

    check_room_of_all([planned(60, 100), planned(30, 100)])
    check_room_of_all([planned(60, 100), planned(60, 100, where="another")])
    check_room_of_all([planned(60, 100, most=60), planned(60, 100, most=60)])
    check_room_of_all([planned(60, None), planned(60, None), planned(None, 10, where="another")])
    with pytest.raises(StateConflict):
        check_room_of_all([planned(60, 100), planned(40, 100)])


def test_a_copy_that_cannot_be_recorded_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from forcelift.audit.store import AuditStore

    def fails(self: AuditStore, **values: object) -> None:
        raise StorageError("the disk is full", state="nothing was recorded")

    monkeypatch.setattr(AuditStore, "add_backup", fails)
    with pytest.raises(StateConflict, match="could not be recorded") as caught:
        back_up(place.plan, clock=Clock(NOON))
    assert NAME in (caught.value.hint or "")
    assert place.ask(f'SELECT count(*) FROM "{NAME}"') == [(WITHIN,)]


def test_mistakes(place: Place) -> None:
    for settings in (BackupSettings(tables=("nobody",)), BackupSettings(flashback="123")):
        with pytest.raises(UsageError):
            back_up(place.plan, settings, clock=Clock(NOON))
    assert not (place.plan.parent / "state" / "audit.db").exists() or place.recorded() == []


def test_a_database_that_others_write_to_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _sqlite(tmp_path)
    monkeypatch.setattr("forcelift.source.backup_sqlite._BUSY_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceUnavailable, match="another program"):
            back_up(place.plan, clock=Clock(NOON))
        other.execute("ROLLBACK")
    back_up(place.plan, clock=Clock(NOON))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "sales"
    folder.mkdir(parents=True)
    for number in range(2):
        lines = "".join(f"{i},ยอด {i}\n" for i in range(number * 50, number * 50 + 50))
        (folder / f"{number}.csv").write_text("sale_id,note\n" + lines, encoding="utf-8")
    (tmp_path / "forcelift.yaml").write_text(PLAN.format(url="files:./data"), encoding="utf-8")
    return tmp_path / "forcelift.yaml"


def test_files_are_copied_whole_with_checksums(files: Path) -> None:
    (made,) = back_up(files, clock=Clock(NOON)).made
    copy = files.parent / "state" / "staging" / "backups" / NAME
    assert made.copied.rows == ROWS
    assert made.planned.where is None, "files are copied whole"
    for number in range(2):
        original = files.parent / "data" / "sales" / f"{number}.csv"
        assert (copy / f"{number}.csv").read_bytes() == original.read_bytes()
        assert (copy / f"{number}.csv").stat().st_mode & 0o777 == 0o600
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["sha256"]) == {"0.csv", "1.csv"}
    with pytest.raises(StateConflict):
        back_up(files, clock=Clock(NOON))


def test_a_copy_of_files_that_was_changed_is_not_dropped(files: Path) -> None:
    back_up(files, clock=Clock(NOON))
    back_up(files, BackupSettings(name="other"), clock=Clock(NOON))
    folder = files.parent / "state" / "staging" / "backups"
    with (folder / NAME / "0.csv").open("ab") as file:
        file.write(b"9999,x\n")
    report = drop_backups(files, older_than_days=1, execute=True, clock=Clock(NOON + timedelta(days=2)))
    decisions = {one.backup.backup_table: one.decision for one in report.items}
    assert decisions == {NAME: DropDecision.UNREADABLE, "other": DropDecision.DROP}
    assert (folder / NAME).exists()
    assert not (folder / "other").exists()


@pytest.mark.parametrize("name", ["../outside", ".hidden", "a/b"])
def test_a_copy_of_files_stays_in_its_folder(files: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no name of a folder"):
        back_up(files, BackupSettings(name=name), clock=Clock(NOON))


def test_the_command(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.plan.parent)
    migration = Migration(folder=place.plan.parent, org=None, server=None)  # type: ignore[arg-type]  # none is needed
    document = migration.document("backup", "--name", "kept")
    assert document["backups"][0]["rows"] == WITHIN
    assert "kept" in migration.run("backup", "--list").stdout
    assert migration.run("backup", "--execute").returncode == 2
    shown = migration.run("backup", "--drop-older-than", "0")
    assert "Nothing was dropped" in shown.stdout
    assert run_command(["backup", "--drop-older-than", "0", "--execute"]) == 0
    with pytest.raises(Exception, match="kept"):
        place.ask("SELECT 1 FROM kept")
