"""What refuses a rollback before it begins: another batch, plan or org, a process at work, rows of unknown fate."""

from __future__ import annotations

from forcelift.after.rollback.scope import Scope
from forcelift.audit.records import Batch, BatchMode, ChunkStep, JobStep, Rollback
from forcelift.errors import StateConflict
from forcelift.joining import check_plan
from forcelift.plan import LoadedPlan
from forcelift.protocols.org import Org
from forcelift.recorded import owner
from forcelift.state import State


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
