"""What runners that share a batch tell each other through the audit database, as frozen records."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct


class LeaseTimes(Struct, frozen=True, kw_only=True):
    """How often a runner says that it lives, and after how long a silence others count it as dead.

    Six heartbeats may be missed, so that a slow server or a paused machine does not cost a healthy runner its work.
    """

    beat_pause_s: float = 10.0
    stale_after_s: float = 60.0


class LeaseHolder(Struct, frozen=True, kw_only=True):
    """Who works on a batch. `reads` names the state of the source that it sees; `exports` is what others import."""

    owner: str
    fence: int
    since: datetime
    heartbeat: datetime
    patience_s: float
    reads: str | None = None
    exports: str | None = None


class SilentClaim(Struct, frozen=True, kw_only=True):
    """Chunks that living runners wait for, because a runner that may be dead has them.

    Attributes:
        owner: Who has them, or the one of several that was heard of last.
        chunks: How many there are.
        silent_s: Seconds since its last sign of life.
        free_in_s: Seconds until the others may take them over.
    """

    owner: str
    chunks: int
    silent_s: float
    free_in_s: float

    def __str__(self) -> str:
        chunks = "1 chunk is" if self.chunks == 1 else f"{self.chunks} chunks are"
        return (
            f"{chunks} {self.owner}'s, whose last sign of life is {self.silent_s:.0f} s old; if it is dead, the others "
            f"take over {self.free_in_s:.0f} s from now"
        )


class IntentRefused(Struct, frozen=True, kw_only=True):
    """A job must wait for those of other runners on the same batch."""

    reason: str
    retry_s: float
