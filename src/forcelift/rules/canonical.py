"""Canonical text of what the org gives back, so that it can be compared with what was sent.

Only what the org does to values is undone: doubles in Java's form, instants with milliseconds and an offset, Ids of 15
characters, line ends. The result equals the text that the rules make of the same value.
"""

from __future__ import annotations

import polars as pl

from forcelift.protocols.org import FieldDescribe
from forcelift.rules import moments, numbers, texts
from forcelift.rules.column import Form
from forcelift.rules.ids import id_text
from forcelift.rules.plain import boolean_text, time_text
from forcelift.rules.targets import form_of, scale_of


def canonical_from_org(field: FieldDescribe, values: pl.Series) -> pl.Series:
    """Canonical text of a field's values as bulk queries and result files print them.

    Args:
        values: Text; empty or null for no value.
    Returns: Text, null for no value. A text that is no value of the field's type also gives null.
    """
    present = values.set(values == "", None) if (values == "").any() else values
    match form_of(field.type):
        case Form.NUMBER:
            return numbers.double_text(present, scale=scale_of(field.type, field.scale))
        case Form.BOOLEAN:
            return boolean_text(present).fill_null("false")
        case Form.DATE:
            return moments.date_text(present.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False))
        case Form.DATETIME:
            return moments.instant_text(moments.moments_of_text(present, None).to_utc(None)[0])
        case Form.TIME:
            return time_text(present)
        case Form.ID:
            return id_text(present)
        case _:
            text = _text(present)
            return texts.in_one_order(text) if field.type == "multipicklist" else text


def _text(values: pl.Series) -> pl.Series:
    rows = texts.suspects(values)
    if not rows.len():
        return values
    part = texts.fold_line_ends(values.gather(rows)).str.strip_chars(texts.BLANKS)
    blank = (part == "").arg_true()
    if blank.len():
        part = part.scatter(blank, None)
    return values.clone().scatter(rows, part)
