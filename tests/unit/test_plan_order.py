"""Load order on plans that can be checked by eye."""

from __future__ import annotations

import pytest

from forcelift.plan.models import FieldRule, Plan, TablePlan
from forcelift.plan.order import load_order


def plan(**parents: str) -> Plan:
    """A plan of tables by name; each names its parents, separated by blanks."""
    tables = [
        TablePlan(
            table=name,
            object=f"{name}__c",
            key=("ID",),
            external_id="Ext__c",
            fields={"ID": FieldRule(field="Ext__c")}
            | {f"TO_{one}": FieldRule(field=f"{one}__r.Ext__c", parent=one) for one in names.split()},
        )
        for name, names in parents.items()
    ]
    return Plan.model_validate(
        {"version": 1, "project": "P", "source": {"url": "files:."}, "target": {"url": "twin:o"}, "tables": tables}
    )


def names(order: Plan) -> list[tuple[str, ...]]:
    return [group.tables for group in load_order(order)]


def test_tables_without_parents_keep_the_order_of_the_plan() -> None:
    assert names(plan(C="", A="", B="")) == [("C",), ("A",), ("B",)]


def test_parents_come_first_and_the_rest_keeps_its_order() -> None:
    order = load_order(
        plan(flights="planes airlines airports", weather="airports", planes="", airlines="", airports="")
    )
    assert [group.tables for group in order] == [("planes",), ("airlines",), ("airports",), ("flights",), ("weather",)]
    assert order[3].parents == ("planes", "airlines", "airports")
    assert not any(group.is_linked for group in order)


def test_a_self_reference_is_linked() -> None:
    (group,) = load_order(plan(A="A"))
    assert group.link_columns == {"A": ("TO_A",)}
    assert group.link_fields(plan(A="A").table("A")) == ("A__r.Ext__c",)
    assert group.is_linked
    assert group.parents == ()


def test_a_cycle_is_one_group_and_only_lookups_inside_it_are_linked() -> None:
    order = load_order(plan(leaf="a", b="a root", a="b root", root=""))
    assert [group.tables for group in order] == [("root",), ("b", "a"), ("leaf",)]
    assert order[1].link_columns == {"b": ("TO_a",), "a": ("TO_b",)}
    assert order[1].parents == ("root",)
    assert order[2].parents == ("a",)


def test_a_chain_of_any_length_passes() -> None:
    long = {f"T{n}": f"T{n + 1}" for n in range(3000)} | {"T3000": ""}
    assert names(plan(**long))[0] == ("T3000",)


def test_an_unknown_parent_is_named() -> None:
    with pytest.raises(KeyError, match="NOWHERE"):
        load_order(plan(A="NOWHERE"))
