"""Duplicates over a whole table, whatever the chunks: one scan of the keys, one of the rows that repeat, one decision.

Reads:  the normalised keys of all chunks, then the content of the rows whose key repeats.
Writes: Parquet files in a folder of the caller, about 20 bytes a row, removed by `close`.
Re-run: a scan that was broken off starts again from nothing; saved decisions are final.

Keys are held as 128-bit hashes: among 10^10 keys two different ones meet with a probability below 10^-18.
"""

from __future__ import annotations

import glob
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow.parquet as pq
from msgspec import Struct

from forcelift.embedded import connect
from forcelift.errors import SourceChanged
from forcelift.plan.models import DuplicateRule
from forcelift.rules.hashing import text_hash
from forcelift.rules.merge import MergedColumn

_KEY = ["high", "low"]
_FILE_ROWS = 1_000_000  # 20 MB of key hashes held in memory before they are written
_MERGE_ROWS = 500_000  # rows that are merged at a time
_LATEST_FIRST = "PARTITION BY high, low ORDER BY changed DESC NULLS LAST, text, chunk"
_OLDEST_FIRST = "PARTITION BY high, low ORDER BY changed ASC NULLS FIRST, text, chunk"
_DECISIONS = {
    "chunk": pl.UInt32,
    "high": pl.UInt64,
    "low": pl.UInt64,
    "content_high": pl.UInt64,
    "content_low": pl.UInt64,
}


def key_hash(norms: pl.Series) -> pl.DataFrame:
    """128-bit hashes of texts as two columns, `high` and `low`; null for null."""
    return _halves(norms.to_frame("text").select(text_hash("text").alias("hash")))


def content_hash(content: pl.DataFrame) -> pl.DataFrame:
    """Hashes of what `CompiledTable.content` gives, as `high` and `low`: equal for rows that are equal to the plan."""
    text = content.select(
        pl.concat_str(pl.col("changed").cast(pl.String).fill_null(""), pl.col("text"), separator="\x1f").alias("text")
    )
    return key_hash(text["text"])


def _literal(path: Path, pattern: str = "") -> str:
    """A path as SQL text, for the places of a statement that take no parameter; only `pattern` is one."""
    text = str(Path(glob.escape(str(path))) / pattern) if pattern else str(path)
    return "'" + text.replace("'", "''") + "'"


