"""What `validate` says of a loaded org, level by level, and what it keeps."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.scenarios.scenario_support import run_words
from tests.validation.damage_world import DamageWorld, damage_world, key_of

import forcelift
from forcelift.account.recorded import open_recorded
from forcelift.after.validate.checks import Check, CheckStatus, Kind
from forcelift.errors import ExitCode, StateConflict, UsageError
from forcelift.migration.running import RunOptions, run_migration
from forcelift.validating.batch import Validated

ROWS = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DamageWorld]:
    """Left by each test as it was found."""
    with damage_world(tmp_path_factory.mktemp("levels"), rows=ROWS, chunk_rows=120) as made:
        yield made


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[DamageWorld]:
    """For tests that change source or org for good."""
    with damage_world(tmp_path, rows=60, chunk_rows=25) as made:
        yield made


def check(validated: Validated, level: int, name: str) -> Check:
    (found,) = [one for one in validated.found.checks if (one.level, one.name) == (level, name) and one.chunk is None]
    return found


def source_sql(world: DamageWorld, statement: str) -> None:
    with closing(duckdb.connect(str(world.folder / "source.duckdb"))) as connection:
        connection.execute(statement)


def audit_rows(world: DamageWorld, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{world.folder / 'state' / 'audit.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def test_results_are_only_added_and_the_journal_vouches_for_them(world: DamageWorld) -> None:
    world.validate(1)
    before = audit_rows(world, "SELECT * FROM validation_result ORDER BY result_no")
    validated = world.validate(1, 5)
    after = audit_rows(world, "SELECT * FROM validation_result ORDER BY result_no")
    assert after[: len(before)] == before
    assert len(after) - len(before) == len(validated.found.checks)
    kept = [json.loads(row[0]) for row in audit_rows(world, "SELECT details FROM validation_result")]
    assert kept[len(before) :] == [one.document() for one in validated.found.checks]
    with open_recorded(world.plan) as (_, state):
        assert state.audit.verify_journal() == []
        assert [row.passed for row in state.audit.validations(validated.batch.batch_id)] == [True] * len(after)
    payloads = audit_rows(world, "SELECT payload FROM journal WHERE action = 'validated' ORDER BY seq")
    assert json.loads(payloads[-1][0])["level"] == 5


def test_the_proof_writes_the_checksum_of_each_chunk(world: DamageWorld) -> None:
    world.validate(5)
    sums = audit_rows(
        world,
        "SELECT SOURCE_CHECKSUM, TARGET_CHECKSUM, SUCCESS_COUNT FROM MIGRATION_AUDIT_LOG WHERE TABLE_NAME = 'sales'",
    )
    assert len(sums) > 1
    for source, target, accepted in sums:
        assert source == target
        assert source.split(":")[1] == f"{accepted:.0f}"
    record = world.sale(40)
    world.change(record["Id"], {"Pieces__c": 5})
    try:
        validated = world.validate(5)
    finally:
        world.change(record["Id"], {"Pieces__c": record["Pieces__c"]})
    wrong = [one for one in validated.found.checks if one.name == "checksum"]
    assert [one.chunk for one in wrong] == [1]
    assert audit_rows(
        world,
        "SELECT CHUNK_ID FROM MIGRATION_AUDIT_LOG WHERE TABLE_NAME = 'sales' AND TARGET_CHECKSUM <> SOURCE_CHECKSUM",
    ) == [(1,)]
    world.validate(5)
    assert not audit_rows(world, "SELECT 1 FROM MIGRATION_AUDIT_LOG WHERE TARGET_CHECKSUM <> SOURCE_CHECKSUM")


def test_no_file_of_its_own_stays(world: DamageWorld) -> None:
    world.validate(1, 2, 3, 4, 5)
    left = {
        path.relative_to(world.folder / "state" / "staging").parts[0]
        for path in world.folder.glob("state/staging/**/*")
        if path.is_file()
    }
    assert left == {"ledger"}


def test_personal_values_are_masked_on_the_screen_and_in_the_audit_database(world: DamageWorld) -> None:
    record = world.sale(41)
    world.change(record["Id"], {"Mail__c": "somebody.else@example.org", "Title__c": "another title"})
    try:
        screen = run_words("validate", "--plan", str(world.plan), "--level", "5", "--table", "sales")
    finally:
        world.change(record["Id"], {"Mail__c": record["Mail__c"], "Title__c": record["Title__c"]})
    assert screen.code == ExitCode.ROWS_REFUSED
    assert f"differs {key_of(41)} {record['Id']}: Mail__c was '***', is '***'" in screen.out
    assert "is 'another title'" in screen.out
    assert "level 5 of `sales`: about 6 API calls, 1 of the day's 10,000 bulk query jobs" in screen.err
    audit = (world.folder / "state" / "audit.db").read_bytes()
    assert b"somebody.else" not in audit
    assert b"another title" in audit


def test_the_command_line_tells_all_as_one_document(world: DamageWorld) -> None:
    screen = run_words(
        "validate", "--plan", str(world.plan), "--levels", "1-3,5", "--sample", "7", "--seed", "3", "--json"
    )
    assert screen.code == ExitCode.DONE, screen.err
    document = screen.document
    assert document["levels"] == [1, 2, 3, 5]
    assert {one["table"] for one in document["checks"]} == {"shops", "sales"}
    assert document["exit_code"] == document["statuses"]["failed"] == 0
    sampled = [one for one in document["checks"] if (one["level"], one["table"]) == (3, "sales")]
    assert [(one["source"], one["target"]) for one in sampled] == [("7", "7")]
    # Shops have no number to add up, and nothing may look passed that was not looked at.
    assert [one["status"] for one in document["checks"] if (one["level"], one["table"]) == (2, "shops")] == [
        "not_checked"
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--levels", "1,9"], "there is no level 9"),
        (["--levels", "some"], "is no list of levels"),
        (["--tolerance", "little"], "is no percentage"),
        (["--table", "sale"], "the plan has no table `sale`"),
    ],
)
def test_what_cannot_be_asked_is_refused(world: DamageWorld, words: list[str], says: str) -> None:
    screen = run_words("validate", "--plan", str(world.plan), *words)
    assert screen.code == ExitCode.USAGE
    assert says in screen.err


def test_the_same_seed_draws_the_same_sample(world: DamageWorld) -> None:
    record = world.sale(42)
    world.change(record["Id"], {"Name": "changed"})
    try:
        runs = [world.validate(3, sample_rows=150, seed=seed) for seed in (1, 1, 2, 3, 4, 5)]
    finally:
        world.change(record["Id"], {"Name": record["Name"]})
    seen = [check(one, 3, "sampled records").difference for one in runs]
    assert seen[0] == seen[1]
    assert set(seen) == {"0", "1"}
    whole = world.validate(3, sample_rows=10_000)
    assert check(whole, 3, "sampled records").source == str(ROWS - 1)


def test_the_checklists_counts(world: DamageWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    assert forcelift.validate_counts("shops", "Shop__c") == {
        "table": "shops",
        "oracle_count": 40,
        "sf_count": 40,
        "difference": 0,
        "match": True,
        "match_rate": 100.0,
    }
    sales = forcelift.validate_counts("sales", "Sale__c", plan=world.plan)
    # One row was rejected, and a rate below 100 never looks like 100.
    assert (sales["oracle_count"], sales["sf_count"], sales["difference"], sales["match"]) == (ROWS, ROWS - 1, 1, False)
    assert sales["match_rate"] == pytest.approx(99.6667, abs=0.001)
    with pytest.raises(UsageError, match="loads `sales` into `Sale__c`, not `Other__c`"):
        forcelift.validate_counts("sales", "Other__c")


def test_the_checklists_aggregates(world: DamageWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    result = forcelift.validate_aggregates("sales", "Sale__c", "amount", "Amount__c")
    expected = sum((Decimal(i) * Decimal("1.25") - 1000 for i in range(ROWS) if i % 11 and i != 3), Decimal())
    assert expected < 0
    assert result == {
        "table": "sales",
        "oracle_sum": expected,
        "sf_sum": expected,
        "variance": 0,
        "variance_pct": 0,
        "acceptable": True,
    }
    record = world.sale(42)
    world.change(record["Id"], {"Amount__c": record["Amount__c"] + 500})
    try:
        changed = forcelift.validate_aggregates("sales", "Sale__c", "amount", "Amount__c")
    finally:
        world.change(record["Id"], {"Amount__c": record["Amount__c"]})
    assert changed["variance"] == 500
    assert changed["variance_pct"] == pytest.approx(Decimal(50000) / -expected)
    assert changed["acceptable"] is False
    with pytest.raises(UsageError, match="does not map column `amount` to a number field `Rate__c`"):
        forcelift.validate_aggregates("sales", "Sale__c", "amount", "Rate__c")


def test_the_checklists_samples(world: DamageWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    assert forcelift.validate_sample_records("sales", "Sale__c", "sale_key", 20) == {
        "sample_size": 20,
        "mismatches": 0,
        "mismatch_details": [],
        "match_rate": 100.0,
    }
    record = world.sale(43)
    world.change(record["Id"], {"Title__c": "one", "Mail__c": "two@example.com"})
    try:
        result = forcelift.validate_sample_records("sales", "Sale__c", "sale_key", sample_size=10_000)
    finally:
        world.change(record["Id"], {"Title__c": record["Title__c"], "Mail__c": record["Mail__c"]})
    # Records are counted, not fields.
    assert result["mismatches"] == 1
    assert result["match_rate"] == pytest.approx((ROWS - 2) / (ROWS - 1) * 100)
    assert result["mismatch_details"] == [
        {"key": key_of(43), "field": "Mail__c", "oracle_value": "***", "sf_value": "***"},
        {"key": key_of(43), "field": "Title__c", "oracle_value": record["Title__c"], "sf_value": "one"},
    ]
    with pytest.raises(UsageError, match="the key of `sales` is `sale_key`"):
        forcelift.validate_sample_records("sales", "Sale__c", "name")


def test_the_checklists_business_rules(world: DamageWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    assert forcelift.validate_business_rules("sales") == []
    record = world.sale(45)
    world.change(record["Id"], {"Shop__c": None, "Status__c": None})
    try:
        found = forcelift.validate_business_rules("sales")
    finally:
        world.change(record["Id"], {"Shop__c": record["Shop__c"], "Status__c": record["Status__c"]})
    assert {tuple(one) for one in found} == {("rule", "tenant", "oracle", "sf", "status")}
    assert {one["status"] for one in found} == {"FAIL"}
    groups = {(one["rule"], one["tenant"]): (one["oracle"], one["sf"]) for one in found}
    # A group of nulls that only the org has is seen, and a shop that lost the amount.
    assert groups["amounts of shops", "(null)"] == ("(no such group)", Decimal("-943.75"))
    source, target = groups["amounts of shops", "T5"]
    assert target - source == Decimal("943.75")
    assert {tenant for rule, tenant in groups if rule == "pieces of statuses"} == {"Closed", "(null)"}


def test_rows_changed_in_the_source_since_are_drift_and_no_difference(own_world: DamageWorld) -> None:
    source_sql(own_world, "UPDATE sales SET amount = amount + 1, title = 'new' WHERE sale_key = 'S000000010'")
    source_sql(own_world, "DELETE FROM sales WHERE sale_key = 'S000000020'")
    validated = own_world.validate(1, 2, 3, 5)
    assert validated.exit_code is ExitCode.DONE
    assert check(validated, 1, "source rows then and now").status is CheckStatus.DRIFT
    assert check(validated, 2, "rows changed in the source since").source == "2"
    assert check(validated, 2, "sum of Amount__c").status is CheckStatus.PASSED
    assert check(validated, 3, "sampled records").status is CheckStatus.DRIFT
    assert check(validated, 5, "records").status is CheckStatus.PASSED
    # A record that was damaged, and whose row has changed too: it is named, and why its fields are not.
    record = own_world.sale(10)
    own_world.change(record["Id"], {"Title__c": "damaged"})
    damaged = own_world.validate(5)
    assert damaged.exit_code is ExitCode.ROWS_REFUSED
    (named,) = check(damaged, 5, "records").examples
    assert (named.key, named.field) == (key_of(10), None)
    assert "has changed in the source since" in (named.note or "")


def test_records_of_others_are_told_apart_from_extra_ones(own_world: DamageWorld) -> None:
    own_world.create({"Name": "made by hand, without a key"})
    validated = own_world.validate(1, 5)
    assert validated.exit_code is ExitCode.DONE
    assert check(validated, 5, "records that nobody sent").reason == (
        "beside them 0 written by other batches or not accepted, 1 others'"
    )
    own_world.create({"Key__c": "X1", "Name": "with a key"})
    again = own_world.validate(1, 5)
    assert check(again, 1, "records made and records in the org").difference == "1"
    (extra,) = check(again, 5, "records that nobody sent").examples
    assert (extra.kind, extra.key) == (Kind.EXTRA, "X1")


def test_the_newest_batch_owns_a_key(own_world: DamageWorld) -> None:
    first = own_world.validate(5).batch.batch_id
    source_sql(own_world, "UPDATE sales SET title = 'second' WHERE sale_key < 'S000000030'")
    assert run_migration(own_world.plan, RunOptions(batch_id="second")).exit_code is ExitCode.ROWS_REFUSED
    newest = own_world.validate(1, 2, 3, 4, 5)
    assert newest.batch.batch_id == "second"
    assert newest.found.count(CheckStatus.FAILED) == 0
    assert check(newest, 5, "records").source == "59"
    assert check(newest, 1, "records made and records in the org").source == "59"
    screen = run_words(
        "validate", first, "--plan", str(own_world.plan), "--levels", "all", "--table", "sales", "--json"
    )
    assert screen.code == ExitCode.DONE, screen.out
    (records,) = [one for one in screen.document["checks"] if (one["level"], one["check"]) == (5, "records")]
    assert records["source"] == "0"
    assert records["reason"] == "59 are owned by newer batches and were not compared"


def test_a_dry_run_and_a_changed_plan_are_refused(own_world: DamageWorld) -> None:
    text = own_world.plan.read_text(encoding="utf-8")
    own_world.plan.write_text(text.replace("note: {field: Note__c, personal: false}", ""), encoding="utf-8")
    with pytest.raises(StateConflict, match=re.compile("the plan has changed.*note", re.DOTALL)):
        own_world.validate(5)
    # Checks are compared as they stand now.
    own_world.plan.write_text(text.replace("amounts of shops", "another name"), encoding="utf-8")
    assert check(own_world.validate(4), 4, "another name").status is CheckStatus.PASSED
    run_migration(own_world.plan, RunOptions(dry_run=True, batch_id="dry"))
    with pytest.raises(StateConflict, match="dry run"):
        own_world.validate(5)


def test_an_org_that_does_not_answer_ends_with_5(own_world: DamageWorld) -> None:
    own_world.server.stop()
    screen = run_words("validate", "--plan", str(own_world.plan), "--level", "1")
    assert screen.code == ExitCode.TARGET
    assert audit_rows(own_world, "SELECT count(*) FROM validation_result") == [(0,)]


def test_a_chunk_that_starts_again_is_not_proved_any_more(own_world: DamageWorld) -> None:
    own_world.validate(5)
    with open_recorded(own_world.plan) as (_, state):
        batch = state.audit.newest_batch()
        assert batch is not None
        (partial,) = [chunk for chunk in state.audit.chunks(batch.batch_id, "sales") if chunk.status == "PARTIAL"]
        sums = state.audit.target_checksums(batch.batch_id, "sales")
        assert all(sums.values())
        state.audit.start_chunk(partial.audit_id)
        assert state.audit.target_checksums(batch.batch_id, "sales") == sums | {partial.audit_id: None}
    open_now = own_world.validate(5)
    assert check(open_now, 5, "chunks that have not ended").status is CheckStatus.NOT_CHECKED
