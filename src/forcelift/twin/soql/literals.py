"""Literals to SQL constants: string escapes, ids, numbers, dates, and what each type of field accepts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from forcelift.twin.soql.ast import Kind, Literal
from forcelift.twin.soql.dates import day_range
from forcelift.twin.soql.errors import SoqlError, located, malformed
from forcelift.twin.soql.views import Category, Operand

_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_CHECK_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
# A character beyond U+FFFF is written as two code units, as in Java.
_ESCAPE = re.compile(r"\\(u[Dd][89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_DECIMAL_DIGITS = 18
_ACCEPTED = {
    Category.TEXT: (Kind.STRING,),
    Category.ID: (Kind.STRING,),
    Category.BOOLEAN: (Kind.BOOLEAN,),
    Category.INT: (Kind.NUMBER,),
    Category.NUMBER: (Kind.NUMBER,),
    Category.DATE: (Kind.DATE, Kind.DATE_LITERAL),
    Category.DATETIME: (Kind.DATETIME, Kind.DATE_LITERAL),
    Category.TIME: (Kind.TIME,),
}


def id18(record_id: str) -> str:
    """The 18-character form of an id of 15 or 18 characters."""
    bits = (
        sum(1 << place for place, letter in enumerate(record_id[start : start + 5]) if "A" <= letter <= "Z")
        for start in (0, 5, 10)
    )
    return record_id[:15] + "".join(_CHECK_LETTERS[index] for index in bits)


def constant(value: str | int | float) -> str:
    """A value as a DuckDB constant. Text is quoted: DuckDB knows no escapes inside quotes but the doubled quote."""
    if isinstance(value, int):
        return str(value)
    text = str(value)
    # The parser ends a statement at a zero byte, so it is put in from outside the quotes.
    return "'" + text.replace("'", "''").replace("\0", "' || chr(0) || '") + "'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A literal against an operand: `left` and `right` are SQL. A range has `right_end`; null has no `right`."""

    left: str
    right: str | None = None
    right_end: str | None = None


class Literals:
    """Checks and quotes the literals of one query."""

    def __init__(self, text: str, now: datetime) -> None:
        self.text = text
        self.now = now

    def bound(self, operand: Operand, literal: Literal) -> Bound:
        """The two sides of a comparison, of the same type.

        Raises:
            SoqlError: INVALID_FIELD if the field takes another kind of literal, INVALID_QUERY_FILTER_OPERATOR for a
                string that is no id, MALFORMED_QUERY for a value that is none.
        """
        if literal.kind is Kind.NULL:
            return Bound(left=operand.sql)
        if literal.kind is Kind.DATE_LITERAL and day_range_or_none(literal.text) is None:
            raise malformed(self.text, literal.position, f"unexpected token: '{literal.text}'")
        if literal.kind not in _ACCEPTED.get(operand.category, ()):
            raise self._wrong_type(operand, literal)
        match operand.category:
            case Category.TEXT:
                return self._text(operand, literal)
            case Category.ID:
                return self._id(operand, literal)
            case Category.INT | Category.NUMBER:
                return self._number(operand, literal)
            case Category.BOOLEAN:
                return Bound(left=operand.sql, right="true" if literal.text.upper() == "TRUE" else "false")
            case _:
                return self._moment(operand, literal)

    def _wrong_type(self, operand: Operand, literal: Literal) -> SoqlError:
        kind = operand.category.value
        if literal.kind is Kind.STRING:
            ending = f"must be of type {kind} and should not be enclosed in quotes"
        elif operand.category in (Category.TEXT, Category.ID):
            ending = f"must be of type {kind} and should be enclosed in quotes"
        else:
            ending = f"must be of type {kind}"
        reason = f"value of filter criterion for field '{operand.name}' {ending}"
        return located(self.text, operand.position, "INVALID_FIELD", reason)

    def _text(self, operand: Operand, literal: Literal) -> Bound:
        value = self.string(literal)
        if not value:
            return Bound(left=operand.sql)
        value_sql = constant(value)
        if operand.case_sensitive:
            return Bound(left=operand.sql, right=f"CAST({value_sql} AS VARCHAR)")
        return Bound(left=f"lower({operand.sql})", right=f"lower(CAST({value_sql} AS VARCHAR))")

    def _id(self, operand: Operand, literal: Literal) -> Bound:
        value = self.string(literal)
        if not value:
            return Bound(left=operand.sql)
        if not _ID.fullmatch(value) or (len(value) == 18 and id18(value) != value):
            reason = f"invalid ID field: {value}"
            raise located(self.text, operand.position, "INVALID_QUERY_FILTER_OPERATOR", reason)
        return Bound(left=operand.sql, right=f"CAST({constant(id18(value))} AS VARCHAR)")

    def _number(self, operand: Operand, literal: Literal) -> Bound:
        value = float(literal.text)
        if abs(value) < 10.0**_DECIMAL_DIGITS and (exact := _plain_decimal(literal.text)) is not None:
            scale = max(0, -int(exact.as_tuple().exponent))
            digits = len(exact.as_tuple().digits)
            if operand.category is Category.INT and scale == 0:
                return Bound(left=operand.sql, right=f"CAST({constant(int(exact))} AS BIGINT)")
            if operand.is_exact and scale <= operand.scale and digits - scale <= _DECIMAL_DIGITS - operand.scale:
                value_sql = constant(format(exact, "f"))
                return Bound(left=operand.sql, right=f"CAST({value_sql} AS DECIMAL(18, {operand.scale}))")
            if operand.is_exact and scale <= _DECIMAL_DIGITS:
                return Bound(
                    left=f"CAST({operand.sql} AS DECIMAL(38, 18))",
                    right=f"CAST({constant(format(exact, 'f'))} AS DECIMAL(38, 18))",
                )
        return Bound(left=f"CAST({operand.sql} AS DOUBLE)", right=f"CAST({constant(value)} AS DOUBLE)")

    def _moment(self, operand: Operand, literal: Literal) -> Bound:
        kind = {Category.DATE: "DATE", Category.DATETIME: "TIMESTAMP", Category.TIME: "TIME"}[operand.category]
        try:
            if literal.kind is Kind.DATE_LITERAL:
                days = day_range(literal.text, self.now.date())
                if days is None:
                    raise malformed(self.text, literal.position, f"unexpected token: '{literal.text}'")
                return Bound(
                    left=operand.sql,
                    right=f"CAST({constant(days.start.isoformat())} AS {kind})",
                    right_end=f"CAST({constant(days.end.isoformat())} AS {kind})",
                )
            value = _moment_text(literal)
        except (ValueError, OverflowError):
            reason = f"Invalid {literal.kind.value}: {literal.text}"
            raise located(self.text, literal.position, "INVALID_FIELD", reason) from None
        return Bound(left=operand.sql, right=f"CAST({constant(value)} AS {kind})")

    def string(self, literal: Literal) -> str:
        """The value of a string literal. Raises MALFORMED_QUERY for an unknown escape."""
        return self._unescape(literal, wildcard_escape="")

    def pattern(self, literal: Literal) -> str:
        r"""A LIKE pattern in which `\` is the escape character."""
        return self._unescape(literal, wildcard_escape="\\")

    def _unescape(self, literal: Literal, *, wildcard_escape: str) -> str:
        def value(match: re.Match[str]) -> str:
            escaped = match[1]
            if escaped in "_%":
                return wildcard_escape + escaped
            if len(escaped) == 11:
                pair = bytes.fromhex(escaped[1:5] + escaped[7:])
                return pair.decode("utf-16-be")
            if len(escaped) == 5:
                return _code_unit(int(escaped[1:], 16))
            letter = escaped if escaped in _ESCAPES else escaped.lower()
            if letter not in _ESCAPES:
                reason = f"Illegal character sequence '\\{escaped}' in string literal"
                raise malformed(self.text, literal.position, f"Invalid string literal '{literal.text}'. {reason}.")
            return wildcard_escape + "\\" if letter == "\\" else _ESCAPES[letter]

        return storable(_ESCAPE.sub(value, literal.text))