def _halves(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        (pl.col("hash") // (1 << 64)).cast(pl.UInt64).alias("high"),
        (pl.col("hash") % (1 << 64)).cast(pl.UInt64).alias("low"),
    )


class DuplicateNorms(Struct, frozen=True, kw_only=True):
    """How many keys occur more than once, in how many rows, and which chunks hold them."""

    keys: int
    rows: int
    chunks: tuple[int, ...]


class DuplicateScan:
    """Finds keys that occur more than once. Methods may be called from several threads; they take turns.

    Args:
        folder: A folder of its own, made if missing; its contents are this scan's.
        memory_mb: DuckDB's memory limit; what does not fit spills into the folder.
    """

    def __init__(self, folder: Path, memory_mb: int = 512) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pending: list[pl.DataFrame] = []
        self._pending_rows = 0
        self._files = 0
        self._has_content = False
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._database = connect()
        self._database.execute(f"SET memory_limit = '{int(memory_mb)}MB'")
        self._database.execute("SET preserve_insertion_order = false")
        self._database.execute("SET threads = 2")
        self._database.execute(f"SET temp_directory = {_literal(folder / 'spill')}")
        self._database.execute("CREATE TABLE repeated (high UBIGINT, low UBIGINT, copies BIGINT)")
        self._database.execute("CREATE TABLE places (chunk UINTEGER, high UBIGINT, low UBIGINT)")

    def __enter__(self) -> DuplicateScan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the scan's files."""
        self._database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, chunk_no: int, keys: pl.DataFrame) -> None:
        """First pass: note the keys of some rows of a chunk (`CompiledTable.keys`). Null keys count as nothing."""
        hashes = key_hash(keys["norm"].drop_nulls()).select(pl.lit(chunk_no, dtype=pl.UInt32).alias("chunk"), *_KEY)
        with self._lock:
            self._pending.append(hashes)
            self._pending_rows += hashes.height
            if self._pending_rows >= _FILE_ROWS:
                self._flush()

    def duplicate_norms(self) -> DuplicateNorms:
        """After the first pass: what repeats. If `keys` is 0 or all copies are rejected, no second pass is needed."""
        with self._lock:
            self._flush()
            if self._files:
                keys = f"read_parquet({_literal(self._folder, 'keys-*.parquet')})"
                self._database.execute(
                    "CREATE OR REPLACE TABLE repeated AS"
                    f" SELECT high, low, count(*) AS copies FROM {keys} GROUP BY high, low HAVING count(*) > 1"
                )
                self._database.execute(
                    "CREATE OR REPLACE TABLE places AS"
                    f" SELECT DISTINCT chunk, high, low FROM {keys} SEMI JOIN repeated USING (high, low)"
                )
            count, rows = self._one("SELECT count(*), coalesce(sum(copies), 0)::BIGINT FROM repeated")
            chunks = self._database.execute("SELECT DISTINCT chunk FROM places ORDER BY chunk").fetchall()
        return DuplicateNorms(keys=count, rows=rows, chunks=tuple(chunk for (chunk,) in chunks))

    def add_content(self, chunk_no: int, content: pl.DataFrame) -> None:
        """Second pass: rows of a chunk (`CompiledTable.content`); those whose key does not repeat are left out here."""
        hashes = key_hash(content["norm"])
        identity = content_hash(content).rename({"high": "content_high", "low": "content_low"})
        frame = content.drop("norm").hstack(hashes).hstack(identity).filter(pl.col("high").is_not_null())
        frame = frame.with_columns(pl.lit(chunk_no, dtype=pl.UInt32).alias("chunk"))
        with self._lock:
            self._database.register("batch", frame.to_arrow())
            into = "INSERT INTO content" if self._has_content else "CREATE TABLE content AS"
            self._database.execute(f"{into} SELECT batch.* FROM batch SEMI JOIN repeated USING (high, low)")
            self._database.unregister("batch")
            self._has_content = True

    def decide(self, rule: DuplicateRule, merges: Sequence[MergedColumn] = ()) -> DuplicateDecisions:
        """Say for each repeated key which row goes on.

        `keep_latest`: the last by `changed_at`, null is oldest. `keep_first`: the first by it. Ties, and tables without
        `changed_at`, go by the text of the mapped columns, the smallest first; rows that are the same by that too are
        the same to the org, and the one in the lowest chunk goes on. `reject`: none. `merge`: the row that
        `keep_latest` would take, with values from all copies in the columns of `merges` (`CompiledTable.merges`).
        """
        with self._lock:
            if rule is not DuplicateRule.REJECT:
                self._check_content()
            if rule is DuplicateRule.REJECT or not self._has_content:
                query = (
                    "SELECT chunk, high, low, NULL::UBIGINT AS content_high, NULL::UBIGINT AS content_low FROM places"
                )
            else:
                order = _OLDEST_FIRST if rule is DuplicateRule.KEEP_FIRST else _LATEST_FIRST
                query = (
                    "SELECT p.chunk, p.high, p.low, w.content_high, w.content_low FROM places p LEFT JOIN"
                    f" (SELECT * FROM content QUALIFY row_number() OVER ({order}) = 1) w USING (chunk, high, low)"
                )
                if merges:
                    self._merge(merges)
                    # A merged value belongs to the one chunk whose row goes on.
                    query = f"SELECT * FROM ({query}) d LEFT JOIN merged USING (chunk, high, low)"
            path = self._folder / "decisions.parquet"
            self._database.execute(
                f"COPY ({query} ORDER BY chunk) TO {_literal(path)} (FORMAT parquet, COMPRESSION zstd)"
            )
        return DuplicateDecisions(path=path, rule=rule)

    def _merge(self, merges: Sequence[MergedColumn]) -> None:
        """Aggregate all copies of each key, some keys at a time, so that memory is bounded for any number of them."""
        rows, _ = self._one("SELECT count(*), 0 FROM content")
        parts = rows // _MERGE_ROWS + 1
        values = ", ".join(part for merge in merges for part in merge.sql())
        for part in range(parts):
            into = "INSERT INTO merged" if part else "CREATE OR REPLACE TABLE merged AS"
            self._database.execute(
                f"{into} WITH ranked AS (SELECT *, row_number() OVER ({_LATEST_FIRST}) AS n,"
                f" row_number() OVER ({_OLDEST_FIRST}) AS o FROM content WHERE high % {parts} = {part})"
                f" SELECT high, low, arg_min(chunk, n) AS chunk, {values} FROM ranked GROUP BY high, low"
            )

    def _check_content(self) -> None:
        """Without its content a repeated key would have no winner, and all its rows would be dropped."""
        if not self._has_content:
            (missing, _) = self._one("SELECT count(*), 0 FROM repeated")
        else:
            (missing, _) = self._one("SELECT count(*), 0 FROM repeated ANTI JOIN content USING (high, low)")
        if missing:
            raise SourceChanged(
                f"{missing:,} keys occurred more than once in the first scan and were not seen again in the second",
                state="nothing was sent",
                hint="the table changed between the scans: run again",
            )

    def _flush(self) -> None:
        if self._pending_rows:
            pl.concat(self._pending).write_parquet(self._folder / f"keys-{self._files:06}.parquet")
            self._files += 1
        self._pending, self._pending_rows = [], 0

    def _one(self, query: str) -> tuple[int, int]:
        row = self._database.execute(query).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])


