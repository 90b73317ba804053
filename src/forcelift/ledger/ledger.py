"""The ledger: what became of each source row, in one Parquet file per chunk and generation.

Writes:  `ledger/<batch>/<table>/c000001.g00.parquet`, sealed before the audit database marks it.
Re-run:  a chunk that is done again writes the next generation; the audit database names the one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import ACCEPTED, RECORD_GONE, ledger_name
from forcelift.ledger.writing import LEDGER, LedgerWriter
from forcelift.storage import Sealed

_HASHES_BYTES = 128_000_000  # for the hashes of a table's Ids: five million rows
_HASH_ROOM_BYTES = 24  # a hash, its copy in order, and whether it equals the next
_HASH_TURNS_MOST = 5  # with more, each reading all Ids again, grouping them is quicker


class Ledger(LedgerCounts):
    """Ledger files in a storage: written, read as frames, and counted.

    Args:
        storage: Where they are kept.
        memory_mb: What questions over whole tables may use; beyond it they spill to disk.
        spill: A folder for that; a temporary one of the system if None.
    """

    def write(
        self, batch_id: str, table_name: str, chunk_no: int, generation: int, frame: pl.DataFrame | pl.LazyFrame
    ) -> Sealed:
        """Write and seal a chunk's file.

        Args:
            batch_id: The batch, whole.
            table_name: The table, as the plan spells it.
            chunk_no: The chunk's number.
            generation: Its generation.
            frame: One line per source row of the chunk, columns and types of `LEDGER`, in that order.
        Raises:
            ValueError: The frame has other columns, repeats a row, or holds a word that is no outcome or evidence.
            StorageError: The file cannot be written.
        """
        with self.writing(batch_id, table_name, chunk_no, generation) as file:
            file.write(frame.collect() if isinstance(frame, pl.LazyFrame) else frame)
            return file.seal()

    def writing(self, batch_id: str, table_name: str, chunk_no: int, generation: int) -> LedgerWriter:
        """A chunk's file, to be written slice by slice: a context manager. Arguments as in `write`."""
        return LedgerWriter(self._storage.write(ledger_name(batch_id, table_name, chunk_no, generation)))

    def scan(self, files: Sequence[str]) -> pl.LazyFrame:
        """All lines of these files; none of no files."""
        if not files:
            return pl.LazyFrame(schema=LEDGER)
        return pl.scan_parquet(self.paths(files), glob=False)

    def accepted_keys(self, files: Sequence[str]) -> pl.LazyFrame:
        """Column `key`: the keys of all rows that the org accepted."""
        return self.scan(files).filter(pl.col("outcome").is_in(ACCEPTED)).select("key")

    def standing(self, files: Sequence[str]) -> pl.LazyFrame:
        """The rows that have a record in the org by these files: accepted, kept, or refused after it was created."""
        is_kept = (pl.col("outcome") == "kept") & (pl.col("code") != RECORD_GONE).fill_null(True)
        is_refused = (pl.col("outcome") == "failed") & pl.col("created") & pl.col("id").is_not_null()
        return self.scan(files).filter(pl.col("outcome").is_in(ACCEPTED) | is_kept | is_refused)

    def duplicate_ids(self, files: Sequence[str], *, limit: int = 1000) -> pl.DataFrame:
        """Salesforce Ids that stand in more than one accepted row, which must not be.

        Returns:
            Columns `id` and `rows`, at most `limit` lines, sorted by Id. Memory stays within `memory_mb`.
        """
        if not files or not self._may_repeat(files):
            return pl.DataFrame(schema={"id": pl.String, "rows": pl.Int64})
        query = """
            SELECT id, count(*) AS rows FROM read_parquet($files)
            WHERE outcome IN ('created', 'updated') AND id IS NOT NULL
            GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT $limit
        """
        found = self.ask(query, files, limit=limit)
        return pl.DataFrame(found, schema={"id": pl.String, "rows": pl.Int64}, orient="row")

    def _may_repeat(self, files: Sequence[str]) -> bool:
        """Whether two accepted rows may have the same Id: surely not where all hashes of their Ids differ.

        Comparing 64-bit hashes costs a fourth of grouping by the Ids themselves, which then is done only where two are
        equal. They are looked at in as many turns as memory asks for; where that were many, the answer is yes unseen.
        """
        room = min(self.memory_mb * 1_000_000, _HASHES_BYTES)
        turns = -(-self.scan(files).select(pl.len()).collect().item() * _HASH_ROOM_BYTES // room)
        if turns > _HASH_TURNS_MOST:
            return True
        return any(self._hash_repeats(files, turn, turns) for turn in range(turns))

    def _hash_repeats(self, files: Sequence[str], turn: int, turns: int) -> bool:
        """Whether two Ids have the same hash, among those whose hash leaves `turn` when divided by `turns`."""
        is_accepted = pl.col("outcome").is_in(ACCEPTED) & pl.col("id").is_not_null()
        found = []
        for file in files:  # one after the other: only the hashes of all of them are held at once
            hashes = self.scan([file]).filter(is_accepted).select(pl.col("id").hash()).collect().to_series()
            found.append(hashes if turns == 1 else hashes.filter(hashes % turns == turn))
        together = pl.concat(found).sort()
        return bool((together.slice(1) == together.slice(0, max(0, together.len() - 1))).any())
