"""Processes that tests of audit databases on servers start, as scripts; each is given the database's URL."""

# Races another for a lease, then fills the day's budget.
RACER = """
import sys
from tests.unit.audit_fixtures import ORG, make_draft, plan_chunks
from forcelift.audit import AuditStore
from forcelift.audit.records import BudgetRefused
from forcelift.errors import StateConflict
from forcelift.protocols.clock import SystemClock
print("ready", flush=True)
sys.stdin.readline()
with AuditStore.open(sys.argv[1], clock=SystemClock()) as store:
    try:
        with store.lease("contended", sys.argv[2]) as lease:
            print("won", lease.fence, flush=True)
            sys.stdin.readline()
    except StateConflict as error:
        print("lost", flush=True)
        sys.stdin.readline()
    with store.lease(sys.argv[2], sys.argv[2]) as lease:
        [chunk] = plan_chunks(store, 1, batch_id=sys.argv[2])
        made = 0
        while not isinstance(
            store.intend_job(
                make_draft(chunk.audit_id, rows=70), org_id=ORG, rows_per_day=2000, fence=lease.fence
            ),
            BudgetRefused,
        ):
            made += 1
            lease.check()
    print(made, flush=True)
"""

# Stands still in the middle of a transaction.
HOLDER = """
import sys
from tests.unit.audit_fixtures import StillClock, make_failed, make_staged, open_store, plan_chunks
from forcelift.audit.failed import replace_failed
with open_store(StillClock(), sys.argv[1]) as store:
    [chunk] = plan_chunks(store)
    with store.lease("B1", "dying@host pid 1") as lease:
        store.start_chunk(chunk.audit_id)
        with store.write() as connection:
            replace_failed(connection, chunk.audit_id, "T", make_failed(["k"] * 500), now=store.clock.now())
            print(lease.fence, flush=True)
            sys.stdin.read()
"""
