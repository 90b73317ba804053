"""One source column on its way into one field: the rules of RULES.md, steps 4 to 15, on a whole batch of values.

A column that is clean passes one regular expression over its texts, or the extremes of its numbers, and nothing else.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

import polars as pl
from msgspec import Struct

from forcelift.plan.models import FieldRule
from forcelift.rules import moments, numbers, texts
from forcelift.rules.findings import NO_ZONE, SKIPPED_TIME, Findings, Place
from forcelift.rules.ids import id_text
from forcelift.rules.plain import boolean_text, plain_text, time_text

_CONVERSION_RULES = {
    "number": "invalid_number",
    "boolean": "invalid_boolean",
    "id": "invalid_id",
    "time": "invalid_time",
}


class Form(StrEnum):
    """What a field's canonical text is."""

    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    TIME = "time"
    ID = "id"


class Column(Struct, frozen=True, kw_only=True):
    """A source column with its rules and what its field takes; made by `compile_table`, which has checked that it fits.

    `length` is in UTF-16 units, None where nothing is counted. `picklist` holds the values of a restricted picklist;
    with `is_multi` a text is several of them, joined by `;`. `is_key` leaves emptiness to the null key rule.
    """

    name: str
    place: Place
    rule: FieldRule
    form: Form
    scale: int | None = None
    integer_digits: int | None = None
    length: int | None = None
    picklist: tuple[str, ...] = ()
    is_multi: bool = False
    zone: str | None = None
    codec: str | None = None
    default: str | None = None
    required: bool = False
    is_key: bool = False

    def clean(self, values: pl.Series, found: Findings, as_of: datetime | None) -> pl.Series:
        """Canonical text of the values, null for none.

        A rejected value keeps what text it has (it is not sent). Without `as_of` the future is not looked at.
        """
        if values.dtype == pl.Binary:
            values, broken = texts.decode(values, self.codec or "utf-8")
            self._doubt_bytes(broken, found)
        if values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        without_default: pl.Series | None = None
        if values.dtype == pl.String or self._reads_text:
            values = plain_text(values)
            values, without_default = self._mend(values, found)
        empty = values.is_null() if values.null_count() else None
        result = self._convert(values, found, as_of)
        return self._fill(result, empty, without_default, found)

    @property
    def _reads_text(self) -> bool:
        """True if a rule takes the values as text, whatever their kind: a value map, or digits read as a date."""
        return self.rule.values is not None or self.rule.date_format is not None

    def _mend(self, raw: pl.Series, found: Findings) -> tuple[pl.Series, pl.Series | None]:
        """Steps 4 to 10. Also gives the rows that became null by a later rule than `empty`, which takes no default."""
        suspects = texts.suspects(raw)
        if suspects.len():
            escaped = raw.gather(suspects)
            part, broken = texts.unescape(escaped, self.codec or "utf-8")
            if part is not escaped:
                self._doubt_bytes(suspects.gather(broken), found)
                raw = raw.clone().scatter(suspects, part)
                suspects = texts.suspects(raw)
        if suspects.len():
            raw = raw.clone().scatter(suspects, self._trim(raw.gather(suspects), suspects, found))
        if self.rule.values is not None:
            raw = self._map(raw, found)
            suspects = texts.suspects(raw)
        special: pl.Series | None = None
        if suspects.len():
            part, special = self._mend_suspects(raw.gather(suspects), suspects, found)
            raw = raw.clone().scatter(suspects, part)
        if self.rule.zero_width == "remove":
            raw = self._remove_zero_width(raw, found)
        if self.rule.unicode == "nfc":
            composed = texts.compose(raw)
            found.change("unicode", self.place, (composed != raw).fill_null(False).arg_true())
            raw = composed
        return raw, special

    def _doubt_bytes(self, broken: pl.Series, found: Findings) -> None:
        """Step 4: rows with bytes that the encoding lacks, which stand as U+FFFD in the text from here on."""
        if self.rule.encoding_error == "reject":
            found.refuse("encoding_error", self.place, broken)
        else:
            found.change("encoding_error", self.place, broken)

    def _trim(self, part: pl.Series, rows: pl.Series, found: Findings) -> pl.Series:
        trimmed = part.str.strip_chars(texts.BLANKS)
        changed = rows.filter(trimmed != part)
        if self.rule.outer_blanks == "reject":
            found.refuse("outer_blanks", self.place, changed)
        else:
            found.change("outer_blanks", self.place, changed)
        return trimmed

    def _map(self, raw: pl.Series, found: Findings) -> pl.Series:
        """Step 6. A blank text that the map does not name is left to `empty`."""
        table = self.rule.values or {}
        known = raw.is_in(list(table))
        mapped = raw.replace(list(table), list(table.values()))
        found.change("values", self.place, (mapped != raw).fill_null(False).arg_true())
        unknown = (~known & (raw != "")).fill_null(False).arg_true()
        if not unknown.len() or self.rule.unmapped == "keep":
            return mapped
        if self.rule.unmapped == "reject":
            found.refuse("unmapped", self.place, unknown)
            return mapped
        found.change("unmapped", self.place, unknown)
        return mapped.clone().scatter(unknown, None)

    def _mend_suspects(self, part: pl.Series, rows: pl.Series, found: Findings) -> tuple[pl.Series, pl.Series | None]:
        """Steps 7 to 9 and the line ends, on the rows that the gate found; twice where a removal laid open more."""
        part = part.str.strip_chars(texts.BLANKS) if self.rule.values is not None else part
        part = self._empty_to_null(part, rows, found)
        part, literal = self._null_literals(part, rows, found)
        folded = texts.fold_line_ends(part)
        found.change("line_ends", self.place, rows.filter((folded != part).fill_null(False)))
        part = folded
        controls = part.str.contains(texts.CONTROLS).fill_null(False).arg_true()
        if controls.len():
            cleaned = self._controls(part.gather(controls), rows.gather(controls), found)
            cleaned = self._empty_to_null(cleaned, rows.gather(controls), found)
            cleaned, more = self._null_literals(cleaned, rows.gather(controls), found)
            part = part.clone().scatter(controls, cleaned)
            literal = pl.concat([literal, more])
        return part, literal if literal.len() else None

    def _controls(self, part: pl.Series, rows: pl.Series, found: Findings) -> pl.Series:
        if self.rule.control_characters == "keep":
            removed = part.str.replace_all("\x00", "", literal=True)
        else:
            removed = part.str.replace_all(texts.CONTROLS, "")
        if self.rule.control_characters == "reject":
            found.refuse("control_characters", self.place, rows)
        else:
            found.change("control_characters", self.place, rows.filter(removed != part))
        return removed.str.strip_chars(texts.BLANKS)

    def _empty_to_null(self, part: pl.Series, rows: pl.Series, found: Findings) -> pl.Series:
        blank = (part == "").fill_null(False)
        if not blank.any():
            return part
        if self.rule.empty == "to_null" and not self.is_key:
            found.change("empty", self.place, rows.filter(blank))
        return part.clone().scatter(blank.arg_true(), None)

    def _null_literals(self, part: pl.Series, rows: pl.Series, found: Findings) -> tuple[pl.Series, pl.Series]:
        """Step 8; gives back the rows that became null."""
        literal = (part == texts.NULL_LITERAL).fill_null(False)
        hit = rows.filter(literal)
        if self.rule.na_text == "reject":
            found.refuse("na_text", self.place, hit)
            return part, rows.head(0)
        if not hit.len():
            return part, hit
        found.change("na_text", self.place, hit)
        return part.clone().scatter(literal.arg_true(), None), hit

    def _remove_zero_width(self, raw: pl.Series, found: Findings) -> pl.Series:
        rows = raw.str.contains(texts.ZERO_WIDTH).fill_null(False).arg_true()
        if not rows.len():
            return raw
        found.change("zero_width", self.place, rows)
        part = raw.gather(rows).str.replace_all(texts.ZERO_WIDTH, "").str.strip_chars(texts.BLANKS)
        part = self._empty_to_null(part, rows, found)
        part, _ = self._null_literals(part, rows, found)
        return raw.clone().scatter(rows, part)

    def _convert(self, values: pl.Series, found: Findings, as_of: datetime | None) -> pl.Series:
        """Steps 11 to 14."""
        match self.form:
            case Form.TEXT:
                checked = self._checked_picklist(self._checked_length(plain_text(values), found), found)
                return texts.in_one_order(checked) if self.is_multi else checked
            case Form.DATE:
                return self._dates(values, found, as_of)
            case Form.DATETIME:
                return self._datetimes(values, found, as_of)
            case Form.NUMBER:
                return self._numbers(values, found)
            case Form.BOOLEAN:
                result = boolean_text(values)
            case Form.TIME:
                result = time_text(values)
            case Form.ID:
                result = id_text(values)
        self._refuse_invalid(values, result, found)
        return result

    def _refuse_invalid(self, values: pl.Series, result: pl.Series, found: Findings) -> None:
        if result.null_count() > values.null_count():
            rows = (result.is_null() & values.is_not_null()).arg_true()
            found.refuse(_CONVERSION_RULES[self.form], self.place, rows)

    def _numbers(self, values: pl.Series, found: Findings) -> pl.Series:
        if values.dtype == pl.String:
            exact = numbers.number_text(values, scale=None)
            result = numbers.number_text(exact, scale=self.scale)
        else:
            exact = result = numbers.typed_number_text(values, scale=None)
            if not values.dtype.is_integer():
                result = numbers.number_text(exact, scale=self.scale)
        self._refuse_invalid(values, result, found)
        if self.scale is not None and not values.dtype.is_integer():
            found.change("rounded", self.place, (result != exact).fill_null(False).arg_true())
        if self.integer_digits is not None:
            found.refuse("number_size", self.place, numbers.integer_digits_over(result, self.integer_digits))
        if self.rule.negative != "keep":
            negative = result.str.starts_with("-").fill_null(False).arg_true()
            if self.rule.negative == "reject":
                found.refuse("negative", self.place, negative)
            else:
                found.warn("negative", self.place, negative)
        return result

    def _dates(self, values: pl.Series, found: Findings, as_of: datetime | None) -> pl.Series:
        days = self._days(values, found)
        days = self._valid(values, days, moments.rows_outside(days, moments.DATE_MIN, moments.DATE_MAX), found)
        buddhist = moments.rows_in_buddhist_years(days)
        if buddhist.len() and self._note_buddhist(buddhist, found):
            days = days.clone().scatter(buddhist, moments.from_buddhist(days.gather(buddhist)))
            days = self._valid(values, days, buddhist.head(0), found)
        if as_of is not None and self.rule.future_date != "keep":
            today = as_of.astimezone(ZoneInfo(self.zone or "UTC")).date()
            days = self._not_future(days, moments.rows_outside(days, date.min, today), found)
        return moments.date_text(days)

    def _days(self, values: pl.Series, found: Findings) -> pl.Series:
        if values.dtype == pl.Date:
            return values
        if values.dtype == pl.String:
            return self._read_moments(values, found).wall.cast(pl.Date)
        if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
            return moments.moments_of_instants(values, self.zone).wall.cast(pl.Date)
        return values.cast(pl.Date)

    def _datetimes(self, values: pl.Series, found: Findings, as_of: datetime | None) -> pl.Series:
        read = self._moments(values, found)
        utc, fold = read.to_utc(self.zone)
        found.warn("ambiguous_time", self.place, fold)
        # Times that were read and stand for no instant: their reason is another than that of what is no date.
        nowhere = (utc.is_null() & read.wall.is_not_null()).arg_true()
        outside = moments.rows_outside(utc, moments.INSTANT_MIN, moments.INSTANT_MAX)
        utc = self._valid(values, utc, outside, found, nowhere)
        buddhist = moments.rows_in_buddhist_years(read.wall)
        buddhist = buddhist.filter(utc.gather(buddhist).is_not_null())
        if buddhist.len() and self._note_buddhist(buddhist, found):
            part = read.gather(buddhist)
            moved = moments.Moments(wall=moments.from_buddhist(part.wall), offset=part.offset)
            utc = utc.clone().scatter(buddhist, moved.to_utc(self.zone)[0])
            utc = self._valid(values, utc, buddhist.head(0), found)
        if as_of is not None and self.rule.future_date != "keep":
            limit = as_of.astimezone(ZoneInfo("UTC")).replace(tzinfo=None)
            utc = self._not_future(utc, moments.rows_outside(utc, datetime.min, limit), found)  # noqa: DTZ901 (naive UTC)
        return moments.instant_text(utc)

    def _read_moments(self, values: pl.Series, found: Findings) -> moments.Moments:
        """Dates in texts. 29 February of a Buddhist year is a day only once it is converted, so that comes first."""
        read = moments.moments_of_text(values, self.rule.date_format)
        if self.rule.buddhist_era == "convert":
            read, rows = moments.moments_of_buddhist_text(values, self.rule.date_format, read)
            found.change("buddhist_era", self.place, rows)
        return read

    def _moments(self, values: pl.Series, found: Findings) -> moments.Moments:
        if values.dtype == pl.String:
            return self._read_moments(values, found)
        if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None:
            return moments.moments_of_instants(values, self.zone)
        return moments.Moments(wall=values.cast(moments.NAIVE))

    def _valid(
        self,
        values: pl.Series,
        read: pl.Series,
        outside: pl.Series,
        found: Findings,
        nowhere: pl.Series | None = None,
    ) -> pl.Series:
        """Apply `invalid_date` to values that gave no date and to dates outside the range.

        Rows of `nowhere` hold a time that its zone skips, or that has no zone.
        """
        if outside.len():
            read = read.clone().scatter(outside, None)
        if read.null_count() == values.null_count():
            return read
        rows = (read.is_null() & values.is_not_null()).arg_true()
        if self.rule.invalid_date == "reject":
            if nowhere is not None and nowhere.len():
                sentence = NO_ZONE if self.zone is None else SKIPPED_TIME
                found.refuse("invalid_date", self.place, nowhere, sentence=sentence)
                rows = rows.filter(~rows.is_in(nowhere.implode()))
            found.refuse("invalid_date", self.place, rows)
        else:
            found.change("invalid_date", self.place, rows)
        return read

    def _note_buddhist(self, rows: pl.Series, found: Findings) -> bool:
        """True if the years are to be converted."""
        match self.rule.buddhist_era:
            case "reject":
                found.refuse("buddhist_era", self.place, rows)
            case "warn":
                found.warn("buddhist_era", self.place, rows)
            case "convert":
                found.change("buddhist_era", self.place, rows)
                return True
        return False

    def _not_future(self, read: pl.Series, rows: pl.Series, found: Findings) -> pl.Series:
        match self.rule.future_date:
            case "reject":
                found.refuse("future_date", self.place, rows)
            case "warn":
                found.warn("future_date", self.place, rows)
            case "to_null" if rows.len():
                found.change("future_date", self.place, rows)
                return read.clone().scatter(rows, None)
        return read

    def _checked_length(self, values: pl.Series, found: Findings) -> pl.Series:
        if self.length is None:
            return values
        rows = texts.rows_over_length(values, self.length)
        if not rows.len():
            return values
        if self.rule.too_long == "reject":
            found.refuse("too_long", self.place, rows)
            return values
        part = texts.truncate(values.gather(rows), self.length)
        # What remains may be nothing (one huge cluster) or read as null: both are refused rather than sent.
        found.refuse("too_long", self.place, rows.filter(part == ""))
        found.refuse("na_text", self.place, rows.filter(part == texts.NULL_LITERAL))
        found.change("too_long", self.place, rows)
        return values.clone().scatter(rows, part)

    def _checked_picklist(self, values: pl.Series, found: Findings) -> pl.Series:
        if not self.picklist:
            return values
        distinct = values.drop_nulls().unique()
        known = pl.Series(self.picklist)
        if self.is_multi:
            parts = distinct.str.split(";").list.set_difference(known.implode())
            unknown = distinct.filter(parts.list.len() > 0)
        else:
            unknown = distinct.filter(~distinct.is_in(known.implode()))
        if unknown.len():
            found.refuse("picklist", self.place, values.is_in(unknown.implode()).fill_null(False).arg_true())
        return values

    def _fill(
        self, result: pl.Series, empty: pl.Series | None, without_default: pl.Series | None, found: Findings
    ) -> pl.Series:
        """The rest of step 7, which needs the converted column, and step 15."""
        if not result.null_count():
            return result
        if empty is not None and not self.is_key and (self.default is not None or self.rule.empty == "reject"):
            if without_default is not None:
                empty = empty.clone().scatter(without_default, False)
            rows = empty.arg_true()
            if self.default is None:
                found.refuse("empty", self.place, rows)
            else:
                found.change("empty", self.place, rows)
                result = result.clone().scatter(rows, self.default)
        if self.form is Form.BOOLEAN:
            found.change("boolean_null", self.place, self._unrefused_nulls(result, found))
            return result.fill_null("false")
        if self.required and result.null_count():
            found.refuse("empty_required", self.place, self._unrefused_nulls(result, found))
        return result

    def _unrefused_nulls(self, result: pl.Series, found: Findings) -> pl.Series:
        rows = result.is_null().arg_true()
        refused = found.refused_by(self.place)
        return rows.filter(~rows.is_in(refused.implode())) if refused.len() else rows
