"""The reading of an object: it goes on where it was broken off, by the same query, and begins again where it must."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from msgspec.structs import replace
from tests.scenarios.scenario_support import Project as ScenarioProject
from tests.scenarios.scenario_support import make_sqlite, run_words
from tests.validation.damage_world import DamageWorld, damage_world

from forcelift.after.validate.aggregates import variance_percent
from forcelift.after.validate.checks import CheckStatus, minus, percent, plain
from forcelift.after.validate.execute import TableValidation
from forcelift.after.validate.org_scan import OrgScan, page_rows_for
from forcelift.after.validate.sent_rows import SentRows
from forcelift.after.validate.world import ValidateSettings, ValidateWorld
from forcelift.errors import ExitCode, OrgUnavailable
from forcelift.protocols.org import Org
from forcelift.protocols.source import AnswersSql
from forcelift.source import open_source
from forcelift.validating.batch import open_world

ROWS = 300
PAGE = 10


class BrokenOff:
    """The org, of which only so many pages can be had."""

    def __init__(self, org: Org, pages: int) -> None:
        self._org, self._left = org, pages
        self.begun: list[str] = []
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._org, name)

    def begin_query(self, soql: str) -> str:
        self.asked.append(soql)
        self.begun.append(self._org.begin_query(soql))
        return self.begun[-1]

    def query_page(self, job_id: str, locator: str | None, *, rows: int) -> tuple[bytes, str | None]:
        if self._left == 0:
            raise OrgUnavailable("the line is cut")
        self._left -= 1
        return self._org.query_page(job_id, locator, rows=rows)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DamageWorld]:
    with damage_world(tmp_path_factory.mktemp("scan"), rows=ROWS, chunk_rows=200) as made:
        yield made


@pytest.fixture
def world(loaded: DamageWorld) -> Iterator[ValidateWorld]:
    with open_world(loaded.plan, None, ValidateSettings(levels=(5,), tables=("sales",))) as opened:
        yield opened


def scanner(world: ValidateWorld, org: Any, *, keep: tuple[str, ...] = ("Amount__c",), hashed: bool = True) -> OrgScan:
    shape = TableValidation(world, "sales").shape
    return OrgScan(
        org=org,
        storage=world.storage,
        clock=world.clock,
        batch_id=world.batch.batch_id,
        shape=shape,
        keep=keep,
        hashed=hashed,
        page_rows=PAGE,
    )


def read(world: ValidateWorld, files: list[str]) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(world.storage.path(name)) for name in files]).sort("id")


def test_an_interrupted_reading_goes_on_with_the_same_query(world: ValidateWorld) -> None:
    whole = scanner(world, BrokenOff(world.org, 10_000))
    expected = read(world, whole.read().files)
    whole.remove()
    assert expected.height == ROWS - 1
    assert expected["id"].n_unique() == ROWS - 1
    # 299 rows are 30 pages, eight of them a file: the first two files are sealed when the 20th page fails.
    first = BrokenOff(world.org, 20)
    with pytest.raises(OrgUnavailable):
        scanner(world, first).read()
    second = BrokenOff(world.org, 14)
    again = scanner(world, second)
    scan = again.read()
    assert second.begun == []
    assert scan.job_id == first.begun[0]
    assert read(world, scan.files).equals(expected)
    again.remove()


def test_levels_that_need_no_hash_ask_for_their_fields_alone(world: ValidateWorld) -> None:
    org = BrokenOff(world.org, 10_000)
    whole, narrow = scanner(world, org), scanner(world, org, hashed=False)
    with_hash = read(world, whole.read().files)
    whole.remove()
    alone = read(world, narrow.read().files)
    narrow.remove()
    assert org.asked[1] == "SELECT Id, CreatedDate, Key__c, Amount__c FROM Sale__c"
    assert "Note__c" in org.asked[0]
    assert alone.equals(with_hash.drop("hash"))


def test_aggregates_alone_ask_for_no_text_fields(loaded: DamageWorld) -> None:
    asked: list[str] = []
    with open_world(loaded.plan, None, ValidateSettings(levels=(1, 2, 3, 4), tables=("sales",))) as opened:
        spy = BrokenOff(opened.org, 10_000)
        checks = TableValidation(replace(opened, org=spy), "sales").run()
        asked += spy.asked
    assert {check.status for check in checks} <= {CheckStatus.PASSED, CheckStatus.NOT_CHECKED, CheckStatus.DRIFT}
    (soql,) = [one for one in asked if "CreatedDate" in one]
    assert "Amount__c" in soql
    assert "Note__c" not in soql


def test_rows_picked_out_of_a_chunk_do_not_keep_the_others_in_memory(loaded: DamageWorld) -> None:
    with open_world(loaded.plan, None, ValidateSettings(levels=(3,), tables=("sales",))) as opened:
        rows = SentRows(opened, "sales")
        chunk = opened.audit.chunks(opened.batch.batch_id, "sales")[0]
        everything = rows.of_chunk(chunk).rows
        few = rows.of_chunk(chunk, among=everything["id"][:3])
    assert few.rows.height == 3
    same = everything.join(few.rows, on="id", how="semi")
    assert few.rows.sort("id").equals(same.sort("id"))
    assert held_bytes(few.rows) < held_bytes(everything) / 10


def held_bytes(frame: pl.DataFrame) -> int:
    """All memory that a frame's texts point into."""
    return sum(
        buffer.size
        for values in frame
        for part in [values.to_arrow(compat_level=pl.CompatLevel.newest())]
        for buffer in part.buffers()
        if buffer is not None
    )


