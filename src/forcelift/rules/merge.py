"""`duplicates: merge`: one row out of all copies of a key, with a rule for each column.

The row that goes on is the latest copy by `changed_at`, or without it the first; it keeps its own value in each column
whose rule says just that. For every other column the scan carries what is needed to tell the merged value: the cell as
the source gave it, and what it is compared by. Cells are compared as their target field understands them, and the
merged cell then passes all rules as if it had stood in the source.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from forcelift.plan.models import FieldRule, TablePlan
from forcelift.rules import numbers, texts
from forcelift.rules.column import Column, Form
from forcelift.rules.findings import Findings
from forcelift.rules.plain import plain_text

# A number as one row of digits, so many before the point and as many after it: as texts they sort, as limbs they add.
_SIDE_DIGITS = 45
_LIMB_DIGITS = 9  # the sum of 9,000,000,000 limbs still fits into 64 bits
_LIMBS = 2 * _SIDE_DIGITS // _LIMB_DIGITS
_BASE = 10**_LIMB_DIGITS


class MergedColumn(Struct, frozen=True, kw_only=True):
    """A column whose value does not simply come from the row that goes on. `number` tells its columns in the scan."""

    number: int
    name: str
    rule: str
    column: Column

    def carried(self, values: pl.Series) -> list[pl.Series]:
        """What the scan needs of the column's cells.

        `v` is the cell, `m` what it is compared by, `b` marks cells that cannot be compared, `l` are a number's limbs.
        """
        own = [self._cells(values).alias(f"v{self.number}")]
        if self.rule == "first":
            return own
        text = self._text(values)
        present = (text.str.strip_chars(texts.BLANKS) != "").fill_null(False)
        if self.rule == "not_null":
            return [*own, present.alias(f"m{self.number}")]
        comparable = self.column.clean(values, Findings(), None)
        comparable = _where(present, comparable)
        if self.rule == "longest":
            return [*own, comparable.str.len_chars().alias(f"m{self.number}")]
        measures: list[pl.Series]
        if self.column.form is Form.NUMBER:
            digits = _digits(comparable)
            is_bad = present & digits.is_null()
            measures = _limbs(digits, self.number) if self.rule == "sum" else [_sort_key(digits)]
        else:
            is_bad = present & comparable.is_null()
            measures = [comparable]
        if self.column.form in (Form.DATE, Form.DATETIME) and self.column.rule.invalid_date == "to_null":
            is_bad = is_bad & False
        if self.rule != "sum":
            measures = [measures[0].alias(f"m{self.number}")]
        return [*own, is_bad.alias(f"b{self.number}"), *measures]

    def sql(self) -> Iterator[str]:
        """The aggregates over all copies of a key; `n` ranks them, the one that goes on first, `o` from the oldest.

        A cell that cannot be compared is taken before all others, so that the type's rule refuses it.
        """
        v, m, b = (f"{letter}{self.number}" for letter in "vmb")
        match self.rule:
            case "first":
                yield f"arg_min({{v: {v}}}, o).v AS {v}"
            case "not_null":
                yield f"(arg_min({{v: {v}}}, n) FILTER (WHERE {m})).v AS {v}"
            case "longest":
                yield f"(arg_max({{v: {v}}}, {{m: {m}, n: -n}}) FILTER (WHERE {m} IS NOT NULL)).v AS {v}"
            case "sum":
                yield f"(arg_min({{v: {v}}}, n) FILTER (WHERE {b})).v AS {v}"
                for place in range(_LIMBS):
                    yield f"sum(l{self.number}_{place})::BIGINT AS l{self.number}_{place}"
            case _:
                pick, n = ("arg_min", "n") if self.rule == "min" else ("arg_max", "-n")
                bad = f"{b}" if self.rule == "max" else f"NOT {b}"
                order = f"{{b: {bad}, m: coalesce({m}, ''), n: {n}}}"
                yield f"({pick}({{v: {v}}}, {order}) FILTER (WHERE {b} OR {m} IS NOT NULL)).v AS {v}"

    def apply(self, values: pl.Series, at: pl.Series, decided: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
        """Put the merged cells into a batch's column.

        Args:
            at: Rows (u32) that take a merged cell.
            decided: The aggregates for those rows.
        Returns: the column, as text if numbers were added up; and the rows (u32) that changed.
        """
        cells = decided[f"v{self.number}"]
        if self.rule != "sum":
            values = _comparable_type(values)
            cells = cells.cast(values.dtype)
            before = values.gather(at)
            return values.clone().scatter(at, cells), at.filter(cells.ne_missing(before))
        total = _total(decided.select(f"l{self.number}_{place}" for place in range(_LIMBS)))
        before = numbers.number_text(self._text(values.gather(at)).str.strip_chars(texts.BLANKS), scale=None)
        values = _comparable_type(values)
        cells = cells.cast(values.dtype)
        added = _where(cells.is_null(), total.cast(values.dtype))
        changed = at.filter(cells.is_not_null() | total.ne_missing(before))
        return values.clone().scatter(at, cells.zip_with(cells.is_not_null(), added)), changed

    def _cells(self, values: pl.Series) -> pl.Series:
        """The cells in a type that the scan's database keeps as it is."""
        values = _comparable_type(values)
        return values.to_physical() if values.dtype.is_temporal() else values

    def _text(self, values: pl.Series) -> pl.Series:
        if values.dtype == pl.Binary:
            return texts.decode(values, self.column.codec or "utf-8")[0]
        return plain_text(values)


