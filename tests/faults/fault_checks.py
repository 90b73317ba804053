"""What must hold after a batch has ended, whatever was killed or lost on the way. The org itself is asked."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from tests.faults.fault_data import KEYS, OBJECTS, RECORDS, SALE, TENANT, Expected
from tests.faults.fault_loader import BATCH, LoaderProcess
from tests.faults.fault_twin import OrgClient

from forcelift.migration.running import open_recorded

TERMINAL = {"JobComplete", "Failed", "Aborted"}


def check_end(loader: LoaderProcess, org: OrgClient, expected: Expected, *, open_jobs: set[str]) -> None:
    """Promises 1 and 2. `open_jobs` are jobs of others, which must stand open still, and no other job may."""
    assert org.internal_errors() == []
    ids = {table: check_records(org, expected, table) for table in (TENANT, SALE)}
    check_jobs(loader, org, open_jobs)
    check_audit_log(loader, expected)
    for table in (TENANT, SALE):
        check_ledger(loader, expected, table, ids[table])
    loader.let_go_of_audit()
    with open_recorded(loader.plan) as (_, state):
        assert state.audit.verify_journal() == []


def check_records(org: OrgClient, expected: Expected, table: str) -> pl.DataFrame:
    """Exactly one record per good row, with its values, and what stood there before. Returns key and Id of each."""
    wanted, holders, key = expected.records[table], expected.holders[table], KEYS[table]
    assert org.count(OBJECTS[table]) == wanted.height + holders.height
    assert org.count(OBJECTS[table], f"WHERE {key} LIKE 'HOLD-%'") == holders.height
    found = org.records(OBJECTS[table], ["Id", *RECORDS[table]])
    ours = found.filter(~pl.col(key).str.starts_with("HOLD-"))
    assert ours[key].str.to_lowercase().n_unique() == ours.height == wanted.height, "a doubled or missing record"
    assert _plain(ours.drop("Id")).equals(_plain(wanted.select(RECORDS[table]))), _difference(ours, wanted, key)
    return ours.select(key, "Id")


def check_jobs(loader: LoaderProcess, org: OrgClient, open_jobs: set[str]) -> None:
    """No job of ours is open, and those of others are as they were."""
    listed = org.jobs()
    assert {number for number, job in listed.items() if job["state"] not in TERMINAL} == open_jobs
    assert all(listed[number]["state"] == "Open" for number in open_jobs)
    ours = {number for (number,) in loader.audit("SELECT sf_id FROM job WHERE sf_id IS NOT NULL")}
    assert not ours & open_jobs
    assert ours <= listed.keys()
    assert {step for (step,) in loader.audit("SELECT DISTINCT step FROM job")} <= {"collected", "abandoned"}


def check_audit_log(loader: LoaderProcess, expected: Expected) -> None:
    """The sums of every chunk close, and their totals are those expected."""
    open_sums = loader.audit(
        "SELECT count(*) FROM MIGRATION_AUDIT_LOG WHERE STATUS NOT IN ('SUCCESS', 'PARTIAL') OR "
        "SOURCE_COUNT <> EXTRACTED_COUNT OR EXTRACTED_COUNT <> TRANSFORMED_COUNT + SKIPPED_COUNT OR "
        "TRANSFORMED_COUNT <> LOADED_COUNT OR LOADED_COUNT <> SUCCESS_COUNT + FAILED_COUNT OR "
        "SOURCE_COUNT IS NULL OR TRANSFORMED_COUNT IS NULL OR LOADED_COUNT IS NULL OR SUCCESS_COUNT IS NULL OR "
        "FAILED_COUNT IS NULL OR (STATUS = 'SUCCESS' AND FAILED_COUNT > 0) OR START_TIME IS NULL OR END_TIME IS NULL"
    )
    assert open_sums == [(0,)]
    assert loader.audit("SELECT state FROM batch") == [("done",)]
    for table in (TENANT, SALE):
        counts = expected.outcomes[table]
        good, failed, rejected = (counts.get(name, 0) for name in ("good", "failed", "rejected"))
        sums = loader.audit(
            "SELECT sum(SOURCE_COUNT), sum(SKIPPED_COUNT), sum(SUCCESS_COUNT), sum(FAILED_COUNT) "
            f"FROM MIGRATION_AUDIT_LOG WHERE TABLE_NAME = '{table}'"
        )
        assert sums == [(expected.rows[table], rejected + counts.get("duplicate", 0), good, failed)]
        refused = loader.audit(f"SELECT count(*) FROM MIGRATION_FAILED_RECORDS WHERE TABLE_NAME = '{table}'")
        assert refused == [(failed + rejected,)]


def check_ledger(loader: LoaderProcess, expected: Expected, table: str, ids: pl.DataFrame) -> None:
    """One line per source row with its outcome, and for each accepted row the Id of the one record it made."""
    files = loader.audit(f"SELECT ledger_file FROM chunk WHERE table_name = '{table}'")
    lines = pl.concat([pl.read_parquet(loader.staging / file) for (file,) in files])
    assert lines.height == expected.rows[table]
    accepted = lines.filter(pl.col("outcome").is_in(["created", "updated"]))
    counted = dict(lines.group_by("outcome").len().iter_rows())
    counted["good"] = counted.pop("created", 0) + counted.pop("updated", 0)
    assert counted == expected.outcomes[table]
    key = KEYS[table]
    made = accepted.select(pl.col("key").alias(key), pl.col("id").alias("Id"))
    assert _plain(made).equals(_plain(ids)), "the ledger's Ids are not the org's"
    updated = accepted.filter(pl.col("outcome") == "updated").select(pl.col("key").alias(key))
    assert set(updated[key]) == set(expected.existing[table][key]), "created and updated are told apart wrongly"


def journal_entries(loader: LoaderProcess, action: str) -> list[dict[str, Any]]:
    """The payloads of the batch's journal entries of one kind."""
    found = loader.audit(f"SELECT payload FROM journal WHERE action = '{action}' AND batch_id = '{BATCH}' ORDER BY seq")
    return [json.loads(payload) for (payload,) in found]


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Texts in one order of rows; amounts, which each side writes in its own way, with two places."""
    texts = frame.with_columns(pl.all().cast(pl.String))
    if "Amount__c" in frame.columns:
        texts = texts.with_columns(pl.col("Amount__c").cast(pl.Decimal(18, 2)).cast(pl.String))
    return texts.sort(frame.columns[0])


def _difference(found: pl.DataFrame, wanted: pl.DataFrame, key: str) -> str:
    """How many records differ, and the first of them: the values are made up by the tests."""
    ours, theirs = _plain(found.drop("Id")), _plain(wanted.select(found.drop("Id").columns))
    wrong = ours.join(theirs, on=ours.columns, how="anti", nulls_equal=True)
    missing = theirs.join(ours, on=ours.columns, how="anti", nulls_equal=True)
    return f"{wrong.height} records are wrong: {wrong.head(3).rows()}; {missing.height} lack: {missing.head(3).rows()}"
