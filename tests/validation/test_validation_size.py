"""Level 5 over two sizes of a table: memory does not follow the size, and two cores do 50,000 rows a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.validation.damage_world import damage_world

_CHILD = """
import json, resource, sys, time
from forcelift.after.validate.world import ValidateSettings
from forcelift.validating.batch import validate_batch
began = time.monotonic()
validated = validate_batch(sys.argv[1], None, ValidateSettings(levels=(5,), tables=("sales",)))
used = resource.getrusage(resource.RUSAGE_SELF)
# Not `ru_maxrss`, which a child inherits from the process that it was forked from.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "seconds": time.monotonic() - began, "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mb": int(status["VmHWM"].split()[0]) / 1024,
    "statuses": sorted({check.status.value for check in validated.found.checks}),
}))
"""
MEMORY_MB = 512


def measured(folder: Path, rows: int) -> dict[str, Any]:
    """Validate in a process of its own, on at most two cores, while the twin runs in this one."""
    folder.mkdir()
    cores = sorted(os.sched_getaffinity(0))[:2]
    with damage_world(folder, rows=rows, chunk_rows=100_000, memory_mb=MEMORY_MB) as world:
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-c", _CHILD, str(world.plan)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ},
        )
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["statuses"] == ["passed"]
    return found


@pytest.mark.slow
def test_memory_is_flat_and_a_million_rows_take_little_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = measured(tmp_path / "small", 300_000), measured(tmp_path / "large", 1_500_000)
    with capsys.disabled():
        print(f"\n300,000 rows: {small}\n1,500,000 rows: {large}")
    # Five times the rows; what grows is the part of the joins that fits into the budget.
    assert large["peak_mb"] < small["peak_mb"] + 200
    assert large["peak_mb"] < MEMORY_MB + 300
    # Processor time, which a busy machine does not falsify: 40 s a million rows are 50,000 rows/s on two cores.
    assert (large["cpu_s"] - small["cpu_s"]) / 1.2 < 40
