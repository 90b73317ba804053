"""Load order over random graphs of lookups."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from forcelift.plan.models import FieldRule, Plan, TablePlan
from forcelift.plan.order import load_order

EDGES = st.integers(1, 9).flatmap(
    lambda count: st.tuples(
        st.permutations(range(count)), st.sets(st.tuples(*[st.integers(0, count - 1)] * 2), max_size=20)
    )
)


def made(order: list[int], edges: set[tuple[int, int]]) -> Plan:
    tables = [
        TablePlan(
            table=f"T{n}",
            object=f"T{n}__c",
            key=("ID",),
            external_id="Ext__c",
            fields={"ID": FieldRule(field="Ext__c")}
            | {
                f"C{to}": FieldRule(field=f"T{to}__r.Ext__c", parent=f"T{to}")
                for here, to in sorted(edges)
                if here == n
            },
        )
        for n in order
    ]
    return Plan.model_validate(
        {"version": 1, "project": "P", "source": {"url": "files:."}, "target": {"url": "twin:o"}, "tables": tables}
    )


def reachable(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The transitive closure, the plain way."""
    found = set(edges)
    while more := {(a, d) for a, b in found for c, d in found if b == c} - found:
        found |= more
    return found


@settings(max_examples=150, deadline=None)
@given(EDGES)
def test_every_table_once_parents_first_cycles_together(case: tuple[list[int], set[tuple[int, int]]]) -> None:
    order, edges = case
    plan = made(order, edges)
    groups = load_order(plan)
    home = {table: index for index, group in enumerate(groups) for table in group.tables}
    assert sorted(table for group in groups for table in group.tables) == sorted(f"T{n}" for n in order)
    closure = reachable(edges)
    for a in order:
        for b in order:
            together = a == b or ((a, b) in closure and (b, a) in closure)
            assert (home[f"T{a}"] == home[f"T{b}"]) is together
    for here, to in edges:
        assert home[f"T{to}"] <= home[f"T{here}"]
        group = groups[home[f"T{here}"]]
        is_link = home[f"T{to}"] == home[f"T{here}"]
        assert (f"C{to}" in group.link_columns[f"T{here}"]) is is_link
        assert (f"T{to}" in group.parents) is not is_link or is_link
    assert load_order(plan) == groups


@settings(max_examples=100, deadline=None)
@given(EDGES)
def test_among_tables_that_could_go_next_the_first_of_the_plan_goes(
    case: tuple[list[int], set[tuple[int, int]]],
) -> None:
    order, edges = case
    plan = made(order, edges)
    rank = {table.table: index for index, table in enumerate(plan.tables)}
    groups = load_order(plan)
    for index, group in enumerate(groups):
        assert [rank[name] for name in group.tables] == sorted(rank[name] for name in group.tables)
        done = {name for earlier in groups[:index] for name in earlier.tables}
        for later in groups[index + 1 :]:
            if set(later.parents) <= done:
                assert rank[group.tables[0]] < rank[later.tables[0]]
