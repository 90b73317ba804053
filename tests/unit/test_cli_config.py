"""`config show` tells where each value comes from and shows no secret; `explain` finds codes of both catalogues."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forcelift.cli.main import run_command
from forcelift.rules.remedies import REMEDIES

PLAN = """\
version: 1
project: Settings
source: {url: "sqlite:///a.db"}
target:
  url: https://example.my.salesforce.com
  auth: {flow: token, access_token: "${SHOW_TOKEN}"}
tables:
  - table: t
    object: Account
    key: id
    external_id: Id__c
    fields:
      name: Name
      notes: {field: Description, too_long: truncate}
chunks: {rows: 1000}
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHOW_TOKEN", "00Dvery-secret")
    file = tmp_path / "forcelift.yaml"
    file.write_text(PLAN)
    return file


def test_each_value_has_its_origin(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "show", "--plan", str(plan), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan_origin"] == "--plan"
    found = {one["path"]: (one["value"], one["origin"], one["place"]) for one in document["settings"]}
    assert found["chunks.rows"] == (1000, "file", "line 15")
    assert found["limits.parallel_jobs"] == (5, "default", "")
    assert found["target.auth.access_token"] == ("***", "env", "line 6, ${SHOW_TOKEN}")
    assert found["tables.t.fields.name.field"] == ("Name", "file", "line 13")
    assert found["tables.t.fields.notes.too_long"] == ("truncate", "file", "line 14")
    assert "tables.t.fields.notes.negative" not in found


def test_no_secret_is_shown(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["config", "show", "--plan", str(plan), "--all"]) == 0
    shown = capsys.readouterr()
    assert "very-secret" not in shown.out + shown.err
    assert "tables.t.fields.notes.negative" in shown.out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["UNABLE_TO_LOCK_ROW"], "UNABLE_TO_LOCK_ROW"),
        (["rejected_missing_parent"], "REJECTED_MISSING_PARENT"),
        (["REJECTED_NULL_KEY"], "REJECTED_NULL_KEY"),
    ],
)
def test_explain(words: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["explain", *words, "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert {entry["code"] for entry in advice} == {code}
    assert all(entry["meaning"] and entry["remedy"] for entry in advice)
    assert run_command(["explain", *words]) == 0
    assert advice[0]["remedy"] in capsys.readouterr().out


def test_explain_knows_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    for rule in REMEDIES:
        assert run_command(["explain", f"REJECTED_{rule.upper()}"]) == 0
        assert f"rejected by the rule `{rule}`" in capsys.readouterr().out


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "oracle"])
def test_audit_ddl(dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["audit", "ddl", "--dialect", dialect]) == 0
    shown = capsys.readouterr().out
    assert "CREATE TABLE MIGRATION_AUDIT_LOG" in shown
    assert "CREATE INDEX IDX_AUDIT_BATCH ON MIGRATION_AUDIT_LOG" in shown
