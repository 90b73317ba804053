"""Level 4: the plan's `checks`: sums by group, and pairs of a query to the source with one to the org.

Groups of both sides are looked at, null groups and groups that only the org has included, in one query a side. No value
is ever put into a query: groups are joined here, so that a quote or a Thai letter in one is only a letter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

from forcelift.after.validate.both_sides import BothSides, decimal, number, quoted
from forcelift.after.validate.checks import Check, CheckStatus, Difference, Kind, minus, plain
from forcelift.after.validate.compare import MASK, personal_fields
from forcelift.after.validate.org_rows import OrgColumn, OrgShape
from forcelift.after.validate.world import EXAMPLES_MAX, ValidateWorld
from forcelift.errors import UsageError
from forcelift.plan.models import Check as Rule
from forcelift.protocols.source import AnswersSql
from forcelift.rules.column import Form
from forcelift.rules.targets import form_of

GROUPS_MAX = 100_000
"""Rows that a pair of queries may give; beyond the 2,000 groups of one answer SOQL is asked in pages."""

Group = tuple[str | None, ...]


def needed_fields(shape: OrgShape) -> list[str]:
    """Target fields that the group sums of a table need, as far as the plan fills them."""
    names = []
    for rule in shape.work.plan.checks:
        for column in (rule.sum, rule.by):
            found = _column(shape, column)
            if found is not None:
                names.append(found.name)
    return list(dict.fromkeys(names))


def group_checks(sides: BothSides, shape: OrgShape, *, examples_max: int = EXAMPLES_MAX) -> list[Check]:
    """The checks with `sum` and `by`, with so many of the groups that differ."""
    rules = [rule for rule in shape.work.plan.checks if rule.sum is not None]
    if sides.is_unknown:
        reason = f"the rows {sides.drift_words}"
        table = shape.work.plan.table
        return [Check(level=4, table=table, name=rule.name, status=CheckStatus.DRIFT, reason=reason) for rule in rules]
    return [_group_check(sides, shape, rule, examples_max) for rule in rules]


def _group_check(sides: BothSides, shape: OrgShape, rule: Rule, examples_max: int) -> Check:
    table = shape.work.plan.table
    amount, by = _column(shape, rule.sum), _column(shape, rule.by)
    if amount is None or by is None:
        missing = rule.sum if amount is None else rule.by
        return _not_checked(
            table, rule, f"the plan fills no field from column `{missing}`, so that the org has no such group"
        )
    if form_of(amount.field.type) is not Form.NUMBER:
        return _not_checked(table, rule, f"`{amount.name}` is no number field")
    group, total = quoted(by.name), f"sum({number(amount)})"
    sums = "SELECT {group} AS g, {total} AS t, count(*) AS n FROM {side} GROUP BY 1"
    sent = sums.format(group=group, total=total, side="sent")
    org = sums.format(group=group, total=total, side="org")
    rows = sides.ask(
        f"SELECT coalesce(s.g, o.g), s.t, o.t, s.n, o.n FROM ({sent}) AS s FULL JOIN ({org}) AS o"
        " ON s.g IS NOT DISTINCT FROM o.g ORDER BY 1 NULLS FIRST"
    )
    is_lookup = by.name in {lookup.target for lookup in shape.work.rules.lookups.values()}
    masked = by.name in personal_fields(shape.work) and not is_lookup
    # A group that one side lacks adds up to nothing there; a group of nulls is not one of zeros.
    pairs = [
        (
            _Pair(
                group=(name,),
                source=decimal(source) if sent_rows else None,
                target=decimal(target) if org_rows else None,
                has_source=bool(sent_rows),
                has_target=bool(org_rows),
            )
        )
        for name, source, target, sent_rows, org_rows in rows
    ]
    return _result(table, rule, pairs, masked=masked, examples_max=examples_max)


def query_checks(world: ValidateWorld, shape: OrgShape, *, examples_max: int = EXAMPLES_MAX) -> list[Check]:
    """The checks with `sql` and `soql`, with so many of the groups that differ.

    Raises:
        SourceError, OrgRefused: A side does not take its query.
    """
    return [_query_check(world, shape, rule, examples_max) for rule in shape.work.plan.checks if rule.sql is not None]


def _query_check(world: ValidateWorld, shape: OrgShape, rule: Rule, examples_max: int) -> Check:
    assert rule.sql is not None
    assert rule.soql is not None
    table = shape.work.plan.table
    if not isinstance(world.source, AnswersSql):
        return _not_checked(table, rule, "this source takes no SQL of its own")
    source_rows = world.source.ask(rule.sql, rows_max=GROUPS_MAX + 1)
    try:
        target_rows = [_flat(record) for record in islice(world.org.query(rule.soql), GROUPS_MAX + 1)]
    except UsageError as error:
        return _not_checked(table, rule, error.message)
    if rule.soql.replace(" ", "").lower().startswith("selectcount()"):
        target_rows = [(world.org.count(rule.soql),)]
    if max(len(source_rows), len(target_rows)) > GROUPS_MAX:
        return _not_checked(table, rule, f"a query gives more than {GROUPS_MAX:,} rows")
    try:
        source, target = _by_group(source_rows), _by_group(target_rows)
    except InvalidOperation:
        return _not_checked(table, rule, "the last column of each query must be a number")
    except _Repeated:
        return _not_checked(table, rule, "a query gives a group twice; group it by all columns but the last")
    pairs = [
        _Pair(
            group=group,
            source=source.get(group),
            target=target.get(group),
            has_source=group in source,
            has_target=group in target,
        )
        for group in sorted({*source, *target}, key=lambda group: tuple(part or "" for part in group))
    ]
    # The plan's author wrote what the queries show.
    return _result(table, rule, pairs, masked=False, examples_max=examples_max)


class _Repeated(Exception):
    """A group came twice."""


class _Pair:
    """One group of both sides."""

    __slots__ = ("group", "has_source", "has_target", "source", "target")

    def __init__(
        self, *, group: Group, source: Decimal | None, target: Decimal | None, has_source: bool, has_target: bool
    ) -> None:
        self.group, self.source, self.target = group, source, target
        self.has_source, self.has_target = has_source, has_target

    def is_near(self, tolerance: Decimal) -> bool:
        """Whether both sides have the group, and their values lie within the tolerance; null is only equal to null."""
        if not (self.has_source and self.has_target):
            return False
        if self.source is None or self.target is None:
            return self.source is self.target
        return abs(minus(self.source, self.target)) <= tolerance


def _result(table: str, rule: Rule, pairs: Sequence[_Pair], *, masked: bool, examples_max: int) -> Check:
    tolerance = Decimal(rule.tolerance)
    wrong = [pair for pair in pairs if not pair.is_near(tolerance)]
    only_org = sum(not pair.has_source for pair in wrong)
    only_source = sum(not pair.has_target for pair in wrong)
    reasons = [
        f"{only_org:,} groups only the org has" if only_org else "",
        f"{only_source:,} groups the org lacks" if only_source else "",
        f"within {rule.tolerance}" if tolerance else "",
    ]
    return Check(
        level=4,
        table=table,
        name=rule.name,
        status=CheckStatus.FAILED if wrong else CheckStatus.PASSED,
        source=str(len(pairs)),
        target=str(len(pairs) - len(wrong)),
        difference=str(len(wrong)),
        reason="; ".join(reason for reason in reasons if reason) or None,
        examples=tuple(_example(pair, masked=masked) for pair in wrong[:examples_max]),
    )


def _example(pair: _Pair, *, masked: bool) -> Difference:
    shown = [MASK if masked and part is not None else part or "(null)" for part in pair.group]
    return Difference(
        kind=Kind.DIFFERS,
        key=" | ".join(shown) or None,
        record_id=None,
        source=_shown(pair.source, pair.has_source),
        target=_shown(pair.target, pair.has_target),
    )


def _shown(value: Decimal | None, has_group: bool) -> str | None:
    if not has_group:
        return "(no such group)"
    return None if value is None else plain(value)


def _not_checked(table: str, rule: Rule, reason: str) -> Check:
    return Check(level=4, table=table, name=rule.name, status=CheckStatus.NOT_CHECKED, reason=reason)


def _column(shape: OrgShape, source_column: str | None) -> OrgColumn | None:
    """The field that a source column fills."""
    if source_column is None:
        return None
    rules = shape.work.rules
    name = rules.targets.get(source_column)
    if name is None and (source_column,) == rules.key_columns:
        name = rules.key_field
    return next((column for column in shape.columns if column.name == name), None)


def _flat(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """A record's values in the order of the query; those of parents in their places."""
    values: list[Any] = []
    for value in record.values():
        values.extend(_flat(value)) if isinstance(value, Mapping) else values.append(value)
    return tuple(values)


def _by_group(rows: Sequence[Sequence[Any]]) -> dict[Group, Decimal | None]:
    found: dict[Group, Decimal | None] = {}
    for row in rows:
        group = tuple(None if part is None or part == "" else _group_text(part) for part in row[:-1])
        if group in found:
            raise _Repeated
        found[group] = decimal(row[-1])
    return found


def _group_text(part: Any) -> str:
    """A group's value as both sides write it: numbers plainly, booleans in words."""
    if isinstance(part, bool):
        return "true" if part else "false"
    if isinstance(part, (int, float, Decimal)):
        found = decimal(part)
        assert found is not None
        return plain(found)
    return str(part).strip()
