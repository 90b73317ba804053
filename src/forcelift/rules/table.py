"""A table's compiled rules, and the cleaning of its chunks, batch by batch.

Reads:  batches of source rows, the parents' keys, the decisions on duplicates.
Gives:  canonical texts to send, and for each row its outcome, its reasons and its hash.
Pure: equal batches, decisions and parents give equal results, so a chunk may be cleaned again after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl

from forcelift.errors import SourceChanged, SourceError
from forcelift.plan.models import TablePlan
from forcelift.rules import keys as key_rules
from forcelift.rules import texts
from forcelift.rules.column import Column, plain_text
from forcelift.rules.duplicates import DuplicateDecisions, content_hash
from forcelift.rules.findings import Findings, Place
from forcelift.rules.hashing import row_hash

ROWS_SCHEMA = {
    "row": pl.UInt32,
    "key": pl.String,
    "outcome": pl.String,
    "code": pl.String,
    "fields": pl.String,
    "details": pl.String,
    "hash": pl.Binary,
}


class ParentKeys(Protocol):
    """The parents that exist: in the ledger of this batch or in the org."""

    def stored(self, norms: pl.Series) -> pl.DataFrame:
        """Of distinct normalised keys without nulls those that exist: `norm`, and `stored`, as the org has the key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupInfo:
    """A column that names a parent by its key. `target` is the CSV header, `field` the lookup field itself."""

    column: str
    target: str
    field: str
    parent_table: str | None
    parent_object: str
    key_field: str
    is_link: bool
    case_sensitive: bool
    required: bool
    to_null: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """A field made by joining columns and texts; `parts` are column names or, with `is_text`, the text itself."""

    target: str
    parts: tuple[tuple[str, bool], ...]
    length: int | None
    required: bool
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What became of one batch; see `ChunkCleaner.clean` for the columns."""

    rows: pl.DataFrame
    accepted: pl.DataFrame
    links: pl.DataFrame | None
    changes: dict[tuple[str, str], int]
    examples: dict[tuple[str, str], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkResult:
    """What became of the rows with links; see `CompiledTable.finish_links` for the columns."""

    rows: pl.DataFrame
    upload: pl.DataFrame
    changes: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledTable:
    """A table plan that fits its source and its object; made by `compile_table`, safe for several threads."""

    plan: TablePlan
    source_columns: tuple[str, ...]
    target_columns: tuple[str, ...]
    link_target_columns: tuple[str, ...]
    key_field: str
    order_by: tuple[str, ...]
    personal_columns: tuple[str, ...]
    lookups: Mapping[str, LookupInfo]
    numeric_over_15_digits: tuple[str, ...]
    columns: Mapping[str, Column]
    targets: Mapping[str, str]
    plain_columns: Mapping[str, Column]
    changed_column: Column | None
    constants: Mapping[str, str]
    computed: tuple[Computed, ...]
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
        cleaned = {name: self._key_column(name).clean(frame[name], found, None) for name in self.plan.key}
        key = self._key_of(cleaned)
        return pl.DataFrame([key, self._norm_of(key)])

    def content(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What decides between rows of one key: `norm`; `changed`, null is oldest; `text`, of all mapped columns."""
        found = Findings()
        cleaned, plain = self._clean_columns(frame, found, None)
        parts = [
            cleaned[name]
            .fill_null(_raw_text(frame[name]))
            .fill_null("")
            .str.replace_all("\x1f", "\x1f\x1f", literal=True)
            .alias(str(place))
            for place, name in enumerate(self.columns)
        ]
        text = pl.DataFrame(parts).select(pl.concat_str(pl.all(), separator="\x1f\x1e").alias("text"))["text"]
        norm = self._norm_of(self._key_of(plain if len(self.plan.key) > 1 else cleaned))
        return pl.DataFrame({"norm": norm, "changed": self._changed(frame), "text": text})

    def for_chunk(
        self,
        chunk_no: int,
        *,
        as_of: datetime,
        duplicates: DuplicateDecisions | None,
        parents: Mapping[str, ParentKeys],
        first_row: int = 0,
    ) -> ChunkCleaner:
        """The cleaner of one chunk. Hand it the chunk's batches in the source's order, from one thread.

        Args:
            as_of: The batch's moment, aware; later dates are in the future.
            duplicates: Decisions over the whole table; None if no key repeats.
            parents: For each lookup column that is not a link, the keys of its parents.
        """
        return ChunkCleaner(
            self, chunk_no=chunk_no, as_of=as_of, duplicates=duplicates, parents=parents, first_row=first_row
        )

    def hash_rows(self, frame: pl.DataFrame) -> pl.Series:
        """Load part of the row hash, of canonical texts of `target_columns`; 16 bytes each."""
        return row_hash(frame, key_field=self.key_field, fields=self.target_columns)

    def hash_links(self, frame: pl.DataFrame) -> pl.Series:
        """Link part of the row hash, of canonical texts of `link_target_columns`; null for a row without any link."""
        if not self.link_target_columns:
            return pl.repeat(None, frame.height, dtype=pl.Binary, eager=True).alias("hash")
        hashes = row_hash(frame, key_field=self.key_field, fields=self.link_target_columns)
        has_link = frame.select(pl.any_horizontal(pl.col(self.link_target_columns[1:]).is_not_null())).to_series()
        return pl.DataFrame({"hash": hashes, "has": has_link}).select(pl.when("has").then("hash")).to_series()

    def finish_links(self, links: pl.DataFrame, parents: Mapping[str, ParentKeys]) -> LinkResult:
        """Find the parents of link columns, once all rows of the load pass have settled.

        Args:
            links: `Cleaned.links`, or rows of it: those whose load was accepted.
            parents: For each link column the keys of its parents.
        Returns:
            rows: `row`, `key`, `outcome` (null or `rejected`), `code`, `fields`, `details`, `hash` (link part; null
            where refused or no link is left). upload: `row` and `link_target_columns`, what the link job sends.
            changes: as in `Cleaned`.
        """
        found = Findings()
        resolved = links.select("row", pl.col("key").alias(self.key_field))
        for lookup in self.lookups.values():
            if lookup.is_link:
                stored = _resolve(links[lookup.target], lookup, parents[lookup.column], found)
                resolved = resolved.with_columns(stored.alias(lookup.target))
        hashes = self.hash_links(resolved)
        refused = found.refused()
        rows = links.select("row", "key").with_columns(hashes.alias("hash"))
        rows = _with_outcomes(rows, refused)
        is_sent = rows["hash"].is_not_null()
        refused_rows = None if refused is None else refused["at"]
        return LinkResult(
            rows=rows.select(list(ROWS_SCHEMA)),
            upload=resolved.filter(is_sent).select("row", *self.link_target_columns),
            changes=found.counts(refused_rows),
        )

    def _key_column(self, name: str) -> Column:
        """A composite key's parts are cleaned as plain texts, so that the mapping of a part does not change the key."""
        return self.columns[name] if len(self.plan.key) == 1 else self.plain_columns[name]

    def _clean_columns(
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

    def _key_of(self, cleaned: Mapping[str, pl.Series]) -> pl.Series:
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
        if values.dtype.is_numeric():
            return values
        assert self.changed_column is not None
        return self.changed_column.clean(values, Findings(), None).alias("changed")


class ChunkCleaner:
    """Cleans the batches of one chunk; keeps what must be known from batch to batch."""

    def __init__(
        self,
        table: CompiledTable,
        *,
        chunk_no: int,
        as_of: datetime,
        duplicates: DuplicateDecisions | None,
        parents: Mapping[str, ParentKeys],
        first_row: int,
    ) -> None:
        self.table = table
        self.chunk_no = chunk_no
        self._as_of = as_of
        self._parents = parents
        self._next_row = first_row
        self._duplicates = None if duplicates is None else duplicates.for_chunk(chunk_no)

    def clean(self, frame: pl.DataFrame) -> Cleaned:
        """Apply all rules to the next batch of the chunk.

        Args:
            frame: `source_columns` as the source delivers them.
        Returns:
            rows: one line per source row: `row` (u32, counted through the chunk), `key`, `outcome` (null if the row is
            to be sent, else `rejected` or `duplicate`), `code`, `fields`, `details`, `hash` (load part, 16 bytes; null
            unless sent). accepted: `row` and `target_columns` as canonical text, null for no value. links: `row`, `key`
            and the link columns as normalised keys, of rows with at least one; None for tables without links. changes:
            how often each rule changed a column of the rows to be sent, `warn_<rule>` for doubts. examples: keys of
            such doubts.
        Raises:
            SourceError: `null_key: stop` and a row without a key.
        """
        row = pl.int_range(self._next_row, self._next_row + frame.height, dtype=pl.UInt32, eager=True).alias("row")
        self._next_row += frame.height
        found = Findings()
        lost: pl.DataFrame | None = None
        if self._duplicates is not None:
            keys = self.table.keys(frame)
            repeated = self._duplicates.repeated(keys["norm"])
            if repeated.any():
                losers = self._losers(frame, keys["norm"], repeated)
                lost = _duplicate_rows(row, keys["key"], losers)
                frame, row = frame.filter(~losers), row.filter(~losers)
                if self._duplicates.is_reject:
                    found.refuse("duplicate", self.table.key_place, repeated.arg_true())
        cleaned = self._clean_rows(frame, row, found)
        if lost is None or not lost.height:
            return cleaned
        return Cleaned(
            rows=pl.concat([cleaned.rows, lost]).sort("row"),
            accepted=cleaned.accepted,
            links=cleaned.links,
            changes=cleaned.changes,
            examples=cleaned.examples,
        )

    def finish(self) -> None:
        """Call after the chunk's last batch.

        Raises:
            SourceChanged: A row that was chosen among duplicates did not come; without it the key would be lost.
        """
        missing = 0 if self._duplicates is None else self._duplicates.winners_left
        if missing:
            raise SourceChanged(
                f"`{self.table.plan.table}`: {missing:,} rows chosen among duplicates were not read with chunk "
                f"{self.chunk_no}: they changed since the duplicates were decided",
                state=f"chunk {self.chunk_no} was not sent",
                hint="read the source under one snapshot, or start a new batch while nothing writes to the table",
            )

    def _losers(self, frame: pl.DataFrame, norms: pl.Series, repeated: pl.Series) -> pl.Series:
        """Rows of a repeated key that do not go on; none if all copies are rejected."""
        assert self._duplicates is not None
        if self._duplicates.is_reject:
            return pl.repeat(False, frame.height, dtype=pl.Boolean, eager=True)
        rows = repeated.arg_true()
        hashes = content_hash(self.table.content(frame[rows]))
        wins = self._duplicates.take_winners(norms.gather(rows), hashes)
        return repeated.clone().scatter(rows, ~wins)

    def _clean_rows(self, frame: pl.DataFrame, row: pl.Series, found: Findings) -> Cleaned:
        table = self.table
        cleaned, plain = table._clean_columns(frame, found, self._as_of)
        key = table._key_of(plain if len(table.plan.key) > 1 else cleaned)
        self._check_keys(key, found)
        sent: dict[str, pl.Series] = {table.key_field: key}
        links: dict[str, pl.Series] = {}
        for name, target in table.targets.items():
            lookup = table.lookups.get(name)
            if lookup is None:
                sent[target] = cleaned[name]
                continue
            norms = key_rules.normalised(cleaned[name], case_sensitive=lookup.case_sensitive)
            if lookup.is_link:
                links[target] = norms
            else:
                sent[target] = _resolve(norms, lookup, self._parents[name], found)
        for computed in table.computed:
            sent[computed.target] = _concat(computed, {**plain, **cleaned}, frame.height, found)
        return self._result(row, key, sent, links, found)

    def _check_keys(self, key: pl.Series, found: Findings) -> None:
        table = self.table
        if len(table.plan.key) > 1 and table.key_length is not None:
            found.refuse("too_long", table.key_place, texts.rows_over_length(key, table.key_length))
        if not key.null_count():
            return
        rows = key.is_null().arg_true()
        for name in table.plan.key:
            refused = found.refused_by(table._key_column(name).place)
            rows = rows.filter(~rows.is_in(refused.implode())) if refused.len() else rows
        if rows.len() and table.plan.null_key == "stop":
            raise SourceError(
                f"`{table.plan.table}`: {rows.len():,} rows of chunk {self.chunk_no} have no key "
                f"({', '.join(table.plan.key)}), and the plan says `null_key: stop`",
                state=f"chunk {self.chunk_no} was not sent",
                hint="give these rows a key or exclude them by `where`, or set `null_key: reject`; then resume",
            )
        found.refuse("null_key", table.key_place, rows)

    def _result(
        self,
        row: pl.Series,
        key: pl.Series,
        sent: dict[str, pl.Series],
        links: dict[str, pl.Series],
        found: Findings,
    ) -> Cleaned:
        table = self.table
        constants = [pl.lit(text, dtype=pl.String).alias(name) for name, text in table.constants.items()]
        accepted = pl.DataFrame({"row": row, **sent}).with_columns(constants).select("row", *table.target_columns)
        linked = pl.DataFrame({"row": row, "key": key, **links}) if links else None
        refused = found.refused()
        rows = pl.DataFrame({"row": row, "key": key})
        refused_rows = None
        if refused is not None:
            refused_rows = refused["at"]
            kept = pl.repeat(True, row.len(), dtype=pl.Boolean, eager=True).scatter(refused_rows, False)
            accepted = accepted.filter(kept)
            linked = None if linked is None else linked.filter(kept)
            hashes = pl.repeat(None, row.len(), dtype=pl.Binary, eager=True)
            if accepted.height:
                hashes = hashes.scatter(kept.arg_true(), table.hash_rows(accepted))
        else:
            hashes = table.hash_rows(accepted)
        if linked is not None:
            linked = linked.filter(pl.any_horizontal(pl.col(list(links)).is_not_null()))
        return Cleaned(
            rows=_with_outcomes(rows.with_columns(hashes.alias("hash")), refused).select(list(ROWS_SCHEMA)),
            accepted=accepted,
            links=linked,
            changes=found.counts(refused_rows),
            examples=found.examples(refused_rows, key),
        )


def _with_outcomes(rows: pl.DataFrame, refused: pl.DataFrame | None) -> pl.DataFrame:
    """Add outcome and reasons to `rows`; a refused row loses its hash."""
    nothing = pl.lit(None, dtype=pl.String)
    if refused is None:
        return rows.with_columns(
            nothing.alias("outcome"), nothing.alias("code"), nothing.alias("fields"), nothing.alias("details")
        )
    return (
        rows.with_row_index("at")
        .join(refused, on="at", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("code").is_not_null()).then(pl.lit("rejected")).alias("outcome"),
            pl.when(pl.col("code").is_null()).then("hash").alias("hash"),
        )
    )


