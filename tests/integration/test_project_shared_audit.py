"""A whole project with its audit database on PostgreSQL and on Oracle: the same counts as beside SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS
from tests.integration.project_migration import counts, served_project, status
from tests.oracle_audit_support import audit_url, new_user
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

GOOD = SALES - ORPHANS


@pytest.fixture
def oracle_server() -> Iterator[OracleServer]:
    with OracleServer("23ai") as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["postgresql", "oracle"])
def test_a_sample_then_everything_then_all_of_it_back(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.plan_url(request.getfixturevalue("database"))
    else:
        server = request.getfixturevalue("oracle_server")
        monkeypatch.setenv("AUDIT_PASSWORD", PASSWORD)
        url = audit_url(server, new_user(server), "${AUDIT_PASSWORD}")
    with served_project(tmp_path, monkeypatch, audit=f'audit: {{url: "{url}"}}\n') as migration:
        migration.run("run", "--sample-percent", "10", "--batch", "sample")
        migration.document("run", "--batch", "all", code=1)
        tables = status(migration)
        assert counts(tables["sales"]) == {"source": SALES, "created": GOOD, "rejected": ORPHANS, "in_org": GOOD}
        assert tables["sales"]["in_org"] == migration.count("Sale__c")
        migration.document("validate", "--project", "--levels", "1,5")
        report = migration.document("report", "--project", code=1)
        words = {one["level"]: one["status"] for one in report["reconciliation"]}
        assert (words[1], words[5]) == ("pass", "pass")
        (issue,) = report["issues"]
        assert (issue["rows"], issue["fixed"]) == (ORPHANS, 0)
        preview = migration.document("rollback", "--project")
        assert preview["deleted"] == GOOD + TENANTS
        done = migration.document("rollback", "--project", "--execute", "--reason", "a rehearsal")
        assert (done["deleted"], done["kept"], migration.count("Sale__c")) == (GOOD + TENANTS, 0, 0)
        assert not (tmp_path / "state" / "audit.db").exists()
