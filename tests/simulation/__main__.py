"""Replay schedules: `python -m tests.simulation --seeds 200 --from 0`."""

from __future__ import annotations

import os

# Frames of a few rows gain nothing from threads; each process is one worker. Read when polars is first imported.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import argparse
import multiprocessing
import sys
import time

from tests.simulation.replay import replay, replay_shared


def main() -> int:
    """Run the schedules; the exit code is 1 if one of them broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shared", action="store_true", help="several runners on one batch")
    arguments = parser.parse_args()
    run, command = (replay_shared, "simulate-shared") if arguments.shared else (replay, "simulate")
    kind = "crashes and freezes" if arguments.shared else "crashes"
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    began, crashes, stops, jobs, takeovers, broken = time.monotonic(), 0, 0, 0, 0, []
    with multiprocessing.get_context("spawn").Pool(min(arguments.workers, len(seeds))) as pool:
        for done, outcome in enumerate(pool.imap_unordered(run, seeds), start=1):
            crashes, stops, jobs = crashes + outcome.crashes, stops + outcome.stops, jobs + outcome.jobs
            takeovers += outcome.takeovers
            if outcome.fault is not None:
                broken.append(outcome.seed)
                print(f"{outcome.fault}\nreplay it: make {command} SEEDS=1 FROM={outcome.seed}", file=sys.stderr)
            if done % 1000 == 0:
                print(f"{done:,} schedules, {len(broken)} broken", file=sys.stderr)
    seconds = time.monotonic() - began
    print(f"{len(seeds):,} schedules from seed {arguments.first}: {crashes:,} {kind}, {stops:,} stops, {jobs:,} jobs")
    if arguments.shared:
        print(f"{takeovers:,} chunks were taken over from a runner that was counted as dead")
    print(f"{len(broken)} broke a promise {sorted(broken) or ''}".rstrip() + f"; {seconds:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
