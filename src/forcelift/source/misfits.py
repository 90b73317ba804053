"""Values that their column's declared type cannot hold, beside those that it can.

A column of a batch that holds such a value is delivered as a struct of parts (`protocols.source.Source.read`), so that
the rules decide about it row by row. A batch without any is as the column's `arrow` says, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa


def with_misfits(values: pa.Array, *, reals: pa.Array | None = None, texts: pa.Array | None = None) -> pa.Array:
    """The values if there is no misfit, else a struct of the parts.

    Args:
        values: In the type of the column, null where it is a misfit or where there is no value.
        reals, texts: Misfits as doubles and as text; null elsewhere.
    """
    parts = {"value": values, "real": reals, "text": texts}
    used = {
        name: part
        for name, part in parts.items()
        if part is not None and (name == "value" or part.null_count < len(part))
    }
    return values if len(used) == 1 else pa.StructArray.from_arrays(list(used.values()), names=list(used))


def table_of(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Batches of one read as a table, also where some of them hold misfits."""
    columns = []
    for at, field in enumerate(schema):
        chunks = [batch.column(at) for batch in batches]
        parts = {
            part.name: part.type for chunk in chunks if pa.types.is_struct(chunk.type) for part in chunk.type.fields
        }
        if parts:
            chunks = [_with_parts(chunk, parts) for chunk in chunks]
        columns.append(pa.chunked_array(chunks, type=None if parts else field.type))
    return pa.Table.from_arrays(columns, names=schema.names)


def _with_parts(values: pa.Array, parts: dict[str, pa.DataType]) -> pa.Array:
    is_struct = pa.types.is_struct(values.type)
    held = dict(zip(values.type.names, values.flatten(), strict=True)) if is_struct else {"value": values}
    arrays = [held.get(name, pa.nulls(len(values), arrow)) for name, arrow in parts.items()]
    return pa.StructArray.from_arrays(arrays, names=list(parts))
