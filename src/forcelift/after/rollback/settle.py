"""Ask the org what is left, and write down what became of each record.

Reads:   decisions, sealed answers, before-images; the org, by bulk query.
Writes:  `*.outcomes.parquet`, the next generation of the chunk's ledger, then its audit row: ROLLED_BACK only if
         nothing of it is left.
Re-run:  a chunk that is written down is passed over; the ledger file of one that is not is replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import polars as pl
from msgspec import Struct

from forcelift.after.rollback.decide import UndoTable, is_restored
from forcelift.after.rollback.look import write_frame
from forcelift.after.rollback.origins import Origins
from forcelift.after.rollback.scope import DELETE, KEEP, REASONS, RESTORE, UndoNames, rollback_folder
from forcelift.after.rollback.states import States
from forcelift.after.rollback.undo import Stage, stage_answers
from forcelift.audit.records import Chunk
from forcelift.audit.undo_records import RollbackChunk
from forcelift.jobs.answers import merge_answers
from forcelift.jobs.world import JobWorld
from forcelift.ledger import LEDGER
from forcelift.storage import Storage


class Settling(Struct, frozen=True, kw_only=True):
    """Everything that the last look touches."""

    world: JobWorld
    tables: Mapping[str, UndoTable]
    stages: tuple[Stage, ...]
    rollback_no: int
    origins: Origins
    states: States


def verify_chunk(settling: Settling, chunk: Chunk, sealed: RollbackChunk) -> Counter[str]:
    """Look at one chunk's records once more and seal what is true; gives the counts by outcome and reason."""
    world, table = settling.world, settling.tables[chunk.table_name]
    storage = world.storage
    storage.verify(sealed.decisions_file, sealed.decisions_sha256)
    decisions = pl.read_parquet(storage.path(sealed.decisions_file), glob=False)
    folder = rollback_folder(chunk.batch_id, settling.rollback_no)
    names = UndoNames(folder=folder, table=chunk.table_name, chunk_no=chunk.chunk_no)
    acted = decisions.filter(pl.col("action").is_in([DELETE, RESTORE]))
    columns = tuple(dict.fromkeys(("Id", *(table.restored if sealed.restores else ()))))
    state = settling.states.read(chunk, names.state, acted["id"], columns)
    before = settling.origins.before(chunk) if sealed.restores else None
    outcomes = _outcomes(table, decisions, state, before, _refusals(settling, chunk.audit_id))
    became = decisions.select("id", "action").join(outcomes, on="id", how="left")
    sealed_outcomes = write_frame(storage, names.outcomes, became)
    assert chunk.ledger_file is not None
    ledger = _ledger(world.ledger.scan([chunk.ledger_file]).collect(), outcomes)
    written = world.ledger.write(
        chunk.batch_id, chunk.table_name, chunk.chunk_no, 2 * (chunk.generation + 1) + 1, ledger
    )
    counts = count_outcomes(pl.read_parquet(storage.path(names.outcomes), glob=False))
    world.audit.settle_rollback(
        settling.rollback_no,
        chunk.audit_id,
        ledger_file=written.name,
        ledger_sha256=written.sha256,
        counts={
            "rolled_back": counts["deleted"] + counts["restored"],
            "kept": sum(rows for name, rows in counts.items() if name.startswith("kept:")),
            "left": int(ledger["outcome"].is_in(["created", "updated"]).sum()),
        },
        outcomes=sealed_outcomes,
    )
    return counts


def _outcomes(
    table: UndoTable,
    decisions: pl.DataFrame,
    state: pl.DataFrame,
    before: pl.DataFrame | None,
    refusals: pl.DataFrame,
) -> pl.DataFrame:
    """Of each record that was decided on: `id`, `outcome` (rolled_back or kept), `code`, `message`."""
    is_there = pl.col("id").is_in(state["Id"].implode())
    restored = (
        is_restored(table, before, state).filter(pl.col("same"))["id"]
        if before is not None
        else pl.Series([], dtype=pl.String)
    )
    is_delete, is_restore = pl.col("action") == DELETE, pl.col("action") == RESTORE
    done = (is_delete & ~is_there) | (is_restore & pl.col("id").is_in(restored.implode()))
    reason = (
        pl.when(pl.col("action") == KEEP)
        .then("code")
        .when(done)
        .then(None)
        .when(pl.col("refused_code").is_not_null())
        .then("refused_code")
        .when(is_restore & ~is_there)
        .then(pl.lit("RECORD_GONE"))
        .otherwise(pl.when(is_delete).then(pl.lit("NOT_DELETED")).otherwise(pl.lit("NOT_RESTORED")))
    )
    return (
        decisions.filter(pl.col("action").is_in([DELETE, RESTORE, KEEP]))
        .join(refusals, on="id", how="left")
        .select(
            "id",
            pl.when(done).then(pl.lit("rolled_back")).otherwise(pl.lit("kept")).alias("outcome"),
            reason.alias("code"),
            "refused_message",
        )
        .with_columns(
            message=pl.when(pl.col("outcome") == "kept").then(
                pl.coalesce(
                    pl.col("code").replace_strict(dict(REASONS), default=None, return_dtype=pl.String),
                    "refused_message",
                )
            )
        )
        .drop("refused_message")
    )


def _refusals(settling: Settling, audit_id: int) -> pl.DataFrame:
    """What the org refused in the end: `id`, `refused_code`, `refused_message`."""
    frames = [merge_answers(stage_answers(settling.world, stage, audit_id)) for stage in settling.stages]
    answers = pl.concat(frames).filter(pl.col("kind") == "failed")
    return answers.select(
        pl.col("key").alias("id"), pl.col("code").alias("refused_code"), pl.col("message").alias("refused_message")
    ).unique("id", keep="last")


def _ledger(ledger: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """The chunk's ledger with what the rollback made of its records; all other rows as they were."""
    undone = outcomes.select(
        "id", new_outcome="outcome", new_code="code", new_message="message", is_undone=pl.lit(True)
    )
    is_record = pl.col("outcome").is_in(["created", "updated", "failed", "kept"]) & pl.col("is_undone").fill_null(False)

    def choose(name: str) -> pl.Expr:
        return pl.when(is_record).then(f"new_{name}").otherwise(name).alias(name)

    return (
        ledger.join(undone, on="id", how="left", maintain_order="left")
        .with_columns(
            choose("outcome"),
            choose("code"),
            choose("message"),
            pl.when(is_record).then(pl.lit("queried")).otherwise("evidence").alias("evidence"),
        )
        .select(LEDGER.names())
        .cast(LEDGER)
    )


def count_outcomes(outcomes: pl.DataFrame) -> Counter[str]:
    """Records of a chunk's `*.outcomes.parquet`: `deleted`, `restored`, `leave`, and `kept:REASON`."""
    counts: Counter[str] = Counter()
    for action, outcome, code, rows in outcomes.group_by("action", "outcome", "code").len().iter_rows():
        if outcome == "kept":
            counts[f"kept:{code}"] += rows
        elif outcome is None:
            counts["leave"] += rows
        else:
            counts["deleted" if action == DELETE else "restored"] += rows
    return counts


def count_outcomes_of(storage: Storage, names: UndoNames) -> Counter[str]:
    """The counts of a chunk that is written down."""
    return count_outcomes(pl.read_parquet(storage.path(names.outcomes), glob=False))
