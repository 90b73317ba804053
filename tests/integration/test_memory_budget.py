"""`limits.memory_mb` is kept, and memory does not follow the size of the table: peaks of whole loads, each its process.

The org is the sink of the benchmarks, in a process of its own. Peaks are the system's own highest resident size, text
of libraries included; on two cores, so that the engine has as many threads everywhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench import sales
from bench.measure import client_cores, running_sink

_CHILD = """
import sys
import atexit

from forcelift.cli import main


def tell():
    # Not `ru_maxrss`, which a child inherits from the process that it was forked from.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print("PEAK", int(status["VmHWM"].split()[0]) // 1024, file=sys.stderr)


atexit.register(tell)
main(["run", "--plan", sys.argv[1]])
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")


def peak_mb(folder: Path, *, rows: int, memory_mb: int, letters: tuple[int, int] = sales.WIDE) -> int:
    """Load a table with that budget."""
    folder.mkdir(mode=0o700)
    database, plan = folder / "sales.duckdb", folder / "forcelift.yaml"
    sales.make_database(database, rows, letters=letters)
    with running_sink() as sink:
        text = sales.PLAN.format(database=database, url=sink.url, state=folder, memory_mb=memory_mb)
        plan.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(plan)],
            env={**os.environ, "SF_ACCESS_TOKEN": sink.token},
            preexec_fn=lambda: os.sched_setaffinity(0, client_cores()),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert sink.counts()["rows"] == rows
    return int(done.stderr.rpartition("PEAK")[2])


def test_a_load_keeps_its_budget(tmp_path: Path) -> None:
    """Two chunks are read at the same time, and answers come while the second is: all shares are in use."""
    assert peak_mb(tmp_path / "sales", rows=350_000, memory_mb=512) <= 512


@pytest.mark.slow
def test_memory_does_not_follow_the_size_of_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Narrow rows make the largest chunks, whose answers take the most room. Load moves either by some 20 MB."""
    small = peak_mb(tmp_path / "small", rows=1_000_000, memory_mb=2048, letters=sales.NARROW)
    large = peak_mb(tmp_path / "large", rows=6_000_000, memory_mb=2048, letters=sales.NARROW)
    with capsys.disabled():
        print(f"\n1,000,000 narrow rows: {small} MB; 6,000,000: {large} MB")
    assert large <= small * 1.15


@pytest.mark.slow
def test_a_large_load_keeps_a_small_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peak = peak_mb(tmp_path / "sales", rows=4_000_000, memory_mb=512)
    with capsys.disabled():
        print(f"\n4,000,000 rows with 512 MB: {peak} MB")
    assert peak <= 560
