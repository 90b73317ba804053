"""The ledger: what became of each source row, in one Parquet file per chunk and generation.

Writes:  `ledger/<batch>/<table>/c000001.g00.parquet`, sealed before the audit database marks it.
Re-run:  a chunk that is done again writes the next generation; the audit database names the one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from forcelift.ledger.counts import LedgerCounts
from forcelift.ledger.names import ACCEPTED, EVIDENCES, OUTCOMES, ledger_name
from forcelift.storage import Sealed

LEDGER = pl.Schema(
    {
        "row": pl.UInt32(),  # the row's place in its chunk
        "key": pl.String(),  # null where the source row has none
        "id": pl.String(),  # the record's Id, 18 characters; null where the org made or named none
        "outcome": pl.String(),
        "code": pl.String(),  # why, for failed and rejected rows
        "fields": pl.String(),
        "message": pl.String(),  # scrubbed of values
        "evidence": pl.String(),
        "created": pl.Boolean(),  # the org said so for one of the row's jobs, whatever its outcome is now
        "hash": pl.Binary(),  # 128 bits over key and canonical row; null for rows never sent
        "job": pl.Int64(),  # our job number; null for rows never sent
    }
)
_HASH_BYTES = 16


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
        lines = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        _check(lines)
        with self._storage.write(ledger_name(batch_id, table_name, chunk_no, generation)) as file:
            lines.write_parquet(file.path, compression="zstd", compression_level=1)
            return file.commit()

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


def _check(lines: pl.DataFrame) -> None:
    if lines.schema != LEDGER:
        wrong = [f"{name} {kind}" for name, kind in lines.schema.items() if LEDGER.get(name) != kind] + [
            f"no {name}" for name in LEDGER if name not in lines.columns
        ]
        raise ValueError(f"these are not a ledger's columns: {', '.join(wrong) or 'their order differs'}")
    for name, words in (("outcome", OUTCOMES), ("evidence", EVIDENCES)):
        found = set(lines.get_column(name).unique().to_list())
        if not found <= words:
            raise ValueError(f"the ledger's {name} cannot be {', '.join(map(str, sorted(found - words, key=str)))}")
    if lines.get_column("row").null_count() or lines.get_column("row").n_unique() != lines.height:
        raise ValueError("the ledger must have exactly one line for each row of the chunk")
    if not lines.select((pl.col("hash").bin.size() == _HASH_BYTES).all()).item():
        raise ValueError(f"a row hash of the ledger does not have {_HASH_BYTES} bytes")
