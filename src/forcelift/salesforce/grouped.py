"""A query with GROUP BY that has more groups than the org gives at once: asked for in pages, by the group's own keys.

An aggregate gives at most 2,000 groups and has no cursor for more. Its groups are ordered by their keys, and each page
begins after the last group of the one before. Whoever counts groups must not meet one twice: no page repeats another's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from msgspec import Struct

from forcelift.errors import UsageError
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.salesforce.soql import Value, literal

GROUPS_MAX = 2_000
"""Groups that the org gives at once (SOQL reference, GROUP BY: aggregates have no queryMore)."""

TOO_MANY_CODE = "EXCEEDED_ID_LIMIT"

_CLAUSES = frozenset({"SELECT", "FROM", "WHERE", "GROUP BY", "HAVING"})
_KEYWORD = re.compile(
    r"(?i)(SELECT|FROM|WHERE|GROUP\s+BY|HAVING|WITH|USING|ORDER\s+BY|LIMIT|OFFSET|FOR|ALL\s+ROWS)(?![\w.])"
)
_WORD = re.compile(r"[A-Za-z_][\w.]*")
_PATH = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
# Types by which the org groups; decimals and datetimes are not among them. A picklist is ordered by its values' places,
# not by their texts, and a checkbox has no order.
_ORDERED = frozenset({"string", "email", "phone", "url", "id", "reference", "int", "date"})


class GroupedQuery(Struct, frozen=True, kw_only=True):
    """A query cut into its clauses. `places` are the keys' places among the selected values."""

    selected: str
    source: str
    where: str
    having: str
    keys: tuple[str, ...]
    fields: tuple[FieldDescribe, ...]
    places: tuple[int, ...]

    def page(self, last: Sequence[Value] | None) -> str:
        """The query of the page that begins after the group with these keys; of the first page for None."""
        parts = [f"({self.where})"] if self.where else []
        if last is not None:
            parts.append(self._after(last))
        where = f" WHERE {' AND '.join(parts)}" if parts else ""
        having = f" HAVING {self.having}" if self.having else ""
        order = ", ".join(f"{key} ASC NULLS FIRST" for key in self.keys)
        groups = f"GROUP BY {', '.join(self.keys)}{having}"
        return f"SELECT {self.selected} FROM {self.source}{where} {groups} ORDER BY {order} LIMIT {GROUPS_MAX}"

    def keys_of(self, record: Mapping[str, Any]) -> list[Value]:
        """The group of a record."""
        values = list(_flat(record))
        return [_value(field, values[place]) for field, place in zip(self.fields, self.places, strict=True)]

    def _after(self, last: Sequence[Value]) -> str:
        """Groups greater than `last`, key by key; null is the smallest."""
        ways = []
        for place, (key, value) in enumerate(zip(self.keys, last, strict=True)):
            same = [f"{one} = {literal(each)}" for one, each in zip(self.keys[:place], last[:place], strict=True)]
            greater = f"{key} != null" if value is None else f"{key} > {literal(value)}"
            ways.append(f"({' AND '.join([*same, greater])})")
        return f"({' OR '.join(ways)})"


def is_grouped(soql: str) -> bool:
    """Whether a query has groups at all."""
    return "GROUP BY" in _clauses(soql)


