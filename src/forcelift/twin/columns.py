"""What each column of an upload means: a field, or a lookup by a parent's key. Wrong headers fail the whole job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forcelift.twin.errors import CsvRefused
from forcelift.twin.schema import FieldSchema, ObjectSchema, Schema

_CHECKED_BY_KEY = ("delete", "hardDelete")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `parent` and `key` are set for `Relationship.Key` columns: the object and its field to match by."""

    index: int
    header: str
    field: FieldSchema
    exact: bool
    parent: ObjectSchema | None = None
    key: FieldSchema | None = None

    @property
    def kind(self) -> FieldSchema:
        """The field whose type the cells have: the parent's key, or the field itself."""
        return self.key or self.field

    @property
    def cell(self) -> str:
        """Name of the column that holds the text as sent."""
        return f"c{self.index}"

    @property
    def value(self) -> str:
        """Name of the column that holds the typed value."""
        return f"v{self.index}"

    @property
    def given(self) -> str:
        """Name of the column that tells whether the cell was not empty."""
        return f"g{self.index}"


def bind_columns(names: Sequence[str], *, schema: Schema, entry: ObjectSchema, operation: str) -> tuple[Column, ...]:
    """Find the field of each header name.

    Raises:
        CsvRefused: With the errorMessage that the first bad column gives the job.
    """
    if operation in _CHECKED_BY_KEY and tuple(names) != ("Id",):
        raise CsvRefused(f"InvalidBatch : The '{operation}' batch must contain only ids")
    columns = []
    taken: set[str] = set()
    for index, header in enumerate(names):
        column = _bind(index, header, schema=schema, entry=entry)
        if column.field.name in taken:
            raise CsvRefused(f"InvalidBatch : Duplicate field name : {header}")
        taken.add(column.field.name)
        columns.append(column)
    return tuple(columns)


def _bind(index: int, header: str, *, schema: Schema, entry: ObjectSchema) -> Column:
    if "." not in header:
        field = entry.field(header)
        if field is None or not field.stored:
            raise _unknown(header)
        return Column(index=index, header=header, field=field, exact=header == field.name)
    path, _, key_name = header.partition(".")
    prefix, colon, relationship = path.rpartition(":")
    field = entry.relationship(relationship)
    if colon and field is None:
        raise CsvRefused(f"InvalidBatch : Unable to find relationship: {relationship}")
    if field is None:
        raise _unknown(header)
    if colon and not field.polymorphic:
        raise CsvRefused(
            f"InvalidBatch : type is not needed for non polymorphic foreign key references: {relationship}"
        )
    if not colon and field.polymorphic:
        raise _unknown(header)
    targets = [target for target in field.reference_to if not colon or target.lower() == prefix.lower()]
    parent = schema.object(targets[0]) if targets else None
    key = parent.field(key_name) if parent is not None else None
    if parent is None or key is None or not key.stored or not (key.id_lookup or key.external_id):
        raise _unknown(header)
    exact = header == f"{parent.name + ':' if colon else ''}{field.relationship_name}.{key.name}"
    return Column(index=index, header=header, field=field, exact=exact, parent=parent, key=key)


def _unknown(header: str) -> CsvRefused:
    return CsvRefused(f"InvalidBatch : Field name not found : {header}")
