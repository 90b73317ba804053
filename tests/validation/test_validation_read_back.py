"""While a batch goes on, a few records of each settled chunk are read back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from tests.validation.damage_world import DamageWorld, damage_world
from tests.validation.little_world import SCHEMA, little_world

from forcelift.account.recorded import batch_summary, open_recorded
from forcelift.after.validate import read_back
from forcelift.after.validate.read_back import RECORDS, ReadBack
from forcelift.after.validate.world import ValidateSettings
from forcelift.ledger import ACCEPTED
from forcelift.validating.batch import open_world

ROWS = 150


def journaled(folder: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{folder / 'state' / 'audit.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT payload FROM journal WHERE action = 'read_back' ORDER BY seq").fetchall()
    return [json.loads(payload) for (payload,) in rows]


def first_row(world: DamageWorld, chunk_no: int) -> int:
    """The number of the first accepted row of a chunk, which is always among those that are read back."""
    with open_recorded(world.plan) as (_, state):
        batch = state.audit.newest_batch()
        assert batch is not None
        chunk = state.audit.chunks(batch.batch_id, "sales")[chunk_no - 1]
        assert chunk.ledger_file is not None
        key = state.ledger.accepted_keys([chunk.ledger_file]).collect()["key"][0]
    return int(key.removeprefix("S"))


def look(world: DamageWorld, *, rows_min: int) -> None:
    """Read all chunks of the batch back, as its settling did."""
    with open_world(world.plan, None, ValidateSettings(levels=(5,))) as opened:
        reads = ReadBack(org=opened.org, audit=opened.audit, parent_keys=opened.parent_keys, rows_min=rows_min)
        for chunk in opened.audit.chunks(opened.batch.batch_id, "sales"):
            assert chunk.ledger_file is not None
            accepted = opened.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED)).collect()
            reads(chunk, opened.works["sales"], accepted.select("id", "hash"), accepted=accepted.height)
        reads.finish()


def test_records_of_each_settled_chunk_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links included; a record changed in the meantime is counted, journaled and shown, and named by nobody."""
    monkeypatch.setattr(read_back, "ROWS_MIN", 1)
    with damage_world(tmp_path, rows=ROWS, chunk_rows=60) as world:
        clean = journaled(tmp_path)
        assert [(one["table"], one["records"], one["missing"], one["differ"]) for one in clean] == [
            ("shops", RECORDS, 0, 0),
            *[("sales", RECORDS, 0, 0)] * 3,
        ]
        assert batch_summary(world.plan).notes == ()
        first, second = (world.sale(first_row(world, chunk_no)) for chunk_no in (1, 2))
        world.change(first["Id"], {"Title__c": "changed by an automation"})
        world.delete(second["Id"])
        look(world, rows_min=1)
        wrong = journaled(tmp_path)[len(clean) :]
        assert [(one["missing"], one["differ"]) for one in wrong] == [(0, 1), (1, 0), (0, 0)]
        assert set(wrong[0]) == {"table", "chunk", "records", "missing", "differ"}
        (note,) = batch_summary(world.plan).notes
        assert "of the records read back 2 are not as they were sent (`sales` chunk 1, `sales` chunk 2)" in note
        with open_recorded(world.plan) as (_, state):
            assert state.audit.verify_journal() == []


def test_chunks_share_a_call_but_for_the_first(tmp_path: Path) -> None:
    """Fifteen chunks: the first at once, twelve together, and the two that are left when no more come."""

    class Counting:
        """The org, and how many records were asked for in each query."""

        def __init__(self, org: Any) -> None:
            self._org = org
            self.asked: list[int] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._org, name)

        def query(self, soql: str) -> Any:
            self.asked.append(soql.count("','") + 1)
            return self._org.query(soql)

    with damage_world(tmp_path, rows=300, chunk_rows=20) as world:
        with open_world(world.plan, None, ValidateSettings(levels=(5,))) as opened:
            org = Counting(opened.org)
            reads = ReadBack(
                org=org,  # type: ignore[arg-type]  # what it lacks is asked of the real one
                audit=opened.audit,
                parent_keys=opened.parent_keys,
                rows_min=1,
            )
            for chunk in opened.audit.chunks(opened.batch.batch_id, "sales"):
                assert chunk.ledger_file is not None
                accepted = opened.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED)).collect()
                reads(chunk, opened.works["sales"], accepted.select("id", "hash"), accepted=accepted.height)
            assert len(org.asked) == 2
            reads.finish()
            reads.finish()
        looks = journaled(tmp_path)
        assert [one["chunk"] for one in looks] == list(range(1, 16))
        assert {(one["missing"], one["differ"]) for one in looks} == {(0, 0)}
        read = [one["records"] for one in looks]
        assert org.asked == [read[0], sum(read[1:13]), sum(read[13:])]


