"""How fast an org works, on its own clock: rows a second, batches side by side, and what automations add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forcelift.twin.automation_models import Automations
from forcelift.twin.automation_run import chunk_cost_ms
from forcelift.twin.contention import Contention
from forcelift.twin.ingest_task import CHUNK_ROWS

# Salesforce's limit on a Salesforce batch (reference, section 3.9): beyond it the rest is put back, up to 20 times.
BATCH_S_MAX: Final = 300.0
TIMEOUTS_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the org works. None and 0 mean: as fast as it can.

    `rows_per_second` is that of the whole org. `parallel_batches` Salesforce batches share it, and a chunk that waits
    longer than `lock_wait_s` for a lock gives up.
    """

    rows_per_second: float | None = None
    start_delay_s: float = 0.0
    parallel_batches: int = 1
    lock_wait_s: float = 5.0

    def contention(self, automations: Automations) -> Contention:
        """How batches of an object with these automations get in each other's way."""
        return Contention(
            parallel_batches=self.parallel_batches, lock_wait_s=self.lock_wait_s, chunk_s=self.chunk_s(automations)
        )

    def chunk_s(self, automations: Automations) -> float:
        """Seconds that a chunk of 200 rows takes, and holds its locks."""
        own = 0.0 if self.rows_per_second is None else CHUNK_ROWS * self.parallel_batches / self.rows_per_second
        return own + chunk_cost_ms(automations, CHUNK_ROWS) / 1000

    def chunks_in_time(self, automations: Automations) -> int | None:
        """How many chunks of a batch are done when its five minutes are over; None if all always are."""
        chunk_s = self.chunk_s(automations)
        return None if chunk_s == 0 else int(BATCH_S_MAX / chunk_s)

    def group_s(self, rows: int, apex_ms: float) -> float:
        """Seconds that so many rows take, with what their automations cost."""
        own = 0.0 if self.rows_per_second is None else rows / self.rows_per_second
        return own + apex_ms / 1000 / self.parallel_batches


# Rows a second: an org with light automation takes up to five million an hour, one with triggers and flows a few
# hundred thousand (salesforce-api reference, section 8).
PACES: Final = {
    "fast": Pace(),
    "realistic": Pace(rows_per_second=1400, start_delay_s=1, parallel_batches=5),
    "slow": Pace(rows_per_second=80, start_delay_s=5, parallel_batches=5),
}
