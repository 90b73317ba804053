"""`python -m bench`: measure all contestants in turns and write `docs/benchmarks.md` with its plots.

Turns, not blocks: what a neighbour on the machine costs then falls on all alike. Medians are quoted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench import report, sales
from bench.contestants import CLIENTS, CONTESTANTS, NEEDS_CLIENTS, Task, check_same_work
from bench.measure import Usage, running_sink

FOLDER = Path(".bench")


def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000], help="table sizes")
    parser.add_argument("--turns", type=int, default=3, help="runs of each contestant")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), help="contestants, if not all")
    parser.add_argument("--peers-up-to", type=int, default=1_000_000, help="largest table for other clients")
    parser.add_argument("--memory-mb", type=int, default=2048, help="`limits.memory_mb` of Forcelift's plan")
    parser.add_argument("--job-seconds", type=float, default=0.0, help="time that the sink takes for each job")
    parser.add_argument("--out", type=Path, help="write the report here, such as docs/benchmarks.md")
    options = parser.parse_args()
    results: dict[int, dict[str, list[Usage]]] = {}
    for rows in options.rows:
        task = _task(rows, memory_mb=options.memory_mb, job_seconds=options.job_seconds)
        names = [name for name in options.only or CONTESTANTS if _takes_part(name, rows, options.peers_up_to)]
        found = results.setdefault(rows, {name: [] for name in names})
        for turn in range(1, options.turns + 1):
            for name in names:
                usage = CONTESTANTS[name](task)
                found[name].append(usage)
                print(
                    f"{rows:,} rows, turn {turn}: {name:26} {usage.cpu_s * 1e6 / rows:6.2f} CPU s/M  "
                    f"{rows / usage.wall_s:9,.0f} rows/s  {usage.peak_mb:6,.0f} MB  {usage.requests} requests",
                    flush=True,
                )
        if {"floor", "forcelift"} <= set(names):
            different = check_same_work(task)
            print(f"{rows:,} rows: {different:,} row hashes of Forcelift differ from the floor's", flush=True)
            if different:
                raise SystemExit("the two did not do the same work, so their figures must not be compared")
    text = report.document(results, turns=options.turns)
    print(text)
    if options.out is not None:
        report.write(options.out, text, results)


def _takes_part(name: str, rows: int, peers_up_to: int) -> bool:
    if name not in NEEDS_CLIENTS:
        return True
    if not CLIENTS.is_dir():
        print(f"{name} is left out: `.clients` is missing (`make test-clients` installs it)", file=sys.stderr)
        return False
    return rows <= peers_up_to


def _task(rows: int, *, memory_mb: int, job_seconds: float) -> Task:
    """The table and its CSV files, made once and kept in `.bench`."""
    folder = FOLDER / f"{rows}"
    folder.mkdir(parents=True, exist_ok=True)
    database, files = folder / "sales.duckdb", folder / "csv"
    if not (folder / "made").exists():
        sales.make_database(database, rows)
        with running_sink() as sink:
            command = [sys.executable, "-m", "bench.floor", str(database), sink.url, sink.token, str(files)]
            done = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        if done["rows"] != rows:
            raise SystemExit(f"the floor loaded {done['rows']:,} of {rows:,} rows")
        (folder / "made").touch()
    parts = tuple(sorted(files.glob("[0-9]*.csv")))
    return Task(
        database=database,
        csv_files=parts,
        rows=rows,
        folder=folder / "runs",
        memory_mb=memory_mb,
        job_seconds=job_seconds,
    )


if __name__ == "__main__":
    main()
