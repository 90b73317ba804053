"""Look again before deletions go on: a record that was refused still hangs on what it hangs on, which then must stay.

Reads:   the answers of what was sent; where one was refused, or a restore is missing, all that `look` reads.
Writes:  decisions and delete files of the waves to come anew, sealed in the audit database.
Re-run:  nothing for a wave of which a delete was begun; before it, the same again.
"""

from __future__ import annotations

import polars as pl
from msgspec.structs import replace

from forcelift.after.rollback.decide import DECISIONS
from forcelift.after.rollback.look import LookWorld, look, write_frame
from forcelift.after.rollback.scope import DELETE, KEEP, rollback_folder, wave_of_file
from forcelift.after.rollback.seal import seal_chunks
from forcelift.after.rollback.undo import Stage, stage_answers
from forcelift.audit.undo_records import RollbackChunk
from forcelift.jobs.answers import merge_answers
from forcelift.jobs.world import JobWorld


def hold_what_is_hung_on(
    jobs: JobWorld, look_world: LookWorld, restores: Stage, deletes: Stage, *, fence: int, known: int
) -> int:
    """Keep records to be deleted on which one hangs that was to be put back, or deleted, and was not.

    With a master the org would delete that record too, and with a lookup it would change it.

    Args:
        restores: The restores, which are through.
        deletes: The wave of deletions to come; all before it are through.
        fence: Tells this try's files from an earlier one's.
        known: What this gave for the wave before, in the same try; 0 for the first.
    Returns:
        How many were refused. If it is not `known`, all was looked at and sealed anew.
    """
    assert deletes.wave is not None
    if deletes.jobs(jobs.audit.jobs(deletes.batch_id)):
        return known
    refused = _refused(jobs, deletes)
    count = refused.len() + _missing(jobs, restores)
    if count == known:
        return known
    folder = f"{rollback_folder(deletes.batch_id, deletes.rollback_no)}/held{fence:04d}.{deletes.wave:03d}"
    world = replace(look_world, folder=folder, are_restored=True, refused=refused)
    # Links are asked for as they are now: a record that was put back has none to a record of the batch any more.
    found = look(world)
    found.chunks = [chunk for chunk in found.chunks if chunk.audit_id in deletes.sealed]
    for chunk in found.chunks:
        name, sealed = world.names(chunk).looked, deletes.sealed[chunk.audit_id]
        world.storage.verify(sealed.decisions_file, sealed.decisions_sha256)
        decided = pl.read_parquet(world.storage.path(sealed.decisions_file), glob=False)
        now = pl.read_parquet(world.storage.path(name), glob=False)
        held = now.filter(pl.col("action") == KEEP).select("id", now_code="code")
        is_to_come = (pl.col("action") == DELETE) & pl.col("code").is_null() & (pl.col("wave") >= deletes.wave)
        stays = is_to_come & pl.col("now_code").is_not_null()
        merged = decided.join(held, on="id", how="left", maintain_order="left").with_columns(
            pl.when(stays).then(pl.lit(KEEP)).otherwise("action").alias("action"),
            pl.when(stays).then("now_code").otherwise("code").alias("code"),
        )
        write_frame(world.storage, name, merged.select(DECISIONS.names()).cast(DECISIONS))
    resealed = [
        _with_what_was_sent(one, deletes.sealed[one.audit_id], deletes.wave)
        for one in seal_chunks(world, found, deletes.rollback_no)
    ]
    jobs.audit.reseal_rollback(deletes.rollback_no, resealed)
    return count


def _with_what_was_sent(new: RollbackChunk, known: RollbackChunk, wave: int) -> RollbackChunk:
    """The files that are to be sent from a wave on anew, those before as they were."""
    sent = tuple(part for part in known.deletes if (wave_of_file(part.file) or 0) < wave)
    to_come = tuple(part for part in new.deletes if (wave_of_file(part.file) or 0) >= wave)
    return replace(new, restores=known.restores, deletes=(*sent, *to_come))


def _refused(jobs: JobWorld, deletes: Stage) -> pl.Series:
    """Ids of the records whose deletion was sent and refused, whatever wave they were in."""
    whole = replace(deletes, wave=None)
    frames = [
        merge_answers(stage_answers(jobs, whole, audit_id)).filter(pl.col("kind") == "failed").select("key")
        for audit_id, one in deletes.sealed.items()
        if one.deletes
    ]
    return pl.concat(frames)["key"].unique() if frames else pl.Series("key", [], dtype=pl.String)


def _missing(jobs: JobWorld, restores: Stage) -> int:
    """How many records were to be put back without the org saying that they are."""
    missing = 0
    for audit_id, one in restores.sealed.items():
        if one.restores:
            kinds = merge_answers(stage_answers(jobs, restores, audit_id))["kind"]
            missing += sum(part.rows for part in one.restores) - int(kinds.is_in(["created", "updated"]).sum())
    return missing
