"""Expressions as DuckDB SQL, with Oracle's type beside each: comparisons, arithmetic, conversions, literals."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.parser import Node
from tests.oracle_server.types import DATE, NUMBER, ZONED, OraType, varchar
from tests.oracle_server.values import fine_text, number_bytes

BOOLEAN = OraType(kind="BOOLEAN")
NULL_TYPE = varchar(1)
TIMESTAMP = OraType(kind="TIMESTAMP", scale=6)
FINE = OraType(kind="TIMESTAMP", scale=9)
BINARY_DOUBLE = OraType(kind="BINARY_DOUBLE")
DAYS = OraType(kind="INTERVAL DAY TO SECOND", precision=9, scale=9)
MONTHS = OraType(kind="INTERVAL YEAR TO MONTH", precision=9)
_UNITS = {"DAY": 86_400, "HOUR": 3_600, "MINUTE": 60, "SECOND": 1}


@dataclass(frozen=True, slots=True)
class Value:
    """An expression: its SQL, Oracle's type, and DuckDB's where it is not the one that columns of that type have."""

    sql: str
    type: OraType
    form: str = ""
    is_null: bool = False

    @property
    def stored(self) -> str:
        return self.form or self.type.stored

    @property
    def is_raw(self) -> bool:
        """True for a number in Oracle's bytes."""
        return self.type.is_number and self.stored == "BLOB"

    @property
    def is_fine(self) -> bool:
        """True for a moment that is kept as a text."""
        return self.type.is_moment and self.stored == "VARCHAR"


@dataclass(slots=True)
class Scope:
    """The columns that names may mean: of each alias, and those of the query around it."""

    tables: dict[str, dict[str, Value]] = field(default_factory=dict)
    outer: Scope | None = None

    def find(self, parts: tuple[str, ...], at: int) -> Value:
        column, table = parts[-1], parts[-2] if len(parts) > 1 else None
        found = [
            columns[column] for name, columns in self.tables.items() if table in (None, name) and column in columns
        ]
        if len(found) > 1:
            raise OracleError(918, position=at)
        if found:
            return found[0]
        if self.outer is None:
            raise OracleError(904, ".".join(f'"{part}"' for part in parts), position=at)
        return self.outer.find(parts, at)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def blob(raw: bytes) -> str:
    return "from_hex('" + raw.hex() + "')"


def number_literal(value: Decimal) -> Value:
    """A number, as a DECIMAL of just its size where one can hold it."""
    _, digits, exponent = value.as_tuple()
    places = max(-int(exponent), 0)
    size = max(len(digits) + max(int(exponent), 0), places, 1)
    if size > 38:
        return Value(blob(number_bytes(value)), NUMBER, "BLOB")
    kind = f"DECIMAL({size},{places})"
    return Value(f"CAST('{value:f}' AS {kind})", NUMBER, kind)


def text_literal(text: str, kind: OraType | None = None) -> Value:
    """A text; the empty one is null."""
    if not text:
        return Value("CAST(NULL AS VARCHAR)", kind or NULL_TYPE, is_null=True)
    return Value(literal(text), kind or OraType(kind="CHAR", length=len(text.encode())))


# Conversions.


def raw_number(value: Value) -> str:
    """SQL of a number in Oracle's bytes."""
    if value.is_raw:
        return value.sql
    if value.type.is_binary_float:
        return f"ora_num_double(CAST({value.sql} AS DOUBLE))"
    if value.type.is_number or value.type.is_text:
        return f"ora_num(CAST({value.sql} AS VARCHAR))"
    raise OracleError(932, "NUMBER", value.type.name)


def as_number(value: Value) -> Value:
    """A number from a number or a text."""
    return value if value.type.is_number else Value(raw_number(value), NUMBER, "BLOB")


def as_text(value: Value) -> str:
    """SQL of a text from a text or a number. Moments have no text of their own here: the session's formats are not."""
    if value.is_null:
        return "CAST(NULL AS VARCHAR)"
    if value.type.is_text:
        return value.sql
    if value.type.is_number:
        return f"ora_text({raw_number(value)})"
    if value.type.kind == "BINARY_DOUBLE":
        return f"ora_double_text({value.sql})"
    if value.type.kind == "ROWID":
        return f"ora_rowid_text({value.sql})"
    if value.type.kind == "RAW":
        return f"hex({value.sql})"
    raise not_taught(f"the text of {value.type.name} without a format")


