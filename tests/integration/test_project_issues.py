"""`report --project`: a row that several batches refused, a retry mended or a person closed is one row of its issue."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cli_migration import ORPHANS, Migration
from tests.integration.project_migration import change_source, counts, served_project, status

_KNOWN = "UPDATE sales SET tenant = 'T1' WHERE sale_id < 10"
_UNKNOWN = "UPDATE sales SET tenant = 'NOBODY' WHERE sale_id < 10"


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    with served_project(tmp_path, monkeypatch) as project:
        yield project


def issue(migration: Migration, name: str) -> tuple[int, int]:
    """Rows and fixed rows of the one issue."""
    migration.run("report", "--project", "--out", name)
    (found,) = json.loads((migration.folder / name).read_text(encoding="utf-8"))["issues"]
    return found["rows"], found["fixed"]


def test_a_row_mended_by_retry_and_refused_by_a_later_batch_is_one_that_is_open(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    open_keys = counts(status(migration)["sales"])["rejected"]
    change_source(migration, _KNOWN)
    migration.run("failed", "retry")
    assert counts(status(migration)["sales"])["rejected"] < open_keys
    change_source(migration, _UNKNOWN)
    migration.run("run", "--batch", "second")
    refused = counts(status(migration)["sales"])["rejected"]
    assert issue(migration, "broken.json") == (refused, 0)
    # Mended in the second batch too, each is still one row.
    change_source(migration, _KNOWN)
    migration.run("failed", "retry", "--batch", "second")
    left = counts(status(migration)["sales"])["rejected"]
    assert left < refused
    assert issue(migration, "mended.json") == (refused, refused - left)


@pytest.mark.slow
def test_a_row_that_a_person_closed_is_fixed_until_a_later_batch_refuses_it(migration: Migration) -> None:
    migration.run("run", "--batch", "first")
    migration.run("failed", "resolve", "--table", "sales", "--note", "sold to nobody", "--by", "Anan")
    migration.run("run", "--table", "tenants", "--batch", "second")
    assert issue(migration, "closed.json") == (ORPHANS, ORPHANS)
    migration.run("run", "--batch", "third")
    assert issue(migration, "refused.json") == (ORPHANS, 0)
    migration.run("failed", "resolve", "--batch", "third", "--table", "sales", "--note", "still nobody", "--by", "Anan")
    assert issue(migration, "again.json") == (ORPHANS, ORPHANS)