def _duplicate_rows(row: pl.Series, key: pl.Series, losers: pl.Series) -> pl.DataFrame:
    lines = pl.DataFrame({"row": row, "key": key}).filter(losers)
    missing = [
        pl.lit(None, dtype=dtype).alias(name)
        for name, dtype in ROWS_SCHEMA.items()
        if name not in ("row", "key", "outcome")
    ]
    return lines.with_columns(pl.lit("duplicate").alias("outcome"), *missing).select(list(ROWS_SCHEMA))


def _resolve(norms: pl.Series, lookup: LookupInfo, parents: ParentKeys, found: Findings) -> pl.Series:
    """Step 16: the parents' keys as the org stores them, null where there is none."""
    distinct = norms.drop_nulls().unique()
    if not distinct.len():
        return norms
    stored = parents.stored(distinct).select(pl.col("norm").cast(pl.String), pl.col("stored").cast(pl.String))
    resolved = norms.replace_strict(stored["norm"], stored["stored"], default=None, return_dtype=pl.String)
    if resolved.null_count() == norms.null_count():
        return resolved
    missing = (resolved.is_null() & norms.is_not_null()).arg_true()
    if not lookup.to_null:
        found.refuse("missing_parent", lookup.place, missing)
        return resolved
    found.change("missing_parent", lookup.place, missing)
    if lookup.required:
        found.refuse("empty_required", lookup.place, missing)
    return resolved


def _concat(computed: Computed, cleaned: Mapping[str, pl.Series], height: int, found: Findings) -> pl.Series:
    """Join cleaned columns and texts; a null part is the empty text, a blank result is null."""
    columns = {name: cleaned[name].fill_null("") for name, is_text in computed.parts if not is_text}
    frame = pl.DataFrame(columns) if columns else pl.DataFrame({"": pl.repeat("", height, eager=True)})
    parts = [pl.lit(part) if is_text else pl.col(part) for part, is_text in computed.parts]
    joined = frame.select(pl.concat_str(parts).alias("text"))["text"]
    joined = joined.str.strip_chars(texts.BLANKS)
    blank = (joined == "").arg_true()
    if blank.len():
        joined = joined.clone().scatter(blank, None)
        if computed.required:
            found.refuse("empty_required", computed.place, blank)
    found.refuse("na_text", computed.place, (joined == texts.NULL_LITERAL).fill_null(False).arg_true())
    if computed.length is not None:
        found.refuse("too_long", computed.place, texts.rows_over_length(joined, computed.length))
    return joined


def _raw_text(values: pl.Series) -> pl.Series:
    return values.bin.encode("hex") if values.dtype == pl.Binary else plain_text(values)
