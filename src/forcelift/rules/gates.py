"""Which rows the rules may do something about: a cheap look that never misses one.

`rows_to_clean` gives a superset of the rows in which the rules find anything. The rules work on each row by itself (but
for repeated keys, which the caller adds), so that who only wants to know what they find need not have them make
canonical text of every value. A property test holds that nothing is missed.

Not counted as found are changes that are no doubt about a value: see `QUIET_CHANGES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import polars as pl

from forcelift.rules import moments, numbers, texts
from forcelift.rules.column import Column, Form
from forcelift.rules.findings import Findings
from forcelift.rules.keys import normalised
from forcelift.rules.parents import ParentKeys
from forcelift.rules.table import CompiledTable

QUIET_CHANGES: Final = frozenset({"values", "unicode", "boolean_null", "merge"})
"""Changes that every row may undergo by plan; their numbers are not known where only some rows are cleaned."""

_TRUTHS = ("true", "t", "yes", "y", "1", "on", "false", "f", "no", "n", "0", "off")
_WIDE_DIGITS = 40  # no number, date or time of a source has more characters as plain text
_NFC_GROWTH = 3  # composed text has at most three times the UTF-16 units (Unicode Standard Annex 15, table 8)
_ISO_DAY = r"^(?:1[7-9]|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])$"
_SLACK = timedelta(days=2)  # more than any zone's clock is away from UTC's

Rows = pl.Series | None
"""Row numbers (u32) that may hold something; None is all rows."""


def rows_to_clean(
    table: CompiledTable,
    frame: pl.DataFrame,
    *,
    as_of: datetime,
    parents: Mapping[str, ParentKeys],
    looks: Mapping[str, texts.TextLook] | None = None,
) -> pl.Series:
    """Rows (u32, rising) of a batch in which a rule may refuse, doubt or change something.

    Args:
        frame: `source_columns` as the source delivers them.
        parents: For each lookup column that is not a link, the keys of its parents.
        looks: At text columns, where the caller looks at them too.
    """
    every = pl.int_range(frame.height, dtype=pl.UInt32, eager=True)
    if table.computed or any(lookup.is_link for lookup in table.lookups.values()):
        return every
    if not _key_surely_fits(table, frame):
        return every
    marked = pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
    for columns in (table.columns, table.plain_columns):
        for name, column in columns.items():
            rows = column_suspects(column, frame[name], as_of, look=(looks or {}).get(name))
            if rows is None:
                return every
            marked = marked.scatter(rows, True) if rows.len() else marked
    for name in table.plan.key:
        if frame[name].null_count():
            marked = marked | frame[name].is_null()
    for name, lookup in table.lookups.items():
        missing = _orphans(table.columns[name], frame[name], parents[name], case_sensitive=lookup.case_sensitive)
        if missing.len():
            marked = marked | missing_rows(frame[name], missing)
    return marked.arg_true()


def missing_rows(values: pl.Series, missing: pl.Series) -> pl.Series:
    """True for rows whose value is one of `missing`."""
    return values.is_in(missing.implode()).fill_null(False)


def _orphans(column: Column, values: pl.Series, parents: ParentKeys, *, case_sensitive: bool) -> pl.Series:
    """Of the column's distinct values those whose parent does not exist."""
    distinct = values.unique().drop_nulls()
    cleaned = column.clean(distinct, Findings(), None)
    norms = normalised(cleaned, case_sensitive=case_sensitive)
    asked = norms.drop_nulls().unique()
    if not asked.len():
        return distinct.head(0)
    stored = parents.stored(asked)["norm"].cast(pl.String)
    return distinct.filter(norms.is_not_null() & ~norms.is_in(stored.implode()).fill_null(False))


def _key_surely_fits(table: CompiledTable, frame: pl.DataFrame) -> bool:
    """Whether no key of several columns can be longer than its field."""
    if len(table.plan.key) == 1 or table.key_length is None:
        return True
    longest = 0
    for name in table.plan.key:
        values = frame[name]
        if values.dtype == pl.String:
            # Each separator or backslash inside a part is escaped, so a part may double.
            longest += 2 * int(_greatest(values.str.len_bytes()))
        elif values.dtype.is_integer() or values.dtype.is_temporal():
            longest += _WIDE_DIGITS if values.dtype.is_temporal() else 20
        else:
            return False
    return longest + len(table.plan.key) <= table.key_length


def _greatest(values: pl.Series) -> int:
    most = values.max()
    return most if isinstance(most, int) else 0


