"""What a message of the org repeats of its own record: found in the result file, which holds both, and masked.

Salesforce's own messages are scrubbed by their form. The free texts of triggers, flows and validation rules have none:
only the row's values tell what in them is personal. A message may have a value whole, with HTML's escapes, or only its
beginning, as where it was cut to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase

import polars as pl

MASK = "<value>"

_LONGEST = 4_000  # characters; more than a message of the org has
_WORD = 4  # shorter values of ASCII are masked as whole words only, or `at` would go out of `Date`
_BEGINNING = 8  # characters that make the beginning of a longer value, if what follows looks like a cut
_SURE_BYTES = 16  # ... whatever follows
_STEPS = [1 << power for power in range(13, -1, -1)]  # together more bytes than `_LONGEST` characters have
_HIDDEN = "\x00"  # what was masked, until the end: no value holds it, while a value may well be part of `MASK`
_BOTH = ("text", "value")
_LETTER_BEFORE, _LETTER_BEHIND = r"[\pL\pN]$", r"^[\pL\pN]"
_CUT = r"^(?:$|\.\.|\u2026|[\s]*[\"'\u201d\u2019)\].,;:\x00])"
_ESCAPES = {
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&#34;": '"',
    "&#39;": "'",
    "&#039;": "'",
    "&#x27;": "'",
    "&apos;": "'",
    "&amp;": "&",
}


def without_values(messages: pl.Series, *, rows: pl.DataFrame, columns: Sequence[str], null_text: str) -> pl.Series:
    """The messages of failed results, in their order, with `<value>` for what they repeat of their record.

    Upper and lower case count as the same. Values of one ASCII character stay: every text has them, and they tell
    nothing. A message that repeats a value and has HTML's escapes is given back without these.

    Args:
        messages: One for each row, scrubbed of what Salesforce's own texts repeat.
        rows: The results as text, with `sf__Error` and the columns that were sent.
        columns: Those of their columns whose values must not show.
        null_text: What stands in a cell for null.
    """
    if not columns:
        return messages
    # Only cells that an error repeats are kept: few are.
    error, found = _plain(pl.col("sf__Error")).str.to_lowercase(), pl.lit(False)
    cells = []
    for number, name in enumerate(columns):
        value = pl.col(name).str.strip_chars()
        told = (value != null_text) & value.str.len_chars().is_between(1, _LONGEST) & (value.str.len_bytes() > 1)
        lowered = _plain(value).str.to_lowercase()
        repeats = (told & error.str.contains(lowered.str.slice(0, _BEGINNING), literal=True)).fill_null(False)
        found = found | repeats
        cells.append(pl.when(repeats).then(_plain(value)).alias(f"v{number}"))
    echoes = rows.lazy().with_row_index("line").filter(found).select("line", *cells).collect()
    if echoes.height == 0:
        return messages
    # The longest value first: a shorter one may stand inside of it.
    values = (
        echoes.unpivot(index="line", value_name="value")
        .drop_nulls("value")
        .select("line", "value")
        .sort("line", pl.col("value").str.len_bytes(), descending=[False, True])
        .with_columns(pl.int_range(pl.len()).over("line").alias("turn"))
    )
    text = messages.alias("text").to_frame().with_row_index("line").join(echoes.select("line"), on="line", how="semi")
    text = text.filter(pl.col("text").is_not_null()).with_columns(_plain(pl.col("text")))
    turns = [values.filter(pl.col("turn") == turn) for turn in range(len(columns))]
    for mask in (_whole, _beginning):
        for turn in turns:
            if turn.height:
                text = text.update(mask(text.join(turn.select("line", "value"), on="line")), on="line")
    shown = text.select("line", message=pl.col("text").str.replace_all(_HIDDEN, MASK, literal=True))
    whole = messages.alias("message").to_frame().with_row_index("line")
    return whole.update(shown, on="line")["message"].alias(messages.name)


def _plain(text: pl.Expr) -> pl.Expr:
    """Without HTML's escapes; twice, as some texts are escaped twice."""
    names, letters = list(_ESCAPES), list(_ESCAPES.values())
    return (
        pl.when(text.str.contains("&", literal=True))
        .then(text.str.replace_many(names, letters).str.replace_many(names, letters))
        .otherwise(text)
    )


