"""Figures of one column, its database's or taken in batch by batch: exact where that is cheap, else said to be near.

A database counts nulls, extremes, averages, lengths, different and frequent values itself (`CountsColumns`). Without
one, nulls, extremes, averages and lengths are of all rows. Different values are counted by a sketch. The most frequent
values are counted in all rows where a column has few of them, else in a sample of rows taken evenly from all of them;
histograms of values are of that sample.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, datetime
from typing import Any, Final

import polars as pl
from msgspec.structs import replace

from forcelift.before.profile.records import MASK, Bar, ColumnProfile, Histogram, TopValue
from forcelift.before.profile.sketch import DistinctSketch
from forcelift.protocols.org import FieldDescribe
from forcelift.protocols.source import Column as SourceColumn
from forcelift.protocols.source import ColumnFigures
from forcelift.rules import compact, decoded_text, plain_text, unescape
from forcelift.rules.column import Column, Form
from forcelift.rules.numbers import without_broken
from forcelift.rules.texts import BLANKS, TextLook

TOP: Final = 5
BARS: Final = 24
SAMPLE_ROWS: Final = 20_000
_FEW: Final = 1_000  # different values that are counted one by one in all rows
_FEW_IN_BATCH: Final = 300
_TEXT_SHOWN: Final = 120
_WHOLE_FROM, _WHOLE_BELOW = 100.0, 1e15


def shown_values(values: pl.Series, codec: str | None, look: TextLook | None = None) -> pl.Series:
    """A source column as it is looked at: bytes that are text as text, what the source could not read as U+FFFD."""
    if values.dtype == pl.Binary:
        return decoded_text(values, codec) if codec is not None else values.bin.encode("hex")
    if values.dtype in (pl.Categorical, pl.Enum):
        return values.cast(pl.String)
    if values.dtype == pl.String:
        return values if look is not None and look.byte_range[0] > 0 else unescape(values)[0]
    return without_broken(values)


class ColumnStatistics:
    """The figures of one column.

    Args:
        source: The column as the source describes it.
        rules: Its compiled rules; None for a column that is read but goes nowhere by itself.
        target: The field it feeds.
        words: Values that may be shown though the column is personal: the plan or the org name them.
        counted: What its database says, of which the rows that go by then leave samples and lengths alone.
        rows: How many rows that is of.
    """

    def __init__(
        self,
        source: SourceColumn,
        *,
        rules: Column | None,
        target: FieldDescribe | None,
        is_personal: bool,
        is_classified: bool,
        words: Collection[str],
        counted: ColumnFigures | None = None,
        rows: int = 0,
    ) -> None:
        self._counted = counted
        self._source, self._rules, self._target = source, rules, target
        self._is_personal, self._is_classified, self._words = is_personal, is_classified, frozenset(words)
        self._sketch = DistinctSketch()
        self._rows = self._nulls = self._chars = 0
        if counted is not None:
            self._rows, self._nulls = rows, rows - counted.present
        self._lengths_of_all = True
        self._least: Any = None
        self._most: Any = None
        self._sum = 0.0
        self._numbers = 0
        self._lengths: pl.DataFrame | None = None
        self._counts: pl.DataFrame | None = None
        self._counts_all = True
        self._sample: list[pl.Series] = []
        self._step = 1

    @property
    def sample(self) -> pl.Series:
        """Values of rows taken evenly from all that were read; texts are cut."""
        return pl.concat(self._sample) if self._sample else pl.Series(dtype=pl.String)

    @property
    def is_counted(self) -> bool:
        """Whether its database counts the column."""
        return self._counted is not None

    @property
    def is_compared(self) -> bool:
        """Whether the database that counts the column compares its values."""
        return self._counted is not None and self._counted.distinct is not None

    @property
    def present(self) -> int:
        """Rows that have a value."""
        return self._rows - self._nulls

    def add(self, values: pl.Series, look: TextLook | None = None, *, nulls: int | None = None) -> None:
        """Take in a batch, as `shown_values` gives it; `look` is one at these very values.

        `nulls` says how many are null where others could not be read.
        """
        if self._counted is not None:
            self._keep_sample(values)
            if values.dtype == pl.String:
                self._add_lengths((look or TextLook(values)).chars)
            return
        self._rows += values.len()
        self._nulls += values.null_count() if nulls is None else nulls
        self._sketch.add(values)
        self._keep_sample(values)
        self._count(values)
        if values.dtype == pl.String:
            self._add_lengths((look or TextLook(values)).chars)
        numbers = self._as_numbers(values)
        if numbers is not None and numbers.dtype.is_float():
            numbers = numbers.filter(numbers.is_finite())
        self._add_extremes(values if numbers is None else numbers)
        if numbers is not None:
            total = numbers.cast(pl.Float64).sum()
            self._sum += float(total or 0.0)
            self._numbers += numbers.len() - numbers.null_count()

    def add_sample(self, values: pl.Series) -> None:
        """Take in rows from all over a table whose column is counted by its database, and is not read otherwise."""
        self._lengths_of_all = False
        self.add(values)

    def _as_numbers(self, values: pl.Series) -> pl.Series | None:
        if values.dtype.is_numeric():
            return values
        if values.dtype == pl.String and self._rules is not None and self._rules.form is Form.NUMBER:
            return values.str.strip_chars(BLANKS).cast(pl.Float64, strict=False)
        return None

    def _add_extremes(self, values: pl.Series) -> None:
        least, most = values.min(), values.max()
        if least is not None and (self._least is None or least < self._least):
            self._least = least
        if most is not None and (self._most is None or most > self._most):
            self._most = most

    def _add_lengths(self, lengths: pl.Series) -> None:
        self._chars += int(lengths.sum() or 0)
        counted = lengths.drop_nulls().alias("length").value_counts(name="rows").cast({"rows": pl.Int64})
        self._lengths = counted if self._lengths is None else _added(self._lengths, counted, "length")

    def _count(self, values: pl.Series) -> None:
        """Count each value as long as there are few."""
        if not self._counts_all:
            return
        if self._counts is None and values.head(2 * _FEW_IN_BATCH).n_unique() > _FEW_IN_BATCH:
            self._counts_all = False
            return
        if not self._sketch.is_exact or self._sketch.distinct > _FEW:
            self._counts_all, self._counts = False, None
            return
        counted = values.drop_nulls().alias("value").value_counts(name="rows").cast({"rows": pl.Int64})
        self._counts = compact(counted if self._counts is None else _added(self._counts, counted, "value"))

    def _keep_sample(self, values: pl.Series) -> None:
        part = values.gather_every(self._step)
        shown = part.str.slice(0, _TEXT_SHOWN) if part.dtype == pl.String else part
        self._sample.append(compact(shown.to_frame()).to_series())
        if sum(piece.len() for piece in self._sample) > SAMPLE_ROWS:
            self._sample = [pl.concat(self._sample).gather_every(2)]
            self._step *= 2

    def profile(self) -> ColumnProfile:
        """The figures so far."""
        source, target = self._source, self._target
        present = self._rows - self._nulls
        lengths = None if self._lengths is None or not self._lengths.height else self._lengths.sort("length")
        found = ColumnProfile(
            name=source.name,
            declared=source.declared,
            kind=str(source.kind),
            field=None if target is None else target.name,
            field_type=None if target is None else target.type,
            field_length=None if target is None or not target.length else target.length,
            is_personal=self._is_personal,
            is_classified=self._is_classified,
            nulls=self._nulls,
            distinct=min(self._sketch.distinct, present),
            distinct_is_exact=self._sketch.is_exact,
            least=None if self._is_personal else as_text(self._least),
            most=None if self._is_personal else as_text(self._most),
            average=self._sum / self._numbers if self._numbers and not self._is_personal else None,
            shortest=None if lengths is None else int(lengths["length"][0]),
            longest=None if lengths is None else int(lengths["length"][-1]),
            average_length=None if lengths is None or not present else self._chars / present,
            top=self._top(),
            top_of=self._rows if self._counts_all else self.sample.len(),
            values=None if self._is_personal else self._histogram(),
            lengths=None if lengths is None else _length_bars(lengths, is_sample=not self._lengths_of_all),
        )
        return found if self._counted is None else self._as_counted(found, self._counted)

    def _as_counted(self, found: ColumnProfile, counted: ColumnFigures) -> ColumnProfile:
        """With the database's own figures."""
        shown = not self._is_personal
        found = replace(
            found,
            distinct=counted.distinct,
            distinct_is_exact=counted.distinct_is_exact,
            least=counted.least if shown else None,
            most=counted.most if shown else None,
            average=counted.average if shown else None,
            shortest=counted.shortest,
            longest=counted.longest,
            average_length=counted.average_length,
            top=self._top_of_sample(),
            top_of=self.sample.len(),
        )
        if counted.top is None:
            return found
        top = tuple(TopValue(value=self._masked(value), rows=rows) for value, rows in counted.top)
        return replace(found, top=top, top_of=self._rows)

    def _top_of_sample(self) -> tuple[TopValue, ...]:
        self._counts_all = False
        return self._top()

    def _top(self) -> tuple[TopValue, ...]:
        counts = self._counts
        if not self._counts_all:
            counts = self.sample.drop_nulls().alias("value").value_counts(name="rows")
        if counts is None:
            return ()
        first = counts.with_columns(plain_text(counts["value"]).alias("value")).sort(
            ["rows", "value"], descending=[True, False]
        )
        return tuple(TopValue(value=self._masked(value), rows=rows) for value, rows in first.head(TOP).iter_rows())

    def _masked(self, value: str | None) -> str | None:
        if value is None or not self._is_personal or value in self._words:
            return value if value is None else value[:_TEXT_SHOWN]
        return MASK

    def _histogram(self) -> Histogram | None:
        """Of numbers and dates; a text column's if that is what its field takes."""
        sample = self.sample
        numbers = self._as_numbers(sample)
        if numbers is None and sample.dtype == pl.String and self._rules is not None:
            if self._rules.form not in (Form.DATE, Form.DATETIME):
                return None
            sample = sample.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
        if numbers is None and (not sample.dtype.is_temporal() or sample.dtype == pl.Time):
            return None
        present = (sample if numbers is None else numbers.cast(pl.Float64)).drop_nulls()
        if numbers is not None:
            present = present.filter(present.is_finite())
        if not present.len():
            return None
        if numbers is None:
            return _day_bars(present.cast(pl.Date), is_sample=present.len() < self._rows - self._nulls)
        return _number_bars(present, is_sample=present.len() < self._rows - self._nulls)