def fine(value: Value) -> str:
    """SQL of a moment as a text that sorts; a zoned one without its zone, that is in UTC."""
    if value.is_fine:
        return f"substr({value.sql}, 1, 29)" if value.type.kind == ZONED[0] else value.sql
    # A year before Christ without its sign, in four digits as all.
    years = f"printf('%04d', CASE WHEN year({value.sql}) <= 0 THEN 1 - year({value.sql}) ELSE year({value.sql}) END)"
    return f"({years} || strftime({value.sql}, '-%m-%d %H:%M:%S.%f') || '000')"


def coarse(value: Value) -> str:
    """SQL of a moment as a DuckDB timestamp, cut to microseconds."""
    return f"CAST(substr({value.sql}, 1, 26) AS TIMESTAMP)" if value.is_fine else value.sql


def wall(value: Value, offset_minutes: int) -> str:
    """SQL of the wall clock of a moment as a text: in its own zone, or in the session's."""
    if value.type.kind not in ZONED:
        return fine(value)
    own = f"TRY_CAST(substr({value.sql}, 30) AS INTEGER)"
    shift = own if value.type.kind == ZONED[0] else str(offset_minutes)
    moved = f"(CAST(substr({value.sql}, 1, 26) AS TIMESTAMP) + to_minutes({shift}))"
    return f"(strftime({moved}, '%Y-%m-%d %H:%M:%S.%f') || substr({value.sql}, 27, 3))"


def alike(left: Value, right: Value) -> tuple[str, str]:
    """Both sides in one form, so that DuckDB compares them as Oracle would."""
    a, b = left.type, right.type
    if left.is_null or right.is_null:
        other = right if left.is_null else left
        empty = f"CAST(NULL AS {other.stored})"
        return (empty if left.is_null else left.sql), (empty if right.is_null else right.sql)
    if a.is_binary_float or b.is_binary_float:
        return as_double(left), as_double(right)
    if a.is_number or b.is_number:
        left, right = as_number(left), as_number(right)
        if left.is_raw or right.is_raw:
            return raw_number(left), raw_number(right)
        return left.sql, right.sql
    if a.is_text and b.is_text:
        if a.is_lob or b.is_lob:
            raise OracleError(932, "-", "CLOB")
        if a.kind in ("CHAR", "NCHAR") and b.kind in ("CHAR", "NCHAR"):
            return f"rtrim({left.sql}, ' ')", f"rtrim({right.sql}, ' ')"
        return left.sql, right.sql
    if a.is_moment and b.is_moment:
        if (a.kind in ZONED) != (b.kind in ZONED):
            raise not_taught("comparisons of moments with and without a zone")
        if left.is_fine or right.is_fine:
            return fine(left), fine(right)
        return left.sql, right.sql
    if "ROWID" in (a.kind, b.kind) and (a.is_text or b.is_text):
        sides = [one.sql if one.type.kind == "ROWID" else f"ora_rowid({one.sql})" for one in (left, right)]
        return sides[0], sides[1]
    if (a.is_moment and b.is_text) or (a.is_text and b.is_moment):
        raise not_taught("a text as a moment by the session's format")
    if a.kind == b.kind:
        return left.sql, right.sql
    if {a.kind, b.kind} == {"RAW"} | ({a.kind, b.kind} - {"RAW"}) and (a.is_text or b.is_text):
        sides = [one.sql if one.type.kind == "RAW" else f"from_hex({one.sql})" for one in (left, right)]
        return sides[0], sides[1]
    raise OracleError(932, a.name, b.name)


def as_double(value: Value) -> str:
    if value.type.is_binary_float:
        return f"CAST({value.sql} AS DOUBLE)"
    if value.is_raw:
        return f"CAST(ora_plain({value.sql}) AS DOUBLE)"
    return f"CAST({value.sql} AS DOUBLE)"


