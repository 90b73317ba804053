"""What one table's part of a plan must hold together, beyond the form of its values. Pure: no source, no org."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from forcelift.errors import Problem
from forcelift.plan.models import FieldRule, TablePlan
from forcelift.plan.shape import Path, Shaped, did_you_mean
from forcelift.plan.zones import codec_name, encoding_names, is_zone, zone_names

# Rules that would make the external ID another text than the key that it is built from.
_KEY_RULES = {
    "values": "a key is taken as it is, so that every run finds the same record",
    "too_long": "a key longer than its field is rejected, never cut",
    "merge": "all copies have the same key",
}


class Neighbours(Struct, frozen=True, kw_only=True):
    """What a table must know of the other tables: each name's external ID field, None where that is not known."""

    external_ids: Mapping[str, str | None]


def table_problems(table: TablePlan, path: Path, *, shaped: Shaped, neighbours: Neighbours) -> Iterator[Problem]:
    """All faults of one table, in no order of importance."""
    yield from _key(table, path, shaped)
    yield from _targets(table, path, shaped)
    for column, rule in table.fields.items():
        yield from _field(table, column, rule, (*path, "fields", column), shaped, neighbours)
    yield from _constants(table, path, shaped)
    yield from _computed(table, path, shaped)
    yield from _duplicates(table, path, shaped)
    yield from _created_field(table, path, shaped)
    yield from _checks(table, path, shaped)
    yield from place_problems(table.encoding, table.timezone, path, shaped)


def place_problems(encoding: str | None, timezone: str | None, path: Path, shaped: Shaped) -> Iterator[Problem]:
    """An encoding or a zone that does not exist."""
    if encoding is not None:
        try:
            codec_name(encoding)
        except LookupError:
            hint = did_you_mean(encoding, encoding_names()) or "such as `utf-8`, `TIS-620`, `windows-874`"
            yield shaped.problem("there is no such encoding of text", (*path, "encoding"), hint=hint)
    if timezone is not None and not is_zone(timezone):
        hint = did_you_mean(timezone, zone_names()) or "an IANA name is meant, such as `Asia/Bangkok`"
        yield shaped.problem("there is no such time zone", (*path, "timezone"), hint=hint)


def lookup_field(field: str) -> str:
    """The field that a target names, lower case: that of the lookup where it goes through a relationship.

    Salesforce names a custom lookup `X__c` and its relationship `X__r`, a standard one `AccountId` and `Account`.
    """
    relationship, dot, _ = field.casefold().partition(".")
    if not dot:
        return relationship
    return relationship[:-1] + "c" if relationship.endswith("__r") else f"{relationship}id"