def _comparable_type(values: pl.Series) -> pl.Series:
    """The cells in a type that does not depend on what a batch holds: numbers, booleans and nanoseconds as text.

    A batch with a value that its type cannot hold comes as text anyway, and text passes the rules as the value does.
    """
    may_be_text = not values.dtype.is_temporal() or values.dtype == pl.Datetime("ns")
    return plain_text(values) if may_be_text and values.dtype != pl.Binary else values


def merged_columns(plan: TablePlan, columns: dict[str, Column]) -> tuple[MergedColumn, ...]:
    """The columns of a table under `duplicates: merge` that need more than the row that goes on."""
    default = "latest" if plan.changed_at is not None else "first"
    found: list[MergedColumn] = []
    for name, rule in plan.fields.items():
        if name in columns and name not in plan.key and (rule.merge or default) != default:
            compared = _compared(columns[name])
            found.append(MergedColumn(number=len(found), name=name, rule=rule.merge or default, column=compared))
    return tuple(found)


def _compared(column: Column) -> Column:
    """The column's form without what changes a value: nothing is rounded, cut, mapped or filled."""
    kept = ("field", "encoding", "encoding_error", "date_format", "timezone", "buddhist_era", "na_text", "invalid_date")
    rule = FieldRule.model_construct(**{name: getattr(column.rule, name) for name in kept})
    return replace(
        column, rule=rule, scale=None, integer_digits=None, length=None, picklist=(), default=None, required=False
    )


def _where(mask: pl.Series, values: pl.Series) -> pl.Series:
    """The values where the mask is true, else null."""
    return pl.DataFrame({"mask": mask, "values": values}).select(pl.when("mask").then("values")).to_series()


def _digits(texts_: pl.Series) -> pl.Series:
    """Canonical numbers as a sign (`-` or `+`) and a fixed count of digits; null where there are too many of them."""
    rounded = numbers.number_text(texts_, scale=_SIDE_DIGITS).to_frame("text")
    number = pl.col("text").str.strip_prefix("-")
    whole = number.str.replace(r"\..*$", "")
    fraction = number.str.extract(r"\.(.*)$", 1).fill_null("")
    sign = pl.when(pl.col("text").str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit("+"))
    padded = pl.concat_str(sign, whole.str.zfill(_SIDE_DIGITS), fraction.str.pad_end(_SIDE_DIGITS, "0"))
    return rounded.select(pl.when(whole.str.len_bytes() <= _SIDE_DIGITS).then(padded)).to_series()


def _sort_key(digits: pl.Series) -> pl.Series:
    """Texts in whose order the numbers stand: those below zero have the nines' complement of their digits."""
    number = digits.to_frame("digits").select(
        pl.when(pl.col("digits").str.starts_with("-"))
        .then(pl.lit("0") + pl.col("digits").str.slice(1).str.replace_many(list("0123456789"), list("9876543210")))
        .otherwise(pl.lit("1") + pl.col("digits").str.slice(1))
    )
    return number.to_series()


def _limbs(digits: pl.Series, number: int) -> list[pl.Series]:
    frame = digits.to_frame("digits")
    sign = pl.when(pl.col("digits").str.starts_with("-")).then(-1).otherwise(1)
    limbs = (
        pl.col("digits").str.slice(1 + place * _LIMB_DIGITS, _LIMB_DIGITS).cast(pl.Int64) * sign
        for place in range(_LIMBS)
    )
    return frame.select(limb.alias(f"l{number}_{place}") for place, limb in enumerate(limbs)).get_columns()


def _total(limbs: pl.DataFrame) -> pl.Series:
    """Canonical texts of sums that were taken limb by limb; null for none."""
    below, _ = _carried(limbs)
    is_negative = (below < 0).fill_null(False)
    flipped = limbs.select(
        pl.when(is_negative).then(-pl.col(name)).otherwise(name).alias(name) for name in limbs.columns
    )
    top, rest = _carried(flipped)
    parts = [top.cast(pl.String), *(limb.cast(pl.String).str.zfill(_LIMB_DIGITS) for limb in rest)]
    middle = _SIDE_DIGITS // _LIMB_DIGITS
    frame = pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
    names = frame.columns
    sign = pl.when(is_negative).then(pl.lit("-")).otherwise(pl.lit(""))
    text = frame.select(pl.concat_str(sign, *names[:middle], pl.lit("."), *names[middle:])).to_series()
    return numbers.number_text(text, scale=None)


def _carried(limbs: pl.DataFrame) -> tuple[pl.Series, list[pl.Series]]:
    """Bring each limb but the first into 0 to 10^9 - 1; the first has the sign of the whole."""
    first, *others = limbs.get_columns()
    done: list[pl.Series] = []
    carry: pl.Series | int = 0
    for limb in reversed(others):
        full = limb + carry
        done.insert(0, full % _BASE)
        carry = full // _BASE
    return first + carry, done
