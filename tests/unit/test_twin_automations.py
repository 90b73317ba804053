"""Automations of the twin: their form in the schema file, and what is kept of them over a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forcelift.twin.automation_models import Automations, FillField, Recurse, RejectRows, ValidationRule
from forcelift.twin.errors import SchemaError
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema import Schema
from forcelift.twin.schema_file import schema_from_dict

RULE = {"name": "No_Zero", "object": "Sale__c", "formula": "Amount__c = 0", "error_message": "Not zero"}


def make_schema(**automations: Any) -> Schema:
    fields = {
        "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
        "Region__c": {"type": "string", "length": 20},
        "Tenant__c": {"type": "reference", "referenceTo": "Tenant__c"},
    }
    objects = {"Tenant__c": {"fields": {}}, "Sale__c": {"fields": fields}}
    return schema_from_dict({"objects": objects, "automations": automations})


FULL: dict[str, Any] = {
    "validation_rules": [{**RULE, "error_field": "Amount__c"}],
    "triggers": [
        {
            "name": "SaleTrigger",
            "object": "Sale__c",
            "events": ["before insert", "after update"],
            "effects": [
                {"effect": "reject", "when": "Amount__c > 10", "message": "too much", "field": "Amount__c"},
                {"effect": "fill", "field": "Region__c", "value": "North"},
                {"effect": "time", "row_ms": 1.5, "chunk_ms": 20},
                {"effect": "lock_parent", "field": "Tenant__c"},
                {"effect": "exceed_limit", "limit": "soql_queries"},
                {"effect": "recurse"},
            ],
        }
    ],
    "flows": [
        {
            "name": "Sale_Flow",
            "object": "Sale__c",
            "versions": [{"number": 1}, {"number": 3, "effects": [{"effect": "fill", "field": "Region__c"}]}],
            "active_version": 1,
        }
    ],
    "workflow_rules": [
        {
            "name": "Set_Region",
            "object": "Sale__c",
            "condition": "ISBLANK(Region__c)",
            "field_updates": [{"field": "Region__c", "formula": "'South'"}],
            "active": False,
        }
    ],
    "duplicate_rules": [{"name": "Twice", "object": "Sale__c", "match_fields": ["Amount__c", "Region__c"]}],
    "apex_tests": {"classes": ["SaleTest"], "coverage": 81, "need_active": ["SaleTrigger"]},
}


def test_every_kind_and_effect_is_read_and_survives_the_stored_document() -> None:
    schema = make_schema(**FULL)
    trigger = schema.automations.triggers[0]
    assert [type(effect).__name__ for effect in trigger.effects] == [
        "RejectRows", "FillField", "TakeTime", "LockParent", "ExceedLimit", "Recurse",
    ]  # fmt: skip
    assert trigger.effects[0] == RejectRows(when="Amount__c > 10", message="too much", field="Amount__c")
    assert trigger.effects[5] == Recurse(depth=17)
    flow = schema.automations.flows[0]
    assert flow.running is not None
    assert flow.running.number == 1
    assert flow.versions[1].effects == (FillField(field="Region__c"),)
    again = Schema.from_document(json.loads(json.dumps(schema.to_document())))
    assert again == schema


def test_a_document_of_an_earlier_twin_has_no_automations() -> None:
    document = make_schema().to_document()
    del document["automations"]
    assert Schema.from_document(document).automations == Automations()


@pytest.mark.parametrize(
    ("automations", "problem"),
    [
        ({"validation_rules": [{**RULE, "active_": True}]}, "unknown key (nearest: `active`)"),
        ({"validation_rules": [{**RULE, "object": "Sal__c"}]}, "no object `Sal__c`"),
        ({"validation_rules": [{**RULE, "error_field": "Nope__c"}]}, "error_field: Sale__c has no field `Nope__c`"),
        ({"validation_rules": [RULE, {**RULE, "name": "no_zero"}]}, "`sale__c.no_zero` stands there twice"),
        ({"validation_rules": [{**RULE, "name": "a rule"}]}, "a name has letters, digits"),
        ({"triggers": [{"name": "T", "object": "Sale__c", "events": ["during"]}]}, "Input should be"),
        (
            {"triggers": [{"name": "T", "object": "Sale__c", "effects": [{"effect": "explode"}]}]},
            "does not match any of the expected tags",
        ),
        (
            {"triggers": [{"name": "T", "object": "Sale__c", "effects": [{"effect": "lock_parent", "field": "Name"}]}]},
            "`Name` is no lookup",
        ),
        (
            {"flows": [{"name": "F", "object": "Sale__c", "active_version": 2}]},
            "active_version: there is no version 2",
        ),
        (
            {"flows": [{"name": "F", "object": "Sale__c", "versions": [{"number": 1}, {"number": 1}]}]},
            "versions: a number stands there twice",
        ),
        ({"duplicate_rules": [{"name": "D", "object": "Sale__c", "match_fields": []}]}, "at least 1 item"),
        ({"rules": []}, "automations.rules: unknown key"),
    ],
)
def test_a_wrong_declaration_is_told_with_its_place(automations: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as told:
        make_schema(**automations)
    assert problem in str(told.value)


def test_what_is_active_is_asked_by_object_and_changes_at_once() -> None:
    with TwinOrg.open(schema=make_schema(**FULL)) as org:
        active = org.automations.active_on("sale__C")
        assert [rule.name for rule in active.validation_rules] == ["No_Zero"]
        assert active.workflow_rules == ()
        assert org.automations.active_on("Tenant__c").is_empty
        rule = org.automations.find("validation_rules", "sale__c.no_zero")
        assert isinstance(rule, ValidationRule)
        number = org.automations.revision
        org.automations.put(("validation_rules", replace(rule, active=False)))
        assert org.automations.active_on("Sale__c").validation_rules == ()
        assert active.validation_rules, "an answer is one moment and does not change"
        assert org.automations.revision == number + 1


def test_a_restart_keeps_what_was_switched_and_takes_what_the_file_declares_anew(tmp_path: Path) -> None:
    data = tmp_path / "org.duckdb"
    with TwinOrg.open(data, schema=make_schema(**FULL)) as org:
        rule = org.automations.current().validation_rules[0]
        rule_id = org.automations.id_of("validation_rules", rule.full_name)
        org.automations.put(("validation_rules", replace(rule, active=False)))
        org.automations.remove(("duplicate_rules", "Sale__c.Twice"))
    with TwinOrg.open(data, schema=make_schema(**FULL)) as org:
        now = org.automations.current()
        assert not now.validation_rules[0].active
        assert now.duplicate_rules == ()
        assert org.automations.id_of("validation_rules", rule.full_name) == rule_id
    other = {**FULL, "validation_rules": [{**RULE, "error_message": "Changed"}], "triggers": []}
    with TwinOrg.open(data, schema=make_schema(**other)) as org:
        now = org.automations.current()
        assert now.validation_rules[0].active
        assert now.validation_rules[0].error_message == "Changed"
        assert now.triggers == ()
        assert now.duplicate_rules == ()


def test_a_change_that_cannot_be_written_changes_nothing() -> None:
    with TwinOrg.open(schema=make_schema(**FULL)) as org:

        def refuse(*_: object) -> None:
            raise RuntimeError("the listener's table is gone")

        org.automations.on_change(refuse)
        before = org.automations.current()
        with pytest.raises(RuntimeError, match="listener"):
            org.automations.remove(("triggers", "SaleTrigger"))
        assert org.automations.current() == before
        assert org.automations.active_on("Sale__c").triggers
