"""A plan with the tables of an earlier document: what was written is there again, and what was not stays unwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from forcelift.plan import load_plan, plan_diff, plan_document, with_tables

PLANS = sorted(Path(__file__).parent.parent.glob("scenarios/*/forcelift.yaml"))


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.parent.name)
def test_the_tables_of_a_document_are_those_of_the_plan(file: Path) -> None:
    loaded = load_plan(file)
    again = with_tables(loaded, plan_document(loaded.plan))
    assert again.sha256 == loaded.sha256
    assert plan_diff(loaded.plan, again.plan) == []
    for mine, theirs in zip(loaded.plan.tables, again.plan.tables, strict=True):
        assert theirs.model_fields_set <= mine.model_fields_set
        for name, rule in theirs.fields.items():
            if isinstance(rule, str):
                continue
            assert rule.model_fields_set <= mine.fields[name].model_fields_set


def test_checks_are_those_of_now(tmp_path: Path) -> None:
    text = (
        "version: 1\nproject: P\nsource: {url: 'sqlite:///s.db'}\ntarget: {url: 'twin:./org.duckdb'}\n"
        "tables:\n  - table: t\n    object: T__c\n    key: id\n    external_id: K__c\n    where: id < 9\n"
        "    fields: {amount: Amount__c, shop: Shop__c}\n"
    )
    plan = tmp_path / "forcelift.yaml"
    plan.write_text(text)
    before = plan_document(load_plan(plan).plan)
    plan.write_text(text.replace("    where: id < 9\n", "    checks: [{name: sums, sum: amount, by: shop}]\n"))
    assert with_tables(load_plan(plan), before).plan.tables[0].checks == ()
    again = with_tables(load_plan(plan), before, checks_of_now=True)
    assert again.plan.tables[0].where == "id < 9"
    assert [check.name for check in again.plan.tables[0].checks] == ["sums"]
