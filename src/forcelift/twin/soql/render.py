"""Rows to records of REST JSON. Values come formatted out of DuckDB; Python only puts them into dicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from forcelift.twin.soql.compiled import CompiledQuery

Record: TypeAlias = dict[str, Any]
# Takes all children of a record; gives those of the first page, and where the rest is, if there is any.
ChildPages: TypeAlias = Callable[[list[Record]], tuple[list[Record], str | None]]


class Cursor(Protocol):
    """The part of a DuckDB cursor that is used here."""

    def execute(self, query: str) -> Any: ...


@dataclass(slots=True, kw_only=True)
class _Node:
    """A record in the JSON: its object, the place of its Id in the row, and its keys in SELECT order."""

    object_name: str
    id_at: int
    items: list[tuple[str, int | _Node]] = field(default_factory=list)


class _RecordBuilder:
    """Builds records out of rows of `CompiledQuery.sql`."""

    def __init__(self, compiled: CompiledQuery, api_version: str, child_pages: ChildPages | None) -> None:
        self.child_pages = child_pages
        self.base_url = f"/services/data/v{api_version}/sobjects"
        self.is_aggregate = compiled.is_aggregate
        self.columns = compiled.columns
        self.root = _Node(object_name=compiled.object_name, id_at=len(compiled.columns))
        nodes: dict[tuple[str, ...], _Node] = {(): self.root}
        for at, parent in enumerate(compiled.parents):
            nodes[parent.keys] = _Node(object_name=parent.object_name, id_at=self.root.id_at + 1 + at)
        placed: set[tuple[str, ...]] = set()
        for at, column in enumerate(compiled.columns):
            for depth in range(1, len(column.keys)):
                path = column.keys[:depth]
                if path not in placed:
                    placed.add(path)
                    nodes[path[:-1]].items.append((path[-1], nodes[path]))
            nodes[column.keys[:-1]].items.append((column.keys[-1], at))
        children_at = self.root.id_at + 1 + len(compiled.parents)
        self.children = [
            (child.key, children_at + at, _RecordBuilder(child.query, api_version, child_pages))
            for at, child in enumerate(compiled.children)
        ]
        self.keys = [column.keys[-1] for column in compiled.columns]
        self.is_flat = not placed and not compiled.children

    def records(self, rows: Sequence[Sequence[Any]]) -> list[Record]:
        """The records of some rows. Aggregates have no Id, hence no url."""
        if self.is_aggregate:
            return [
                {"attributes": {"type": "AggregateResult"}, **dict(zip(self.keys, row, strict=True))} for row in rows
            ]
        if self.is_flat:
            name, id_at, keys = self.root.object_name, self.root.id_at, self.keys
            base = f"{self.base_url}/{name}/"
            return [
                {"attributes": {"type": name, "url": base + row[id_at]}, **dict(zip(keys, row, strict=False))}
                for row in rows
            ]
        records = [self._record(self.root, row) for row in rows]
        for key, at, builder in self.children:
            for record, row in zip(records, rows, strict=True):
                record[key] = builder.nested(row[at])
        return records

    def nested(self, found: Sequence[dict[str, Any]] | None) -> Record | None:
        """Child rows as a result of their own; null where there are none."""
        if not found:
            return None
        records = self.records([tuple(row.values()) for row in found])
        page, rest = (records, None) if self.child_pages is None else self.child_pages(records)
        answer: Record = {"totalSize": len(records), "done": rest is None}
        if rest is not None:
            answer["nextRecordsUrl"] = rest
        return {**answer, "records": page}

    def _record(self, node: _Node, row: Sequence[Any]) -> Record:
        place = str(row[node.id_at])
        url = f"{self.base_url}/{place}" if "/" in place else f"{self.base_url}/{node.object_name}/{place}"
        record: Record = {"attributes": {"type": node.object_name, "url": url}}
        for key, value in node.items:
            if isinstance(value, _Node):
                record[key] = None if row[value.id_at] is None else self._record(value, row)
            else:
                record[key] = row[value]
        return record


def render_records(
    compiled: CompiledQuery,
    rows: pa.Table | Sequence[Sequence[Any]],
    api_version: str,
    *,
    child_pages: ChildPages | None = None,
) -> list[Record]:
    """Rows of `CompiledQuery.sql` as records of REST JSON.

    Args:
        compiled: The query that gave the rows. `COUNT()` has no records.
        rows: Its columns in order, as an Arrow table or as tuples.
        api_version: Such as `66.0`; stands in the records' urls.
        child_pages: Keeps what is more than a page of a record's children; without it they come whole.
    """
    if compiled.is_count:
        return []
    if isinstance(rows, pa.Table):
        rows = list(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return _RecordBuilder(compiled, api_version, child_pages).records(rows)


def total_size(compiled: CompiledQuery, cursor: Cursor) -> int:
    """The `totalSize` of the result: all its rows, on every page; for `COUNT()` the count."""
    return int(cursor.execute(compiled.count_sql).fetchall()[0][0])


def run(compiled: CompiledQuery, cursor: Cursor, api_version: str) -> list[Record]:
    """All records of a query at once; for small results. `COUNT()` has none, see `total_size`."""
    if compiled.is_count:
        return []
    return render_records(compiled, cursor.execute(compiled.sql).fetchall(), api_version)
