"""`/composite/tree`: new records with their children, all or none.

Source: REST API Developer Guide, "sObject Tree": up to 200 records of 5 objects in all, 5 levels deep; every record
has a `referenceId` of its own; an error rolls everything back and only the records at fault are listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from forcelift.twin.errors import ApiError
from forcelift.twin.http_core import Call, Reply, json_reply
from forcelift.twin.http_rest import RestCalls
from forcelift.twin.org import TwinOrg
from forcelift.twin.rest_unit import RollBack, WorkUnits
from forcelift.twin.rest_write import RecordWriter, SaveError
from forcelift.twin.schema import FieldSchema, ObjectSchema

RECORDS_MAX: Final = 200
LEVELS_MAX: Final = 5
OBJECTS_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A record of the tree: its own values, and the record and lookup by which it hangs on its parent."""

    entry: ObjectSchema
    name: str
    values: Mapping[str, Any]
    level: int
    parent: str | None
    lookup: FieldSchema | None


class TreeCalls:
    """The handler of `/composite/tree/{object}`."""

    def __init__(self, org: TwinOrg, read: RestCalls, units: WorkUnits) -> None:
        self._org = org
        self._read = read
        self._units = units
        self._writer = RecordWriter(org, units)

    def create(self, call: Call) -> Reply:
        """201 with an Id for each `referenceId`, or 400 with the errors of the records that were refused."""
        entry = self._read.object_named(call)
        nodes = list(self._nodes(call.json_object(), entry, level=1, parent=None, lookup=None))
        _check(nodes)
        ids: dict[str, str] = {}
        errors: dict[str, SaveError] = {}
        try:
            with self._units.all_or_none():
                for _, group in groupby(sorted(nodes, key=_order), key=_order):
                    self._save(list(group), ids, errors, user_id=call.session.user_id)
                    if errors:
                        raise RollBack
        except RollBack:
            listed = [{"referenceId": name, "errors": [error.as_json()]} for name, error in errors.items()]
            return json_reply({"hasErrors": True, "results": listed}, status=400)
        listed = [{"referenceId": node.name, "id": ids[node.name]} for node in nodes]
        return json_reply({"hasErrors": False, "results": listed}, status=201)

    def _save(self, nodes: Sequence[Node], ids: dict[str, str], errors: dict[str, SaveError], *, user_id: str) -> None:
        records = [
            {**node.values, node.lookup.name: ids[node.parent]}
            if node.lookup is not None and node.parent is not None
            else node.values
            for node in nodes
        ]
        results = self._writer.save(nodes[0].entry, "insert", records, key=None, user_id=user_id)
        for node, result in zip(nodes, results, strict=True):
            if result.error is not None:
                errors[node.name] = result.error
            elif result.id is not None:
                ids[node.name] = result.id

    def _nodes(
        self, body: Any, entry: ObjectSchema, *, level: int, parent: str | None, lookup: FieldSchema | None
    ) -> Iterator[Node]:
        """The records of a list, each followed by its children."""
        records = body.get("records") if isinstance(body, Mapping) else None
        if not isinstance(records, list) or not records:
            raise ApiError(400, "JSON_PARSER_ERROR", "A tree needs `records`, a list that is not empty")
        if level > LEVELS_MAX:
            raise ApiError(400, "INVALID_INPUT", f"A tree may be at most {LEVELS_MAX} levels deep")
        for record in records:
            attributes = record.get("attributes") if isinstance(record, Mapping) else None
            name = attributes.get("referenceId") if isinstance(attributes, Mapping) else None
            kind = attributes.get("type") if isinstance(attributes, Mapping) else None
            if not isinstance(name, str) or not name:
                raise ApiError(400, "INVALID_INPUT", "Every record of a tree needs attributes.referenceId")
            if not isinstance(kind, str) or kind.lower() != entry.name.lower():
                raise ApiError(400, "INVALID_INPUT", f"attributes.type of {name} must be {entry.name}")
            nested = {key: value for key, value in record.items() if _is_list(value)}
            values = {key: value for key, value in record.items() if key not in nested}
            yield Node(entry=entry, name=name, values=values, level=level, parent=parent, lookup=lookup)
            for relationship, children in nested.items():
                child, field = self._child(entry, relationship)
                yield from self._nodes(children, child, level=level + 1, parent=name, lookup=field)

    def _child(self, entry: ObjectSchema, relationship: str) -> tuple[ObjectSchema, FieldSchema]:
        for child, field in self._org.schema.children(entry.name):
            if (field.child_relationship_name or "").lower() == relationship.lower():
                return child, field
        raise ApiError(400, "INVALID_FIELD", f"No such relation '{relationship}' on sobject of type {entry.name}")


def _is_list(value: Any) -> bool:
    return isinstance(value, Mapping) and "records" in value


def _order(node: Node) -> tuple[int, str]:
    """Parents before children, records of one object together."""
    return node.level, node.entry.name


def _check(nodes: Sequence[Node]) -> None:
    if len(nodes) > RECORDS_MAX:
        raise ApiError(400, "INVALID_INPUT", f"A tree may hold at most {RECORDS_MAX} records")
    if len({node.entry.name for node in nodes}) > OBJECTS_MAX:
        raise ApiError(400, "INVALID_INPUT", f"A tree may hold records of at most {OBJECTS_MAX} objects")
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            message = f"Duplicate ReferenceId provided in the request: {node.name}"
            raise ApiError(400, "INVALID_INPUT", message)
        seen.add(node.name)
