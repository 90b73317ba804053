"""Putting values into columns: conversion, rounding, padding, and what does not fit."""

from __future__ import annotations

import re

from tests.oracle_server.errors import OracleError
from tests.oracle_server.expressions import Value, as_double, as_text, coarse, fine, raw_number, wall
from tests.oracle_server.session_state import SessionState
from tests.oracle_server.types import ZONED, OraType


def assigned(value: Value, kind: OraType, state: SessionState) -> tuple[str, str | None]:
    """SQL of the value as the column keeps it, and a condition under which it does not fit (then the SQL is null)."""
    offset_minutes = state.offset_minutes
    if value.is_null:
        return f"CAST(NULL AS {kind.stored})", None
    source = value.type
    if kind.is_number:
        return _number(value, kind)
    if kind.is_text:
        return _text(value, kind, state)
    if kind.is_binary_float:
        if source.is_number or source.is_text or source.is_binary_float:
            # Minus zero becomes zero, as documented.
            return f"CAST({as_double(value)} + 0.0 AS {kind.stored})", None
    elif kind.is_moment:
        if source.is_moment:
            return _moment(value, kind, offset_minutes), None
    elif kind.kind in ("RAW", "BLOB", "LONG RAW"):
        sql = value.sql if source.kind in ("RAW", "BLOB", "LONG RAW") else f"from_hex({as_text(value)})"
        limit = f"octet_length({sql}) > {kind.length}" if kind.kind == "RAW" else None
        return f"nullif({sql}, ''::BLOB)" if kind.kind == "RAW" else sql, limit
    elif kind.kind == "JSON" and source.is_text:
        # What is no JSON is refused, as the type does.
        return f"CAST(CAST({as_text(value)} AS JSON) AS VARCHAR)", None
    elif kind.kind == "ROWID" and source.is_text:
        return f"ora_rowid({value.sql})", None
    elif kind.kind == source.kind:
        return f"CAST({value.sql} AS {kind.stored})", None
    raise OracleError(932, kind.name, source.name)


def _number(value: Value, kind: OraType) -> tuple[str, str | None]:
    if not (value.type.is_number or value.type.is_text or value.type.is_binary_float):
        raise OracleError(932, "NUMBER", value.type.name)
    if kind.precision is None or kind.kind == "FLOAT":
        return raw_number(value), None
    scale = kind.scale or 0
    is_decimal = value.type.is_number and not value.is_raw
    if is_decimal and 0 <= scale <= kind.precision:
        # A cast between DECIMALs rounds half away from zero, as Oracle does.
        sql = f"TRY_CAST({value.sql} AS {kind.stored})"
        found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", value.stored)
        if found and int(found[2]) <= scale and int(found[1]) - int(found[2]) <= kind.precision - scale:
            return f"CAST({value.sql} AS {kind.stored})", None
        return sql, f"({sql} IS NULL AND {value.sql} IS NOT NULL)"
    raw = raw_number(value)
    fitted = f"ora_fit({raw}, {kind.precision}, {scale})"
    sql = fitted if kind.stored == "BLOB" else f"CAST(ora_plain({fitted}) AS {kind.stored})"
    return sql, f"({fitted} IS NULL AND {raw} IS NOT NULL)"


def _text(value: Value, kind: OraType, state: SessionState) -> tuple[str, str | None]:
    sql = as_text(value)
    if kind.is_lob or kind.kind == "LONG":
        return sql, None
    sql = f"nullif({sql}, '')"
    by_char = kind.by_char or kind.is_national
    size = f"length({sql})" if by_char else state.store.bytes_of(sql)
    if kind.kind in ("CHAR", "NCHAR"):
        padded = f"{sql} || repeat(' ', greatest({kind.length} - {size}, 0))"
        # Blanks beyond the length are not cut off: ORA-12899, as for any other letter.
        return f"({padded})", f"{size} > {kind.length}"
    return sql, f"{size} > {kind.length}"


def _moment(value: Value, kind: OraType, offset_minutes: int) -> str:
    if kind.kind == ZONED[0]:
        zone = f"substr({value.sql}, 30)" if value.type.kind == ZONED[0] else f"'{offset_minutes:+d}'"
        return f"({_rounded(_utc(value, offset_minutes), kind.scale)} || {zone})"
    if kind.kind == ZONED[1]:
        return _rounded(_utc(value, offset_minutes), kind.scale)
    if value.type.kind in ZONED:
        clock = Value(wall(value, offset_minutes), OraType(kind="TIMESTAMP", scale=9))
    else:
        clock = value
    if kind.kind == "DATE":
        return f"date_trunc('second', {coarse(clock)})"
    if kind.stored == "VARCHAR":
        return _rounded(fine(clock), kind.scale)
    if clock.is_fine or (kind.scale or 0) < 6:
        rounded = _rounded(fine(clock), kind.scale)
        return f"CAST(substr({rounded}, 1, 26) AS TIMESTAMP)"
    return clock.sql


def _utc(value: Value, offset_minutes: int) -> str:
    """SQL of a moment in UTC; one without a zone is on the session's wall clock."""
    if value.type.kind in ZONED:
        return fine(value)
    text = fine(value)
    moved = f"(CAST(substr({text}, 1, 26) AS TIMESTAMP) - to_minutes({offset_minutes}))"
    return f"(strftime({moved}, '%Y-%m-%d %H:%M:%S.%f') || substr({text}, 27, 3))"


def _rounded(text: str, scale: int | None) -> str:
    """SQL of a fixed-form moment, rounded to so many digits of its second."""
    places = 6 if scale is None else scale
    if places == 9:
        return text
    unit = 10 ** (9 - places)
    nanos = f"((CAST(substr({text}, 21, 9) AS BIGINT) + {unit // 2}) // {unit} * {unit})"
    whole = f"(CAST(substr({text}, 1, 19) AS TIMESTAMP) + to_seconds({nanos} // 1000000000))"
    return f"(strftime({whole}, '%Y-%m-%d %H:%M:%S.') || printf('%09d', {nanos} % 1000000000))"