def _key(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    if len(set(table.key)) < len(table.key):
        yield shaped.problem("the key names a column twice", (*path, "key"))
    if len(table.key) > 1:
        return
    column = table.key[0]
    rule = table.fields.get(column)
    if rule is None or rule.field.casefold() != table.external_id.casefold():
        return
    place = (*path, "fields", column)
    for name, reason in _KEY_RULES.items():
        if getattr(rule, name) != FieldRule.model_fields[name].default:
            yield shaped.problem(f"`{name}` cannot stand at the key: {reason}", (*place, name))
    if isinstance(rule.empty, dict):
        yield shaped.problem(
            "a default cannot stand at the key: all rows without a key would be one record", (*place, "empty")
        )
    if rule.parent is not None:
        yield shaped.problem("the key cannot be a lookup", (*place, "parent"))


def _targets(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    """Two values for one field, and anything but the key for the external ID."""
    external_id = table.external_id.casefold()
    single = table.key[0] if len(table.key) == 1 else None
    taken: dict[str, tuple[str, Path]] = {}
    targets = [
        *((rule.field, f"column `{column}`", (*path, "fields", column)) for column, rule in table.fields.items()),
        *((field, "a constant", (*path, "constants", field)) for field in table.constants),
        *((field, "a computed value", (*path, "computed", field)) for field in table.computed),
    ]
    for field, what, place in targets:
        target = lookup_field(field)
        if target == external_id:
            if single is None or place != (*path, "fields", single):
                reason = "joined from the key's columns" if single is None else f"filled from the key `{single}`"
                yield shaped.problem(f"`{field}` is the external ID and is {reason}; nothing else may fill it", place)
        elif target in taken:
            other, other_place = taken[target]
            line = (shaped.position(other_place) or (0, 0))[0]
            yield shaped.problem(f"`{field}` is filled twice: by {what}, and by {other} in line {line}", place)
        else:
            taken[target] = (what, place)


def _field(
    table: TablePlan, column: str, rule: FieldRule, place: Path, shaped: Shaped, neighbours: Neighbours
) -> Iterator[Problem]:
    given = rule.model_fields_set
    if not column or any(ord(letter) < 32 for letter in column):
        yield shaped.problem("a column needs a name", place)
    if rule.parent is None and "missing_parent" in given:
        yield shaped.problem(
            "`missing_parent` needs `parent`", (*place, "missing_parent"), hint="name the parent's table"
        )
    if rule.values is None and "unmapped" in given:
        yield shaped.problem(
            "`unmapped` needs `values`", (*place, "unmapped"), hint="write the value map, or leave it out"
        )
    if rule.merge is not None:
        yield from _merge(table, column, rule, (*place, "merge"), shaped)
    if rule.date_format is not None and "%" not in rule.date_format:
        yield shaped.problem("the format names no part of a date", (*place, "date_format"), hint="such as `%d/%m/%Y`")
    yield from place_problems(rule.encoding, rule.timezone, place, shaped)
    if rule.parent is not None:
        yield from _parent(rule, rule.parent, place, shaped, neighbours)


def _merge(table: TablePlan, column: str, rule: FieldRule, place: Path, shaped: Shaped) -> Iterator[Problem]:
    if table.duplicates != "merge":
        yield shaped.problem("`merge` needs `duplicates: merge`", place)
    elif rule.merge == "latest" and table.changed_at is None:
        yield shaped.problem(
            "`merge: latest` needs `changed_at`", place, hint="name the column with the time of the last change"
        )
    if len(table.key) > 1 and column in table.key:
        yield shaped.problem(f"`merge` cannot stand at the key: {_KEY_RULES['merge']}", place)
    if rule.values is not None and rule.merge in ("min", "max", "sum", "longest"):
        yield shaped.problem(
            f"`merge: {rule.merge}` compares values as they stand in the source, before `values` maps them",
            place,
            hint="use `latest`, `first` or `not_null`",
        )


def _parent(rule: FieldRule, parent: str, place: Path, shaped: Shaped, neighbours: Neighbours) -> Iterator[Problem]:
    if parent not in neighbours.external_ids:
        hint = (
            did_you_mean(parent, neighbours.external_ids) or "leave `parent` out if its records are in the org already"
        )
        yield shaped.problem(f"the plan has no table `{parent}`", (*place, "parent"), hint=hint)
        return
    external_id = neighbours.external_ids[parent]
    _, dot, key_field = rule.field.partition(".")
    if not dot:
        hint = f"write `Relationship.{external_id or 'ExternalId'}`, such as `Tenant__r.Tenant_Code__c`"
        yield shaped.problem(
            "a lookup goes through its relationship to the parent's external ID", (*place, "field"), hint=hint
        )
    elif external_id is not None and key_field.casefold() != external_id.casefold():
        yield shaped.problem(
            f"the lookup finds parents by `{key_field}`, but `{parent}` is loaded by `{external_id}`",
            (*place, "field"),
            hint=f"write `{rule.field.partition('.')[0]}.{external_id}`",
        )


def _constants(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    if not table.constants:
        return  # most plans have none, and need not wait for the language of expressions
    from forcelift.plan.expressions import ExpressionError, constant_form

    for field, value in table.constants.items():
        place = (*path, "constants", field)
        yield from _target_name(field, place, shaped)
        try:
            form, _ = constant_form(value)
        except ExpressionError as error:
            yield shaped.problem(str(error), place, hint=error.hint)
            continue
        if form == "record_type" and field.casefold() != "recordtypeid":
            yield shaped.problem("`record_type` fills `RecordTypeId` only", place)


def _computed(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    if not table.computed:
        return
    from forcelift.plan.expressions import parse_expression

    for field, expression in table.computed.items():
        place = (*path, "computed", field)
        yield from _target_name(field, place, shaped)
        _, faults = parse_expression(expression)
        for fault in faults:
            yield shaped.problem(fault.message, (*place, *fault.path), hint=fault.hint)


def _target_name(field: str, place: Path, shaped: Shaped) -> Iterator[Problem]:
    if not all(part.isascii() and part.replace("_", "a").isalnum() and part[0].isalpha() for part in field.split(".")):
        yield shaped.problem("this is no name of a field", place, hint="such as `Source_System__c`")


def _duplicates(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    if table.duplicates == "keep_latest" and table.changed_at is None:
        yield shaped.problem(
            "`keep_latest` needs `changed_at`",
            (*path, "duplicates"),
            hint="name the column with the time of the last change",
        )


def _created_field(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    if table.created_field is None:
        return
    mapped = {rule.field for rule in table.fields.values()} | set(table.constants) | set(table.computed)
    if table.created_field.casefold() not in {field.casefold() for field in mapped}:
        yield shaped.problem(
            f"nothing fills `{table.created_field}`",
            (*path, "created_field"),
            hint=did_you_mean(table.created_field, mapped),
        )


def _checks(table: TablePlan, path: Path, shaped: Shaped) -> Iterator[Problem]:
    names: set[str] = set()
    for index, check in enumerate(table.checks):
        place = (*path, "checks", index)
        if check.name in names:
            yield shaped.problem(f"two checks have the name `{check.name}`", place)
        names.add(check.name)
        sums, queries = (check.sum, check.by), (check.sql, check.soql)
        is_sum, is_query = any(part is not None for part in sums), any(part is not None for part in queries)
        if is_sum == is_query or None in (sums if is_sum else queries):
            yield shaped.problem("a check has either `sum` and `by`, or `sql` and `soql`", place)
            continue
        for name, column in zip(("sum", "by"), sums, strict=True):
            if column is not None and column not in table.fields:
                hint = did_you_mean(column, table.fields)
                yield shaped.problem(
                    f"`{column}` is not mapped, so the org has nothing to compare", (*place, name), hint=hint
                )
