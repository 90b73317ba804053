"""One process on a shared batch, as `forcelift run` is, with a heartbeat that a test can wait for.

`python -m tests.faults.share_runner PLAN begin|join|resume BATCH STALE_AFTER_S`; the exit code is the run's.
"""

from __future__ import annotations

import sys

from forcelift.audit import LeaseTimes
from forcelift.errors import ForceliftError
from forcelift.migration.running import RunOptions, run_migration


def main(plan: str, how: str, batch_id: str, stale_after_s: str) -> int:
    """Run, and say on stdout what went wrong."""
    options = {
        "begin": RunOptions(batch_id=batch_id),
        "join": RunOptions(join=batch_id),
        "resume": RunOptions(resume=batch_id),
    }[how]
    stale = float(stale_after_s)
    try:
        summary = run_migration(plan, options, lease_times=LeaseTimes(beat_pause_s=stale / 8, stale_after_s=stale))
    except ForceliftError as error:
        print(f"refused: {error.message}\n  {error.state}\n  {error.hint}", flush=True)
        return int(error.exit_code)
    for told in summary.errors:
        print(f"error: {told}", flush=True)
    print(f"{how}: state {summary.batch.state}, exit code {int(summary.exit_code)}", flush=True)
    return int(summary.exit_code)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
