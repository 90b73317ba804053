"""The functions that were taught, each with how it is done in DuckDB."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.oracle_server.errors import OracleError, not_taught
from tests.oracle_server.expressions import (
    BINARY_DOUBLE,
    TIMESTAMP,
    Scope,
    Value,
    alike,
    as_number,
    as_text,
    blob,
    coarse,
    common,
    fine,
    literal,
    null_of,
    number_literal,
    raw_number,
    text_literal,
    zoned,
)
from tests.oracle_server.parser import Node
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.types import DATE, NUMBER, ROWID, ZONED, OraType, varchar
from tests.oracle_server.values import number_bytes

if TYPE_CHECKING:
    from tests.oracle_server.compiler import Compiler

RAW = OraType(kind="RAW", length=2000)
# What PL/SQL says of a value that its buffer does not hold.
_TOO_LONG = "error('ORA-06502: PL/SQL: numeric or value error: {}')"
_INTEGER = "BIGINT"


def call(compiler: Compiler, node: Node, scope: Scope) -> Value:
    """A call, with its arguments compiled."""
    name, arguments, distinct, window = node.parts
    if name == "GROUPING" and len(arguments) == 1:
        return Value(f"grouping({compiler.value(arguments[0], scope).sql})", NUMBER, _INTEGER)
    if name in _AGGREGATES or name in _WINDOWS:
        return _aggregate(compiler, name, arguments, distinct, window, scope)
    if name not in _CALLS or distinct or window:
        raise not_taught(f"the function {name}")
    least, most, build = _CALLS[name]
    if len(arguments) > most:
        raise not_taught(f"{name} of {len(arguments)} arguments")
    if len(arguments) < least:
        raise OracleError(909, detail="invalid number of arguments", position=node.at)
    return build(compiler, [compiler.value(one, scope) for one in arguments])


def widest(values: list[Value]) -> str:
    """A DECIMAL that holds all of these, as far as one can."""
    whole = places = 0
    for one in values:
        found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", one.stored)
        size = (int(found[1]), int(found[2])) if found else (19, 0)
        if not one.is_null:
            whole, places = max(whole, size[0] - size[1]), max(places, size[1])
    return f"DECIMAL({min(max(whole + places, 1), 38)},{places})"


def without_arguments(state: SessionState, name: str) -> Value | None:
    """What stands without parentheses: the clock, the user, an SCN."""
    if name == "SYSDATE":
        return Value(f"TIMESTAMP '{state.now:%Y-%m-%d %H:%M:%S}'", DATE)
    if name in ("SYSTIMESTAMP", "CURRENT_TIMESTAMP"):
        return zoned(state.now, state.now.microsecond * 1000, 0)
    if name == "USER":
        return text_literal(state.user.name, varchar(128))
    if name == "DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER":
        if not state.user.may("EXECUTE DBMS_FLASHBACK"):
            raise OracleError(904, '"DBMS_FLASHBACK"."GET_SYSTEM_CHANGE_NUMBER"')
        return number_literal(Decimal(state.store.scn))
    if name in ("SESSIONTIMEZONE", "DBTIMEZONE"):
        minutes = state.offset_minutes if name == "SESSIONTIMEZONE" else 0
        return text_literal(
            f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}", varchar(75)
        )
    if name in ("CURRENT_DATE", "LOCALTIMESTAMP", "UID", "LEVEL", "ORA_INVOKING_USER"):
        raise not_taught(name)
    return None


def next_value(state: SessionState, parts: tuple[str, ...]) -> Value:
    name, word = parts
    sequence = state.store.catalog.sequences.get((state.schema, name))
    if sequence is None:
        raise OracleError(2289)
    if word == "CURRVAL":
        raise not_taught("CURRVAL")
    with state.store.latch:
        value = sequence.following
        sequence.following += sequence.step
    return number_literal(Decimal(value))


# Aggregates and windows.

_AGGREGATES = frozenset(("COUNT", "SUM", "MIN", "MAX", "AVG", "APPROX_COUNT_DISTINCT"))
_WINDOWS = {"ROW_NUMBER": 0, "RANK": 0, "NTILE": 1}


def _aggregate(compiler: Compiler, name: str, arguments: Any, distinct: bool, window: Any, scope: Scope) -> Value:
    over = ""
    if window is not None:
        partition, order = window
        terms = [compiler.value(one, scope).sql for one in partition]
        over = "PARTITION BY " + ", ".join(terms) if terms else ""
        if order:
            sorts = [
                f"{compiler.value(one, scope).sql} {'DESC' if down else 'ASC'} NULLS {'FIRST' if first else 'LAST'}"
                for one, down, first in order
            ]
            over += " ORDER BY " + ", ".join(sorts)
        over = f" OVER ({over})"
    if name in _WINDOWS:
        if window is None or len(arguments) != _WINDOWS[name]:
            raise OracleError(30483, detail="window functions are not allowed here")
        inner = f"CAST({compiler.value(arguments[0], scope).sql} AS BIGINT)" if arguments else ""
        return Value(f"{name.lower()}({inner}){over}", NUMBER, _INTEGER)
    if len(arguments) != 1:
        raise OracleError(909, detail="invalid number of arguments")
    if arguments[0].kind == "all rows":
        if name != "COUNT":
            raise OracleError(936)
        return Value(f"count(*){over}", NUMBER, _INTEGER)
    value = compiler.value(arguments[0], scope)
    unique = "DISTINCT " if distinct else ""
    if value.type.is_lob and (distinct or name != "COUNT"):
        # LOBs have no order and are never equal.
        raise OracleError(932, "-", value.type.name)
    if name == "COUNT":
        return Value(f"count({unique}{value.sql}){over}", NUMBER, _INTEGER)
    if name == "APPROX_COUNT_DISTINCT":
        return Value(f"approx_count_distinct({value.sql}){over}", NUMBER, _INTEGER)
    if name in ("MIN", "MAX"):
        return Value(f"{name.lower()}({value.sql}){over}", _plain(value.type), value.stored)
    if value.type.is_binary_float:
        return Value(f"{name.lower()}({unique}{value.sql}){over}", BINARY_DOUBLE)
    if value.type.is_text:
        value = as_number(value)
    if not value.type.is_number:
        raise OracleError(932, "NUMBER", value.type.name)
    if value.is_raw:
        if over:
            raise not_taught(f"{name} of such a number as a window")
        total = Value(f"ora_sum(list({unique}{value.sql}) FILTER ({value.sql} IS NOT NULL))", NUMBER, "BLOB")
    else:
        places = re.search(r",(\d+)\)", value.stored)
        total = Value(f"sum({unique}{value.sql}){over}", NUMBER, f"DECIMAL(38,{places[1] if places else 0})")
    if name == "SUM":
        return total
    count = f"ora_num(CAST(nullif(count({unique}{value.sql}){over}, 0) AS VARCHAR))"
    return Value(f"ora_divide({raw_number(total)}, {count})", NUMBER, "BLOB")


def _plain(kind: OraType) -> OraType:
    return NUMBER if kind.is_number else kind


def _varying(value: Value) -> Value:
    """A text whose blanks at the end count in comparisons, as those of VARCHAR2 do and those of CHAR do not."""
    names = {"CHAR": "VARCHAR2", "NCHAR": "NVARCHAR2"}
    if value.type.kind not in names:
        return value
    return replace(value, type=replace(value.type, kind=names[value.type.kind]))


# Scalar functions.

Build = Callable[["Compiler", list[Value]], Value]
_CALLS: dict[str, tuple[int, int, Build]] = {}


def _taught(name: str, least: int, most: int | None = None) -> Callable[[Build], Build]:
    def keep(build: Build) -> Build:
        _CALLS[name] = (least, least if most is None else most, build)
        return build

    return keep


def _merged(name: str, values: list[Value]) -> Value:
    sqls, kind, form = common(values)
    if form == "DECIMAL":
        form = widest(values)
        sqls = [f"CAST({one} AS {form})" for one in sqls]
    return Value(f"{name}({', '.join(sqls)})", _plain(kind), form)


@_taught("NVL", 2)
def _nvl(compiler: Compiler, values: list[Value]) -> Value:
    return _varying(_merged("coalesce", values))


@_taught("COALESCE", 2, 50)
def _coalesce(compiler: Compiler, values: list[Value]) -> Value:
    return _merged("coalesce", values)


@_taught("NVL2", 3)
def _nvl2(compiler: Compiler, values: list[Value]) -> Value:
    test, *rest = values
    sqls, kind, form = common(rest)
    form = widest(rest) if form == "DECIMAL" else form
    cast = [f"CAST({one} AS {form or kind.stored})" for one in sqls]
    return Value(f"CASE WHEN {test.sql} IS NOT NULL THEN {cast[0]} ELSE {cast[1]} END", _plain(kind), form)


@_taught("NULLIF", 2)
def _nullif(compiler: Compiler, values: list[Value]) -> Value:
    a, b = alike(*values)
    return Value(f"CASE WHEN {a} = {b} THEN NULL ELSE {values[0].sql} END", values[0].type, values[0].form)


@_taught("DECODE", 3, 255)
def _decode(compiler: Compiler, values: list[Value]) -> Value:
    # Texts are compared with their blanks, whatever they are.
    subject, *rest = (_varying(one) for one in values)
    tests, results = rest[0::2], rest[1::2]
    if len(rest) % 2:
        tests, results = tests[:-1], [*results, rest[-1]]
    else:
        results = [*results, null_of(varchar(1))]
    sqls, kind, form = common(results)
    form = widest(results) if form == "DECIMAL" else form
    # DECODE holds two nulls to be equal.
    whens = []
    for test, sql in zip(tests, sqls, strict=False):
        a, b = alike(subject, test)
        whens.append(f"WHEN {a} IS NOT DISTINCT FROM {b} THEN {sql}")
    return Value(f"CAST(CASE {' '.join(whens)} ELSE {sqls[-1]} END AS {form or kind.stored})", _plain(kind), form)


def _extreme(name: str) -> None:
    @_taught(name.upper(), 1, 50)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        # Null if any is null, where DuckDB's leaves nulls out.
        merged = _varying(_merged(name, [_varying(one) for one in values]))
        nulls = " OR ".join(f"{one.sql} IS NULL" for one in values)
        return Value(f"CASE WHEN {nulls} THEN NULL ELSE {merged.sql} END", merged.type, merged.form)


_extreme("greatest")
_extreme("least")


def _text_function(name: str, sql: str) -> None:
    @_taught(name, 1)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        kind = values[0].type if values[0].type.is_text else varchar(40)
        made = Value(f"nullif({sql.format(as_text(values[0]))}, '')", kind)
        return _varying(made) if name == "TRIM" else made


for _name, _sql in (("UPPER", "upper({})"), ("LOWER", "lower({})"), ("TRIM", "trim({}, ' ')")):
    _text_function(_name, _sql)


def _strip(name: str) -> None:
    @_taught(name, 1, 2)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        letters = as_text(values[1]) if len(values) > 1 else "' '"
        return Value(
            f"nullif({name.lower()}({as_text(values[0])}, {letters}), '')", varchar(values[0].type.length or 40)
        )


_strip("LTRIM")
_strip("RTRIM")


@_taught("LENGTH", 1)
def _length(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"length({as_text(values[0])})", NUMBER, _INTEGER)


@_taught("LENGTHB", 1)
def _length_bytes(compiler: Compiler, values: list[Value]) -> Value:
    return Value(compiler.state.store.bytes_of(as_text(values[0])), NUMBER, _INTEGER)


@_taught("SUBSTR", 2, 3)
def _substr(compiler: Compiler, values: list[Value]) -> Value:
    whole = [f"CAST({_whole(one)} AS BIGINT)" for one in values[1:]]
    # Position 0 means 1 in Oracle; a count below 1 gives null.
    start = f"CASE WHEN {whole[0]} = 0 THEN 1 ELSE {whole[0]} END"
    before = f"-{whole[0]} > length({as_text(values[0])})"  # further back than the text is long: null
    kind = values[0].type if values[0].type.is_lob else varchar(values[0].type.length or 40)
    text = as_text(values[0])
    if len(whole) == 1:
        return Value(f"CASE WHEN {before} THEN NULL ELSE nullif(substr({text}, {start}), '') END", kind)
    return Value(
        f"CASE WHEN {whole[1]} < 1 OR {before} THEN NULL ELSE nullif(substr({text}, {start}, {whole[1]}), '') END", kind
    )


@_taught("DBMS_LOB.SUBSTR", 3)
def _lob_substr(compiler: Compiler, values: list[Value]) -> Value:
    if values[0].type.kind not in ("CLOB", "NCLOB"):
        raise not_taught(f"DBMS_LOB.SUBSTR of {values[0].type.name}")
    part, limit = _substr(compiler, [values[0], values[2], values[1]]).sql, compiler.state.store.varchar_max
    size = compiler.state.store.bytes_of(part)
    sql = f"CASE WHEN {size} > {limit} THEN {_TOO_LONG.format('character string buffer too small')} ELSE {part} END"
    return Value(sql, varchar(limit))


@_taught("DBMS_LOB.GETLENGTH", 1)
def _lob_length(compiler: Compiler, values: list[Value]) -> Value:
    function = "octet_length" if values[0].type.kind == "BLOB" else "length"
    return Value(f"{function}({values[0].sql})", NUMBER, _INTEGER)


@_taught("INSTR", 2)
def _instr(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"instr({as_text(values[0])}, {as_text(values[1])})", NUMBER, _INTEGER)


@_taught("REPLACE", 2, 3)
def _replace(compiler: Compiler, values: list[Value]) -> Value:
    new = f"coalesce({as_text(values[2])}, '')" if len(values) > 2 else "''"
    # Nothing to look for changes nothing.
    replaced = f"replace({as_text(values[0])}, coalesce({as_text(values[1])}, ''), {new})"
    return Value(f"nullif({replaced}, '')", varchar(4000))


def _pad(name: str) -> None:
    @_taught(name, 2, 3)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        fill = as_text(values[2]) if len(values) > 2 else "' '"
        return Value(
            f"{name.lower()}({as_text(values[0])}, CAST({_whole(values[1])} AS INTEGER), {fill})", varchar(4000)
        )


_pad("LPAD")
_pad("RPAD")


def _whole(value: Value) -> str:
    return f"ora_plain(ora_trunc({raw_number(value)}, 0))" if value.is_raw or value.type.is_text else value.sql


@_taught("ABS", 1)
def _abs(compiler: Compiler, values: list[Value]) -> Value:
    value = as_number(values[0])
    if not value.is_raw:
        return Value(f"abs({value.sql})", NUMBER, value.stored)
    zero = blob(number_bytes(0))
    return Value(
        f"CASE WHEN {value.sql} < {zero} THEN ora_subtract({zero}, {value.sql}) ELSE {value.sql} END", NUMBER, "BLOB"
    )


def _rounding(name: str) -> None:
    @_taught(name, 1, 2)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        value = values[0]
        if value.type.is_moment:
            return _truncated_moment(name, values)
        if value.type.is_binary_float:
            raise not_taught(f"{name} of a binary float")
        places = f"CAST({_whole(values[1])} AS INTEGER)" if len(values) > 1 else "0"
        return Value(f"ora_{name.lower()}({raw_number(value)}, {places})", NUMBER, "BLOB")


_rounding("ROUND")
_rounding("TRUNC")


def _truncated_moment(name: str, values: list[Value]) -> Value:
    unit = "'DD'" if len(values) == 1 else values[1].sql
    words = {"'DD'": "day", "'MM'": "month", "'YYYY'": "year", "'HH24'": "hour", "'MI'": "minute"}
    if name != "TRUNC" or unit not in words or values[0].type.kind in ZONED:
        raise not_taught(f"{name} of a moment to {unit}")
    return Value(f"CAST(date_trunc('{words[unit]}', {coarse(values[0])}) AS TIMESTAMP)", DATE)


@_taught("FLOOR", 1)
def _floor(compiler: Compiler, values: list[Value]) -> Value:
    value = as_number(values[0])
    if value.is_raw:
        raise not_taught("FLOOR of such a number")
    return Value(f"CAST(floor({value.sql}) AS DECIMAL(38,0))", NUMBER, "DECIMAL(38,0)")


@_taught("CEIL", 1)
def _ceil(compiler: Compiler, values: list[Value]) -> Value:
    value = as_number(values[0])
    if value.is_raw:
        raise not_taught("CEIL of such a number")
    return Value(f"CAST(ceil({value.sql}) AS DECIMAL(38,0))", NUMBER, "DECIMAL(38,0)")


@_taught("MOD", 2)
def _mod(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"ora_mod({raw_number(values[0])}, {raw_number(values[1])})", NUMBER, "BLOB")


@_taught("TO_NUMBER", 1)
def _to_number(compiler: Compiler, values: list[Value]) -> Value:
    return as_number(values[0])


_POINT = literal("NLS_NUMERIC_CHARACTERS='.,'")
_FORMAT = re.compile(r'"[^"]*"|SYYYY|YYYY|MM|DD|HH24|MI|SS|FF[1-9]?|TZR|TZH:TZM|[-/:., ;]')
_PLACES = {"YYYY": (1, 4), "MM": (6, 2), "DD": (9, 2), "HH24": (12, 2), "MI": (15, 2), "SS": (18, 2)}
_STRPTIME = {"YYYY": "%Y", "MM": "%m", "DD": "%d", "HH24": "%H", "MI": "%M", "SS": "%S", "FF": "%f", "FF6": "%f"}


def _elements(value: Value) -> list[str]:
    if not value.sql.startswith("'"):
        raise not_taught("date formats that are no literals")
    text = value.sql[1:-1].replace("''", "'")
    words: list[str] = []
    at = 0
    while at < len(text):
        match = _FORMAT.match(text if text[at] == '"' else text.upper(), at)
        if not match:
            raise not_taught(f"the date format element `{text[at : at + 6]}`")
        words.append(match.group())
        at = match.end()
    return words


@_taught("TO_CHAR", 1, 3)
def _to_char(compiler: Compiler, values: list[Value]) -> Value:
    value = values[0]
    if value.type.kind.startswith("INTERVAL") and len(values) == 1:
        return Value(_interval_text(value), varchar(64))
    if not value.type.is_moment:
        if len(values) == 1:
            return Value(as_text(value), varchar(64))
        if values[1].sql != "'TM9'" or (len(values) > 2 and values[2].sql != _POINT):
            raise not_taught("TO_CHAR of a number with a format other than TM9")
        return Value(f"ora_text_minimal({raw_number(value)})", varchar(64))
    if len(values) != 2:
        raise not_taught("TO_CHAR of a moment without a format")
    clock, parts = compiler.wall(value), []
    for word in _elements(values[1]):
        if word in _PLACES:
            parts.append(f"substr({clock}, {_PLACES[word][0]}, {_PLACES[word][1]})")
        elif word == "SYYYY":
            # A blank stands where years before Christ have their sign.
            sign = "' '"
            if not value.is_fine:
                sign = f"CASE WHEN {value.sql} < TIMESTAMP '0001-01-01 00:00:00' THEN '-' ELSE ' ' END"
            parts.append(f"{sign} || substr({clock}, 1, 4)")
        elif word.startswith("FF"):
            if value.type.kind == "DATE":
                raise OracleError(1821, detail="date format not recognized")
            parts.append(f"substr({clock}, 21, {word[2:] or value.type.scale})")
        elif word in ("TZR", "TZH:TZM"):
            parts.append(_zone(compiler, value))
        else:
            parts.append(literal(word.strip('"')))
    return Value(f"({' || '.join(parts)})", varchar(64))


def _interval_text(value: Value) -> str:
    """As Oracle writes it: `+02 03:04:05.123456`, `-01-06`; the first part in as many digits as are declared."""
    size = f"CAST(abs({value.sql}) AS HUGEINT)"
    sign, digits = f"CASE WHEN {value.sql} < 0 THEN '-' ELSE '+' END", value.type.precision or 2

    def part(amount: str, places: int) -> str:
        return f"lpad(CAST({amount} AS VARCHAR), {places}, '0')"

    if value.type.kind == "INTERVAL YEAR TO MONTH":
        return f"({sign} || {part(f'{size} // 12', digits)} || '-' || {part(f'{size} % 12', 2)})"
    seconds = f"({size} // 1000000000)"
    clock = " || ':' || ".join(
        part(one, 2) for one in (f"{seconds} // 3600 % 24", f"{seconds} // 60 % 60", f"{seconds} % 60")
    )
    scale = 6 if value.type.scale is None else value.type.scale
    fraction = f" || '.' || substr({part(f'{size} % 1000000000', 9)}, 1, {scale})" if scale else ""
    return f"({sign} || {part(f'{seconds} // 86400', digits)} || ' ' || {clock}{fraction})"


def _zone(compiler: Compiler, value: Value) -> str:
    if value.type.kind == ZONED[1]:
        minutes = str(compiler.state.offset_minutes)
    elif value.type.kind == ZONED[0]:
        minutes = f"TRY_CAST(substr({value.sql}, 30) AS INTEGER)"
    else:
        raise OracleError(1821, detail="date format not recognized")
    sign, size = f"CASE WHEN {minutes} < 0 THEN '-' ELSE '+' END", f"abs({minutes})"
    offset = f"printf('%s%02d:%02d', {sign}, {size} // 60, {size} % 60)"
    return offset if value.type.kind == ZONED[1] else f"coalesce({offset}, substr({value.sql}, 30))"


def _to_moment(name: str, kind: OraType) -> None:
    @_taught(name, 2)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        words = _elements(values[1])
        signed = bool(words) and words[0] == "SYYYY"
        if signed:
            words[0] = "YYYY"
        pattern = "".join(
            _STRPTIME.get(word, word.strip('"') if word[0] == '"' or len(word) == 1 else "") for word in words
        )
        unknown = [word for word in words if word not in _STRPTIME and len(word) > 1 and word[0] != '"']
        if unknown:
            raise not_taught(f"{name} with {unknown[0]}")
        text = as_text(values[0])
        plain = f"ltrim({text}, '- ')" if signed else text
        parsed = f"try_strptime({plain}, {literal(pattern)})"
        if signed:
            years, clock = f"printf('%04d', year({parsed}))", f"strftime({parsed}, '-%m-%d (BC) %H:%M:%S.%f')"
            parsed = f"CASE WHEN {text} LIKE '-%' THEN CAST({years} || {clock} AS TIMESTAMP) ELSE {parsed} END"
        bad = f"{text} IS NOT NULL AND {parsed} IS NULL"
        problem = "error('ORA-01861: literal does not match format string')"
        return Value(f"CAST(CASE WHEN {bad} THEN {problem} ELSE {parsed} END AS TIMESTAMP)", kind)


_to_moment("TO_DATE", DATE)
_to_moment("TO_TIMESTAMP", TIMESTAMP)


@_taught("SYS_EXTRACT_UTC", 1)
def _extract_utc(compiler: Compiler, values: list[Value]) -> Value:
    if values[0].type.kind not in ZONED:
        raise OracleError(932, "TIMESTAMP WITH TIME ZONE", values[0].type.name)
    scale = values[0].type.scale or 0
    if scale > 6:
        return Value(fine(values[0]), OraType(kind="TIMESTAMP", scale=scale))
    return Value(coarse(values[0]), OraType(kind="TIMESTAMP", scale=scale))


@_taught("ADD_MONTHS", 2)
def _add_months(compiler: Compiler, values: list[Value]) -> Value:
    base, months = coarse(values[0]), f"CAST({_whole(values[1])} AS INTEGER)"
    moved = f"({base} + to_months({months}))"
    last = f"CAST(last_day({moved}) AS TIMESTAMP) + ({moved} - date_trunc('day', {moved}))"
    # The last day of a month stays a last day.
    ends = f"CAST({base} AS DATE) = last_day({base})"
    return Value(f"CASE WHEN {ends} THEN {last} ELSE {moved} END", DATE)


@_taught("ROWIDTOCHAR", 1)
def _rowid_to_char(compiler: Compiler, values: list[Value]) -> Value:
    if values[0].type.kind != "ROWID":
        raise OracleError(932, "ROWID", values[0].type.name)
    return Value(f"ora_rowid_text({values[0].sql})", varchar(18))


@_taught("CHARTOROWID", 1)
def _char_to_rowid(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"ora_rowid({as_text(values[0])})", ROWID)


@_taught("DBMS_ROWID.ROWID_CREATE", 5)
def _rowid_create(compiler: Compiler, values: list[Value]) -> Value:
    if values[0].sql != number_literal(Decimal(1)).sql:
        raise not_taught("restricted ROWIDs")
    parts = ", ".join(f"CAST({_whole(one)} AS BIGINT)" for one in values[1:])
    return Value(f"ora_rowid_create({parts})", ROWID)


def _rowid_part(name: str, at: int) -> None:
    shifts = (("43", "1048575"), ("34", "511"), ("12", "4194303"), ("0", "4095"))

    @_taught(f"DBMS_ROWID.{name}", 1)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        if values[0].type.kind != "ROWID":
            raise OracleError(932, "ROWID", values[0].type.name)
        return Value(f"(({values[0].sql} >> {shifts[at][0]}) & {shifts[at][1]})", NUMBER, _INTEGER)


for _at, _name in enumerate(("ROWID_OBJECT", "ROWID_RELATIVE_FNO", "ROWID_BLOCK_NUMBER", "ROWID_ROW_NUMBER")):
    _rowid_part(_name, _at)


@_taught("RAWTOHEX", 1)
def _raw_to_hex(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"hex({values[0].sql})", varchar(values[0].type.length * 2))


@_taught("HEXTORAW", 1)
def _hex_to_raw(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"from_hex({as_text(values[0])})", RAW)


@_taught("UTL_RAW.CAST_TO_RAW", 1)
def _cast_to_raw(compiler: Compiler, values: list[Value]) -> Value:
    store = compiler.state.store
    if values[0].type.is_lob or values[0].type.kind == "LONG":
        raise OracleError(932, "CHAR", values[0].type.name)
    text = as_text(values[0])
    raw = f"{'ora_utf8_bytes' if store.charset == 'AL32UTF8' else 'ora_bytes'}({text})"
    limit = store.raw_max
    problem = _TOO_LONG.format("raw variable length too long")
    return Value(f"CASE WHEN octet_length({raw}) > {limit} THEN {problem} ELSE {raw} END", RAW.sized(limit))


@_taught("UTL_RAW.CAST_TO_VARCHAR2", 1)
def _cast_to_text(compiler: Compiler, values: list[Value]) -> Value:
    store = compiler.state.store
    if store.charset != "AL32UTF8":
        return Value(f"ora_of_bytes({values[0].sql})", varchar(4000))
    store.has_broken_text = True
    return Value(f"ora_of_utf8_bytes({values[0].sql})", varchar(4000))


@_taught("UTL_RAW.LENGTH", 1)
def _raw_length(compiler: Compiler, values: list[Value]) -> Value:
    return Value(f"octet_length({values[0].sql})", NUMBER, _INTEGER)


@_taught("XMLTYPE", 1)
def _xml(compiler: Compiler, values: list[Value]) -> Value:
    return Value(as_text(values[0]), OraType(kind="XMLTYPE"))


def _serialize(name: str, kind: str) -> None:
    @_taught(name, 1)
    def build(compiler: Compiler, values: list[Value]) -> Value:
        if values[0].type.kind != kind:
            raise OracleError(932, kind, values[0].type.name)
        return Value(values[0].sql, OraType(kind="CLOB"))


_serialize("XMLSERIALIZE", "XMLTYPE")
_serialize("JSON_SERIALIZE", "JSON")


@_taught("STANDARD_HASH", 1, 2)
def _standard_hash(compiler: Compiler, values: list[Value]) -> Value:
    function = {"'MD5'": "md5", "'SHA1'": "sha1", "'SHA256'": "sha256"}.get(
        values[1].sql if len(values) > 1 else "'SHA1'"
    )
    if function is None or not values[0].type.is_text or values[0].type.is_lob:
        raise not_taught("STANDARD_HASH of anything but a text by MD5, SHA1 or SHA256")
    return Value(f"from_hex({function}(coalesce({values[0].sql}, '')))", RAW.sized(32))


@_taught("TO_CLOB", 1)
def _to_clob(compiler: Compiler, values: list[Value]) -> Value:
    return Value(as_text(values[0]), OraType(kind="CLOB"))


@_taught("TIMESTAMP_TO_SCN", 1)
def _timestamp_to_scn(compiler: Compiler, values: list[Value]) -> Value:
    store = compiler.state.store
    moment = store.cursor().execute(f"SELECT {coarse(values[0])}").fetchall()[0][0]
    return number_literal(Decimal(store.scn_at(moment)))


@_taught("SYS_CONTEXT", 2)
def _sys_context(compiler: Compiler, values: list[Value]) -> Value:
    state = compiler.state
    known = {
        "CURRENT_SCHEMA": state.schema,
        "SESSION_USER": state.user.name,
        "CURRENT_USER": state.user.name,
        "SERVICE_NAME": state.service,
        "DB_NAME": state.service.upper(),
        "SID": str(state.session_id),
        "MODULE": state.attributes.get("MODULE", ""),
        "ACTION": state.attributes.get("ACTION", ""),
        "CLIENT_INFO": state.attributes.get("CLIENT_INFO", ""),
        "CLIENT_IDENTIFIER": state.attributes.get("CLIENT_IDENTIFIER", ""),
    }
    name = values[1].sql.strip("'").upper()
    if values[0].sql.upper() != "'USERENV'" or name not in known:
        raise not_taught(f"SYS_CONTEXT of {name}")
    return text_literal(known[name], varchar(256))


@_taught("EMPTY_CLOB", 0)
def _empty_clob(compiler: Compiler, values: list[Value]) -> Value:
    return Value("''", OraType(kind="CLOB"))
