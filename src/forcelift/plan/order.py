"""In which order tables are loaded: parents before children, tables of a cycle together. Pure and repeatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from forcelift.plan.models import Plan, TablePlan


class TableGroup(Struct, frozen=True, kw_only=True):
    """Tables that are loaded together: one, or those of a cycle of lookups.

    Attributes:
        tables: Names, in the plan's order.
        link_columns: For each table the columns whose lookup points into the group, the table itself included. They
            are sent in a link pass, once all records of the group exist. In the plan's order.
        parents: Names of tables outside the group that must have settled before, in the plan's order.
    """

    tables: tuple[str, ...]
    link_columns: Mapping[str, tuple[str, ...]]
    parents: tuple[str, ...]

    @property
    def is_linked(self) -> bool:
        """True if the group needs a link pass."""
        return any(self.link_columns.values())

    def link_fields(self, table: TablePlan) -> tuple[str, ...]:
        """The target fields that the link pass fills in that table."""
        return tuple(table.fields[column].field for column in self.link_columns[table.table])


def load_order(plan: Plan) -> list[TableGroup]:
    """Groups of tables such that every group comes after all its parents; among equals the plan's order is kept.

    Raises:
        KeyError: A parent that the plan does not have (a plan from `load_plan` has all).
    """
    names = [table.table for table in plan.tables]
    rank = {name: index for index, name in enumerate(names)}
    parents = {table.table: _parents(table) for table in plan.tables}
    for found in parents.values():
        for parent in found:
            rank[parent]  # a KeyError here names the parent
    groups = [sorted(group, key=rank.__getitem__) for group in _components(names, parents)]
    home = {name: index for index, group in enumerate(groups) for name in group}
    waits = [
        {home[parent] for name in group for parent in parents[name]} - {index} for index, group in enumerate(groups)
    ]
    order: list[TableGroup] = []
    done: set[int] = set()
    while len(done) < len(groups):
        # Of all groups whose parents are done, the one that stands first in the plan.
        ready = [index for index in range(len(groups)) if index not in done and waits[index] <= done]
        index = min(ready, key=lambda one: rank[groups[one][0]])
        done.add(index)
        order.append(_group(plan, groups[index], parents, rank))
    return order


def _group(
    plan: Plan, names: Sequence[str], parents: Mapping[str, Sequence[str]], rank: Mapping[str, int]
) -> TableGroup:
    inside = set(names)
    return TableGroup(
        tables=tuple(names),
        link_columns={
            name: tuple(column for column, rule in plan.table(name).fields.items() if rule.parent in inside)
            for name in names
        },
        parents=tuple(sorted({parent for name in names for parent in parents[name]} - inside, key=rank.__getitem__)),
    )


def _parents(table: TablePlan) -> list[str]:
    return list(dict.fromkeys(rule.parent for rule in table.fields.values() if rule.parent is not None))


def _components(names: Sequence[str], edges: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972), without recursion, so that a chain of any length passes."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in names:
        if root in number:
            continue
        work = [(root, iter(edges[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            following = next((other for other in rest if other not in number or other in on_stack), None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    found.append(_take(stack, on_stack, name))
            elif following in number:
                low[name] = min(low[name], number[following])
            else:
                number[following] = low[following] = len(number)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(edges[following])))
    return found


def _take(stack: list[str], on_stack: set[str], last: str) -> list[str]:
    group: list[str] = []
    while not group or group[-1] != last:
        group.append(stack.pop())
        on_stack.discard(group[-1])
    return group
