"""RECORD_DATA: refused rows as JSON under the source's column names, personal values masked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import polars as pl

from forcelift.jobs.work import TableWork
from forcelift.rules import CompiledTable, decoded_text, plain_text, unescape

MASK = "***"
_BARE = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false"
# Empty text, a number, infinity or NaN, or one word of a boolean: nothing that could be about a person.
_NUMBER_OR_BOOLEAN = (
    r"(?i)^\s*(?:|[+-]?[0-9.,]*(?:e[+-]?[0-9]+)?|[+-]?inf(?:inity)?|nan|true|false|t|f|yes|no|y|n|on|off)\s*$"
)
Detail = Literal["masked", "none", "full"]


def source_rows_json(
    frame: pl.DataFrame,
    *,
    personal: Collection[str],
    detail: Detail,
    codecs: Mapping[str, str] | None = None,
    numbers: Mapping[str, bool] | None = None,
) -> pl.Series:
    """One JSON text for each row of a frame of source columns; nulls stay null.

    Args:
        codecs: Encodings of columns of bytes that are text; what they lack is shown as U+FFFD. Other bytes are shown as
            hexadecimal, decimals without trailing zeros.
        numbers: Columns that should hold numbers or booleans: any other text in them is masked too, as nothing says
            what it is. The others are shown as they are in batches without such texts: in quotes if the column's entry
            is False.
    """
    numbers = numbers or {}
    if detail == "none":
        return pl.Series("data", [None] * frame.height, dtype=pl.String)
    shown = [
        _masked(values) if detail == "masked" and values.name in personal else _shown(values, codecs or {})
        for values in frame
    ]
    if detail == "masked":
        shown = [_without_words(values) if values.name in numbers else values for values in shown]
    encoded = pl.struct(pl.all()).struct.json_encode()
    for values in shown:
        if values.dtype == pl.String and numbers.get(values.name):
            # Within a text every quote has a backslash before it, so nothing else looks like this.
            name = json.dumps(values.name, ensure_ascii=False)
            encoded = encoded.str.replace_all(f'({re.escape(name)}):"({_BARE})"', "$1:$2")
    return pl.DataFrame(shown).select(encoded.alias("data")).to_series()


def _masked(values: pl.Series) -> pl.Series:
    return values.to_frame().select(pl.when(pl.first().is_not_null()).then(pl.lit(MASK)).alias(values.name)).to_series()


def _without_words(values: pl.Series) -> pl.Series:
    if values.dtype != pl.String:
        return values
    words = (~values.str.contains(_NUMBER_OR_BOOLEAN)).fill_null(False).arg_true()
    return values.clone().scatter(words, MASK) if words.len() else values


def _shown(values: pl.Series, codecs: Mapping[str, str]) -> pl.Series:
    kind = values.dtype
    if kind == pl.Binary:
        codec = codecs.get(values.name)
        return values.bin.encode("hex") if codec is None else decoded_text(values, codec).alias(values.name)
    if kind == pl.String:
        return unescape(values, codecs.get(values.name, "utf-8"))[0]
    if kind.is_decimal():
        return plain_text(values)
    if kind.is_float() and not values.is_finite().all():
        return plain_text(values)  # JSON has no infinity; it would be shown as null
    return values.cast(pl.String) if kind.is_temporal() else values


def column_codecs(rules: CompiledTable) -> dict[str, str]:
    """The encodings of the source columns that the rules read as text."""
    columns = [*rules.plain_columns.values(), *rules.columns.values()]
    if rules.changed_column is not None:
        columns.append(rules.changed_column)
    return {column.name: column.codec for column in columns if column.codec is not None}


class SentRowsJson:
    """Rows that the org refused, as they were sent: the staged files' values under the source's column names."""

    def __init__(self, detail: Detail) -> None:
        self._detail: Detail = detail

    def __call__(
        self, work: TableWork, staged: pl.LazyFrame, keys: pl.Series, links: pl.LazyFrame | None = None
    ) -> pl.DataFrame:
        """Columns `key`, `data` for the rows with these keys.

        Args:
            links: The table's rows of the link pass: `key` and the lookups, as the rules left them.
        """
        rules, field = work.rules, work.key_field.name
        rows = staged.join(keys.alias(field).to_frame().lazy(), on=field, how="semi")
        if links is not None:
            targets = [lookup.target for lookup in rules.lookups.values() if lookup.is_link]
            looked_up = links.select(pl.col("key").alias(field), *targets)
            rows = rows.join(looked_up, on=field, how="left", maintain_order="left")
        shown = rows.collect()
        sources = {target: source for source, target in rules.targets.items()}
        personal = work.personal_fields.intersection(shown.columns)
        names = _names(shown.columns, sources)
        data = source_rows_json(
            shown.rename(names),
            personal={names[target] for target in personal},
            detail=self._detail,
            numbers=dict.fromkeys(rules.number_columns, False),  # sent as text
        )
        return shown.select(pl.col(field).alias("key")).with_columns(data)


def _names(targets: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Under which name each is shown: its source column's; what the plan itself made under its own, if that is free."""
    taken = {sources[target] for target in targets if target in sources}
    return {target: sources.get(target) or (f"{target} (target)" if target in taken else target) for target in targets}
