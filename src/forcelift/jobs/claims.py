"""Carry out the commands of a shared batch: claim chunks, look around.

Reads:   what other runners wrote into the audit database.
Writes:  claims.
Re-run:  a claim ends with its runner; whoever goes on claims anew.
"""

from __future__ import annotations

from forcelift.audit.shared_work import Around, ClaimedChunks
from forcelift.jobs.messages import ClaimChunks, LookAround
from forcelift.jobs.world import JobWorld


class ClaimHandlers:
    """Handlers of the commands that a runner gives because it may not be alone."""

    def __init__(self, world: JobWorld) -> None:
        self._world = world

    def claim(self, command: ClaimChunks) -> ClaimedChunks:
        """Chunks that nobody works on are this runner's from now on."""
        return self._world.audit.claim_chunks(
            self._world.batch.batch_id, tables_open=command.tables, wanted=command.wanted
        )

    def look_around(self, command: LookAround) -> Around:
        """What the others have done."""
        return self._world.audit.look_around(
            self._world.batch.batch_id, open_ids=command.open_ids, unplanned=command.unplanned
        )