class DuplicateDecisions(Struct, frozen=True, kw_only=True):
    """Which row of each repeated key goes on; a Parquet file, read chunk by chunk."""

    path: Path
    rule: DuplicateRule

    def save(self, path: Path) -> DuplicateDecisions:
        """Copy the decisions to a file that outlives the scan."""
        with pq.ParquetFile(self.path) as source:
            schema = source.schema_arrow.with_metadata({"rule": str(self.rule)})
            with pq.ParquetWriter(path, schema, compression="zstd") as target:
                for batch in source.iter_batches(batch_size=100_000):
                    target.write_batch(batch.replace_schema_metadata(schema.metadata))
        return DuplicateDecisions(path=path, rule=self.rule)

    @classmethod
    def load(cls, path: Path) -> DuplicateDecisions:
        """Take up decisions that were saved."""
        metadata = pq.read_schema(path).metadata or {}
        return cls(path=path, rule=DuplicateRule(metadata[b"rule"].decode()))

    def for_chunk(self, chunk_no: int) -> ChunkDuplicates | None:
        """The repeated keys of one chunk; None if it holds none."""
        frame = (
            pl.scan_parquet(self.path, glob=False)
            .filter(pl.col("chunk") == chunk_no)
            .with_columns(pl.col(name).cast(dtype) for name, dtype in _DECISIONS.items())
            .collect()
        )
        return ChunkDuplicates(frame, is_reject=self.rule is DuplicateRule.REJECT) if frame.height else None


class ChunkDuplicates:
    """The decisions that concern one chunk, and which of them its earlier batches have used up."""

    def __init__(self, decisions: pl.DataFrame, *, is_reject: bool) -> None:
        self.is_reject = is_reject
        self._keys = decisions.select(_KEY)
        self._winners = decisions.filter(pl.col("content_high").is_not_null()).drop("chunk")

    @property
    def winners_left(self) -> int:
        """Chosen rows of this chunk that have not been seen yet."""
        return self._winners.height

    def repeated(self, norms: pl.Series) -> pl.Series:
        """True for rows whose key occurs more than once in the table."""
        hashes = key_hash(norms).with_row_index("at")
        rows = hashes.join(self._keys, on=_KEY, how="semi")["at"]
        mask = pl.repeat(False, norms.len(), dtype=pl.Boolean, eager=True)
        return mask.scatter(rows, True) if rows.len() else mask

    def take_winners(self, norms: pl.Series, content: pl.DataFrame) -> pl.DataFrame:
        """The rows that go on: of each key the decided row, and of its equals in this chunk the first.

        Returns: `at`, their places (u32) in rising order, and what was merged for them.
        """
        names = [*_KEY, "content_high", "content_low"]
        rows = key_hash(norms).hstack(content.rename({"high": "content_high", "low": "content_low"}))
        hits = (
            rows.with_row_index("at")
            .join(self._winners, on=names, how="inner", maintain_order="left")
            .unique(_KEY, keep="first", maintain_order=True)
        )
        self._winners = self._winners.join(hits, on=_KEY, how="anti")
        return hits
