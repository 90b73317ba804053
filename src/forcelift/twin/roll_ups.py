"""Whether the roll-up summary fields of a schema fit its objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forcelift.twin.schema import ObjectSchema


def roll_up_problems(entry: ObjectSchema, objects: Sequence[ObjectSchema]) -> Iterator[str]:
    """What does not fit in the roll-ups of an object, each with its place."""
    by_name = {other.name: other for other in objects}
    for field in entry.fields:
        roll_up = field.roll_up
        if roll_up is None:
            continue
        place = f"objects.{entry.name}.fields.{field.name}.rollUp"
        child = by_name.get(roll_up.child)
        if child is None:
            yield f"{place}.child: no object `{roll_up.child}`"
            continue
        lookup = next((member for member in child.fields if member.name == roll_up.lookup), None)
        if lookup is None or not lookup.master_detail or lookup.reference_to != (entry.name,):
            yield f"{place}.lookup: {child.name} has no master-detail field `{roll_up.lookup}` to {entry.name}"
        if roll_up.function == "COUNT":
            if roll_up.of is not None:
                yield f"{place}.of: COUNT counts records and takes no field"
            if not field.is_number and field.type != "int":
                yield f"{place}: COUNT gives a number, and the field's type is {field.type}"
            continue
        of = next((member for member in child.fields if member.name == roll_up.of), None)
        moments = ("date", "datetime") if roll_up.function != "SUM" else ()
        if of is None or of.calculated or not (of.is_number or of.type in ("int", *moments)):
            yield f"{place}.of: {child.name} has no field `{roll_up.of}` of which there is a {roll_up.function}"
        elif (of.type in moments or field.type in ("date", "datetime")) and of.type != field.type:
            yield f"{place}.of: `{of.name}` is a {of.type}, and the field's type is {field.type}"
        elif not (field.is_number or field.type in ("int", *moments)):
            yield f"{place}: {roll_up.function} gives no {field.type}"
