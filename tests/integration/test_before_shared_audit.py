"""Every command before a migration with its audit database on PostgreSQL, as a team shares one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.integration.prepare_fixtures import BIG, PRODUCTION, ROWS, SWITCHED, prepared_org

from forcelift.preflight.backing_up import list_backups

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]


def test_all_commands_before_a_load_share_one_audit_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, database: str
) -> None:
    with prepared_org(tmp_path, org=PRODUCTION) as made:
        monkeypatch.chdir(tmp_path)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        plan = made.plan.read_text(encoding="utf-8")
        made.plan.write_text(f'{plan}audit: {{url: "{postgres.plan_url(database)}"}}\n', encoding="utf-8")
        refused = made.run("run")
        assert (refused.returncode, "production org" in refused.stderr) == (3, True)
        assert made.document("estimate")["rows"] == ROWS
        assert made.document("check")["org_id"] is not None
        made.document("backup")
        assert [(one.table_name, one.row_count) for one in list_backups(made.plan)] == [("sales", ROWS)]
        document = made.document("rehearse", code=1)
        assert document["would_fail"] == BIG
        assert made.document("prepare", "--execute")["off"] == len(SWITCHED)
        assert "WARNING" in made.run("status").stdout
        assert made.run("run", "--dry-run").returncode == 0
        made.document("check")
        assert made.run("checklist", "tick", "sign_off", "--by", "A", "--note", "signed").returncode == 0
        waived = made.run("checklist", "waive", "data_profiling", "--by", "A", "--reason", "elsewhere")
        assert waived.returncode == 0, waived.stderr
        # Sent rows are in none of the ways round the gate, and the gate lets them through once all is in order.
        done = made.run("run", "--extract-first")
        assert done.returncode == 0, done.stderr
        assert made.count("Sale__c") == ROWS
        assert {one["outcome"] for one in made.document("restore", "--execute")["automations"]} == {"restored"}
        assert made.run("audit", "verify").returncode == 0
        assert not (tmp_path / "state" / "audit.db").exists()


@pytest.mark.parametrize(
    "words",
    [("--extract-first",), ("--sample-percent", "50"), ("--table", "sales"), ("--prepare",), ("--batch", "mine"),
     ("--resume", "rehearsed"), ("--resume", "dry"), ("--join", "dry")],
)  # fmt: skip
def test_no_way_of_running_goes_round_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    with prepared_org(tmp_path, org=PRODUCTION) as made:
        monkeypatch.chdir(tmp_path)
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        if words[-1] == "dry":
            assert made.run("run", "--dry-run", "--batch", "dry").returncode == 0
        refused = made.run("run", *words)
        assert refused.returncode == 3, refused.stderr
        assert made.count("Sale__c") == 0
        assert made.active() >= SWITCHED
