"""What `forcelift profile` costs beside a bare scan of the same columns, in DuckDB and in Parquet.

Reads:   the sales table under `.bench/` (made if it is missing).
Writes:  a Parquet folder beside it; figures on stdout.

A bare scan is what the source's adapter does to hand on all rows of the twelve columns as Arrow batches, and nothing
else. CPU seconds are user and system of the whole process; the scan's start-up (imports) is in both.

    python -m bench.profile_scan --rows 5000000 --turns 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb

from bench import sales
from bench.measure import run, running_sink

TO_SCAN_MOST: Final = 4.0
_FOLDER: Final = Path(".bench")


def main() -> int:
    """Measure and print; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["duckdb", "parquet"])
    parser.add_argument("--scan", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--memory-mb", type=int, default=sales.MEMORY_MB)
    given = parser.parse_args()
    if given.scan is not None:
        print(json.dumps({"rows": bare_scan(given.scan, given.memory_mb)}))
        return 0
    is_met = True
    print(f"{given.rows:,} rows x {len(sales.FIELDS)} columns, CPU seconds (user + system), peak MB")
    for kind, url in _sources(given.rows, given.kinds):
        scans, profiles, peaks = [], [], []
        for _ in range(given.turns):
            with tempfile.TemporaryDirectory(prefix="forcelift-profile-") as folder, running_sink() as sink:
                log = Path(folder, "log")
                scan = [sys.executable, "-m", "bench.profile_scan", "--scan", url, "--memory-mb", str(given.memory_mb)]
                scans.append(run([scan], env={}, log=log)[0])
                plan = Path(folder, "forcelift.yaml")
                text = sales.PLAN.format(database="", url=sink.url, state=folder, memory_mb=given.memory_mb)
                plan.write_text(text.replace("duckdb:///", url), encoding="utf-8")
                command = [str(Path(sys.executable).with_name("python")), "-c", _PROFILE, str(plan)]
                cpu, _, peak = run([command], env={"SF_ACCESS_TOKEN": sink.token}, log=log)
                profiles.append(cpu)
                peaks.append(peak)
        ratio = statistics.median(profiles) / statistics.median(scans)
        is_met = is_met and ratio <= TO_SCAN_MOST
        print(
            f"{kind:<8} scan {statistics.median(scans):6.2f} s, profile {statistics.median(profiles):6.2f} s,"
            f" {ratio:.2f} times (at most {TO_SCAN_MOST:.0f}), peak {max(peaks):,.0f} MB",
            flush=True,
        )
    return 0 if is_met else 1


_PROFILE: Final = """
import sys
from forcelift.preflight.profiling import profile_plan
found = profile_plan(sys.argv[1])
print({table.table: table.rows for table in found.tables})
"""


def bare_scan(url: str, memory_mb: int) -> int:
    """Rows that the source hands on, of all columns."""
    from forcelift.opening.bounds import MemoryShares
    from forcelift.source import open_source

    shares = MemoryShares.of(memory_mb, senders=8)
    source = open_source(url, memory_mb=shares.source_mb)
    try:
        batches = source.read(sales.TABLE, columns=list(sales.FIELDS), where=None, batch_rows=shares.batch_rows)
        return sum(batch.num_rows for batch in batches)
    finally:
        source.close()


def _sources(rows: int, kinds: list[str]) -> Iterator[tuple[str, str]]:
    database = (_FOLDER / str(rows) / "sales.duckdb").absolute()
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        sales.make_database(database, rows)
    if "duckdb" in kinds:
        yield "duckdb", f"duckdb:///{database}"
    if "parquet" not in kinds:
        return
    with tempfile.TemporaryDirectory(dir=_FOLDER.absolute(), prefix="parquet-") as folder:
        with duckdb.connect(str(database), read_only=True) as connection:
            path = Path(folder, f"{sales.TABLE}.parquet")
            connection.execute(f"COPY {sales.TABLE} TO '{path}' (FORMAT parquet)")
        yield "parquet", f"files:{folder}"


if __name__ == "__main__":
    sys.exit(main())
