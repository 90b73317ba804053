"""Settle a chunk slice by slice, so that what is in memory does not depend on how large the chunk is.

Most often each row of a chunk was sent once, and the sealed answers stand in the order of the rows: then slices of both
files belong together, which the keys prove row by row. Where it is otherwise the chunk is settled whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
from msgspec import Struct, field

from forcelift.jobs.answers import ANSWERS, merge_answers
from forcelift.jobs.settlement import ACCEPTED, Outcomes, Settlement, settle_rows
from forcelift.ledger import LEDGER
from forcelift.rules import ChunkSum, checksum

SLICE_ROWS = 50_000
EXAMPLES = 20
"""So many accepted rows of each slice are kept, to be read back from the org."""


class OutOfOrder(Exception):
    """Rows and answers do not go side by side: what was told so far does not count."""


def slices_in_order(rows: Path, answers: Sequence[Path]) -> Iterator[Settlement]:
    """Settle the rows of a chunk that were sent once each.

    Args:
        rows: The file of the staged rows.
        answers: The sealed answers of the jobs that sent them, in the order of the rows.
    Raises:
        OutOfOrder: The next answers are not those to the next rows, some are left, or one is `unknown` and needs proof.
    """
    told = _Answers(answers)
    for lines in _slices(rows):
        sent = lines["key"].filter(lines["outcome"].is_null())
        next_answers = told.take(sent.len())
        if not sent.equals(next_answers["key"]) or (next_answers["kind"] == "unknown").any():
            raise OutOfOrder
        yield settle_rows(lines, merge_answers([next_answers]))
    if told.left:
        raise OutOfOrder


def _slices(file: Path) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file, in slices; one without rows of a file without."""
    scan = pl.scan_parquet(file, glob=False)
    total = _rows(file)
    for start in range(0, max(total, 1), SLICE_ROWS):
        yield scan.slice(start, SLICE_ROWS).collect()


def _rows(file: Path) -> int:
    return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())


class _Answers:
    """The rows of several files one after the other, taken as many at a time as are asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [(pl.scan_parquet(file, glob=False), _rows(file)) for file in files]
        self._at = 0  # rows taken of the first file that is left
        self.left = sum(rows for _, rows in self._files)

    def take(self, rows: int) -> pl.DataFrame:
        if rows > self.left:
            raise OutOfOrder
        self.left -= rows
        taken: list[pl.DataFrame] = []
        while rows:
            scan, held = self._files[0]
            here = min(rows, held - self._at)
            taken.append(scan.slice(self._at, here).collect())
            self._at += here
            rows -= here
            if self._at == held:
                self._files, self._at = self._files[1:], 0
        return pl.concat([pl.DataFrame(schema=ANSWERS), *taken])


class SettledChunk(Struct, kw_only=True):
    """What is known of a chunk whose slices were settled: everything but its lines, which its ledger file has.

    Attributes:
        counts: Rows by outcome.
        accepted: Sum of the hashes of the rows that the org accepted.
        refused: Lines of rows that were refused, by the org or by a rule.
        examples: Lines of accepted rows with an Id, a few of each slice.
    """

    counts: Counter[str] = field(default_factory=Counter)
    accepted: ChunkSum = field(default_factory=ChunkSum)
    refused: list[pl.DataFrame] = field(default_factory=list)
    examples: list[pl.DataFrame] = field(default_factory=list)

    def add(self, settled: Settlement) -> None:
        """Take a slice in."""
        self.counts.update(settled.outcomes)
        accepted = settled.ledger
        if settled.count(*ACCEPTED) < accepted.height:
            accepted = accepted.filter(pl.col("outcome").is_in(ACCEPTED))
        self.accepted += checksum(accepted["hash"])
        if settled.count("failed", "rejected"):
            self.refused.append(settled.ledger.filter(pl.col("outcome").is_in(["failed", "rejected"])))
        known = accepted.select("id", "hash").filter(pl.col("id").is_not_null())
        self.examples.append(known.gather_every(max(1, known.height // EXAMPLES)).head(EXAMPLES).rechunk())

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(outcomes=dict(self.counts))

    @property
    def refused_lines(self) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=LEDGER), *self.refused])

    @property
    def records(self) -> pl.DataFrame:
        """`id` and `hash` of accepted rows from all over the chunk."""
        return pl.concat(self.examples)
