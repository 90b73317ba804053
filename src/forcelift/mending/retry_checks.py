"""What refuses a retry before it begins: a process at work, open chunks, a plan that sends rows elsewhere."""

from __future__ import annotations

import re
from typing import Final

from forcelift.account.recorded import find_batch, owner
from forcelift.account.retention import refuse_purged
from forcelift.account.state import State
from forcelift.audit.records import Batch, BatchMode, ChunkStatus, ChunkStep
from forcelift.errors import StateConflict
from forcelift.plan import LoadedPlan, plan_diff, plan_document
from forcelift.plan.operational import changes_of_meaning

RULE_PLACE: Final = re.compile(
    r"tables\.[^.]+(?:\.(?:null_key|duplicates|changed_at|where|encoding|timezone|checks)\b"
    r"|\.fields\..+\.(?!field\b|parent\b|personal\b)[a-z_]+$)"
)
"""Places of the plan that say what becomes of a row's values, and not which field of which record they go to."""


def need_retriable(loaded: LoadedPlan, state: State, batch_id: str | None) -> Batch:
    """The batch, if its refused rows may be sent again now."""
    batch = find_batch(loaded, state, batch_id)
    if batch.project != loaded.plan.project:
        raise StateConflict(
            f"there is no batch `{batch_id}` of this plan's project",
            state="nothing was changed",
            hint="`forcelift status` lists the batches",
        )
    if batch.mode is BatchMode.DRY_RUN:
        raise StateConflict(
            f"batch `{batch.batch_id}` was a dry run: it sent nothing",
            state="nothing was changed",
            hint="mend the plan and begin a batch by `forcelift run`",
        )
    refuse_purged(state, batch)
    if runners := state.audit.runners(batch.batch_id):
        who = " and ".join(one.owner for one in runners)
        raise StateConflict(
            f"batch `{batch.batch_id}` is being worked on by {who}",
            state="nothing was changed",
            hint=f"wait for its end, or end it by `forcelift stop --batch {batch.batch_id}`",
        )
    if state.audit.open_rollback(batch.batch_id) is not None:
        raise StateConflict(
            f"batch `{batch.batch_id}` is being rolled back",
            state="nothing was changed",
            hint=f"finish it by `forcelift rollback {batch.batch_id} --execute`",
        )
    return batch


def check_plan(loaded: LoadedPlan, state: State, batch: Batch) -> tuple[str, ...]:
    """The changes of the plan since the batch's last revision, all of which a retry may take.

    Raises:
        StateConflict: Some change where rows go, or a retry by the plan of before is not through.
    """
    if batch.plan_sha256 == loaded.sha256:
        return ()
    before, now = state.audit.plan_document(batch.batch_id), plan_document(loaded.plan)
    before = {name: value for name, value in before.items() if name in now}
    changes = changes_of_meaning(plan_diff(before, now))
    if changes and state.audit.open_retry(batch.batch_id) is not None:
        raise StateConflict(
            f"the plan has changed since the retry of batch `{batch.batch_id}` was begun:\n"
            + "\n".join(f"  - {change}" for change in changes[:20]),
            state="nothing was changed",
            hint="put the plan back as it was and finish the retry, then retry with the new plan",
        )
    others = [change for change in changes if not is_rule(change)]
    if others:
        raise StateConflict(
            f"the plan has changed since batch `{batch.batch_id}` was begun, and not only its rules:\n"
            + "\n".join(f"  - {change}" for change in others[:20]),
            state="nothing was changed",
            hint="a retry takes changed rules; for another mapping begin a new batch with `forcelift run`",
        )
    return tuple(changes)


def is_rule(change: str) -> bool:
    """Whether a line of `plan_diff`, which begins with the path of what changed, names a rule.

    The order of columns only says which of several reasons is a row's code.
    """
    return change.endswith("the order changed") or RULE_PLACE.match(change.partition(": ")[0].strip()) is not None


def add_revision(loaded: LoadedPlan, state: State, batch: Batch) -> Batch:
    """Record the plan of now under the batch."""
    before, now = state.audit.plan_document(batch.batch_id), plan_document(loaded.plan)
    beside = {name: value for name, value in before.items() if name not in now}
    return state.audit.add_plan_revision(
        batch.batch_id, plan_document=now | beside, plan_sha256=loaded.sha256, made_by=owner()
    )


def refuse_unsettled(state: State, batch: Batch) -> None:
    """Rows that were never sent, or whose fate is not known, are for a resume; what was undone is for a reload."""
    chunks = state.audit.chunks(batch.batch_id)
    unsettled = [chunk for chunk in chunks if chunk.step is not ChunkStep.SETTLED]
    if unsettled:
        raise StateConflict(
            f"{len(unsettled)} chunks of batch `{batch.batch_id}` are not settled",
            state="nothing was changed",
            hint=f"finish it by `forcelift run --resume {batch.batch_id}`, which asks the org for rows of unknown fate",
        )
    in_part = {chunk.audit_id for chunk in state.audit.rolled_back_in_part(batch.batch_id)}
    undone = [c for c in chunks if c.status is ChunkStatus.ROLLED_BACK or c.audit_id in in_part]
    if undone:
        raise StateConflict(
            f"{len(undone)} chunks of batch `{batch.batch_id}` were rolled back",
            state="nothing was changed",
            hint=f"load them again by `forcelift run --resume {batch.batch_id}`, which takes the refused rows too",
        )