def parse_grouped(soql: str, describe: Callable[[str], ObjectDescribe]) -> GroupedQuery:
    """Cut a query into what its pages are made of.

    Raises:
        UsageError: It cannot be paged: it orders or limits its groups itself, or groups by what cannot be compared.
    """
    clauses = _clauses(soql)
    if set(clauses) - {"WHERE", "HAVING"} != {"SELECT", "FROM", "GROUP BY"}:
        others = sorted(set(clauses) - _CLAUSES)
        raise _cannot(
            f"it has {others[0]}" if others else "it is not of the form SELECT, FROM, WHERE, GROUP BY, HAVING"
        )
    if not _PATH.fullmatch(clauses["FROM"]):
        raise _cannot("its object has an alias")
    keys = tuple(_list(clauses["GROUP BY"]))
    for key in keys:
        if not _PATH.fullmatch(key):
            raise _cannot("it groups by a function")
    items = [item.split()[0].lower() for item in _list(clauses["SELECT"])]
    missing = [key for key in keys if key.lower() not in items]
    if missing:
        raise _cannot(f"it groups by `{missing[0]}` and does not select it")
    fields = tuple(_field(key, clauses["FROM"], describe) for key in keys)
    unordered = [field.name for field in fields if field.type not in _ORDERED]
    if unordered:
        raise _cannot(f"groups of `{unordered[0]}` cannot be told by greater and less")
    return GroupedQuery(
        selected=clauses["SELECT"],
        source=clauses["FROM"],
        where=clauses.get("WHERE", ""),
        having=clauses.get("HAVING", ""),
        keys=keys,
        fields=fields,
        places=tuple(items.index(key.lower()) for key in keys),
    )


def grouped_records(query: GroupedQuery, ask: Callable[[str], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """All groups, page after page."""
    last: list[Value] | None = None
    while True:
        rows = 0
        for record in ask(query.page(last)):
            rows += 1
            yield record
        if rows < GROUPS_MAX:
            return
        last = query.keys_of(record)


def _clauses(soql: str) -> dict[str, str]:
    """The text of each clause, by its keyword; keywords in quotes, brackets and subqueries are none."""
    found: list[tuple[str, int, int]] = []
    depth = place = 0
    while place < len(soql):
        if soql[place] == "'":
            place = _end_of_text(soql, place)
            continue
        depth += (soql[place] == "(") - (soql[place] == ")")
        word = _WORD.match(soql, place)
        keyword = _KEYWORD.match(soql, place) if word is not None and depth == 0 else None
        if keyword is not None:
            found.append((" ".join(keyword[0].upper().split()), place, keyword.end()))
        place = (keyword or word).end() if word is not None else place + 1
    ends = [start for _, start, _ in found[1:]] + [len(soql)]
    return {name: soql[first:end].strip() for (name, _, first), end in zip(found, ends, strict=True)}


def _end_of_text(soql: str, start: int) -> int:
    place = start + 1
    while place < len(soql) and soql[place] != "'":
        place += 2 if soql[place] == "\\" else 1
    return place + 1


def _list(text: str) -> list[str]:
    """The items between commas that stand in no brackets."""
    items, depth, first = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if sign == "," and depth == 0:
            items.append(text[first:place].strip())
            first = place + 1
    return [*items, text[first:].strip()]


def _field(path: str, object_name: str, describe: Callable[[str], ObjectDescribe]) -> FieldDescribe:
    *relations, name = path.split(".")
    here = describe(object_name)
    for relation in relations:
        lookups = {(one.relationship_name or "").lower(): one for one in here.fields.values()}
        lookup = lookups.get(relation.lower())
        if lookup is None or len(lookup.reference_to) != 1:
            raise _cannot(f"`{path}` leads to no one object")
        here = describe(lookup.reference_to[0])
    field = next((one for one in here.fields.values() if one.name.lower() == name.lower()), None)
    if field is None:
        raise _cannot(f"`{path}` is no field")
    return field


def _flat(record: Mapping[str, Any]) -> Iterator[Any]:
    for value in record.values():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield value


def _value(field: FieldDescribe, value: Any) -> Value:
    if value is None or field.type == "int":
        found: Value = value
        return found
    return date.fromisoformat(str(value)) if field.type == "date" else str(value)


def _cannot(reason: str) -> UsageError:
    return UsageError(
        f"a query with GROUP BY has more than {GROUPS_MAX:,} groups and cannot be asked for in pages: {reason}",
        state="nothing was changed in the org",
        hint="narrow it by WHERE, or write the check as `sum` and `by`, which has no such bound",
    )