def _whole(rows: pl.DataFrame) -> pl.DataFrame:
    """`line` and `text` of rows whose value stands in the text: hidden wherever it does."""
    is_word = (pl.col("value").str.len_chars() < _WORD) & pl.col("value").str.contains(r"^[\x00-\x7f]*$")
    left = _lowered(rows).with_columns(is_word.alias("is_word"), done=pl.lit(""))
    finished = []
    while left.height:
        left = left.with_columns(_find("value"))
        finished.append(left.filter(pl.col("at").is_null()))
        at, size = pl.col("at"), pl.col("value").str.len_bytes()
        left = left.filter(at.is_not_null()).with_columns(
            before=_slice("text", pl.lit(0), at), behind=_slice("text", at + size, None)
        )
        inside = (pl.concat_str("done", "before").str.contains(_LETTER_BEFORE)) | pl.col("behind").str.contains(
            _LETTER_BEHIND
        )
        stays = pl.col("is_word") & inside
        step = pl.when(stays).then(1).otherwise(size)  # a word is ASCII, where one byte is a character
        left = left.with_columns(
            done=pl.concat_str(
                "done",
                "before",
                pl.when(stays).then(_slice("text", at, pl.lit(1))).otherwise(pl.lit(_HIDDEN)),
            ),
            text=_slice("text", at + step, None),
            low=_slice("low", at + step, None),
        )
    return _joined(finished)


def _beginning(rows: pl.DataFrame) -> pl.DataFrame:
    """`line` and `text` of rows in whose text a value stands in part, from its first character on: hidden."""
    long = rows.filter(pl.col("value").str.len_chars() > _BEGINNING)
    left = _lowered(long).with_columns(start=pl.col("value").str.slice(0, _BEGINNING), done=pl.lit(""))
    finished = []
    while left.height:
        left = left.with_columns(_find("start"))
        finished.append(left.filter(pl.col("at").is_null()))
        left = left.filter(pl.col("at").is_not_null())
        left = left.with_columns(pl.lit(0, pl.Int64).alias("size"))
        for step in _STEPS:
            longer = pl.col("size") + step
            fits = (longer <= pl.col("value").str.len_bytes()) & (
                _bytes("low", pl.col("at"), longer) == _bytes("value", pl.lit(0), longer)
            )
            left = left.with_columns(size=pl.when(fits).then(longer).otherwise("size"))
        at, size = pl.col("at"), pl.col("size")
        for _ in range(3):  # the last bytes that agree may begin a character that differs
            within = _bytes("text", at + size, pl.lit(1)).bin.encode("hex").str.contains("^[89ab]")
            left = left.with_columns(size=pl.when(within).then(size - 1).otherwise(size))
        left = left.with_columns(behind=_slice("text", at + size, None))
        cut = (size >= _SURE_BYTES) | pl.col("behind").str.contains(_CUT)
        left = left.with_columns(
            done=pl.concat_str(
                "done",
                _slice("text", pl.lit(0), at),
                pl.when(cut).then(pl.lit(_HIDDEN)).otherwise(_slice("text", at, size)),
            ),
            text=pl.col("behind"),
            low=_slice("low", at + size, None),
        )
    return _joined(finished)


def _lowered(rows: pl.DataFrame) -> pl.DataFrame:
    """With `low`, whose bytes stand where those of `text` do, and `value` in the same form.

    Where small letters take other bytes (as that of U+0130) only those of ASCII are made small.
    """
    low = pl.col("text").str.to_lowercase()
    same = low.str.len_bytes() == pl.col("text").str.len_bytes()
    ascii_low = {name: pl.col(name).str.replace_many(list(ascii_uppercase), list(ascii_lowercase)) for name in _BOTH}
    return rows.with_columns(
        low=pl.when(same).then(low).otherwise(ascii_low["text"]),
        value=pl.when(same).then(pl.col("value").str.to_lowercase()).otherwise(ascii_low["value"]),
    )


def _find(name: str) -> pl.Expr:
    return pl.col("low").str.find(pl.col(name), literal=True).cast(pl.Int64).alias("at")


def _bytes(name: str, first: pl.Expr, size: pl.Expr | None) -> pl.Expr:
    return pl.col(name).cast(pl.Binary).bin.slice(first, size)


def _slice(name: str, first: pl.Expr, size: pl.Expr | None) -> pl.Expr:
    """Part of a text by bytes, which must not begin or end within a character."""
    return _bytes(name, first, size).cast(pl.String)


def _joined(finished: Sequence[pl.DataFrame]) -> pl.DataFrame:
    rest = [part.select("line", text=pl.concat_str("done", "text")) for part in finished]
    return pl.concat(rest) if rest else pl.DataFrame(schema={"line": pl.UInt32, "text": pl.String})