def common(values: list[Value]) -> tuple[list[str], OraType, str]:
    """Several values in one form, as the branches of a CASE are."""
    real = [one for one in values if not one.is_null]
    if not real:
        return [one.sql for one in values], NULL_TYPE, ""
    first = real[0]
    if first.type.is_text:
        lobs = [one.type for one in real if one.type.is_lob]
        same = all(one.type == first.type for one in real)
        longest = max((one.type.length if one.type.is_text else 40) for one in real)
        kind = lobs[0] if lobs else first.type if same else varchar(max(longest, 1))
        return [as_text(one) for one in values], kind, ""
    if first.type.is_number:
        numbers = [as_number(one) if not one.is_null else one for one in values]
        if any(one.is_raw for one in numbers if not one.is_null):
            return ["NULL" if one.is_null else raw_number(one) for one in numbers], NUMBER, "BLOB"
        return [one.sql if not one.is_null else "NULL" for one in numbers], NUMBER, "DECIMAL"
    if first.type.is_moment:
        if any(not one.type.is_moment or (one.type.kind in ZONED) != (first.type.kind in ZONED) for one in real):
            raise OracleError(932, first.type.name, "other")
        if any(one.is_fine for one in real) and not all(one.type.kind == first.type.kind for one in real):
            return ["NULL" if one.is_null else fine(one) for one in values], FINE, ""
        return ["NULL" if one.is_null else one.sql for one in values], first.type, ""
    if any(one.type.kind != first.type.kind for one in real):
        raise OracleError(932, first.type.name, "other")
    return ["NULL" if one.is_null else one.sql for one in values], first.type, first.form


# Arithmetic.


def arithmetic(mark: str, left: Value, right: Value) -> Value:
    """Numbers, moments and intervals."""
    a, b = left.type, right.type
    if a.is_moment or b.is_moment:
        return _moment_arithmetic(mark, left, right)
    if a.is_binary_float or b.is_binary_float:
        return Value(f"({as_double(left)} {mark} {as_double(right)})", BINARY_DOUBLE)
    left, right = as_number(left), as_number(right)
    sizes = [_decimal_size(one) for one in (left, right)]
    if sizes[0] and sizes[1]:
        (p, s), (q, t) = sizes
        if mark in "+-":
            places = max(s, t)
            digits = max(p - s, q - t) + 1 + places
        else:
            places, digits = s + t, p + q
        if mark != "/" and digits <= 38:
            kind = f"DECIMAL({digits},{places})"
            inner = [f"CAST({one.sql} AS {kind})" if mark in "+-" else one.sql for one in (left, right)]
            return Value(f"CAST({inner[0]} {mark} {inner[1]} AS {kind})", NUMBER, kind)
    name = {"+": "ora_add", "-": "ora_subtract", "*": "ora_multiply", "/": "ora_divide"}[mark]
    return Value(f"{name}({raw_number(left)}, {raw_number(right)})", NUMBER, "BLOB")


def _decimal_size(value: Value) -> tuple[int, int] | None:
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", value.stored)
    if found:
        return int(found[1]), int(found[2])
    return (19, 0) if value.stored == "BIGINT" else None


def _moment_arithmetic(mark: str, left: Value, right: Value) -> Value:
    a, b = left.type, right.type
    if mark == "+" and b.is_moment:
        left, right, a, b = right, left, b, a
    if a.kind == "DATE" and b.kind == "DATE" and mark == "-":
        micros = f"CAST(epoch_us({left.sql}) - epoch_us({right.sql}) AS VARCHAR)"
        return Value(f"ora_divide(ora_num({micros}), {blob(number_bytes(86_400_000_000))})", NUMBER, "BLOB")
    if not a.is_moment or mark not in "+-":
        raise OracleError(932, "NUMBER", a.name)
    if a.is_moment and b.is_moment:
        if left.is_fine or right.is_fine:
            raise not_taught("differences of such time stamps")
        nanos = f"CAST((epoch_us({left.sql}) - epoch_us({right.sql})) AS DECIMAL(38,0)) * 1000"
        return Value(f"CAST({nanos} AS DECIMAL(38,0))", DAYS)
    sign = "" if mark == "+" else "-"
    if b.is_number:
        base = left.sql if a.kind == "DATE" else f"date_trunc('second', {coarse(left)})"
        seconds = (
            f"CAST(ora_plain(ora_round(ora_multiply({raw_number(right)}, {blob(number_bytes(86400))}), 0)) AS BIGINT)"
        )
        return Value(f"({base} + to_seconds({sign}{seconds}))", DATE)
    if b.kind == "INTERVAL DAY TO SECOND":
        moved = f"({coarse(left)} + to_microseconds({sign}CAST({right.sql} // 1000 AS BIGINT)))"
        if not left.is_fine:
            return Value(moved, a)
        rest = f"substr({left.sql}, 27)"
        return Value(f"(strftime({moved}, '%Y-%m-%d %H:%M:%S.%f') || {rest})", a)
    raise not_taught(f"{a.name} {mark} {b.name}")


