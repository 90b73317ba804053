"""The ledger: what became of each source row, in one Parquet file per chunk and generation.

Writes:  `ledger/<batch>/<table>/c000001.g00.parquet`, sealed before the audit database marks it.
Re-run:  a chunk that is done again writes the next generation; the audit database names the one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import ACCEPTED, ledger_name
from forcelift.ledger.writing import LEDGER, LedgerWriter
from forcelift.storage import Sealed


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

    def duplicate_ids(self, files: Sequence[str], *, limit: int = 1000) -> pl.DataFrame:
        """Salesforce Ids that stand in more than one accepted row, which must not be.

        Returns:
            Columns `id` and `rows`, at most `limit` lines, sorted by Id. Memory stays within `memory_mb`.
        """
        if not files:
            return pl.DataFrame(schema={"id": pl.String, "rows": pl.Int64})
        query = """
            SELECT id, count(*) AS rows FROM read_parquet($files)
            WHERE outcome IN ('created', 'updated') AND id IS NOT NULL
            GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT $limit
        """
        found = self._ask(query, files, limit=limit)
        return pl.DataFrame(found, schema={"id": pl.String, "rows": pl.Int64}, orient="row")
