"""Read the error texts of result files, and take record values out of Salesforce's messages. Pure.

Source: `sf__Error` is `STATUSCODE:message:Field1,Field2 --`, with no fields `STATUSCODE:message:--` (Bulk API 2.0
guide, "Get Failed Record Results"); the message itself may hold colons, commas, quotes and line breaks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import polars as pl
from msgspec import Struct

UNKNOWN_CODE = "UNKNOWN_ERROR"
"""Stands where an error text does not begin with a code."""

MASK = "<value>"
"""Stands where a message of the org repeated a value of the record."""

# Both patterns are written in the part of the language that Python's `re` and the regex engine of polars share.
_CODE = r"(?s)^\s*([A-Za-z][A-Za-z0-9_]*)\s*:(.*)$"
_TAIL = r"(?s)^(.*):\s*((?:[A-Za-z][A-Za-z0-9_.]*(?:\s*,\s*[A-Za-z][A-Za-z0-9_.]*)*)?)\s*--\s*$"
_DASHES = r"\s*--\s*$"


class RecordError(NamedTuple):
    """One error text, taken apart."""

    code: str
    message: str
    fields: tuple[str, ...]


def split_error(text: str) -> RecordError:
    """Take one `sf__Error` text apart: the code before the first colon, the fields after the last, the rest between.

    A text without a code has `UNKNOWN_CODE` and is its own message.
    """
    head = re.match(_CODE, text)
    code, rest = (head[1], head[2]) if head else (UNKNOWN_CODE, text)
    tail = re.match(_TAIL, rest)
    message = tail[1] if tail else re.sub(_DASHES, "", rest)
    fields = tuple(field.strip() for field in tail[2].split(",")) if tail and tail[2] else ()
    return RecordError(code, _strip(message), fields)


def split_error_expr(text: pl.Expr) -> pl.Expr:
    """The same as `split_error` for a column: a struct of `code`, `message` and `fields` (text, joined by commas).

    Null stays null in all three.
    """
    head = text.str.extract_groups(_CODE)
    code = head.struct.field("1")
    rest = pl.coalesce(head.struct.field("2"), text)
    tail = rest.str.extract_groups(_TAIL)
    message = pl.coalesce(tail.struct.field("1"), rest.str.replace(_DASHES, ""))
    fields = pl.coalesce(tail.struct.field("2"), pl.when(text.is_not_null()).then(pl.lit("")))
    return pl.struct(
        code=pl.coalesce(code, pl.when(text.is_not_null()).then(pl.lit(UNKNOWN_CODE))),
        message=message.str.strip_chars(_BLANKS),
        fields=fields.str.replace_all(r"\s*,\s*", ",").str.strip_chars(_BLANKS),
    )


_BLANKS = " \t\n\r\x0b\x0c"


def _strip(text: str) -> str:
    return text.strip(_BLANKS)


class _Echo(Struct, frozen=True):
    """A text of Salesforce that repeats a value: what stands before and after it stays."""

    pattern: str
    replacement: str = "${1}" + MASK

    @property
    def python_replacement(self) -> str:
        return re.sub(r"\$\{(\d)\}", r"\\g<\1>", self.replacement)


# A value may hold anything, also line breaks and the words around it: a pattern takes all up to the last possible end.
_BOTH = "${1}" + MASK + "${2}"
_ECHOES = (
    _Echo(r"(?s)(data value too large: ).*( \(max length=[0-9]+\))", _BOTH),
    _Echo(r"(?s)(Foreign key external ID: ).*( not found for field )", _BOTH),
    _Echo(r"(?s)(more than one record found for external id field: ).*"),
    _Echo(r"(?s)(Duplicate external id specified: ).*"),
    _Echo(r"(?s)(bad value for restricted picklist field: ).*"),
    _Echo(r"(?s)(value not of required type: ).*"),
    _Echo(r"(?s)(value outside of valid range on numeric field: ).*"),
    _Echo(r"(?s)(id value of incorrect type: ).*"),
    _Echo(r"(?s)(this ID value isn't valid for the user: ).*"),
    _Echo(
        r"(?is)(\binvalid (?:e-?mail address|date|datetime|time|number|boolean|phone|url|id|id field)\s*: ?).*",
    ),
    _Echo(r"(?is)(\bcurrency iso code\s*: ?).*"),
    _Echo(r"(?s)(from VALUE_[A-Z]+ value ).*( or request may be missing)", _BOTH),
    _Echo(r"(?s)(unexpected token: ).*"),
    _Echo(r"(?s)(For input string: ).*"),
    # Free texts of rules, triggers and flows may repeat anything: addresses and long numbers can be told apart.
    _Echo(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", MASK),
    _Echo(r"(^|[^A-Za-z0-9])[0-9][0-9 .,/-]{5,}[0-9]"),
)
_COMPILED = tuple((re.compile(echo.pattern), echo.python_replacement) for echo in _ECHOES)


def scrub(message: str) -> str:
    """A message of the org with `<value>` in place of what it repeats of the record's data.

    Ids of other records, as in DUPLICATE_VALUE, stay: they are needed to find the record and tell nothing else.
    """
    for pattern, replacement in _COMPILED:
        message = pattern.sub(replacement, message)
    return message


def scrub_series(messages: pl.Series) -> pl.Series:
    """`scrub` for a column of messages; each distinct message is worked on once. Null stays null."""
    distinct = messages.unique()
    column = pl.col(distinct.name)
    for echo in _ECHOES:
        column = column.str.replace_all(echo.pattern, echo.replacement)
    scrubbed = distinct.to_frame().select(column).to_series()
    return messages.replace_strict(distinct, scrubbed, return_dtype=pl.String)
