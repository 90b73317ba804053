"""Compare records field by field, as they were sent and as the org has them; personal values are masked."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from msgspec import Struct

from forcelift.after.validate.checks import Difference, Kind
from forcelift.after.validate.org_rows import OrgShape
from forcelift.jobs.work import TableWork

MASK = "***"


class Compared(Struct, frozen=True, kw_only=True):
    """What a comparison gave.

    Attributes:
        differences: One for each field that differs, by key.
        equal_ids: Records without any difference, as far as their fields are the plan's.
    """

    differences: tuple[Difference, ...]
    equal_ids: frozenset[str]


def personal_fields(work: TableWork) -> frozenset[str]:
    """Target fields that personal columns, or columns of which it is not said, go into."""
    rules = work.rules
    personal = {rules.targets[name] for name in rules.personal_columns if name in rules.targets}
    # A computed value may be made of personal columns. The key is shown: without it nobody finds the record.
    return frozenset((personal | set(work.plan.computed)) - {rules.key_field})


def compare(
    shape: OrgShape,
    sent: pl.DataFrame,
    org: pl.DataFrame,
    *,
    chunks: Mapping[str, int],
) -> Compared:
    """Compare records that both sides have.

    Args:
        sent: `key`, `id` and the plan's fields.
        org: `id`, `modified`, the key field and the plan's fields.
        chunks: Chunk numbers by Id.
    """
    masked = personal_fields(shape.work)
    leaves = shape.work.plan.nulls == "leave"
    both = sent.rename({name: f"sent:{name}" for name in sent.columns if name != "id"}).join(
        org, on="id", how="inner", maintain_order="left"
    )
    found: list[Difference] = []
    changed: set[str] = set()
    for column in shape.columns:
        name = column.name
        sent_name = "sent:key" if name == shape.key_field else f"sent:{name}"
        wrong = both.filter(pl.col(sent_name).ne_missing(pl.col(name)))
        if leaves and name != shape.key_field:
            # What was null was not sent: the field is not the plan's in this record.
            wrong = wrong.filter(pl.col(sent_name).is_not_null())
        shown = wrong.select("id", "sent:key", pl.col(sent_name).alias("was"), pl.col(name).alias("is"), "modified")
        for row in shown.iter_rows():
            record_id, key, source, target, modified = row
            changed.add(record_id)
            is_masked = name in masked
            found.append(
                Difference(
                    kind=Kind.DIFFERS,
                    key=key,
                    record_id=record_id,
                    chunk=chunks.get(record_id),
                    field=name,
                    source=MASK if is_masked and source is not None else source,
                    target=MASK if is_masked and target is not None else target,
                    note=f"last changed {modified}" if modified else None,
                )
            )
    found.sort(key=lambda one: (one.key or "", one.field or ""))
    return Compared(differences=tuple(found), equal_ids=frozenset(both["id"].to_list()) - changed)
