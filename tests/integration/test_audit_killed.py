"""A process that dies in the middle of its writes leaves whole transactions, and nothing of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.unit.audit_fixtures import StillClock, open_store, plan_chunks

from forcelift.audit.records import ChunkStatus

WORKER = """
import sys
from tests.unit.audit_fixtures import StillClock, make_failed, make_staged, open_store, settle
with open_store(StillClock(), sys.argv[1]) as store:
    for chunk in store.chunks("B1"):
        staged = make_staged(transformed=4000, rejected=0, duplicate=0)
        settle(store, chunk.audit_id, staged=staged, failed=make_failed([f"K{n}" for n in range(3000)]))
        print(chunk.chunk_no, flush=True)
"""


def test_killed_while_settling(tmp_path):
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    with open_store(StillClock(), url) as store:
        plan_chunks(store, 400)
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            told = [int(worker.stdout.readline()) for _ in range(5)]
        finally:
            worker.kill()
            worker.communicate()
        chunks = store.chunks("B1")
        by_status = {status: [chunk for chunk in chunks if chunk.status is status] for status in ChunkStatus}
        assert told == [1, 2, 3, 4, 5]
        assert {chunk.chunk_no for chunk in by_status[ChunkStatus.PARTIAL]} >= set(told)
        assert len(by_status[ChunkStatus.RUNNING]) <= 1
        assert by_status[ChunkStatus.PENDING]
        [group] = store.failed_summary("B1")
        assert group.count == 3000 * len(by_status[ChunkStatus.PARTIAL])
        assert store.verify_journal() == []
