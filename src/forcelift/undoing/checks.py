"""What refuses a rollback before it begins: another batch, plan or org, a process at work, rows of unknown fate."""

from __future__ import annotations

from collections.abc import Mapping

from forcelift.account.recorded import owner
from forcelift.account.retention import refuse_purged
from forcelift.account.state import State
from forcelift.after.rollback.look import holds_records
from forcelift.after.rollback.scope import Scope
from forcelift.audit.records import Batch, BatchMode, ChunkStep, JobStep
from forcelift.audit.undo_records import Rollback
from forcelift.errors import StateConflict, UsageError
from forcelift.jobs.work import TableWork
from forcelift.migration.joining import check_plan
from forcelift.plan import LoadedPlan
from forcelift.protocols.org import Org


def need_batch(loaded: LoadedPlan, state: State, batch_id: str) -> Batch:
    batch = state.audit.batch(batch_id)
    if batch is None or batch.project != loaded.plan.project:
        raise StateConflict(
            f"there is no batch `{batch_id}` of this plan's project",
            state="nothing was changed",
            hint="`forcelift status` lists the batches",
        )
    if batch.mode is BatchMode.DRY_RUN:
        raise StateConflict(f"batch `{batch_id}` was a dry run: it wrote nothing", state="nothing was changed")
    refuse_purged(state, batch)
    return batch


def refuse_at_work(state: State, batch: Batch) -> None:
    """Step 1 is a person's to ask for: what runs is not stopped behind its back."""
    runners = state.audit.runners(batch.batch_id)
    if runners:
        who = " and ".join(one.owner for one in runners)
        raise StateConflict(
            f"batch `{batch.batch_id}` is being worked on by {who}",
            state="nothing was changed",
            hint=f"end it by `forcelift stop --batch {batch.batch_id}`, then roll it back",
        )


def refuse_retrying(state: State, batch_id: str) -> None:
    """Rows that are being sent again have no fate yet that could be undone."""
    if state.audit.open_retry(batch_id) is not None:
        raise StateConflict(
            f"refused rows of batch `{batch_id}` are being sent again, and that is not through",
            state="nothing was changed",
            hint=f"finish it by `forcelift failed retry --batch {batch_id}`, then roll back",
        )


def check_same(loaded: LoadedPlan, state: State, batch: Batch, org: Org) -> None:
    if batch.org_id != org.org_id:
        raise StateConflict(
            f"batch `{batch.batch_id}` was loaded into org `{batch.org_id}`, but the plan now signs in to "
            f"`{org.org_id}`",
            state="nothing was changed",
            hint="sign in to the org that the batch was loaded into",
        )
    check_plan(loaded, batch, state, join=False, by=owner())


def check_continues(rollback: Rollback, scope: Scope) -> None:
    """A rollback is gone on with as it was asked for; other wishes have to wait for its end."""
    asked = {**scope.document(), "hard": rollback.scope["hard"]}
    if asked != Scope(hard=rollback.scope["hard"]).document() and asked != dict(rollback.scope):
        raise StateConflict(
            f"a rollback of batch `{rollback.batch_id}` is not through, and was asked for in another way: "
            f"{rollback.reason}",
            state="nothing was changed",
            hint=f"finish it first by `forcelift rollback {rollback.batch_id} --execute`",
        )


def refuse_unsettled(state: State, batch_id: str, scope: Scope) -> None:
    """Rows that were sent and whose answers are gone may be anything: nothing is undone on top of them."""
    audit = state.audit
    unsettled = [
        chunk
        for chunk in audit.chunks(batch_id)
        if scope.takes(chunk.table_name, chunk.chunk_no)
        and chunk.step is not ChunkStep.SETTLED
        and any(job.step is not JobStep.ABANDONED for job in audit.jobs(batch_id, chunk.audit_id))
    ]
    if unsettled:
        numbers = ", ".join(f"{chunk.table_name} {chunk.chunk_no}" for chunk in unsettled[:10])
        raise StateConflict(
            f"{len(unsettled)} chunks hold rows whose fate in the org is not known: {numbers}",
            state="no record was touched",
            hint=f"let `forcelift run --resume {batch_id}` find out, or roll back other chunks by `--chunk`",
        )


def refuse_unfinished_reload(state: State, batch_id: str, scope: Scope) -> None:
    """Records that an earlier rollback kept are told in no row that counts while a resume loads their chunk again."""
    unfinished = [
        chunk
        for chunk in state.audit.chunks(batch_id)
        if scope.takes(chunk.table_name, chunk.chunk_no)
        and chunk.step is not ChunkStep.SETTLED
        and holds_records(state.audit, state.ledger, chunk)
    ]
    if unfinished:
        numbers = ", ".join(f"{chunk.table_name} {chunk.chunk_no}" for chunk in unfinished[:10])
        raise StateConflict(
            f"{len(unfinished)} chunks hold records that an earlier rollback kept, and a resume has begun to load them "
            f"again: {numbers}",
            state="no record was touched",
            hint=f"let `forcelift run --resume {batch_id}` end first, or roll back other chunks by `--chunk`",
        )


def refuse_without_images(state: State, batch_id: str, scope: Scope, works: Mapping[str, TableWork]) -> None:
    """In a production org nobody shall find out afterwards that changed records could not be put back.

    Raises:
        UsageError: Chunks of the scope changed records, and no before-images were taken.
    """
    images = state.audit.images(batch_id)
    files: dict[str, list[str]] = {}
    for chunk in state.audit.chunks(batch_id):
        # Since a date nothing is put back.
        is_asked = scope.since is None and scope.takes(chunk.table_name, chunk.chunk_no)
        if is_asked and chunk.audit_id not in images and chunk.ledger_file is not None and chunk.table_name in works:
            files.setdefault(chunk.table_name, []).append(str(chunk.ledger_file))
    for table, names in files.items():
        changed = state.ledger.counts(names).get("updated", 0)
        if changed and works[table].spec.operation == "upsert":
            raise UsageError(
                f"batch `{batch_id}` changed {changed:,} records of table `{table}` without before-images, in a "
                "production org: what they held before is not known, and they would stay as they are",
                state="nothing was changed",
                hint="if they may stay, say so by `--no-before-images`",
            )
