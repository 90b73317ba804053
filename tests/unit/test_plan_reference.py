"""What is published about the plan file is made from the models, fresh, and true to the loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from forcelift.plan.json_schema import plan_json_schema, schema_text
from forcelift.plan.models import FieldRule
from forcelift.plan.reference import example_text, main, reference_page

DOCS = Path(__file__).parents[2] / "docs" / "reference"


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_the_published_files_are_fresh() -> None:
    hint = "run `python -m forcelift.plan.reference`"
    assert (DOCS / "plan-file.md").read_text(encoding="utf-8") == reference_page(), hint
    assert (DOCS / "plan.schema.json").read_text(encoding="utf-8") == schema_text(), hint


def test_both_files_are_written(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["plan-file.md", "plan.schema.json"]


def test_the_example_is_good_by_the_schema() -> None:
    schema = plan_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(plain(example_text()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("password: ${ORACLE_PASSWORD}", "password: hunter2"),
        ("key: TENANT_CODE", "key: []"),
        ("negative: warn", "negative: wan"),
        ("object: KPS_Tenant__c", "object: KPS Tenant"),
        ("project: KPC TMS Data Migration", "projet: x"),
        ("thresholds: {}", "thresholds: {fail_rate: 1}"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(before: str, after: str) -> None:
    assert before in example_text()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain(example_text().replace(before, after)), plan_json_schema())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{A: Active, C: Closed}", "{A: 1, C: null, D: true, E: 1.50}"),
        ("Source_System__c: KPS", "Source_System__c: 12"),
        ("tolerance: \"0.01\"", "tolerance: 0.01"),
        ("key: TENANT_CODE", "key: [TENANT_CODE, OTHER]"),
        ("thresholds: {}", "thresholds: {fail_rate_warning: 2}"),
        ("password: ${ORACLE_PASSWORD}", "password: file:pw"),
    ],
)  # fmt: skip
def test_the_schema_takes_what_the_loader_takes(before: str, after: str) -> None:
    assert before in example_text()
    jsonschema.validate(plain(example_text().replace(before, after)), plan_json_schema())


def test_every_key_has_a_title_and_a_description() -> None:
    schema = plan_json_schema()
    objects = {"Plan": schema, **{name: one for name, one in schema["$defs"].items() if one["type"] == "object"}}
    parts = {
        f"{name}.{key}": schema["$defs"].get(part.get("$ref", "").rpartition("/")[2], {}) | part
        for name, one in objects.items()
        for key, part in one["properties"].items()
    }
    assert len(parts) > 90
    lacking = [
        name for name, part in parts.items() if not part.get("title") or not part.get("description", "").endswith(".")
    ]
    assert lacking == []
    assert "**********" not in schema_text()


def test_the_page_has_every_rule_with_its_default_first() -> None:
    page = reference_page()
    rules = page[page.index("## Rules") :]
    for name in ("outer_blanks", "control_characters", "buddhist_era", "future_date", "missing_parent", "too_long"):
        row = next(line for line in rules.splitlines() if line.startswith(f"| `{name}`"))
        assert row.split(" | ")[1].startswith(f"`{FieldRule.model_fields[name].default}`")
    assert "| `empty` | `to_null`, `reject`, `{default: TEXT}` |" in rules
