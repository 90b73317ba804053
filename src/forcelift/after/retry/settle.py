"""What became of the rows of one chunk in a retry, and the chunk's ledger, sums and failed records with them.

Reads:   staged rows and sealed answers of the retry; the chunk's ledger.
Writes:  the ledger's next generation, then all of the audit database in one transaction.
Re-run:  a chunk that is settled is passed over; the ledger file of one that is not is replaced.
"""

from __future__ import annotations

import textwrap
from typing import Final

import polars as pl

from forcelift.after.retry.report import counted_lines
from forcelift.after.retry.stage import is_filled, linked_only
from forcelift.after.retry.world import RetryWorld
from forcelift.audit.failed_changes import AGAIN, GONE, MENDED
from forcelift.audit.records import Chunk, JobKind
from forcelift.audit.retries import with_counts
from forcelift.jobs.answers import ANSWERS, merge_answers, prove_created
from forcelift.jobs.chunk_handlers import ChunkHandlers
from forcelift.jobs.messages import ChunkSettled
from forcelift.jobs.settlement import ACCEPTED, Outcomes, Settlement, settle_rows
from forcelift.jobs.work import TableWork
from forcelift.ledger import LEDGER
from forcelift.plan import plan_diff
from forcelift.rules import checksum

MOST_OF_CHANGES: Final = 300
"""Characters of a plan's changes in a note."""
GONE_NOTE = "the source has no row with this key any more"


def settlement(world: RetryWorld, handlers: ChunkHandlers, chunk: Chunk, *, links: bool) -> Settlement:
    """What became of the rows of one chunk: staged rows joined with the answers of this retry."""
    assert chunk.staged is not None
    path = world.storage.path
    rows = pl.read_parquet(path(chunk.staged.rows_file), glob=False)
    answers = merge_answers(handlers.answers(chunk, links=False))
    if (absent := handlers.absent(chunk, answers)) is not None:
        answers = prove_created(answers, absent)
    answers = pl.concat([answers, _in_the_org(world, chunk, rows, answers)])
    if not links:
        return settle_rows(rows, answers)
    assert chunk.staged.link_rows_file is not None
    return settle_rows(
        rows,
        answers,
        link_rows=pl.read_parquet(path(chunk.staged.link_rows_file), glob=False),
        link_answers=merge_answers(handlers.answers(chunk, links=True)),
    )


