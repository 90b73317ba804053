"""Builders for the tests of the rules: a table of given columns, its object, and parents that exist."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from forcelift.plan.models import FieldRule, TablePlan
from forcelift.protocols.org import FieldDescribe, ObjectDescribe
from forcelift.protocols.source import Column, ColumnKind, SourceTable
from forcelift.rules import ChunkCleaner, Cleaned, CompiledTable, ParentField, SourceDefaults, compile_table

AS_OF = datetime(2026, 6, 30, 18, 0, tzinfo=UTC)

ARROW = {
    ColumnKind.TEXT: pa.string(),
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.DECIMAL: pa.decimal128(38, 6),
    ColumnKind.FLOAT: pa.float64(),
    ColumnKind.BOOLEAN: pa.bool_(),
    ColumnKind.DATE: pa.date32(),
    ColumnKind.TIMESTAMP: pa.timestamp("us"),
    ColumnKind.INSTANT: pa.timestamp("us", "UTC"),
    ColumnKind.BINARY: pa.binary(),
    ColumnKind.UNSUPPORTED: pa.null(),
}

KEY = FieldDescribe(name="Key__c", label="Key", type="string", length=40, external_id=True, id_lookup=True, unique=True)


def describe_field(name: str, type_: str = "string", **attributes: Any) -> FieldDescribe:
    return FieldDescribe(name=name, label=name, type=type_, **attributes)


def source_column(name: str, kind: ColumnKind = ColumnKind.TEXT, **attributes: Any) -> Column:
    attributes.setdefault("arrow", ARROW[kind])
    return Column(name=name, kind=kind, declared=str(kind).upper(), **attributes)


def object_of(*fields: FieldDescribe, **attributes: Any) -> ObjectDescribe:
    named = {field.name: field for field in (KEY, *fields)}
    return ObjectDescribe(name="Thing__c", label="Thing", key_prefix="a00", fields={**named}, **attributes)


def plan_of(fields: Mapping[str, Any], **settings: Any) -> TablePlan:
    settings.setdefault("key", ("ID",))
    rules = {name: FieldRule.model_validate(rule) for name, rule in fields.items()}
    return TablePlan(table="THINGS", object="Thing__c", external_id="Key__c", fields=rules, **settings)


def compiled(
    fields: Mapping[str, Any],
    *,
    columns: tuple[Column, ...],
    describe: ObjectDescribe,
    parents: Mapping[str, ParentField] | None = None,
    links: frozenset[str] = frozenset(),
    timezone: str | None = None,
    encoding: str = "utf-8",
    owners: Mapping[str, str] | None = None,
    **settings: Any,
) -> CompiledTable:
    return compile_table(
        plan_of(fields, **settings),
        table=SourceTable(name="THINGS", columns=columns),
        describe=describe,
        parents=parents or {},
        link_columns=links,
        defaults=SourceDefaults(encoding=encoding, timezone=timezone),
        owners=owners,
    )


def one_column(
    values: list[Any],
    field: FieldDescribe,
    /,
    *,
    kind: ColumnKind = ColumnKind.TEXT,
    timezone: str | None = None,
    encoding: str = "utf-8",
    dtype: Any = None,
    as_of: datetime = AS_OF,
    **rule: Any,
) -> Cleaned:
    """Clean one column `V` of a table whose keys are 0, 1, 2 ..."""
    arrow = pa.binary() if values and any(isinstance(value, bytes) for value in values) else ARROW[kind]
    table = compiled(
        {"ID": {"field": "Key__c"}, "V": {"field": field.name, **rule}},
        columns=(source_column("ID", ColumnKind.INTEGER), source_column("V", kind, arrow=arrow)),
        describe=object_of(field),
        timezone=timezone,
        encoding=encoding,
    )
    series = pl.Series("V", values, dtype=dtype) if dtype is not None else _series(values, arrow)
    frame = pl.DataFrame({"ID": list(range(len(values))), "V": series}, schema_overrides={"ID": pl.Int64})
    cleaner = ChunkCleaner(table, chunk_no=0, as_of=as_of, duplicates=None, parents={})
    cleaned = cleaner.clean(frame)
    cleaner.finish()
    return cleaned


def _series(values: list[Any], arrow: pa.DataType) -> pl.Series:
    series = pl.from_arrow(pa.array(values, arrow))
    assert isinstance(series, pl.Series)
    return series.alias("V")


def texts_of(cleaned: Cleaned, column: str) -> list[str | None]:
    """For each source row: the text that is sent, or the code it was rejected with."""
    sent = dict(cleaned.accepted.select("row", column).iter_rows())
    return [sent.get(row, code) for row, code in cleaned.rows.select("row", "code").iter_rows()]


class KnownParents:
    """Parents that exist: normalised key to stored key."""

    def __init__(self, stored: Mapping[str, str]) -> None:
        self._stored = dict(stored)
        self.asked: list[str] = []

    def stored(self, norms: pl.Series) -> pl.DataFrame:
        self.asked += norms.to_list()
        known = [norm for norm in norms if norm in self._stored]
        return pl.DataFrame(
            {"norm": known, "stored": [self._stored[norm] for norm in known]},
            schema={"norm": pl.String, "stored": pl.String},
        )
