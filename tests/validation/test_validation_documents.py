"""What the documentation shows is what runs: the functions of the checklist, and the document of `--json`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.validation.little_world import LittleWorld, little_world

import forcelift
from forcelift.errors import ExitCode

DOCS = Path(__file__).parents[2] / "docs"
FIELDS: dict[str, dict[str, Any]] = {
    "Name": {"type": "string", "length": 80},
    "External_ID__c": {"type": "string", "length": 40, "externalId": True},
    "Sales_Amount__c": {"type": "currency", "precision": 18, "scale": 2},
    "Tenant_Code__c": {"type": "string", "length": 20},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LittleWorld]:
    """The checklist's table, with its names."""
    folder = tmp_path_factory.mktemp("documents")
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as source:
        source.execute(
            "CREATE TABLE KPS_T_SALES_MD AS SELECT i AS SALES_ID, (i * 0.1)::DECIMAL(18, 2) AS SALES_AMOUNT,"
            " 'T' || (i % 3) AS TENANT_CODE FROM range(30) AS r(i)"
        )
    with little_world(folder, schema={"objects": {"KPS_Sales__c": {"fields": FIELDS}}}) as made:
        made.write_plan(
            f"duckdb:///{folder}/source.duckdb",
            table="KPS_T_SALES_MD",
            fields="{SALES_AMOUNT: Sales_Amount__c, TENANT_CODE: {field: Tenant_Code__c, personal: false}}",
            checks='[{name: tenant_sales_total, sum: SALES_AMOUNT, by: TENANT_CODE, tolerance: "0.01"}]',
        )
        text = made.plan.read_text(encoding="utf-8")
        for old, new in {"Thing__c": "KPS_Sales__c", "key: code": "key: SALES_ID", "Key__c": "External_ID__c"}.items():
            assert old in text
            text = text.replace(old, new)
        made.plan.write_text(text, encoding="utf-8")
        made.run()
        yield made


def test_the_checklists_functions_take_its_arguments_and_nothing_else_by_place() -> None:
    """Letter for letter as the checklist's level 1 to 4 write them; ours are by keyword, and have defaults."""
    wanted = {
        "validate_counts": ["table_name", "sf_object"],
        "validate_aggregates": ["table_name", "sf_object", "amount_col", "sf_amount_field"],
        "validate_sample_records": ["table_name", "sf_object", "key_column", "sample_size"],
        "validate_business_rules": ["table_name"],
    }
    for name, arguments in wanted.items():
        parameters = inspect.signature(getattr(forcelift, name)).parameters.values()
        by_place = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        assert [one.name for one in by_place] == arguments
        assert all(
            one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in parameters if one not in by_place
        )
    assert inspect.signature(forcelift.validate_sample_records).parameters["sample_size"].default == 100


def test_the_snippet_of_the_how_to_runs_and_gives_the_checklists_keys(
    world: LittleWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "how-to" / "validate.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(world.folder)
    head, *calls = snippet.strip().split("\n\n")
    scope: dict[str, Any] = {}
    exec(head, scope)
    counts, aggregates, samples, rules = [eval(call, scope) for call in "\n".join(calls).splitlines()]
    assert counts == {
        "table": "KPS_T_SALES_MD",
        "oracle_count": 30,
        "sf_count": 30,
        "difference": 0,
        "match": True,
        "match_rate": 100.0,
    }
    assert aggregates == {
        "table": "KPS_T_SALES_MD",
        "oracle_sum": Decimal("43.5"),
        "sf_sum": Decimal("43.5"),
        "variance": Decimal(0),
        "variance_pct": Decimal(0),
        "acceptable": True,
    }
    assert samples == {"sample_size": 30, "mismatches": 0, "mismatch_details": [], "match_rate": 100.0}
    assert rules == []


def test_every_key_of_the_json_document_is_documented(world: LittleWorld) -> None:
    record_id = world.query("SELECT Id FROM KPS_Sales__c WHERE External_ID__c = '7'")[0]["Id"]
    path = f"/services/data/v66.0/sobjects/KPS_Sales__c/{record_id}"
    assert world.client.patch(path, json={"Sales_Amount__c": 9}).status_code == 204
    screen = world.validate("--levels", "all", "--sample", "30")
    assert screen.code == ExitCode.ROWS_REFUSED
    document = screen.document
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    section = page.split("### `validate --json`")[1].split("\n### ")[0]
    documented = set(re.findall(r"`([a-z_]+)`", section))
    example = next(one for check in document["checks"] for one in check["examples"])
    for part in (document, document["statuses"], document["checks"][0], example):
        assert set(part) <= documented, set(part) - documented
