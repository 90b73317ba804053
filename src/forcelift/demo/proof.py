"""Whether the demo came out as it is meant to: the org's own counts, and the source's own, against the audit log.

Reads:   the twin, by SOQL over HTTP; the flights database, by SQL; the audit database.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from msgspec import Struct

from forcelift.account.summary import BatchSummary
from forcelift.demo.folder import DemoFolder
from forcelift.embedded import connect
from forcelift.migration.running import open_recorded
from forcelift.opening.assembly import open_org
from forcelift.plan import load_plan
from forcelift.protocols.clock import SystemClock


class ObjectCount(Struct, frozen=True, kw_only=True):
    """Records of an object by the org's own count, beside the rows that the audit log says it accepted."""

    object: str
    soql: str
    in_org: int
    in_audit_log: int

    @property
    def is_equal(self) -> bool:
        return self.in_org == self.in_audit_log


class Finding(Struct, frozen=True, kw_only=True):
    """What a rule must have found, by SQL on the source, beside what the batch counted."""

    sentence: str
    in_source: int
    in_batch: int

    @property
    def is_equal(self) -> bool:
        return self.in_source == self.in_batch


def count_objects(folder: DemoFolder, summary: BatchSummary) -> list[ObjectCount]:
    """Ask the org for `SELECT COUNT()` of each object. It holds nothing but what the demo's batches brought."""
    loaded = load_plan(folder.plan)
    with open_recorded(folder.plan) as (_, state):
        accepted = {row.object: row.success for row in state.audit.totals(summary.batch.batch_id)}
    counts = []
    with open_org(loaded, clock=SystemClock()) as org:
        for name, rows in accepted.items():
            soql = f"SELECT COUNT() FROM {name}"
            counts.append(ObjectCount(object=name, soql=soql, in_org=org.count(soql), in_audit_log=rows))
    return counts


def check_findings(folder: DemoFolder, summary: BatchSummary) -> list[Finding]:
    """Compare what the rules counted with SQL on the source."""
    query = resources.files("forcelift.demo").joinpath("expected.sql").read_text(encoding="utf-8")
    with connect(folder.database, read_only=True) as connection:
        expected = {(table, what): int(rows) for table, what, rows in connection.execute(query).fetchall()}
    tables = {table.table: table for table in summary.tables}
    flights, weather = tables["flights"], tables["weather"]
    rejected, emptied = expected["flights", "rejected"], expected["flights", "emptied"]
    unknown = expected["flights", "unknown_planes"]
    both = f", {unknown - emptied:,} of them rejected for their destination" if unknown > emptied else ""
    return [
        Finding(
            sentence="flights name a destination that is not on record: rejected",
            in_source=rejected,
            in_batch=flights.rejected,
        ),
        Finding(
            sentence=f"flights lose the lookup of their plane ({unknown:,} name an unknown one{both})",
            in_source=emptied,
            in_batch=flights.changes.get("missing_parent:tailnum", 0),
        ),
        Finding(
            sentence="weather rows repeat a key at the clock change: duplicates",
            in_source=expected["weather", "duplicate"],
            in_batch=weather.duplicate,
        ),
    ]


def is_as_meant(summary: BatchSummary, counts: Sequence[ObjectCount], findings: Sequence[Finding]) -> bool:
    """Whether all sums agree and the org refused nothing."""
    return (
        all(count.is_equal for count in counts)
        and all(finding.is_equal for finding in findings)
        and all(table.failed == 0 and table.unknown == 0 for table in summary.tables)
        and all(table.source == table.extracted for table in summary.tables)
    )