def _in_the_org(world: RetryWorld, chunk: Chunk, rows: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """Answers for rows that were not sent by a load job, as their record was inserted before."""
    operation = world.works[chunk.table_name].spec.operation
    known = world.lines(chunk.audit_id).filter(linked_only(operation)).select("row", "id", "created")
    if not known.height:
        return pl.DataFrame(schema=answers.schema)
    waiting = rows.filter(pl.col("outcome").is_null()).select("row", "key").join(known, on="row", how="inner")
    job = max((job.job_no for job in world.jobs(chunk) if job.kind is JobKind.LINK), default=None)
    told = {
        "kind": pl.when("created").then(pl.lit("created")).otherwise(pl.lit("updated")),
        "evidence": pl.lit("result"),
        "job": pl.lit(job, dtype=pl.Int64),
        "was_created": pl.col("created"),
        "was_lost": pl.lit(False),
        "transient": pl.lit(False),
        "locked": pl.lit(False),
    }
    absent = [name for name in ANSWERS.names() if name not in told and name not in ("key", "id")]
    filled = waiting.select("key", "id", "created").with_columns(
        *(expr.alias(name) for name, expr in told.items()), *(pl.lit(None, dtype=pl.String).alias(n) for n in absent)
    )
    return filled.select(answers.columns).cast(answers.schema)


def settle(world: RetryWorld, handlers: ChunkHandlers, audit_id: int) -> ChunkSettled:
    """Settle one chunk. Rows whose answers are gone leave it unsettled, so that the retry can be gone on with."""
    chunk, work, _ = world.chunk(audit_id)
    assert chunk.staged is not None
    has_links = chunk.staged.links_file is not None and chunk.staged.link_rows_file is not None
    found = settlement(world, handlers, chunk, links=has_links)
    if found.unknown:
        return _settled(Outcomes(outcomes=found.outcomes))
    held = world.audit.chunk(audit_id)
    assert held.ledger_file is not None
    assert held.ledger_sha256 is not None
    world.storage.verify(held.ledger_file, held.ledger_sha256)
    before = world.ledger.scan([held.ledger_file]).collect()
    told = _never_worse(_kept_in_org(found.ledger, before), world.lines(audit_id))
    after = pl.concat([before.join(told.select("row"), on="row", how="anti"), told]).sort("row")
    if after.height != before.height:
        raise AssertionError(f"{before.height} lines became {after.height}")
    whole = Outcomes(outcomes=dict(after.group_by("outcome").len().iter_rows()))
    assert held.staged is not None
    staged = with_counts(
        held.staged,
        rejected=whole.count("rejected"),
        duplicate=whole.count("duplicate"),
        changes=chunk.staged.changes,
    )
    sealed = world.ledger.write(chunk.batch_id, chunk.table_name, chunk.chunk_no, 2 * (held.generation + 1) + 1, after)
    became = dict(told.group_by("outcome").len().iter_rows())
    world.audit.settle_retry(
        world.retry.retry_no,
        audit_id,
        status=whole.status,
        counts=whole.counts(staged),
        outcomes=whole.outcomes,
        became={"groups": counted_lines(world.lines(audit_id), told)},
        ledger_file=sealed.name,
        ledger_sha256=sealed.sha256,
        source_checksum=str(checksum(after.filter(pl.col("outcome").is_in(ACCEPTED))["hash"])),
        failed=_failed_changes(world, handlers, chunk, work, told),
        staged=staged,
    )
    return _settled(Outcomes(outcomes=became))


def _kept_in_org(told: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """New lines of rows: what was once created stays so, an Id stays, and a row with a record is none that was
    rejected, whatever the rules say of it now."""
    held = before.select("row", old_id="id", was="created", old_outcome="outcome")
    joined = told.join(held, on="row", how="left", maintain_order="left")
    has_record = pl.col("old_id").is_not_null()
    outcome = (
        pl.when(has_record & pl.col("outcome").is_in(["rejected", "duplicate"]))
        .then(pl.lit("failed"))
        .when((pl.col("outcome") == "updated") & pl.col("was"))
        .then(pl.lit("created"))
        .otherwise("outcome")
    )
    return (
        joined.with_columns(
            pl.coalesce("id", "old_id").alias("id"),
            outcome.alias("outcome"),
            (pl.col("created") | pl.col("was").fill_null(False)).alias("created"),
        )
        .select(LEDGER.names())
        .cast(LEDGER)
    )


def _never_worse(told: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """Of rows that the org has, whose lookup was to be filled, only those that it has taken so: others stay."""
    filled = lines.filter(is_filled()).select("row", old="hash")
    if not filled.height:
        return told
    joined = told.join(filled, on="row", how="left", maintain_order="left")
    is_better = pl.col("outcome").is_in(ACCEPTED) & (pl.col("hash") != pl.col("old")).fill_null(True)
    is_other = ~pl.col("row").is_in(filled["row"].implode())
    return joined.filter(is_other | is_better).select(told.columns)


def _plan_words(world: RetryWorld, table: str) -> str:
    """Which plan the retry followed, with what was changed in it for the table since the batch was begun."""
    retry = world.retry
    words = f"plan revision {retry.plan_revision}"
    first, now = (world.audit.plan_document(retry.batch_id, number) for number in (1, retry.plan_revision))
    place = f"tables.{table}."
    changes = [one.removeprefix(place) for one in plan_diff(first, now) if one.startswith(place)]
    if not changes:
        return words
    shown = textwrap.shorten("; ".join(changes), MOST_OF_CHANGES, placeholder=" ...")
    return f"{words} ({shown})"


def _failed_changes(
    world: RetryWorld, handlers: ChunkHandlers, chunk: Chunk, work: TableWork, told: pl.DataFrame
) -> pl.DataFrame:
    """What the failed records of the retried rows are told, as `change_failed` takes it."""
    retry = world.retry
    lines = world.lines(chunk.audit_id).filter(~is_filled())
    refused = told.filter(pl.col("outcome").is_in(["failed", "rejected"]))
    # Rows that a rule stopped though they have a record are shown as they were read.
    shown = refused.with_columns(
        pl.when(pl.col("evidence") == "rule").then(pl.lit("rejected")).otherwise("outcome").alias("outcome")
    )
    data = handlers.failed_records(chunk, work, shown) if shown.height else None
    under = f"retry {retry.retry_no}, {_plan_words(world, chunk.table_name)}"
    notes = {
        "created": f"{under}: created",
        "updated": f"{under}: updated",
        "duplicate": f"{under}: another copy of its key counts",
        "failed": f"{under}: refused again",
        "rejected": f"{under}: rejected by a rule",
    }
    outcome = pl.coalesce("outcome", pl.lit("gone"))
    state = (
        pl.when(outcome == "gone")
        .then(pl.lit(GONE))
        .when(outcome.is_in(["failed", "rejected"]))
        .then(pl.lit(AGAIN))
        .otherwise(pl.lit(MENDED))
    )
    joined = lines.select("row", "key").join(
        told.select("row", "outcome", "code", "message", "fields"), on="row", how="left", maintain_order="left"
    )
    changes = joined.select(
        "row",
        "key",
        "code",
        "message",
        "fields",
        state=state,
        note=outcome.replace_strict({**notes, "gone": f"retry {retry.retry_no}: {GONE_NOTE}"}),
    )
    if data is None:
        return changes.with_columns(data=pl.lit(None, dtype=pl.String))
    return changes.join(data.select("row", "data"), on="row", how="left", maintain_order="left")


def _settled(outcomes: Outcomes) -> ChunkSettled:
    names = ("created", "updated", "failed", "rejected", "duplicate", "unknown")
    return ChunkSettled(status=outcomes.status, **{name: outcomes.count(name) for name in names})
