"""The stored form of a plan, and what is told about a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forcelift.plan import load_plan, plan_diff, plan_document
from forcelift.plan.document import document_sha256, document_text

GOOD = """\
version: 1
project: P
source: {url: "sqlite:///a.db"}
target: {url: "twin:org.duckdb"}
tables:
  - table: T
    object: Thing__c
    key: ID
    external_id: Ext__c
    fields:
      ID: Ext__c
      NAME: {field: Name}
      STATUS: {field: Status__c, values: {A: Active, C: Closed}}
    checks: [{name: c, sum: NAME, by: STATUS}]
  - {table: U, object: U__c, key: [A, B], external_id: Ext__c, fields: {A: A__c}}
"""


def document(tmp_path: Path, text: str, **env: str) -> dict[str, Any]:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    loaded = load_plan(path, env=env)
    made = plan_document(loaded.plan)
    assert loaded.sha256 == document_sha256(made)
    assert json.loads(document_text(made)) == made
    return made


def test_a_document_holds_every_default(tmp_path: Path) -> None:
    made = document(tmp_path, GOOD)
    assert made["limits"]["parallel_jobs"] == 5
    assert made["tables"][0]["fields"]["NAME"]["too_long"] == "reject"
    assert made["tables"][0]["duplicates"] == "reject"
    assert made["tables"][1]["key"] == ["A", "B"]
    assert made["roles"]["sign_off"] == ["Data Engineer", "DBA", "Business Owner", "QA Lead"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("NAME: {field: Name}", "NAME: Name"),
        ("key: ID", "key: [ID]"),
        ("{A: Active, C: Closed}", "{C: Closed, A: 'Active'}"),
        ("project: P\n", "project: 'P'  # a comment\nchunks: {rows: auto}\n"),
        ("NAME: {field: Name}", "NAME: {field: Name, too_long: reject}"),
    ],
)
def test_what_says_the_same_is_the_same(tmp_path: Path, before: str, after: str) -> None:
    assert before in GOOD
    one, other = document(tmp_path, GOOD), document(tmp_path, GOOD.replace(before, after))
    assert document_sha256(one) == document_sha256(other)
    assert plan_diff(one, other) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("{field: Name}", "{field: Name, too_long: truncate}", ["tables.T.fields.NAME.too_long: reject -> truncate"]),
        ("C: Closed", "C: Shut", ["tables.T.fields.STATUS.values.C: Closed -> Shut"]),
        (", C: Closed", "", ["tables.T.fields.STATUS.values.C: Closed -> (not there)"]),
        ("      NAME: {field: Name}\n", "      NAME: {field: Name}\n      X: X__c\n",
         ["tables.T.fields.X: (not there) -> X__c"]),
        ("key: [A, B]", "key: [B, A]", ['tables.U.key: ["A", "B"] -> ["B", "A"]']),
        ("by: STATUS", "by: STATUS, tolerance: 1", ["tables.T.checks.c.tolerance: 0 -> 1"]),
        ("a.db", "b.db", ["source.url: sqlite:///a.db -> sqlite:///b.db"]),
        ("project: P\n", "project: P\nlimits: {memory_mb: 512, window: '01:00-02:00 UTC'}\n",
         ["limits.memory_mb: 2048 -> 512", "limits.window: null -> 01:00-02:00 UTC"]),
        ("  - {table: U, object: U__c, key: [A, B], external_id: Ext__c, fields: {A: A__c}}\n", "",
         ["tables.U: U__c -> (not there)"]),
        ("object: Thing__c", "object: Thing__c\n    where: \"A = ' '\"", ["tables.T.where: null -> A = ' '"]),
        ("object: Thing__c", "object: Thing__c\n    where: \" A\"", ['tables.T.where: null -> " A"']),
    ],
)  # fmt: skip
def test_changes_are_told_by_their_place(tmp_path: Path, before: str, after: str, expected: list[str]) -> None:
    assert before in GOOD
    one, other = document(tmp_path, GOOD), document(tmp_path, GOOD.replace(before, after))
    assert document_sha256(one) != document_sha256(other)
    assert plan_diff(one, other) == expected


def test_the_order_of_columns_and_tables_is_part_of_the_plan(tmp_path: Path) -> None:
    one = document(tmp_path, GOOD)
    columns = document(
        tmp_path, GOOD.replace("      ID: Ext__c\n", "").replace("    checks", "      ID: Ext__c\n    checks")
    )
    assert plan_diff(one, columns) == ["tables.T.fields: the order changed"]
    assert document_sha256(one) != document_sha256(columns)
    tables = {**one, "tables": one["tables"][::-1]}
    assert plan_diff(one, tables) == ["tables: the order changed"]


def test_a_key_that_an_older_version_did_not_know_is_no_change_at_its_default(tmp_path: Path) -> None:
    new = document(tmp_path, GOOD)
    old = json.loads(document_text(new))
    del (
        old["tables"][0]["fields"]["NAME"]["zero_width"],
        old["tables"][0]["nulls"],
        old["retention"],
        old["chunks"]["rows"],
    )
    assert plan_diff(old, new) == []
    new["tables"][0]["nulls"] = "leave"
    assert plan_diff(old, new) == ["tables.T.nulls: (not there) -> leave"]


def test_secrets_are_not_told(tmp_path: Path) -> None:
    url = GOOD.replace("sqlite:///a.db", "postgresql://u:${A}@db/x")
    password = GOOD.replace('"sqlite:///a.db"', '"postgresql://u@db/x", password: "${B}"')
    one, other = document(tmp_path, url, A="hunter2"), document(tmp_path, password, B="hunter3")
    assert plan_diff(one, other) == [
        "source.url: postgresql://u:***@db/x -> postgresql://u@db/x",
        "source.password: null -> ***",
    ]
    path = tmp_path / "plan.yaml"
    assert plan_diff(load_plan(path, env={"B": "a"}).plan, load_plan(path, env={"B": "b"}).plan) == []