def column_suspects(column: Column, values: pl.Series, as_of: datetime, *, look: texts.TextLook | None = None) -> Rows:
    """Rows of one column that its rules may do something about; None where only the rules themselves can tell."""
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.Binary or column.rule.date_format is not None:
        return None
    if values.dtype == pl.String:
        found = _text_suspects(column, look or texts.TextLook(values), as_of)
    elif column.rule.values is not None:
        return None
    else:
        found = _typed_suspects(column, values, as_of)
    if found is None:
        return None
    needs_value = column.required or column.is_key or column.default is not None or column.rule.empty == "reject"
    if needs_value and values.null_count():
        return pl.concat([found, values.is_null().arg_true()])
    return found


def awkward_rows(look: texts.TextLook) -> pl.Series:
    """True for texts that are blank, begin or end with a blank, are the null literal, or hold a control character.

    May be true for more: texts with a character of two bytes that begins as U+0080 to U+009F do. A text that came as
    `BROKEN_TEXT` begins with a control character.
    """
    values = look.values
    if look.byte_range[0] > ord("#") and look.is_ascii_or_thai:
        # No blank, no control character but U+007F, and not the first of the null literal.
        return ((values.str.len_bytes() == 0) | look.holds(0x7F)).fill_null(False)
    maybe = values.str.starts_with(" ") | values.str.ends_with(" ") | (values == "") | (values == texts.NULL_LITERAL)
    least, most = look.byte_range
    if least < texts.FIRST_PRINTED:
        maybe = maybe | (look.least_bytes < texts.FIRST_PRINTED)
    if most > 0x7E:
        maybe = maybe | look.holds(0x7F)
    if most > 0x7F:
        maybe = maybe | look.holds(0xC2)
    return maybe.fill_null(False)


def _text_suspects(column: Column, look: texts.TextLook, as_of: datetime) -> Rows:
    rule, values = column.rule, look.values
    if column.is_multi:
        return None
    marked = awkward_rows(look)
    if rule.zero_width == "remove":
        marked = marked | values.str.contains(texts.ZERO_WIDTH).fill_null(False)
    if rule.values is not None:
        table = rule.values
        mapped = values.replace(list(table), list(table.values()))
        if rule.unmapped != "keep":
            marked = marked | ~values.is_in(list(table)).fill_null(True)
        look, values = texts.TextLook(mapped), mapped
        # What a value is mapped to may be blank, or need mending itself.
        if awkward_rows(texts.TextLook(pl.Series(list(table.values()), dtype=pl.String))).any():
            marked = marked | awkward_rows(look)
    match column.form:
        case Form.TEXT:
            return _length_suspects(column, look, marked)
        case Form.NUMBER:
            plain = values.str.contains(_plain_number(column))
        case Form.BOOLEAN:
            plain = values.is_in(_TRUTHS)
        case Form.DATE:
            today = _today(column, as_of).isoformat()
            plain = values.str.contains(_ISO_DAY) & (values <= today)
        case _:
            return None
    return (marked | ~plain.fill_null(True)).arg_true()