# Literals of moments and intervals.


def moment_literal(word: str, text: str) -> Value:
    """DATE '...' and TIMESTAMP '...', the latter also with an offset."""
    if text.startswith("-"):
        return _before_christ(word, text[1:])
    shape = r"(\d{4})-(\d{1,2})-(\d{1,2})"
    if word == "DATE":
        if not re.fullmatch(shape, text):
            raise OracleError(1861)
        return Value("TIMESTAMP " + literal(fine_text(_checked(text), 0)[:19]), DATE)
    found = re.fullmatch(shape + r" (\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?(?: ?([+-])(\d{1,2}):(\d{2}))?", text)
    if not found:
        raise not_taught("this form of a TIMESTAMP literal")
    year, month, day, hour, minute, second = (int(one) for one in found.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second)
    except ValueError as error:
        raise OracleError(1839) from error
    nanoseconds = int((found[7] or "0").ljust(9, "0"))
    if found[8]:
        minutes = (int(found[9]) * 60 + int(found[10])) * (-1 if found[8] == "-" else 1)
        return zoned(moment, nanoseconds, minutes)
    if len(found[7] or "") > 6:
        return Value(literal(fine_text(moment, nanoseconds)), FINE)
    return Value("TIMESTAMP " + literal(fine_text(moment, nanoseconds)[:26]), TIMESTAMP)


def _before_christ(word: str, text: str) -> Value:
    """DATE '-4712-01-01' is the first day that Oracle has; it takes no year 0."""
    found = re.fullmatch(r"(\d{4})-\d\d-\d\d" + ("" if word == "DATE" else r"( \d\d:\d\d:\d\d(?:\.\d{1,6})?)"), text)
    if not found:
        raise not_taught(f"this form of a {word} literal")
    if not 1 <= int(found[1]) <= 4712:
        raise OracleError(1841, detail="(full) year must be between -4713 and +9999, and not be 0")
    clock = found[2] if word != "DATE" else " 00:00:00"
    return Value(f"CAST('{text[:10]} (BC){clock}' AS TIMESTAMP)", DATE if word == "DATE" else TIMESTAMP)


def zoned(moment: datetime, nanoseconds: int, minutes: int) -> Value:
    """A moment on the wall clock of an offset."""
    try:
        text = fine_text(moment - timedelta(minutes=minutes), nanoseconds)
    except OverflowError as error:
        raise not_taught("instants outside the years 1 to 9999") from error
    return Value(literal(f"{text}{minutes:+d}"), OraType(kind=ZONED[0], scale=9))


def _checked(text: str) -> datetime:
    year, month, day = (int(part) for part in text.split("-"))
    try:
        return datetime(year, month, day)
    except ValueError as error:
        raise OracleError(1839) from error


def interval_literal(node: Node) -> Value:
    text, unit, last = node.parts
    sign = -1 if text.startswith("-") else 1
    plain = text.lstrip("+-")
    if unit in ("YEAR", "MONTH"):
        parts = plain.split("-")
        if not all(part.isdigit() for part in parts) or len(parts) != (2 if last != unit else 1):
            raise OracleError(1867, detail="the interval is invalid")
        months = int(parts[0]) * (12 if unit == "YEAR" else 1) + (int(parts[1]) if len(parts) > 1 else 0)
        return Value(f"CAST({sign * months} AS BIGINT)", MONTHS)
    if unit not in _UNITS:
        raise OracleError(30089, detail="missing or invalid datetime field")
    nanoseconds = 0
    if last == unit:
        nanoseconds = int(Decimal(plain) * _UNITS[unit] * 10**9)
    else:
        found = re.fullmatch(r"(\d+) (\d+):(\d+):(\d+(?:\.\d+)?)", plain)
        if not found or (unit, last) != ("DAY", "SECOND"):
            raise not_taught("this form of an INTERVAL literal")
        whole = (int(found[1]) * 24 + int(found[2])) * 3600 + int(found[3]) * 60
        nanoseconds = whole * 10**9 + int(Decimal(found[4]) * 10**9)
    return Value(f"CAST({sign * nanoseconds} AS DECIMAL(38,0))", DAYS)


def null_of(kind: OraType) -> Value:
    return Value(f"CAST(NULL AS {kind.stored})", kind, is_null=True)
