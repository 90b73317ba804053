"""Level 3: N random keys, every field compared after the plan's own cleaning. The table is not sorted for it.

The keys are drawn from the ledger by a seeded generator, from at most as many chunks as level 5 reads again. Chunks
that none was drawn from are not read.
"""

from __future__ import annotations

import random

import polars as pl
from msgspec import Struct

from forcelift.after.validate.checks import Check, CheckStatus, Difference, percent
from forcelift.after.validate.compare import compare
from forcelift.after.validate.org_rows import OrgShape
from forcelift.after.validate.population import Population
from forcelift.after.validate.proof import CHUNKS_READ_MAX, name_missing
from forcelift.after.validate.sent_rows import SentRows
from forcelift.after.validate.world import EXAMPLES_MAX, ValidateWorld
from forcelift.audit.records import Chunk
from forcelift.ledger import ACCEPTED


class Sampled(Struct, frozen=True, kw_only=True):
    """What a sample gave.

    Attributes:
        asked: Keys drawn; `drift` of them have changed in the source since and were not compared.
        wrong: Records with a difference, each counted once.
    """

    asked: int
    drift: int
    drift_words: str
    wrong: int
    differences: tuple[Difference, ...]

    @property
    def compared(self) -> int:
        return self.asked - self.drift


def draw(world: ValidateWorld, population: Population, owned: set[str]) -> pl.DataFrame:
    """`key`, `id`, `chunk_no` of random accepted rows; the same for the same seed and ledger.

    The ledger alone tells how many there are: a rollback leaves the audit row's counts as the load wrote them.
    """
    rng = random.Random(world.settings.seed)  # noqa: S311 - a repeatable draw, no secret
    sizes = [_lines(world, chunk, owned).select(pl.len()).collect().item() for chunk in population.chunks]
    total = sum(sizes)
    wanted = min(world.settings.sample_rows, total)
    if not wanted:
        return pl.DataFrame(schema={"key": pl.String, "id": pl.String, "chunk_no": pl.Int64})
    numbers = [number for number, size in enumerate(sizes) if size]
    if len(numbers) > CHUNKS_READ_MAX:
        # Each chunk that is drawn from is read once more, so that a draw from all of a thousand would read the table.
        numbers = sorted(rng.sample(numbers, CHUNKS_READ_MAX))
    places = sorted(
        rng.sample(
            range(sum(sizes[number] for number in numbers)), min(wanted, sum(sizes[number] for number in numbers))
        )
    )
    frames = []
    first = 0
    for number in numbers:
        chunk, size = population.chunks[number], sizes[number]
        mine = [place - first for place in places if first <= place < first + size]
        first += size
        if not mine:
            continue
        picked = _lines(world, chunk, owned).select("key", "id").collect()[mine]
        frames.append(picked.with_columns(pl.lit(chunk.chunk_no, dtype=pl.Int64).alias("chunk_no")))
    return pl.concat(frames)


def _lines(world: ValidateWorld, chunk: Chunk, owned: set[str]) -> pl.LazyFrame:
    """A chunk's accepted rows that no newer batch owns."""
    assert chunk.ledger_file is not None
    lines = world.ledger.scan([chunk.ledger_file]).filter(pl.col("outcome").is_in(ACCEPTED))
    return lines.filter(~pl.col("id").is_in(list(owned))) if owned else lines


def sample(world: ValidateWorld, population: Population, shape: OrgShape, owned: set[str]) -> Sampled:
    """Compare a sample.

    Args:
        owned: Ids that newer batches own: they are left out.
    """
    rows = draw(world, population, owned)
    sent_rows = SentRows(world, shape.work.plan.table)
    chunk_of = dict(zip(rows["id"].to_list(), rows["chunk_no"].to_list(), strict=True))
    sent: list[pl.DataFrame] = []
    drift = 0
    for chunk in population.chunks:
        mine = rows.filter(pl.col("chunk_no") == chunk.chunk_no)
        if mine.height:
            found = sent_rows.of_chunk(chunk, among=mine["id"])
            sent.append(found.rows)
            drift += found.drift.height
    if not sent:
        return Sampled(asked=0, drift=0, drift_words=sent_rows.drift_words, wrong=0, differences=())
    texts = pl.concat(sent)
    org = shape.fetch(world.org, texts["id"].to_list()) if texts.height else None
    if org is None:
        return Sampled(asked=rows.height, drift=drift, drift_words=sent_rows.drift_words, wrong=0, differences=())
    compared = compare(shape, texts, org, chunks=chunk_of)
    gone = rows.join(texts, on="id", how="semi").join(org, on="id", how="anti")
    missing = name_missing(world, shape, gone)
    wrong = {one.record_id for one in (*missing, *compared.differences)}
    return Sampled(
        asked=rows.height,
        drift=drift,
        drift_words=sent_rows.drift_words,
        wrong=len(wrong),
        differences=(*missing, *compared.differences),
    )


def sample_checks(sampled: Sampled, table: str) -> list[Check]:
    """The check of level 3, with the first differences."""
    if sampled.wrong:
        status = CheckStatus.FAILED
    elif sampled.compared:
        status = CheckStatus.PASSED if not sampled.drift else CheckStatus.DRIFT
    else:
        status = CheckStatus.DRIFT if sampled.asked else CheckStatus.NOT_CHECKED
    right = sampled.compared - sampled.wrong
    reasons = [
        f"{percent(right, sampled.compared)} % of the records compared are equal" if sampled.compared else "",
        f"{sampled.drift:,} of {sampled.asked:,} {sampled.drift_words}" if sampled.drift else "",
        "" if sampled.asked else "there is no accepted row to draw that this batch still owns",
    ]
    return [
        Check(
            level=3,
            table=table,
            name="sampled records",
            status=status,
            source=str(sampled.compared),
            target=str(right),
            difference=str(sampled.wrong),
            reason="; ".join(reason for reason in reasons if reason) or None,
            examples=sampled.differences[:EXAMPLES_MAX],
        )
    ]
