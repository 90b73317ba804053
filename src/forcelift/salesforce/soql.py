"""Write SOQL: names checked, values escaped, long `IN` lists cut so that each query fits into a URL. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from urllib.parse import quote as percent_encode

from forcelift.errors import UsageError

URL_BYTES_MAX = 16_000
"""Salesforce answers 414 to a URL, and 431 to URL and headers, of more than 16,384 bytes."""

_URL_RESERVE = 600  # host, path and headers that stand in the same budget
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*){0,5}")
_ESCAPES = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}
_SPECIAL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\\\'\"]")

Value = str | bool | int | float | Decimal | date | datetime | None


def identifier(name: str) -> str:
    """The name of an object or field, or a path such as `Tenant__r.Tenant_Code__c`, if it is one.

    Raises:
        UsageError: It holds anything but letters, digits, underscores and dots between names.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:80]!a} is no API name of Salesforce",
            hint="API names hold letters, digits and underscores; see the object's Fields & Relationships in Setup",
        )
    return name


def quoted(text: str) -> str:
    """A text as a SOQL literal, quotes included."""
    return "'" + _SPECIAL.sub(_escape, text) + "'"


def literal(value: Value) -> str:
    """A value as a SOQL literal. Datetimes must be aware and are written in UTC to the second.

    Raises:
        UsageError: A naive datetime, or a number that is not finite.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() | Decimal():
            if not math.isfinite(value):
                raise UsageError("a number that is not finite has no place in a query")
            return format(Decimal(repr(value)) if isinstance(value, float) else value, "f")
        case datetime():
            if value.tzinfo is None:
                raise UsageError("a datetime without a zone has no place in a query", hint="state its zone")
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
        case date():
            return value.isoformat()
        case str():
            return quoted(value)


def encoded_length(soql: str) -> int:
    """Bytes that a query takes up in a URL."""
    return len(percent_encode(soql, safe=""))


def select(object_name: str, fields: Sequence[str], *, where: str | None = None) -> str:
    """`SELECT fields FROM object [WHERE where]`. Names are checked; `where` is taken as it is."""
    text = f"SELECT {', '.join(identifier(field) for field in fields)} FROM {identifier(object_name)}"
    return f"{text} WHERE {where}" if where else text


def select_in(
    object_name: str,
    fields: Sequence[str],
    *,
    field: str,
    values: Iterable[Value],
    where: str | None = None,
    url_bytes_max: int = URL_BYTES_MAX,
) -> Iterator[str]:
    """Queries that together ask for the records whose `field` is one of `values`.

    Args:
        values: Read once, in order; each value is in exactly one query, repeats included.
        where: A further condition, put into brackets.
        url_bytes_max: Most bytes of a whole URL, percent-encoded.

    Yields:
        Queries; none for no values.

    Raises:
        UsageError: One value alone does not fit.
    """
    condition = f"({where}) AND " if where else ""
    head = f"{select(object_name, fields)} WHERE {condition}{identifier(field)} IN ("
    room = url_bytes_max - _URL_RESERVE - encoded_length(head + ")")
    separator = encoded_length(",")
    batch: list[str] = []
    used = 0
    for value in values:
        text = literal(value)
        size = encoded_length(text) + separator
        if size > room:
            raise UsageError(
                f"a value of `{field}` is too long for a query ({size:,} bytes of URL, {max(room, 0):,} are free)",
                hint="ask by another field, or read the object by a bulk query",
            )
        if batch and used + size > room:
            yield head + ",".join(batch) + ")"
            batch, used = [], 0
        batch.append(text)
        used += size
    if batch:
        yield head + ",".join(batch) + ")"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"
