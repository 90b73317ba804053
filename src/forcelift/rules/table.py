"""A table's compiled rules: what is read, what is sent, keys, and what decides between copies of a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl
from msgspec import Struct

from forcelift.plan.models import TablePlan
from forcelift.rules import keys as key_rules
from forcelift.rules import texts
from forcelift.rules.column import Column
from forcelift.rules.computed import Computed
from forcelift.rules.findings import Findings, Place
from forcelift.rules.hashing import row_hash, text_hash
from forcelift.rules.merge import MergedColumn
from forcelift.rules.numbers import sortable
from forcelift.rules.outcomes import ROWS_SCHEMA, LinkResult, with_outcomes
from forcelift.rules.parents import LookupInfo, ParentKeys, resolve
from forcelift.rules.plain import plain_text


class CompiledTable(Struct, frozen=True, kw_only=True):
    """A table plan that fits its source and its object; made by `compile_table`, safe for several threads."""

    plan: TablePlan
    source_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    link_target_columns: tuple[str, ...]
    key_field: str
    order_by: tuple[str, ...]
    personal_columns: tuple[str, ...]
    number_columns: Mapping[str, bool]  # of numbers and booleans, what else they hold is personal; False: decimals
    lookups: Mapping[str, LookupInfo]
    numeric_over_15_digits: tuple[str, ...]
    columns: Mapping[str, Column]
    targets: Mapping[str, str]
    plain_columns: Mapping[str, Column]
    changed_column: Column | None
    changed_kind: pl.DataType | None  # of numbers: what `changed_at` is compared as in every batch
    constants: Mapping[str, str]
    computed: tuple[Computed, ...]
    merges: tuple[MergedColumn, ...]
    key_case_sensitive: bool
    key_length: int | None

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The source columns that make the key."""
        return self.plan.key

    @property
    def key_place(self) -> Place:
        """Where findings on the key as a whole belong."""
        return Place(column=",".join(self.plan.key), number=0)

    def keys(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Keys of a frame that holds at least the key columns.

        Returns: `key`, the canonical text that is sent, null if the row has none; `norm`, as the target compares it.
        """
        found = Findings()
        cleaned = {name: self.key_column(name).clean(frame[name], found, None) for name in self.plan.key}
        key = self.key_of(cleaned)
        return pl.DataFrame([key, self._norm_of(key)])

    def content(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What decides between rows of one key: `identity`, and what `merges` need of each copy."""
        carried = [series for merge in self.merges for series in merge.carried(frame[merge.name])]
        return self.identity(frame).hstack(carried)

    def identity(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What tells and orders rows of one key: `norm`; `changed`, null is oldest; `text`, of all columns.

        The text begins with the canonical text of the columns. It ends with a hash of the source's own values, because
        rows that are the same to the org may still differ in what the rules refuse or count.
        """
        found = Findings()
        cleaned, plain = self.clean_columns(frame, found, None)
        raw = {name: _raw_text(frame[name]) for name in self.source_columns}
        canonical = [
            *(cleaned[name].fill_null(raw[name]) for name in self.columns),
            *(plain[name] for name in self.plain_columns),
        ]
        identity = pl.DataFrame(
            {"text": _joined(canonical), "raw": _joined([values.fill_null("\x1d") for values in raw.values()])}
        )
        text = identity.select(
            pl.concat_str("text", text_hash("raw").cast(pl.String), separator="\x1f\x1e").alias("text")
        )["text"]
        norm = self._norm_of(self.key_of(plain if len(self.plan.key) > 1 else cleaned))
        return pl.DataFrame({"norm": norm, "changed": self._changed(frame), "text": text})

    def hash_rows(self, frame: pl.DataFrame, *, is_cleaned: bool = False) -> pl.Series:
        """Load part of the row hash, of canonical texts of `target_columns`; 16 bytes each.

        `is_cleaned` says that the texts come from these rules, not from the org: then most hold no control characters.
        """
        free = self.control_free_columns if is_cleaned else frozenset()
        return row_hash(frame, key_field=self.key_field, fields=self.target_columns, free=free)

    @property
    def control_free_columns(self) -> frozenset[str]:
        """Target columns in which the rules leave no control characters."""
        kept = {name for name, column in self.columns.items() if column.rule.control_characters == "keep"}
        loose = {self.targets[name] for name in kept | set(self.lookups)}
        # A key is cleaned by the rule of its column, which may feed the key field without being one of `targets`.
        if kept & set(self.plan.key):
            loose.add(self.key_field)
        return frozenset(self.target_columns) - loose

    def hash_links(self, frame: pl.DataFrame) -> pl.Series:
        """Link part of the row hash, of canonical texts of `link_target_columns`; null for a row without any link."""
        if not self.link_target_columns:
            return pl.repeat(None, frame.height, dtype=pl.Binary, eager=True).alias("hash")
        hashes = row_hash(frame, key_field=self.key_field, fields=self.link_target_columns)
        has_link = frame.select(pl.any_horizontal(pl.col(self.link_target_columns[1:]).is_not_null())).to_series()
        return pl.DataFrame({"hash": hashes, "has": has_link}).select(pl.when("has").then("hash")).to_series()

    def finish_links(
        self, links: pl.DataFrame, parents: Mapping[str, ParentKeys], found: Findings | None = None
    ) -> LinkResult:
        """Find the parents of link columns, once all rows of the load pass have settled.

        Args:
            links: `Cleaned.links`, or rows of it: those whose load was accepted.
            parents: For each link column the keys of its parents.
            found: Where the findings go, for who wants to know them one by one.
        Returns:
            rows: `row`, `key`, `outcome` (null or `rejected`), `code`, `fields`, `details`, `hash` (link part; null
            where refused or no link is left). upload: `row` and `link_target_columns`, what the link job sends.
            changes: as in `Cleaned`.
        """
        found = Findings() if found is None else found
        resolved = links.select("row", pl.col("key").alias(self.key_field))
        for lookup in self.lookups.values():
            if lookup.is_link:
                stored = resolve(links[lookup.target], lookup, parents[lookup.column], found)
                resolved = resolved.with_columns(stored.alias(lookup.target))
        hashes = self.hash_links(resolved)
        refused = found.refused()
        rows = links.select("row", "key").with_columns(hashes.alias("hash"))
        rows = with_outcomes(rows, refused)
        is_sent = rows["hash"].is_not_null()
        refused_rows = None if refused is None else refused["at"]
        return LinkResult(
            rows=rows.select(list(ROWS_SCHEMA)),
            upload=resolved.filter(is_sent).select("row", *self.link_target_columns),
            changes=found.counts(refused_rows),
        )

    def key_column(self, name: str) -> Column:
        """A composite key's parts are cleaned as plain texts, so that the mapping of a part does not change the key."""
        return self.columns[name] if len(self.plan.key) == 1 else self.plain_columns[name]

    def clean_columns(
        self, frame: pl.DataFrame, found: Findings, as_of: datetime | None
    ) -> tuple[dict[str, pl.Series], dict[str, pl.Series]]:
        """All mapped columns by their rules; key parts and joined columns as plain texts."""
        cleaned = {name: column.clean(frame[name], found, as_of) for name, column in self.columns.items()}
        plain: dict[str, pl.Series] = {}
        for name, column in self.plain_columns.items():
            # A key part that is mapped too is cleaned twice; its changes count once, its refusals stand either way.
            apart = Findings() if name in self.columns else found
            plain[name] = column.clean(frame[name], apart, as_of)
            if apart is not found:
                found.refusals.extend(apart.refusals)
        return cleaned, plain

    def key_of(self, cleaned: Mapping[str, pl.Series]) -> pl.Series:
        """The key as it is sent, of cleaned key columns."""
        if len(self.plan.key) == 1:
            return cleaned[self.plan.key[0]].alias("key")
        return key_rules.join_parts([cleaned[name] for name in self.plan.key])

    def _norm_of(self, key: pl.Series) -> pl.Series:
        return key_rules.normalised(key, case_sensitive=self.key_case_sensitive).alias("norm")

    def _changed(self, frame: pl.DataFrame) -> pl.Series:
        """`changed_at` as something that sorts: microseconds, a number, or text in canonical form."""
        name = self.plan.changed_at
        if name is None:
            return pl.repeat(None, frame.height, dtype=pl.Int64, eager=True).alias("changed")
        values = frame[name].alias("changed")
        if values.dtype.is_temporal():
            return values.cast(pl.Datetime("us", getattr(values.dtype, "time_zone", None))).to_physical()
        assert self.changed_column is not None
        if self.changed_kind is None:
            return self.changed_column.clean(values, Findings(), None).alias("changed")
        if isinstance(self.changed_kind, pl.Datetime):  # times of which one is infinite
            return (
                values.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
                .to_physical()
                .alias("changed")
            )
        if values.dtype == pl.Binary:
            values = texts.decoded_text(values, self.changed_column.codec or "utf-8")
        return sortable(values, self.changed_kind).alias("changed")


def _joined(parts: Sequence[pl.Series]) -> pl.Series:
    """Several columns as one text from which each can be told: the separator is doubled inside a value."""
    escaped = [
        part.fill_null("").str.replace_all("\x1f", "\x1f\x1f", literal=True).alias(str(place))
        for place, part in enumerate(parts)
    ]
    return pl.DataFrame(escaped).select(pl.concat_str(pl.all(), separator="\x1f\x1e")).to_series()


def _raw_text(values: pl.Series) -> pl.Series:
    return values.bin.encode("hex") if values.dtype == pl.Binary else plain_text(values)
