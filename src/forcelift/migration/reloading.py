"""What a resume loads again after a rollback: every row that was taken back, and none that was left in the org.

Reads:   the audit database, and the ledgers of chunks that were rolled back in part.
Writes:  new rows of the audit log for those chunks and for ROLLED_BACK ones.
Re-run:  all in one transaction; a chunk that has its new row is not looked at again.
"""

from __future__ import annotations

import polars as pl

from forcelift.account.state import State
from forcelift.audit.reloads import Standing
from forcelift.jobs.answers import NOT_SENT
from forcelift.ledger import RECORD_GONE


def begin_reload(state: State, batch_id: str, by: str) -> int:
    """Give new rows to the chunks of which something is to be loaded again. Returns how many."""
    in_part: dict[int, Standing] = {}
    for chunk in state.audit.rolled_back_in_part(batch_id):
        if chunk.ledger_file is None:
            continue
        lines = state.ledger.scan([chunk.ledger_file])
        is_gone = (pl.col("outcome") == "rolled_back") | (pl.col("code").is_in([RECORD_GONE, NOT_SENT]))
        if not int(lines.filter(is_gone).select(pl.len()).collect().item()):
            continue
        stands = dict(state.ledger.standing([chunk.ledger_file]).collect().group_by("outcome").len().iter_rows())
        failed = stands.pop("failed", 0)
        in_part[chunk.audit_id] = Standing(accepted=sum(stands.values()), failed=failed)
    return state.audit.renew_rolled_back(batch_id, by, in_part=in_part)
