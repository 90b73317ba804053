"""Functions over Oracle's numbers and ROWIDs, which DuckDB calls for what it cannot do exactly itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

import duckdb
from tests.oracle_server import values
from tests.oracle_server.errors import OracleError
from tests.oracle_server.values import CONTEXT, number_bytes, number_text, number_value

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def of_text(text: str) -> bytes:
    """A number from its text."""
    if not _NUMBER.fullmatch(text):
        raise OracleError(1722)
    return number_bytes(text.strip())


def _plain(raw: bytes) -> str:
    return format(number_value(raw), "f")


def _binary(work: Callable[[Decimal, Decimal], Decimal]) -> Callable[[bytes, bytes], bytes]:
    def call(left: bytes, right: bytes) -> bytes:
        return number_bytes(work(number_value(left), number_value(right)))

    return call


def _divide(left: Decimal, right: Decimal) -> Decimal:
    if not right:
        raise OracleError(1476)
    return CONTEXT.divide(left, right)


def _modulo(left: Decimal, right: Decimal) -> Decimal:
    if not right:
        return left
    whole = CONTEXT.divide(left, right).to_integral_value("ROUND_DOWN")
    return CONTEXT.subtract(left, CONTEXT.multiply(right, whole))


def _round(raw: bytes, places: int) -> bytes:
    try:
        return number_bytes(number_value(raw).quantize(Decimal(1).scaleb(-places), "ROUND_HALF_UP", CONTEXT))
    except InvalidOperation:
        return raw


def _truncate(raw: bytes, places: int) -> bytes:
    try:
        return number_bytes(number_value(raw).quantize(Decimal(1).scaleb(-places), "ROUND_DOWN", CONTEXT))
    except InvalidOperation:
        return raw


def _fit(raw: bytes, precision: int, scale: int) -> bytes | None:
    """Rounded to the scale; None if it then has more digits than the precision."""
    rounded = number_value(_round(raw, scale))
    return number_bytes(rounded) if CONTEXT.abs(rounded) < Decimal(1).scaleb(precision - scale) else None


def _sum(parts: list[bytes]) -> bytes:
    total = Decimal(0)
    for part in parts:
        total = CONTEXT.add(total, number_value(part))
    return number_bytes(total)


def _of_double(value: float) -> bytes:
    if value != value or value in (float("inf"), float("-inf")):
        raise OracleError(1426)
    return number_bytes(Decimal(repr(value)))


# Bytes that are no UTF-8 are kept as private letters, one for each, since DuckDB holds no text that is broken.
_BROKEN = 0x10FF00
BROKEN_LETTERS = f"[{chr(_BROKEN + 0x80)}-{chr(_BROKEN + 0xFF)}]"


def _of_utf8_bytes(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(chr(_BROKEN + ord(one) - 0xDC00) if "\udc80" <= one <= "\udcff" else one for one in text)


def utf8_bytes(text: str) -> bytes:
    """A text's bytes in a database in AL32UTF8, broken ones too."""
    parts = (chr(0xDC00 + ord(one) - _BROKEN) if ord(one) >= _BROKEN + 0x80 else one for one in text)
    return "".join(parts).encode("utf-8", "surrogateescape")


def _double_text(value: float) -> str:
    """17 digits and an exponent of three: `1.0000000000000001E-001`, `2.5E+000`; `Nan`, `Inf`, `-Inf`."""
    if value != value:
        return "Nan"
    if value in (float("inf"), float("-inf")):
        return "Inf" if value > 0 else "-Inf"
    digits, _, exponent = format(value, ".16E").partition("E")
    digits = digits.rstrip("0")
    return f"{digits}{'0' if digits.endswith('.') else ''}E{exponent[0]}{int(exponent[1:]):03d}"


_FUNCTIONS: dict[str, tuple[Callable[..., Any], list[str], str]] = {
    "ora_num": (of_text, ["VARCHAR"], "BLOB"),
    "ora_num_double": (_of_double, ["DOUBLE"], "BLOB"),
    "ora_plain": (_plain, ["BLOB"], "VARCHAR"),
    "ora_double_text": (_double_text, ["DOUBLE"], "VARCHAR"),
    "ora_text": (number_text, ["BLOB"], "VARCHAR"),
    "ora_text_minimal": (values.minimal_text, ["BLOB"], "VARCHAR"),
    "ora_add": (_binary(CONTEXT.add), ["BLOB", "BLOB"], "BLOB"),
    "ora_subtract": (_binary(CONTEXT.subtract), ["BLOB", "BLOB"], "BLOB"),
    "ora_multiply": (_binary(CONTEXT.multiply), ["BLOB", "BLOB"], "BLOB"),
    "ora_divide": (_binary(_divide), ["BLOB", "BLOB"], "BLOB"),
    "ora_mod": (_binary(_modulo), ["BLOB", "BLOB"], "BLOB"),
    "ora_round": (_round, ["BLOB", "INTEGER"], "BLOB"),
    "ora_trunc": (_truncate, ["BLOB", "INTEGER"], "BLOB"),
    "ora_fit": (_fit, ["BLOB", "INTEGER", "INTEGER"], "BLOB"),
    "ora_sum": (_sum, ["BLOB[]"], "BLOB"),
    "ora_bytes": (lambda text: text.encode("latin-1", "replace"), ["VARCHAR"], "BLOB"),
    "ora_of_bytes": (lambda raw: raw.decode("latin-1"), ["BLOB"], "VARCHAR"),
    "ora_utf8_bytes": (utf8_bytes, ["VARCHAR"], "BLOB"),
    "ora_of_utf8_bytes": (_of_utf8_bytes, ["BLOB"], "VARCHAR"),
    "ora_rowid": (values.rowid_value, ["VARCHAR"], "BIGINT"),
    "ora_rowid_text": (values.rowid_text, ["BIGINT"], "VARCHAR"),
    "ora_rowid_create": (values.pack_rowid, ["BIGINT", "BIGINT", "BIGINT", "BIGINT"], "BIGINT"),
}


def register(database: duckdb.DuckDBPyConnection) -> None:
    """Make the functions known to a database."""
    for name, (function, takes, gives) in _FUNCTIONS.items():
        nullable = "special" if name == "ora_fit" else "default"
        call = function if nullable == "default" else _none_through(function)
        database.create_function(name, call, takes, gives, null_handling=nullable)


def _none_through(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any, second: Any, third: Any) -> Any:
        return None if first is None else function(first, second, third)

    return call


def oracle_error(error: duckdb.Error) -> OracleError:
    """DuckDB's complaint as Oracle would make it; one that means nothing in Oracle is a refusal."""
    text = str(error)
    found = re.search(r"ORA-(\d{5}): ([^\n]*)", text)
    if found:
        known = OracleError(int(found[1]), "", "", "")
        known.text = found[0]
        return known
    for pattern, code in (
        (r"must appear in the GROUP BY", 979),
        (r"[Aa]mbiguous reference", 918),
        (r"More than one row returned by a subquery", 1427),
        (r"Could not convert string|Could not cast", 1722),
        (r"[Oo]verflow", 1426),
        (r"INTERRUPT|Interrupted", 1013),
        (r"cannot contain aggregates|aggregate function calls cannot be nested", 934),
    ):
        if re.search(pattern, text):
            return OracleError(code, detail="")
    return OracleError(3001, detail=f"this test server's engine refused it: {text.splitlines()[0][:200]}")