def _added(first: pl.DataFrame, second: pl.DataFrame, by: str) -> pl.DataFrame:
    return pl.concat([first, second]).group_by(by).agg(pl.col("rows").sum())


def as_text(value: Any) -> str | None:
    """A value as people read it."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)[:_TEXT_SHOWN]


def _length_bars(lengths: pl.DataFrame, *, is_sample: bool) -> Histogram:
    first, last = int(lengths["length"][0]), int(lengths["length"][-1])
    width = -(-(last - first + 1) // BARS)
    bars = (
        lengths.with_columns(((pl.col("length").cast(pl.Int64) - first) // width).alias("bar"))
        .group_by("bar")
        .agg(pl.col("rows").sum())
    )
    rows = dict(bars.iter_rows())
    made = tuple(
        Bar(low=str(first + bar * width), high=str(min(last, first + (bar + 1) * width - 1)), rows=rows.get(bar, 0))
        for bar in range((last - first) // width + 1)
    )
    return Histogram(bars=made, rows=sum(rows.values()), is_sample=is_sample)


def _number_bars(values: pl.Series, *, is_sample: bool) -> Histogram:
    least, most = values.to_frame("v").select(pl.min("v").alias("a"), pl.max("v").alias("b")).row(0)
    # In this order, as a difference may be larger than any float.
    width = most / BARS - least / BARS or 1.0
    places = (values / width - least / width).floor().cast(pl.Int64).clip(0, BARS - 1)
    rows = dict(places.alias("bar").value_counts(name="rows").iter_rows())
    last = 0 if most == least else BARS - 1
    bars = tuple(
        Bar(low=_edge(least + bar * width), high=_edge(least + (bar + 1) * width), rows=rows.get(bar, 0))
        for bar in range(last + 1)
    )
    return Histogram(bars=bars, rows=values.len(), is_sample=is_sample)


def _edge(number: float) -> str:
    """An end of a bar: to the whole where numbers are large."""
    return f"{number:,.0f}" if _WHOLE_FROM <= abs(number) < _WHOLE_BELOW else f"{number:.4g}"


def _day_bars(days: pl.Series, *, is_sample: bool) -> Histogram:
    numbers = days.to_physical().cast(pl.Int64)
    first, last = numbers.to_frame("v").select(pl.min("v").alias("a"), pl.max("v").alias("b")).row(0)
    width = -(-(last - first + 1) // BARS)
    rows = dict(((numbers - first) // width).alias("bar").value_counts(name="rows").iter_rows())

    def day(number: int) -> str:
        return str(pl.Series([number], dtype=pl.Int32).cast(pl.Date).cast(pl.String)[0])

    bars = tuple(
        Bar(low=day(first + bar * width), high=day(min(last, first + (bar + 1) * width - 1)), rows=rows.get(bar, 0))
        for bar in range((last - first) // width + 1)
    )
    return Histogram(bars=bars, rows=days.len(), is_sample=is_sample)
