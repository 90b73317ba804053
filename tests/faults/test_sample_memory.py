"""Memory of a draw does not grow with the keys that a huge child table refers to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from pathlib import Path
import polars as pl
from forcelift.during.extract.sample_store import SampleStore
from forcelift.protocols.source import ADDRESS
from forcelift.rules.duplicates import key_hash

rows, step = int(sys.argv[1]), 50_000

def frame(first, own, parent):
    numbers = pl.int_range(first, first + step, eager=True)
    names = [(prefix + part.cast(pl.String)).alias("x") for prefix, part in (own(numbers), parent(numbers))]
    pair = key_hash(names[1]).rename({"high": "high0", "low": "low0"})
    place = pl.DataFrame({ADDRESS: numbers, "slice": pl.repeat(0, step, dtype=pl.UInt32, eager=True)})
    return place.hstack(key_hash(names[0])).hstack(pair)

with SampleStore(Path(sys.argv[2]) / "store", memory_mb=96, threshold=1 << 64) as store:
    store.open_table("child", ["parent"])
    for first in range(0, rows, step):
        store.add("child", frame(first, lambda n: ("c", n), lambda n: ("p", n * 7919 % rows)))
    store.draw(["child"])
    store.drop_rows(["child"])
    store._threshold = 0  # of the parents only those that are referred to
    store.open_table("parent", ["parent"])
    for first in range(0, rows, step):
        store.add("parent", frame(first, lambda n: ("p", n), lambda n: ("p", n // 10)))
    store.draw(["parent"])
    drawn = store.save("parent", Path(sys.argv[2]) / "selection.parquet")
print(drawn, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_is_flat_over_the_keys_referred_to(tmp_path: Path) -> None:
    """Goal: no set of keys in memory. Method: every parent is referred to; four times the rows, the same memory."""
    found = []
    for rows in (1_000_000, 4_000_000):
        folder = tmp_path / str(rows)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(rows), str(folder)], capture_output=True, text=True, check=True
        )
        drawn, used_mb = map(int, done.stdout.split())
        assert drawn == rows
        found.append(used_mb)
    small, large = found
    assert large < small + 120, f"{small} MB for 1,000,000 rows, {large} MB for 4,000,000"