def test_a_reading_of_other_fields_or_of_a_job_that_is_gone_begins_again(world: ValidateWorld) -> None:
    first = BrokenOff(world.org, 9)
    with pytest.raises(OrgUnavailable):
        scanner(world, first).read()
    other = BrokenOff(world.org, 10_000)
    with pytest.raises(OrgUnavailable):
        scanner(world, BrokenOff(world.org, 0), keep=("Rate__c",)).read()
    # The job of that last one is deleted behind our back, as the org does after seven days.
    (job,) = [path for path in world.storage.list(f"validate/{world.batch.batch_id}") if path.endswith("scan.json")]
    with world.storage.open(job) as file:
        job_id = file.read().decode().split('"job_id": "')[1][:18]
    world.org.finish_query(job_id)
    world.org.drop_query(job_id)
    last = scanner(world, other, keep=("Rate__c",))
    scan = last.read()
    assert len(other.begun) == 1
    assert scan.rows == ROWS - 1
    last.remove()


def test_pages_are_smaller_where_rows_are_wide_or_memory_is_small() -> None:
    assert page_rows_for(2048, rows=1000, csv_bytes=300_000) == 50_000
    assert page_rows_for(512, rows=1000, csv_bytes=2_000_000) == 8_388
    assert page_rows_for(256, rows=10, csv_bytes=10_000_000) == 2_000
    assert page_rows_for(1024, rows=0, csv_bytes=0) == 50_000


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (9_999_991, 10_000_000, "99.9999"),
        (10, 10, "100"),
        (0, 5, "0"),
        (1, 10**9, "0.0001"),
        (1, 3, "33.3333"),
        (1, 0, "-"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(part: int, whole: int, shown: str) -> None:
    assert percent(part, whole) == shown


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("-100", "-100.01", Decimal("0.01")),
        ("100", "99.99", Decimal("0.01")),
        ("0", "0", Decimal(0)),
        ("0", "1", None),
        (None, None, Decimal(0)),
        (None, "0", None),
        ("0", None, None),
        ("12345678901234567890123456789.01", "12345678901234567890123456789.01", Decimal(0)),
    ],
)
def test_a_variance_knows_negative_totals_and_missing_ones(
    source: str | None, target: str | None, expected: Decimal | None
) -> None:
    one, other = (None if text is None else Decimal(text) for text in (source, target))
    assert variance_percent(one, other) == expected


def test_long_totals_are_subtracted_exactly() -> None:
    one, other = Decimal("123456789012345678901234567890.12"), Decimal("123456789012345678901234567890.11")
    assert plain(minus(one, other)) == "0.01"


