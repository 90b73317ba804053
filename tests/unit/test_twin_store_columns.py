"""How the twin's data file is set up for loads: threads of the database, and the stored form of columns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forcelift.twin.org import Options, TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.standard import with_standard_objects
from forcelift.twin.store import Store, database_threads

SCHEMA = {
    "objects": {
        "Item__c": {
            "fields": {
                "Kind__c": {"type": "picklist", "values": ["A", "B"]},
                "Text__c": {"type": "string", "length": 80},
            }
        }
    }
}


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_the_database_gets_half_of_the_cores(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert database_threads() == threads


def test_threads_that_somebody_chose_are_kept(tmp_path: Path) -> None:
    for chosen in (None, 3):
        store = Store(tmp_path / f"{chosen}.duckdb", threads=chosen)
        with store.read() as cursor:
            row = cursor.execute("SELECT current_setting('threads')").fetchone()
        store.close()
        assert row == (chosen or database_threads(),)


def memory_mb(org: TwinOrg) -> int:
    """What the database of the org may keep in memory, by DuckDB's own word, in millions of bytes."""
    with org.cursor() as cursor:
        row = cursor.execute("SELECT current_setting('memory_limit')").fetchone()
    assert row is not None
    number, unit = str(row[0]).split()
    return round(float(number) * {"MiB": 2**20, "GiB": 2**30}[unit] / 1e6)


def wide(count: int) -> Schema:
    fields = {f"Text{number}__c": {"type": "string", "length": 80} for number in range(count)}
    return schema_from_dict({"objects": {"Item__c": {"fields": fields}}})


def test_memory_of_a_file_is_bounded_by_its_widest_object(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    bounds = []
    for count in (300, 500):
        with TwinOrg.open(path, schema=wide(count)) as org:
            entry = org.schema.object("Item__c")
            assert entry is not None
            bounds.append((memory_mb(org), len(entry.stored_fields)))
    (smaller, few), (larger, many) = bounds
    assert many - few == 200
    assert larger - smaller == 200
    assert smaller == 256 + few


def test_memory_that_somebody_chose_and_that_of_an_org_in_memory_are_left_alone(tmp_path: Path) -> None:
    with TwinOrg.open(tmp_path / "org.duckdb", schema=wide(1), options=Options(memory_mb=700)) as org:
        assert memory_mb(org) == 700
    with TwinOrg.open(schema=wide(1)) as org:
        assert memory_mb(org) == 1024


def test_a_field_made_while_the_org_runs_moves_the_bound(tmp_path: Path) -> None:
    with TwinOrg.open(tmp_path / "org.duckdb", schema=wide(400)) as org:
        before = memory_mb(org)
        with org.schema_lock:
            org.change_schema(with_standard_objects(wide(410)))
        assert memory_mb(org) == before + 10


def test_columns_of_repeated_values_are_dictionaries_and_survive(tmp_path: Path) -> None:
    path = tmp_path / "org.duckdb"
    rows = "".join(f"{'AB'[number % 2]},ข้าว {number}\n" for number in range(4_000))
    with TwinOrg.open(path, schema=schema_from_dict(SCHEMA), options=Options(threads=1)) as org:
        job = org.jobs.create({"object": "Item__c", "operation": "insert"}, org.users[0])["id"]
        org.jobs.put_content(job, [f"Kind__c,Text__c\n{rows}".encode()])
        org.jobs.patch(job, "UploadComplete")
        assert org.run_until_idle() == 4_000
        with org.store.read() as cursor:
            cursor.execute("CHECKPOINT")
            found = cursor.execute(
                "SELECT column_name, compression FROM pragma_storage_info('data.Item__c') "
                "WHERE segment_type = 'VARCHAR'"
            ).fetchall()
    forms = {(str(name), str(form).lower()) for name, form in found}
    assert {("Kind__c", "dict_fsst"), ("OwnerId", "dict_fsst"), ("Text__c", "zstd")} <= forms
    with TwinOrg.open(path) as org, org.store.read() as cursor:
        query = "SELECT Kind__c, count(*), count(DISTINCT Text__c) FROM data.Item__c GROUP BY 1 ORDER BY 1"
        kept = cursor.execute(query)
        assert kept.fetchall() == [("A", 2_000, 2_000), ("B", 2_000, 2_000)]
