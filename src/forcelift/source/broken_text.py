"""Text that its source calls UTF-8 and that is not, in a form in which it reaches the rules row by row."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from forcelift.protocols.source import BROKEN_TEXT

# Every well-formed sequence of bytes (Unicode, table 3-7), which neither polars nor Arrow can look for value by value.
_UTF8 = (
    r"\A(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    r"|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}"
    r"|\xf4[\x80-\x8f][\x80-\xbf]{2})*\z"
)

# What every encoding that keeps ASCII says of these bytes.
_PLAIN = r"\A[\x20-\x7e]*\z"


def as_utf8(texts: pa.Array) -> pa.Array:
    """An array of `pa.string()`, all UTF-8: a value that is not becomes `BROKEN_TEXT`. A sound array costs a look."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return _escaped(texts)
    return texts


def bytes_as_text(raw: pa.Array, *, is_raw: bool) -> pa.Array:
    """Bytes as `pa.string()`: those that are not UTF-8 as `BROKEN_TEXT`.

    Args:
        is_raw: The bytes are in an encoding that only the rules know: all that are not plain ASCII are handed on so.
    """
    return _escaped(raw, _PLAIN if is_raw else _UTF8)


def _escaped(texts: pa.Array, sound: str = _UTF8) -> pa.Array:
    raw = texts.cast(pa.binary())
    broken = pc.invert(pc.match_substring_regex(raw, sound))
    values = pl.Series(raw.filter(broken), dtype=pl.Binary)
    escaped = (BROKEN_TEXT + values.bin.encode("hex")).to_arrow().cast(pa.binary())
    return pc.replace_with_mask(raw, pc.fill_null(broken, False), escaped).cast(pa.string())
