"""What a message of the org repeats of its own record: found in the result file, which holds both, and masked.

Salesforce's own messages are scrubbed by their form. The free texts of triggers, flows and validation rules have none:
only the row's values tell what in them is personal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import polars as pl

from forcelift.embedded import connect

MASK = "<value>"

_LONGEST = 4_000  # characters; more than a message of the org has
_WORD = 4  # shorter values of ASCII are masked as whole words only, or `at` would go out of `Date`


def without_values(messages: pl.Series, *, rows: pl.DataFrame, columns: Sequence[str], null_text: str) -> pl.Series:
    """The messages of failed results, in their order, with `<value>` for what they repeat of their record.

    Upper and lower case count as the same. Values of one ASCII character stay: every text has them, and they tell
    nothing.

    Args:
        messages: One for each row, scrubbed of what Salesforce's own texts repeat.
        rows: The results as text, with `sf__Error` and the columns that were sent.
        columns: Those of their columns whose values must not show.
        null_text: What stands in a cell for null.
    """
    if not columns:
        return messages
    # Only cells that an error repeats are kept: few are.
    error, found = pl.col("sf__Error").str.to_lowercase(), pl.lit(False)
    cells = []
    for number, name in enumerate(columns):
        value = pl.col(name).str.strip_chars()
        told = (value != null_text) & value.str.len_chars().is_between(1, _LONGEST) & (value.str.len_bytes() > 1)
        repeats = (told & error.str.contains(value.str.to_lowercase(), literal=True)).fill_null(False)
        found = found | repeats
        cells.append(pl.when(repeats).then(value).alias(f"v{number}"))
    echoes = rows.lazy().with_row_index("line").filter(found).select("line", *cells).collect()
    if echoes.height == 0:
        return messages
    lines = messages.alias("message").to_frame().with_row_index("line").join(echoes, on="line")
    # The longest value first: a shorter one may stand inside of it.
    values = [f"v{number}" for number in range(len(columns))]
    ordered = lines.select(
        "line",
        "message",
        pl.concat_list(values).list.drop_nulls().list.eval(pl.element().sort_by(pl.element().str.len_chars())),
    ).rename({"v0": "found"})
    with closing(connect()) as calculator:
        calculator.register("echoes", ordered.to_arrow())
        answer = pl.from_arrow(calculator.sql(_MASKED, params={"mask": MASK, "word": _WORD}).to_arrow_table())
    assert isinstance(answer, pl.DataFrame)
    whole = messages.alias("message").to_frame().with_row_index("line")
    return whole.update(answer.cast({"line": pl.UInt32}), on="line")["message"].alias(messages.name)


_MASKED = r"""
SELECT line, list_reduce(
    list_prepend(message, list_reverse(found)),
    lambda text, value: CASE
        WHEN length(value) < $word AND regexp_full_match(value, '[\x00-\x7F]*')
        THEN regexp_replace(
            text, '(^|[^\pL\pN])' || regexp_escape(value) || '($|[^\pL\pN])', '\1' || $mask || '\2', 'gi'
        )
        ELSE regexp_replace(text, regexp_escape(value), $mask, 'gi')
    END
) AS message FROM echoes
"""