def test_a_small_chunk_is_not_worth_a_call(tmp_path: Path) -> None:
    with damage_world(tmp_path, rows=60, chunk_rows=60) as world:
        assert journaled(tmp_path) == []
        look(world, rows_min=60)
        assert journaled(tmp_path) == []
        look(world, rows_min=59)
        assert len(journaled(tmp_path)) == 1


def test_an_org_that_does_not_answer_fails_nothing(tmp_path: Path) -> None:
    class Silent:
        """The org, which answers no queries."""

        def __init__(self, org: Any) -> None:
            self._org = org

        def __getattr__(self, name: str) -> Any:
            return getattr(self._org, name)

        def query(self, soql: str) -> Any:
            from forcelift.errors import OrgUnavailable

            raise OrgUnavailable("the line is cut")

    with damage_world(tmp_path, rows=60, chunk_rows=60) as world:
        with open_world(world.plan, None, ValidateSettings(levels=(5,))) as opened:
            reads = ReadBack(
                org=Silent(opened.org),  # type: ignore[arg-type]  # what it lacks is asked of the real one
                audit=opened.audit,
                parent_keys=opened.parent_keys,
                rows_min=1,
            )
            (chunk,) = opened.audit.chunks(opened.batch.batch_id, "sales")
            assert chunk.ledger_file is not None
            accepted = opened.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED)).collect()
            reads(chunk, opened.works["sales"], accepted.select("id", "hash"), accepted=accepted.height)
        (row,) = journaled(tmp_path)
        assert (row["records"], row["reason"]) == (0, "OrgUnavailable")
        assert batch_summary(world.plan).notes == ()
        assert httpx.codes.is_success(world.client.get("/services/data").status_code)


def test_an_automation_that_changes_records_is_seen_while_the_batch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The org fills a field of each record as it saves it: the first chunk's look tells before the last is sent."""
    monkeypatch.setattr(read_back, "ROWS_MIN", 1)
    fill = {"effect": "fill", "field": "Day__c", "value": "2001-02-03"}
    trigger = {"name": "Fills", "object": "Thing__c", "events": ["before insert"], "effects": [fill]}
    with closing(sqlite3.connect(tmp_path / "source.db")) as source:
        source.execute("CREATE TABLE things (code TEXT PRIMARY KEY, text TEXT, day DATE)")
        source.executemany("INSERT INTO things VALUES (?, ?, NULL)", [(f"K{n:03d}", f"text {n}") for n in range(300)])
        source.commit()
    with little_world(tmp_path, schema={**SCHEMA, "automations": {"triggers": [trigger]}}) as world:
        fields = "{text: {field: Text__c, personal: false}, day: Day__c}"
        world.write_plan(f"sqlite:///{tmp_path}/source.db", fields=fields, chunk_rows=50)
        with world.plan.open("a", encoding="utf-8") as plan:
            plan.write("limits: {parallel_jobs: 1}\n")
        screen = world.run()
        looks = journaled(tmp_path)
        assert [(one["records"], one["missing"], one["differ"]) for one in looks] == [(RECORDS, 0, RECORDS)] * 6
        assert "of the records read back 120 are not as they were sent" in screen.out + screen.err
        with closing(sqlite3.connect(f"file:{tmp_path / 'state' / 'audit.db'}?mode=ro", uri=True)) as audit:
            ((first,),) = audit.execute("SELECT min(at) FROM journal WHERE action = 'read_back'").fetchall()
            ((closed,),) = audit.execute("SELECT max(closed_at) FROM job").fetchall()
        assert datetime.fromisoformat(str(first)) < datetime.fromisoformat(f"{closed}+00:00")
        # Level 5 says the same of all of them, and names the field.
        proved = world.validate("--level", "5")
        (records,) = [one for one in proved.document["checks"] if one["check"] == "records"]
        assert records["difference"] == "300"
        assert {(one["field"], one["source"], one["target"]) for one in records["examples"]} == {
            ("Day__c", None, "***")
        }