def _code_unit(number: int) -> str:
    return chr(number) if not 0xD800 <= number <= 0xDFFF else "�"


def storable(text: str) -> str:
    """Text without lone surrogates, which have no UTF-8 form and so can equal nothing stored."""
    return text.encode("utf-8", "replace").decode("utf-8")


def day_range_or_none(text: str) -> object | None:
    """Whether there is such a date literal; its range may lie outside the calendar."""
    try:
        return day_range(text, date(2000, 1, 1))
    except (OverflowError, ValueError):
        return text


def _plain_decimal(text: str) -> Decimal | None:
    """The number exactly, in lowest terms, or None if its exponent is out of any field's range."""
    exponent = re.search(r"[eE]([+-]?[0-9]+)$", text)
    if len(text) > 60 or (exponent and abs(int(exponent[1])) > 40):
        return None
    number = Decimal(text).normalize()
    return number.quantize(Decimal(1)) if int(number.as_tuple().exponent) > 0 else number


def _moment_text(literal: Literal) -> str:
    """ISO text for DuckDB; datetimes in UTC. Raises ValueError or OverflowError for a day or hour that is none."""
    match literal.kind:
        case Kind.DATE:
            return date.fromisoformat(literal.text).isoformat()
        case Kind.TIME:
            return time.fromisoformat(_six_digits(literal.text.upper().rstrip("Z"))).isoformat()
    body, zone = _split_zone(literal.text.upper())
    moment = datetime.fromisoformat(_six_digits(body))
    if zone != "Z":
        digits = zone[1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment = moment + offset if zone[0] == "-" else moment - offset
    return moment.isoformat(sep=" ")


def _split_zone(text: str) -> tuple[str, str]:
    """The local part and the zone: `Z`, `+07:00` or `+0700`."""
    start = len(text) - 1 if text.endswith("Z") else max(text.rfind("+"), text.rfind("-"))
    return text[:start], text[start:]


def _six_digits(text: str) -> str:
    whole, dot, fraction = text.partition(".")
    return f"{whole}.{fraction[:6]:0<6}" if dot else whole
