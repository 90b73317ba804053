"""A chunk's ledger file while it is being written, slice by slice: so that a chunk's lines are never all in memory."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from forcelift.ledger.names import EVIDENCES, OUTCOMES
from forcelift.storage import Sealed, SealedWriter

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
_DISTINCT = frozenset({"row", "key", "id", "hash"})


class LedgerWriter:
    """Writes one file; leaving its `with` block without `seal` discards it.

    Args:
        file: Of the storage, not yet entered.
    """

    def __init__(self, file: SealedWriter) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._rows_below = 0  # the next slice begins at this row or after it

    def write(self, lines: pl.DataFrame) -> None:
        """Append lines.

        Args:
            lines: Columns and types of `LEDGER`, in that order; rows that come after those of earlier calls.
        Raises:
            ValueError: The frame has other columns, repeats a row, or holds a word that is no outcome or evidence.
        """
        _check(lines, least=self._rows_below)
        if lines.height:
            self._rows_below = int(lines.select(pl.col("row").max()).item()) + 1
        table: pa.Table = lines.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._file.path,
                table.schema,
                # A hash cannot be made smaller. Its length, always the same, takes nothing if it stands apart, and nor
                # do rows as differences: a quarter less time and a sixth less room than all by zstd.
                compression={name: "none" if name == "hash" else "zstd" for name in LEDGER},
                compression_level={name: 1 for name in LEDGER if name != "hash"},
                column_encoding={"hash": "DELTA_LENGTH_BYTE_ARRAY", "row": "DELTA_BINARY_PACKED"},
                # Keys, Ids and hashes differ in every row: a dictionary of them costs time and saves nothing.
                use_dictionary=[name for name in LEDGER if name not in _DISTINCT],
                write_statistics=False,  # a ledger is read from end to end
            )
        self._writer.write_table(table)

    def seal(self) -> Sealed:
        """Make the file durable under its name. Raises `StorageError` if it cannot be written."""
        if self._writer is None:
            self.write(pl.DataFrame(schema=LEDGER))
        assert self._writer is not None
        self._writer.close()
        return self._file.commit()

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            # Closing writes what is still buffered, which fails again on a full disk; the file is thrown away anyhow.
            with suppress(OSError):
                self._writer.close()
        self._file.__exit__(kind, error, trace)


def _check(lines: pl.DataFrame, *, least: int) -> None:
    if lines.schema != LEDGER:
        wrong = [f"{name} {kind}" for name, kind in lines.schema.items() if LEDGER.get(name) != kind] + [
            f"no {name}" for name in LEDGER if name not in lines.columns
        ]
        raise ValueError(f"these are not a ledger's columns: {', '.join(wrong) or 'their order differs'}")
    for name, words in (("outcome", OUTCOMES), ("evidence", EVIDENCES)):
        found = set(lines.get_column(name).unique().to_list())
        if not found <= words:
            raise ValueError(f"the ledger's {name} cannot be {', '.join(map(str, sorted(found - words, key=str)))}")
    row = lines.get_column("row")
    if row.null_count() or row.n_unique() != lines.height or (row < least).any():
        raise ValueError("the ledger must have exactly one line for each row of the chunk")
    if not lines.select((pl.col("hash").bin.size() == _HASH_BYTES).all()).item():
        raise ValueError(f"a row hash of the ledger does not have {_HASH_BYTES} bytes")
