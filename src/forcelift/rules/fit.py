"""Whether a column's kind and rules suit the field they lead to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from forcelift.plan.models import DuplicateRule, FieldRule, TablePlan
from forcelift.protocols.source import Column as SourceColumn
from forcelift.protocols.source import ColumnKind
from forcelift.rules import moments
from forcelift.rules.column import Column, Form

_NUMBERS = frozenset({ColumnKind.INTEGER, ColumnKind.DECIMAL, ColumnKind.FLOAT})
_TIMES = frozenset({ColumnKind.DATE, ColumnKind.TIMESTAMP, ColumnKind.INSTANT})
_READABLE = frozenset({ColumnKind.TEXT, ColumnKind.BOOLEAN}) | _NUMBERS | _TIMES
_KINDS: Mapping[Form, frozenset[ColumnKind]] = {
    Form.TEXT: _READABLE,
    Form.NUMBER: _NUMBERS | {ColumnKind.TEXT},
    Form.BOOLEAN: frozenset({ColumnKind.TEXT, ColumnKind.BOOLEAN, ColumnKind.INTEGER, ColumnKind.DECIMAL}),
    Form.DATE: _TIMES | {ColumnKind.TEXT},
    Form.DATETIME: _TIMES | {ColumnKind.TEXT},
    Form.TIME: frozenset({ColumnKind.TEXT}),
    Form.ID: frozenset({ColumnKind.TEXT}),
}
_DATE_FORMS = frozenset({Form.DATE, Form.DATETIME})
# Rules that say something about some forms only; others are refused when a plan sets them.
_RULES_OF_FORMS: Mapping[str, frozenset[Form]] = {
    "too_long": frozenset({Form.TEXT}),
    "invalid_date": _DATE_FORMS,
    "buddhist_era": _DATE_FORMS,
    "future_date": _DATE_FORMS,
    "date_format": _DATE_FORMS,
    "timezone": _DATE_FORMS,
    "negative": frozenset({Form.NUMBER}),
    "number_size": frozenset({Form.NUMBER}),
}
_RULES_OF_TEXT = ("outer_blanks", "na_text", "control_characters", "zero_width", "unicode")
_RULES_OF_BYTES = ("encoding", "encoding_error")

Misfit = tuple[str, str, str | None]  # key of the rule or empty, what is wrong, what to write instead


def misfits(source: SourceColumn, rule: FieldRule, made: Column, plan: TablePlan) -> Iterator[Misfit]:
    """All that does not suit. A rule that the plan leaves at its default is never wrong."""
    # Bytes with an encoding of their own are text.
    kind = ColumnKind.TEXT if source.kind is ColumnKind.BINARY and rule.encoding is not None else source.kind
    reads_digits = rule.date_format is not None and kind in _NUMBERS and made.form in _DATE_FORMS
    if kind not in (_READABLE if rule.values is not None else _KINDS[made.form]) and not reads_digits:
        yield "field", f"a column of type {source.declared} cannot go into `{rule.field}` ({made.form} value)", None
    yield from _pointless(kind, rule, made)
    yield from _bytes(source, rule, made)
    if rule.merge is not None:
        yield from _merge(rule, made, plan)
    if made.is_key and "empty" in rule.model_fields_set:
        yield "empty", "an empty key is decided by `null_key`", None
    if made.is_key and rule.too_long == "truncate":
        yield "too_long", "a key is never cut, because two keys could become one", None
    if made.form in _DATE_FORMS:
        yield from _dates(kind, rule, made)


def _merge(rule: FieldRule, made: Column, plan: TablePlan) -> Iterator[Misfit]:
    if plan.duplicates is not DuplicateRule.MERGE:
        yield "merge", "needs `duplicates: merge`", None
        return
    if made.name in plan.key:
        yield "merge", "says nothing about a key: all copies have the same", None
    if rule.merge == "latest" and plan.changed_at is None:
        yield "merge", "`latest` needs `changed_at`, the column that says which row is the latest", None
    if rule.values is not None and rule.merge in ("min", "max", "sum", "longest"):
        yield "merge", f"`{rule.merge}` compares values before `values` maps them", "use `latest`, `first`, `not_null`"
    if rule.merge == "sum" and (made.form is not Form.NUMBER or rule.parent is not None):
        yield "merge", "`sum` needs a number field", None
    if rule.merge == "sum" and made.codec is not None and "0.-".encode(made.codec) != b"0.-":
        yield "merge", f"`sum` cannot be written in {made.codec}", None
    if rule.merge == "longest" and made.form is not Form.TEXT:
        yield "merge", "`longest` needs a text field", None


def is_zone(name: str) -> bool:
    """True if there is such a time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _pointless(kind: ColumnKind, rule: FieldRule, made: Column) -> Iterator[Misfit]:
    """Rules that the plan sets and that can never do anything."""
    named = {option for option in rule.model_fields_set if getattr(rule, option) is not None}
    for option, forms in _RULES_OF_FORMS.items():
        if option in named and made.form not in forms:
            yield option, f"says nothing about a {made.form} value", None
    for option in _RULES_OF_TEXT:
        if option in named and kind is not ColumnKind.TEXT and rule.values is None:
            yield option, f"says nothing about a column of kind {kind}", None
    for option in _RULES_OF_BYTES:
        if option in named and kind is not ColumnKind.TEXT:
            yield option, f"says nothing about a column of kind {kind}", None
    if "unmapped" in named and rule.values is None:
        yield "unmapped", "needs `values`", None


