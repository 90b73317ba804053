"""The cleaning of a chunk, batch by batch.

Reads:  batches of source rows, the parents' keys, the decisions on duplicates.
Gives:  canonical texts to send, and for each row its outcome, its reasons and its hash.
Pure: equal batches, decisions and parents give equal results, so a chunk may be cleaned again after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from forcelift.errors import SourceChanged, SourceError
from forcelift.rules import texts
from forcelift.rules.duplicates import DuplicateDecisions, content_hash
from forcelift.rules.findings import Findings
from forcelift.rules.outcomes import ROWS_SCHEMA, Cleaned, duplicate_rows, with_outcomes
from forcelift.rules.parents import ParentKeys, resolve
from forcelift.rules.table import CompiledTable


class ChunkCleaner:
    """Cleans the batches of one chunk; keeps what must be known from batch to batch.

    Hand it the chunk's batches in the source's order, from one thread.

    Args:
        as_of: The batch's moment, aware; later dates are in the future.
        duplicates: Decisions over the whole table; None if no key repeats.
        parents: For each lookup column that is not a link, the keys of its parents.
    """

    def __init__(
        self,
        table: CompiledTable,
        *,
        chunk_no: int,
        as_of: datetime,
        duplicates: DuplicateDecisions | None,
        parents: Mapping[str, ParentKeys],
        first_row: int = 0,
    ) -> None:
        self.table = table
        self.chunk_no = chunk_no
        self._as_of = as_of
        self._parents = parents
        self._next_row = first_row
        self._duplicates = None if duplicates is None else duplicates.for_chunk(chunk_no)

    def clean(self, frame: pl.DataFrame, found: Findings | None = None) -> Cleaned:
        """Apply all rules to the next batch of the chunk.

        Args:
            frame: `source_columns` as the source delivers them.
            found: Where the findings go, for who wants to know them one by one: each by its rows' places among those of
                `rows` that are no `duplicate`.
        Returns:
            rows: one line per source row: `row` (u32, counted through the chunk), `key`, `outcome` (null if the row is
            to be sent, else `rejected` or `duplicate`), `code`, `fields`, `details`, `hash` (load part, 16 bytes; null
            unless sent). accepted: `row` and `target_columns` as canonical text, null for no value. links: `row`, `key`
            and the link columns, not yet looked up, of rows with at least one; None for tables without links. changes:
            how often each rule changed a column of the rows to be sent, `warn_<rule>` for doubts. examples: keys of
            such doubts.
        Raises:
            SourceError: `null_key: stop` and a row without a key.
        """
        row = pl.int_range(self._next_row, self._next_row + frame.height, dtype=pl.UInt32, eager=True).alias("row")
        self._next_row += frame.height
        found = Findings() if found is None else found
        lost: pl.DataFrame | None = None
        if self._duplicates is not None:
            keys = self.table.keys(frame)
            repeated = self._duplicates.repeated(keys["norm"])
            if repeated.any():
                if self._duplicates.is_reject:
                    found.refuse("duplicate", self.table.key_place, repeated.arg_true())
                else:
                    frame, lost = self._one_of_each(frame, row, keys, repeated, found)
                    row = row.filter(~row.is_in(lost["row"].implode()))
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

    def _one_of_each(
        self, frame: pl.DataFrame, row: pl.Series, keys: pl.DataFrame, repeated: pl.Series, found: Findings
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Take the losers out, and put merged values into the rows that go on; also gives the losers' lines."""
        assert self._duplicates is not None
        rows = repeated.arg_true()
        hits = self._duplicates.take_winners(keys["norm"].gather(rows), content_hash(self.table.identity(frame[rows])))
        wins = rows.gather(hits["at"])
        losers = repeated.clone().scatter(wins, False) if wins.len() else repeated
        kept = frame.filter(~losers)
        if wins.len():
            places = ((~losers).cast(pl.UInt32).cum_sum() - 1).gather(wins)
            for merge in self.table.merges:
                values, changed = merge.apply(kept[merge.name], places, hits)
                kept = kept.with_columns(values.alias(merge.name))
                found.change("merge", merge.column.place, changed)
        return kept, duplicate_rows(row, keys["key"], losers)

    def _clean_rows(self, frame: pl.DataFrame, row: pl.Series, found: Findings) -> Cleaned:
        table = self.table
        cleaned, plain = table.clean_columns(frame, found, self._as_of)
        key = table.key_of(plain if len(table.plan.key) > 1 else cleaned)
        self._check_keys(key, found)
        sent: dict[str, pl.Series] = {table.key_field: key}
        links: dict[str, pl.Series] = {}
        for name, target in table.targets.items():
            lookup = table.lookups.get(name)
            if lookup is None:
                sent[target] = cleaned[name]
                continue
            if lookup.is_link:
                links[target] = cleaned[name]
            else:
                sent[target] = resolve(cleaned[name], lookup, self._parents[name], found)
        for computed in table.computed:
            sent[computed.target] = computed.clean({**plain, **cleaned}, frame.height, found, self._as_of)
        return self._result(row, key, sent, links, found)

    def _check_keys(self, key: pl.Series, found: Findings) -> None:
        table = self.table
        if len(table.plan.key) > 1 and table.key_length is not None:
            found.refuse("too_long", table.key_place, texts.rows_over_length(key, table.key_length))
        if not key.null_count():
            return
        rows = key.is_null().arg_true()
        for name in table.plan.key:
            refused = found.refused_by(table.key_column(name).place)
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
                hashes = hashes.scatter(kept.arg_true(), table.hash_rows(accepted, is_cleaned=True))
        else:
            hashes = table.hash_rows(accepted, is_cleaned=True)
        if linked is not None:
            linked = linked.filter(pl.any_horizontal(pl.col(list(links)).is_not_null()))
        return Cleaned(
            rows=with_outcomes(rows.with_columns(hashes.alias("hash")), refused).select(list(ROWS_SCHEMA)),
            accepted=accepted,
            links=linked,
            changes=found.counts(refused_rows),
            examples=found.examples(refused_rows, key),
        )
