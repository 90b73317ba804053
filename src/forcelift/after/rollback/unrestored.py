"""Look again between restores and deletes: a record that the org refused to put back still hangs on its new parent.

Reads:   the answers of the restores; where one is missing or refused, all that `look` reads.
Writes:  decisions and delete files anew, sealed in the audit database, before the first delete.
Re-run:  nothing once a delete was begun; before it, the same again.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from forcelift.after.rollback.decide import DECISIONS
from forcelift.after.rollback.look import LookWorld, look, write_frame
from forcelift.after.rollback.scope import DELETE, KEEP, RESTORE, rollback_folder
from forcelift.after.rollback.seal import seal_chunks
from forcelift.after.rollback.undo import Stage, stage_answers
from forcelift.jobs.answers import merge_answers
from forcelift.jobs.world import JobWorld


def keep_parents_of_unrestored(jobs: JobWorld, look_world: LookWorld, stage: Stage, fence: int) -> None:
    """Keep records to be deleted on which one hangs that was to be put back and was not.

    With a master the org would delete that record too, although it was there before the batch.

    Args:
        stage: The restores, which are through.
        fence: Tells this try's files from an earlier one's.
    """
    deletes = replace(stage, action=DELETE)
    if deletes.jobs(jobs.audit.jobs(stage.batch_id)) or not any(map(_is_short, *_each(jobs, stage))):
        return
    folder = f"{rollback_folder(stage.batch_id, stage.rollback_no)}/restored{fence:04d}"
    world = replace(look_world, folder=folder, are_restored=True)
    # Links are asked for as they are now: a record that was put back has none to a record of the batch any more.
    found = look(world)
    found.chunks = [chunk for chunk in found.chunks if chunk.audit_id in stage.sealed]
    for chunk in found.chunks:
        name, known = world.names(chunk).looked, stage.sealed[chunk.audit_id]
        world.storage.verify(known.decisions_file, known.decisions_sha256)
        decided = pl.read_parquet(world.storage.path(known.decisions_file), glob=False)
        now = pl.read_parquet(world.storage.path(name), glob=False)
        held = now.filter(pl.col("action") == KEEP).select("id", now_code="code")
        stays = (pl.col("action") == DELETE) & pl.col("code").is_null() & pl.col("now_code").is_not_null()
        merged = decided.join(held, on="id", how="left", maintain_order="left").with_columns(
            pl.when(stays).then(pl.lit(KEEP)).otherwise("action").alias("action"),
            pl.when(stays).then("now_code").otherwise("code").alias("code"),
        )
        write_frame(world.storage, name, merged.select(DECISIONS.names()).cast(DECISIONS))
    resealed = [
        replace(one, restores=stage.sealed[one.audit_id].restores)
        for one in seal_chunks(world, found, stage.rollback_no)
    ]
    jobs.audit.reseal_rollback(stage.rollback_no, resealed)


def _each(jobs: JobWorld, stage: Stage) -> tuple[list[int], list[int]]:
    """Of each chunk with restores: how many records were to be put back, and of how many the org said that they are."""
    wanted: list[int] = []
    done: list[int] = []
    for audit_id, one in stage.sealed.items():
        if one.restores:
            kinds = merge_answers(stage_answers(jobs, replace(stage, action=RESTORE), audit_id))["kind"]
            wanted.append(sum(part.rows for part in one.restores))
            done.append(int(kinds.is_in(["created", "updated"]).sum()))
    return wanted, done


def _is_short(wanted: int, done: int) -> bool:
    return done < wanted
