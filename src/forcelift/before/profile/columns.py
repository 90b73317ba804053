"""What is looked at in each column while its rows go by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl
import pyarrow as pa
from msgspec import Struct

from forcelift.before.profile.oddities import EraCount, personal_signs, text_oddities
from forcelift.before.profile.statistics import ColumnStatistics, shown_values
from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.work import TableWork
from forcelift.protocols.org import FieldDescribe
from forcelift.protocols.source import BROKEN_TEXT, ColumnFigures, ColumnKind, TableFigures
from forcelift.protocols.source import Column as SourceColumn
from forcelift.rules import plain_text
from forcelift.rules.column import Column, Form
from forcelift.rules.texts import TextLook, decode


class ColumnLook(Struct, kw_only=True):
    """One column: its figures, and what is odd in it."""

    statistics: ColumnStatistics
    name: str
    codec: str | None
    is_text: bool
    is_classified: bool
    is_read: bool = True  # with the rows; else a sample is all that is seen of it
    is_judged: bool = True  # what is odd in it is a finding
    typed: pl.DataType | None = None
    eras: EraCount | None = None

    def add(self, values: pl.Series, look: TextLook | None) -> Iterator[tuple[str, pl.Series]]:
        """Take in a batch. Gives what is odd: kind and rows (u32)."""
        shown = shown_values(values, self.codec, look)
        if shown.dtype == pl.String and shown is not values:
            look = TextLook(shown)
        if self.typed is not None and shown.dtype == pl.String:
            # A batch in which a value does not fit the column's type comes as text; figures are of those that do.
            self.statistics.add(shown.cast(self.typed, strict=False), None, nulls=shown.null_count())
        else:
            self.statistics.add(shown, look)
        if self.eras is not None and (shown.dtype == pl.String or shown.dtype.is_temporal()):
            self.eras.add(shown)
        if self.is_judged and self.is_text and look is not None and not look.is_ascii:
            yield from text_oddities(look, broken_rows(values, self.codec))

    def add_sample(self, values: pl.Series) -> None:
        """Take in rows of a sample, where no others are read."""
        shown = shown_values(values, self.codec)
        if self.typed is not None and shown.dtype == pl.String:
            shown = shown.cast(self.typed, strict=False)
        self.statistics.add_sample(shown)

    def texts(self, values: pl.Series) -> pl.Series:
        """Values as people read them."""
        shown = shown_values(values, self.codec)
        return shown if shown.dtype == pl.String else plain_text(shown)

    def personal_sign(self) -> tuple[str, float] | None:
        """What makes the column look personal, if the plan does not say whether it is."""
        return None if self.is_classified or not self.is_judged else personal_signs(self.name, self.statistics.sample)


def broken_rows(values: pl.Series, codec: str | None) -> pl.Series:
    """Rows (u32) whose bytes the source or the declared encoding could not read."""
    if values.dtype == pl.Binary:
        return decode(values, codec)[1] if codec is not None else pl.Series(dtype=pl.UInt32)
    return values.str.starts_with(BROKEN_TEXT).fill_null(False).arg_true()


def column_looks(world: ProfileWorld, work: TableWork, figures: TableFigures | None) -> dict[str, ColumnLook]:
    """All columns of a table that can be read, by name.

    Args:
        figures: What its database counts; of columns that it leaves out the rows are looked at.
    """
    mapped = frozenset(work.rules.source_columns)
    fields = world.fields[work.plan.table]
    looks = {}
    for source in work.source.columns:
        if source.kind is ColumnKind.UNSUPPORTED:
            continue
        rules = _rules_of(work, source.name)
        is_judged = source.name in mapped or world.all_columns
        counted = None if figures is None else figures.columns.get(source.name)
        if counted is not None and is_judged and not _is_all_told(source, rules, counted):
            counted = None
        rule = work.plan.fields.get(source.name)
        target = _field_of(work, source.name, fields)
        is_classified = rule is not None and rule.personal is not None
        is_unmapped_text = source.name not in work.rules.source_columns and source.kind is ColumnKind.TEXT
        words = {*(rules.picklist if rules is not None else ()), *(target.picklist_values if target else ())}
        if rule is not None and rule.values is not None:
            words |= {*rule.values, *rule.values.values()}
        codec = rules.codec if rules is not None else None
        if rules is None and source.kind is ColumnKind.TEXT and source.arrow == pa.binary():
            codec = world.codecs[work.plan.table]
        looks[source.name] = ColumnLook(
            statistics=ColumnStatistics(
                source,
                rules=rules,
                target=target,
                is_personal=source.name in work.rules.personal_columns or is_unmapped_text,
                is_classified=is_classified,
                words=words,
                counted=counted,
                rows=0 if figures is None else figures.rows,
            ),
            name=source.name,
            codec=codec,
            is_text=source.kind is ColumnKind.TEXT or codec is not None,
            is_classified=is_classified,
            is_read=is_judged or counted is None,
            is_judged=is_judged,
            typed=_typed(source.arrow),
            eras=EraCount() if rules is not None and rules.form in (Form.DATE, Form.DATETIME) else None,
        )
    return looks


def _is_all_told(source: SourceColumn, rules: Column | None, counted: ColumnFigures) -> bool:
    """Whether the database's figures are those of the values as the plan reads them."""
    if counted.distinct is None:
        return False
    # Numbers that are stored as texts have an order and an average that the database does not know.
    is_number = rules is not None and rules.form is Form.NUMBER
    return not (is_number and source.kind is ColumnKind.TEXT and counted.average is None and counted.present)


def _typed(kind: pa.DataType) -> pl.DataType | None:
    """The type of values that are no texts."""
    dtype = pl.Series(pa.array([], type=kind)).dtype
    return None if dtype in (pl.String, pl.Binary, pl.Null) else dtype


def _rules_of(work: TableWork, name: str) -> Column | None:
    changed = work.rules.changed_column
    known = work.rules.columns.get(name) or work.rules.plain_columns.get(name)
    return known or (changed if changed is not None and changed.name == name else None)


def _field_of(work: TableWork, name: str, fields: Mapping[str, FieldDescribe]) -> FieldDescribe | None:
    target = work.rules.targets.get(name)
    if target is None and work.plan.key == (name,):
        target = work.rules.key_field
    lookup = work.rules.lookups.get(name)
    return fields.get(lookup.field if lookup is not None else target or "")