def _length_suspects(column: Column, look: texts.TextLook, marked: pl.Series) -> Rows:
    values = look.values
    if column.picklist:
        if column.rule.unicode == "nfc":
            return None
        marked = marked | ~values.is_in(list(column.picklist)).fill_null(True)
    if column.length is None:
        return marked.arg_true()
    over = look.over_length(column.length)
    marked = marked.scatter(over, True) if over.len() else marked
    if column.rule.unicode == "nfc" and not look.is_ascii_or_thai:
        near = look.over_length(column.length // _NFC_GROWTH)
        near = near.filter(texts.may_change_composed(values.gather(near)))
        marked = marked.scatter(near, True) if near.len() else marked
    return marked.arg_true()


def _plain_number(column: Column) -> str:
    digits = 15 if column.integer_digits is None else column.integer_digits
    if digits == 0:
        return r"^0$"
    scale = f"{{1,{column.scale}}}" if column.scale else "+"
    fraction = "" if column.scale == 0 else rf"(?:\.[0-9]{scale})?"
    return rf"^[0-9]{{1,{digits}}}{fraction}$"


def _today(column: Column, as_of: datetime) -> date:
    return as_of.astimezone(ZoneInfo(column.zone or "UTC")).date()


def _typed_suspects(column: Column, values: pl.Series, as_of: datetime) -> Rows:
    match column.form:
        case Form.TEXT:
            return _plain_text_suspects(column, values)
        case Form.NUMBER:
            return _number_suspects(column, values) if values.dtype.is_numeric() else None
        case Form.BOOLEAN:
            if values.dtype == pl.Boolean:
                return values.head(0).arg_true()
            return (~values.is_in([0, 1])).fill_null(False).arg_true() if values.dtype.is_integer() else None
        case Form.DATE | Form.DATETIME:
            return _moment_suspects(column, values, as_of) if values.dtype.is_temporal() else None
        case _:
            return None


def _plain_text_suspects(column: Column, values: pl.Series) -> Rows:
    """Numbers, days and times as text: short, and without blanks or control characters."""
    if column.picklist or (column.length is not None and column.length < _WIDE_DIGITS and not _short(column, values)):
        return None
    return _no_number(values)


def _short(column: Column, values: pl.Series) -> bool:
    if not values.dtype.is_integer() or column.length is None:
        return False
    extremes = [values.min(), values.max()]
    return all(len(str(value)) <= column.length for value in extremes if value is not None)


def _no_number(values: pl.Series) -> pl.Series:
    """Rows of values that are no number, though their column's type is one."""
    if values.dtype.is_float():
        return (~values.is_finite()).fill_null(False).arg_true()
    nothing: pl.Series = values.head(0).is_null().arg_true()
    return numbers.broken_rows(values) if values.dtype.is_decimal() else nothing


def _number_suspects(column: Column, values: pl.Series) -> Rows:
    """Negative, larger than the field, with more digits after the point than the field keeps, or no number at all."""
    marked = pl.repeat(False, values.len(), dtype=pl.Boolean, eager=True)
    if isinstance(values.dtype, pl.Decimal):
        unit = 10 ** (values.dtype.scale or 0)
        physical = values.to_physical()
        if column.scale is not None and (values.dtype.scale or 0) > column.scale:
            step = pl.Series([10 ** ((values.dtype.scale or 0) - column.scale)], dtype=pl.Int128)
            marked = marked | (physical % step != 0).fill_null(False)
    else:
        unit, physical = 1, values
        if values.dtype.is_float():
            marked = marked | (~values.is_finite()).fill_null(False)
            if column.scale is not None:
                marked = marked | (values.round(column.scale) != values).fill_null(False)
    # Where nothing bounds the field, only what is no number at all is left to find; it is far below zero.
    digits = column.integer_digits if column.integer_digits is not None else 30
    most = min(10**digits * unit, 10**38) - 1
    least = 0 if column.rule.negative != "keep" else -most
    low, high = physical.min(), physical.max()
    if low is None or high is None or (low >= least and high <= most):  # type: ignore[operator]  # numbers, by dtype
        return marked.arg_true()
    wide = pl.Float64 if physical.dtype.is_float() else pl.Int128
    physical, bounds = physical.cast(wide), pl.Series([least, most], dtype=wide)
    outside: pl.Series = (physical < bounds[0]) | (physical > bounds[1])
    marked = marked | outside.fill_null(False)
    return marked.arg_true()


def _moment_suspects(column: Column, values: pl.Series, as_of: datetime) -> pl.Series | None:
    rule = column.rule
    if values.dtype == pl.Time:
        return None
    zoned = isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None
    is_date = column.form is Form.DATE
    if not is_date and column.zone is None and not zoned:
        return None
    low, high = moments.INSTANT_MIN + _SLACK, moments.INSTANT_MAX - _SLACK
    if rule.buddhist_era != "keep":
        high = min(high, datetime(moments.BUDDHIST_YEARS[0], 1, 1) - _SLACK)  # noqa: DTZ001 (compared with naive columns)
    if rule.future_date != "keep":
        if is_date and not zoned:
            high = min(high, datetime.combine(_today(column, as_of), datetime.max.time()))
        else:
            high = min(high, as_of.astimezone(UTC).replace(tzinfo=None) - _SLACK)
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_unit == "ns":
        high = min(high, datetime(2262, 1, 1))  # noqa: DTZ001 (the last year that fits into 64 bits)
    # As numbers of its own unit, since the last days that a column can hold are beyond all microseconds.
    numbers_of: pl.Series = values.to_physical()
    bounds = pl.Series([low, high], dtype=moments.NAIVE).cast(_naive(values.dtype)).to_physical()
    rows = numbers_of.head(0).is_null().arg_true()
    least, most = numbers_of.min(), numbers_of.max()
    if least is None or most is None:
        return rows
    if least < bounds[0] or most > bounds[1]:
        rows = (~numbers_of.is_between(bounds[0], bounds[1])).fill_null(False).arg_true()
    if is_date or zoned or column.zone in (None, "UTC"):
        return rows
    # Clock times that the zone skips or has twice.
    walls = (values.clone().scatter(rows, None) if rows.len() else values).cast(moments.NAIVE)
    shown = walls.dt.replace_time_zone(column.zone, ambiguous="null", non_existent="null")
    if shown.null_count() == walls.null_count():
        return rows
    return pl.concat([rows, (shown.is_null() & walls.is_not_null()).arg_true()])


def _naive(dtype: pl.DataType) -> pl.DataType:
    return pl.Datetime(dtype.time_unit) if isinstance(dtype, pl.Datetime) else dtype