def test_sources_answer_queries_of_the_plan_and_write_nothing(tmp_path: Path) -> None:
    script = "CREATE TABLE t (a INTEGER, b VARCHAR); INSERT INTO t VALUES (1, 'x'), (2, 'O''Neil'), (3, NULL);"
    make_sqlite(ScenarioProject(tmp_path), script)
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute(script)
    for url in (f"sqlite:///{tmp_path}/source.db", f"duckdb:///{tmp_path}/source.duckdb"):
        source = open_source(url)
        assert isinstance(source, AnswersSql)
        assert source.ask("SELECT b, a FROM t ORDER BY a", rows_max=2) == [("x", 1), ("O'Neil", 2)]
        with pytest.raises(Exception, match="read"):
            source.ask("DELETE FROM t", rows_max=1)
        source.close()


NULLS = """\
version: 1
project: Nulls
source: {url: "duckdb:///source.duckdb"}
target: {url: "twin:./org.duckdb", twin_schema: schema.yaml}
tables:
  - table: t
    object: Thing__c
    key: code
    external_id: Code__c
    nulls: leave
    fields: {name: {field: Name, personal: false}, size: Size__c}
"""
SCHEMA = """\
objects:
  Thing__c:
    fields:
      Name: {type: string}
      Code__c: {type: string, externalId: true, unique: true}
      Size__c: {type: double, precision: 8, scale: 0}
"""


def test_fields_that_the_plan_leaves_alone_are_not_compared(tmp_path: Path) -> None:
    """`nulls: leave` does not send a null, so what the org has there is its own; what was sent is compared."""
    plan = tmp_path / "forcelift.yaml"
    plan.write_text(NULLS, encoding="utf-8")
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    source = tmp_path / "source.duckdb"
    with duckdb.connect(str(source)) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT 'c' || i AS code, 'n' || i AS name, i AS size FROM range(5) AS r(i)"
        )
    assert run_words("run", "--plan", str(plan)).code == ExitCode.DONE
    with duckdb.connect(str(source)) as connection:
        connection.execute("UPDATE t SET size = NULL, name = 'new' WHERE code = 'c3'")
    assert run_words("run", "--plan", str(plan)).code == ExitCode.DONE
    proved = run_words("validate", "--plan", str(plan), "--level", "5", "--json")
    assert proved.code == ExitCode.DONE, proved.out
    assert proved.document["statuses"]["failed"] == 0


def test_more_records_than_were_looked_at_are_not_said_to_differ(tmp_path: Path) -> None:
    """Under `nulls: leave` another hash is no difference yet: what was not looked at is neither passed nor failed."""
    plan = tmp_path / "forcelift.yaml"
    plan.write_text(NULLS, encoding="utf-8")
    (tmp_path / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT 'c' || i AS code, 'n' || i AS name, i AS size FROM range(9) AS r(i)"
        )
    assert run_words("run", "--plan", str(plan)).code == ExitCode.DONE
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.execute("UPDATE t SET size = NULL, name = 'new'")
    assert run_words("run", "--plan", str(plan)).code == ExitCode.DONE
    few = run_words("validate", "--plan", str(plan), "--level", "5", "--named", "3", "--json")
    assert few.code == ExitCode.DONE, few.out
    checks = {one["check"]: one for one in few.document["checks"]}
    assert (checks["records"]["status"], checks["records"]["target"]) == ("not_checked", "3")
    assert "6 differ, perhaps only in fields that `nulls: leave` leaves alone" in checks["records"]["reason"]
    assert checks["checksums of chunks"]["source"] == "0"
    all_of_them = run_words("validate", "--plan", str(plan), "--level", "5", "--named", "9", "--json")
    assert all_of_them.document["statuses"] == {"passed": 3, "failed": 0, "drift": 0, "not_checked": 0}
    with duckdb.connect(str(tmp_path / "org.duckdb")) as org:
        org.execute("""UPDATE data."Thing__c" SET "Name" = 'damaged' WHERE "Code__c" IN ('c1', 'c8')""")
    damaged = run_words("validate", "--plan", str(plan), "--level", "5", "--named", "3", "--json")
    assert damaged.code == ExitCode.ROWS_REFUSED
    (records,) = [one for one in damaged.document["checks"] if one["check"] == "records"]
    assert [(one["key"], one["field"]) for one in records["examples"]] == [("c1", "Name")]
    assert (records["difference"], records["target"]) == ("1", "2")