def _bytes(source: SourceColumn, rule: FieldRule, made: Column) -> Iterator[Misfit]:
    """Encodings of what does not come as bytes, or that could not be told apart where it is stored."""
    if source.kind is not ColumnKind.TEXT or made.codec is None:
        return
    if not pa.types.is_binary(source.arrow):
        # Such a column is in Unicode by the source's own promise: there are no bytes to decode in another way. Not
        # every writer of Parquet, whose text Arrow calls `string`, holds it; what then comes meets `encoding_error`.
        harmless = {"encoding"} if made.codec == "utf-8" else set()
        harmless |= {"encoding_error"} if "string" in source.declared else set()
        for option in _RULES_OF_BYTES:
            if option in rule.model_fields_set and option not in harmless:
                yield (
                    option,
                    f"this source delivers `{source.name}` ({source.declared}) as decoded text, never as bytes",
                    "remove it; a column of bytes, such as BLOB, can have an encoding",
                )
    elif source.declared == "text" and "a,0".encode(made.codec) != b"a,0":
        # So CSV and PostgreSQL call it: the one is cut by ASCII bytes, the other holds no NUL.
        place = "encoding" if rule.encoding is not None else ""
        yield place, f"text of this source cannot be in {made.codec}: it does not keep ASCII", "a column of bytes can"


def _dates(kind: ColumnKind, rule: FieldRule, made: Column) -> Iterator[Misfit]:
    if made.zone is not None and not is_zone(made.zone):
        where = "timezone" if rule.timezone else ""
        yield where, f"there is no time zone `{made.zone}`", "such as Asia/Bangkok or UTC"
    reads_text = kind is ColumnKind.TEXT or rule.values is not None or kind in _NUMBERS
    # Text may hold an offset in every row, but nothing says so before all rows are read.
    naive = kind in (ColumnKind.TIMESTAMP, ColumnKind.DATE, ColumnKind.TEXT)
    if rule.date_format is not None and not reads_text:
        yield "date_format", f"a column of type {kind} needs no format", None
    elif rule.date_format is not None:
        naive = not moments.has_offset(rule.date_format)
        if not moments.reads_a_day(rule.date_format):
            yield (
                "date_format",
                f"`{rule.date_format}` is no date format",
                "such as %d/%m/%Y or %Y%m%d%H%M%S",
            )
    if made.form is Form.DATETIME and naive and made.zone is None:
        yield "", "holds times without a zone", "add `timezone:` here or under `source`"
