"""`status --project`: each row of the project once, beside what the org holds and what the source has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration
from tests.integration.project_migration import change_source, counts, served_project, set_where, source_count, status

GOOD = SALES - ORPHANS


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as project:
        yield project


@pytest.mark.slow
def test_two_tables_apart_are_the_sums_of_their_batches(migration: Migration) -> None:
    migration.document("run", "--dry-run", "--batch", "dry", code=1)
    migration.document("run", "--table", "tenants", "--batch", "first")
    migration.document("run", "--table", "sales", "--batch", "second", code=1)
    tables = status(migration)
    assert counts(tables["tenants"]) == {"source": TENANTS, "created": TENANTS, "in_org": TENANTS}
    assert counts(tables["sales"]) == {"source": SALES, "created": GOOD, "rejected": ORPHANS, "in_org": GOOD}
    assert (tables["tenants"]["batches"], tables["sales"]["batches"]) == (["first"], ["second"])
    assert migration.count("Sale__c") == tables["sales"]["in_org"]
    assert source_count(migration, "sales") == tables["sales"]["source"]
    document = migration.document("status", "--project")
    assert [one["batch_id"] for one in document["batches"]] == ["first", "second"], "a dry run has sent nothing"
    assert document["ended"]


@pytest.mark.slow
def test_a_sample_and_then_everything_is_everything_once(migration: Migration) -> None:
    migration.run("run", "--sample-percent", "10", "--batch", "sample")
    sampled = migration.count("Sale__c")
    assert 0 < sampled < GOOD
    migration.run("run", "--batch", "all")
    tables = status(migration)
    assert counts(tables["sales"]) == {"source": SALES, "created": GOOD, "rejected": ORPHANS, "in_org": GOOD}
    assert counts(tables["tenants"]) == {"source": TENANTS, "created": TENANTS, "in_org": TENANTS}
    assert tables["sales"]["in_org"] == migration.count("Sale__c")
    assert "sample of 10 %" in migration.run("status", "--project").stdout


@pytest.mark.slow
def test_a_batch_rolled_back_and_loaded_by_another(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    migration.document("rollback", "first", "--execute", "--reason", "wrong")
    gone = status(migration)["sales"]
    assert counts(gone) == {"source": SALES, "rejected": ORPHANS, "rolled_back": GOOD}
    migration.run("run", "--batch", "second")
    tables = status(migration)
    assert counts(tables["sales"]) == {"source": SALES, "created": GOOD, "rejected": ORPHANS, "in_org": GOOD}
    assert tables["sales"]["in_org"] == migration.count("Sale__c")
    # What the second one did is taken back: nothing stands, and each row is told once.
    migration.document("rollback", "second", "--execute", "--reason", "wrong again")
    assert counts(status(migration)["sales"]) == {"source": SALES, "rejected": ORPHANS, "rolled_back": GOOD}
    assert migration.count("Sale__c") == 0
    migration.document("run", "--resume", "first", code=1)
    assert counts(status(migration)["sales"]) == counts(tables["sales"])


def test_overlapping_wheres_count_the_overlap_once(migration: Migration) -> None:
    set_where(migration, "sales", "sale_id < 400")
    migration.run("run", "--batch", "low")
    set_where(migration, "sales", "sale_id >= 300")
    migration.run("run", "--batch", "high")
    sales = status(migration)["sales"]
    assert counts(sales) == {"source": SALES, "created": GOOD, "rejected": ORPHANS, "in_org": GOOD}
    assert sales["source"] == source_count(migration, "sales")
    assert sales["in_org"] == migration.count("Sale__c")


def test_a_row_that_a_later_batch_loaded_is_failed_no_more_and_one_that_it_refused_is(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    change_source(
        migration,
        f"UPDATE sales SET tenant = 'T1' WHERE sale_id < {ORPHANS - 5}",  # mended
        "UPDATE sales SET tenant = 'NOBODY' WHERE sale_id >= 590",  # loaded before, and refused now
    )
    migration.run("run", "--batch", "second")
    sales = status(migration)["sales"]
    assert counts(sales) == {"source": SALES, "created": SALES - 15, "rejected": 15, "in_org": SALES - 5}
    assert sales["in_org"] == migration.count("Sale__c")
    assert [(group["code"], group["rows"]) for group in sales["refused_by_code"]] == [("REJECTED_MISSING_PARENT", 15)]


def test_a_key_whose_case_has_changed_between_batches_is_the_same_row(migration: Migration) -> None:
    migration.run("run", "--table", "tenants", "--batch", "first")
    change_source(migration, "UPDATE tenants SET code = lower(code) WHERE code < 'T5'")
    migration.run("run", "--table", "tenants", "--batch", "second")
    assert migration.count("Tenant__c") == TENANTS, "the org takes both for the same record"
    assert counts(status(migration)["tenants"]) == {"source": TENANTS, "created": TENANTS, "in_org": TENANTS}


def test_a_batch_and_the_project_are_not_asked_for_together(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    done = migration.run("status", "--project", "--batch", "first")
    assert done.returncode == 2
    assert "`--project`" in done.stderr


def test_a_project_that_has_sent_nothing_says_so(migration: Migration) -> None:
    migration.run("run", "--dry-run")
    done = migration.run("status", "--project")
    assert done.returncode == 3
    assert "has sent rows" in done.stderr
