"""Level 1: how many rows the source has, the ledger accounts for, and the org holds.

The org is counted by REST in slices of CreatedDate, which is indexed: a count over a whole huge object times out. The
slices follow the times at which chunks ended; one that times out all the same is halved.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
from msgspec import Struct

from forcelift.after.validate.checks import Check, CheckStatus
from forcelift.after.validate.org_rows import OrgShape
from forcelift.after.validate.population import Population, joined
from forcelift.after.validate.proof import open_chunks_check
from forcelift.after.validate.world import ValidateWorld
from forcelift.errors import OrgRefused

SLICE_ROWS = 500_000
_TOO_LARGE = frozenset({"QUERY_TIMEOUT", "OPERATION_TOO_LARGE"})
_SHORTEST = timedelta(seconds=2)
_EARLIEST = datetime(1999, 1, 1, tzinfo=UTC)  # no org of Salesforce has an older record
_FIRST_IDS = 150


class Counts(Struct, frozen=True, kw_only=True):
    """Rows and records of one table.

    Attributes:
        source_then, source_now: Rows within `where`, when they were read and now; `unasked` tells why not now.
        ledger: Lines of the ledger.
        accepted: Rows that the org accepted, by the ledger; `accepted_audit` by the audit table. Both without the
            `chunks_undone` that a rollback has gone over.
        made: Records that the project has made and not undone, by its ledgers.
        met: Records that it updated and had not made.
        org_made, org_met: Records with a key in the org that came since the project began, and earlier.
    """

    source_then: int
    source_now: int | None
    ledger: int
    accepted: int
    accepted_audit: int
    made: int
    met: int
    org_made: int
    org_met: int | None
    slices: int
    chunks_undone: int = 0
    unasked: str | None = None

    @property
    def org(self) -> int:
        """Records of ours in the org, as far as a count can tell them from others'."""
        return self.org_made + (0 if self.org_met is None else min(self.org_met, self.met))


def count_table(world: ValidateWorld, population: Population, shape: OrgShape) -> Counts:
    """Count all three."""
    table, plan = shape.work.plan.table, shape.work.plan
    with joined(population, world.ledger, scratch=world.scratch, memory_mb=max(128, world.memory_mb // 3)) as db:
        # What the load wrote into the audit row stays there when a rollback goes over the chunk: only its ledger moves.
        undone = {
            audit_id
            for (audit_id,) in db.execute(
                "SELECT DISTINCT audit_id FROM mine WHERE outcome IN ('rolled_back', 'kept')"
            ).fetchall()
        }
        ledger, accepted, made, met = db.execute(
            "WITH every AS (SELECT id, outcome, created FROM mine UNION ALL SELECT id, outcome, created FROM older"
            " UNION ALL SELECT id, outcome, created FROM newer_lines)"
            " SELECT (SELECT count(*) FROM mine),"
            " (SELECT count(*) FROM mine WHERE outcome IN ('created', 'updated') AND audit_id NOT IN"
            " (SELECT audit_id FROM mine WHERE outcome IN ('rolled_back', 'kept'))),"
            " (SELECT count(*) FROM every WHERE created AND id IS NOT NULL AND outcome <> 'rolled_back'),"
            " (SELECT count(DISTINCT id) FROM every u WHERE NOT created AND outcome = 'updated'"
            " AND NOT EXISTS (SELECT 1 FROM every c WHERE c.id = u.id AND c.created))"
        ).fetchall()[0]
        since = _since(world, db, shape, population)
    bounds = [since, *_bounds(population, since)]
    pairs = zip(bounds, [*bounds[1:], None], strict=True)
    counted = [rows for start, end in pairs for rows in _counted(world, shape, start, end)]
    earlier = list(_counted(world, shape, None, since)) if met else None
    unasked = None
    if world.audit.sample_percent(world.batch.batch_id) is not None:
        unasked = "the batch is a sample: what it took of the source cannot be counted again"
    elif table in world.read_again:
        unasked = "a later batch has read the whole table again, and is compared with the source as it is now"
    return Counts(
        source_then=sum(chunk.source_count or 0 for chunk in population.chunks),
        source_now=None if unasked is not None else world.source.count(table, where=plan.where),
        unasked=unasked,
        ledger=ledger,
        accepted=accepted,
        accepted_audit=sum(chunk.success_count or 0 for chunk in population.chunks if chunk.audit_id not in undone),
        chunks_undone=len(undone),
        made=made,
        met=met,
        org_made=sum(counted),
        org_met=None if earlier is None else sum(earlier),
        slices=len(counted) + len(earlier or ()),
    )


def count_checks(counts: Counts, population: Population, table: str) -> list[Check]:
    """The checks of level 1."""
    checks = [
        _equal(table, "source rows and ledger lines", counts.source_then, counts.ledger),
        _equal(
            table,
            "rows accepted, by audit table and ledger",
            counts.accepted_audit,
            counts.accepted,
            reason=f"without {counts.chunks_undone:,} chunks that a rollback has gone over"
            if counts.chunks_undone
            else None,
        ),
        _equal(
            table,
            "records made and records in the org",
            counts.made,
            counts.org_made,
            reason=f"counted in {counts.slices} slices; level 5 says which are missing, and which are others'",
        ),
    ]
    if counts.org_met is not None:
        fewer = max(0, counts.met - counts.org_met)
        checks.append(
            Check(
                level=1,
                table=table,
                name="records updated and earlier records in the org",
                status=CheckStatus.FAILED if fewer else CheckStatus.PASSED,
                source=str(counts.met),
                target=str(counts.org_met),
                difference=str(-fewer),
                reason="more are others'",
            )
        )
    if population.open_chunks:
        return [*checks, open_chunks_check(1, table, population)]
    return [*checks, _source_now(counts, table)]


def _source_now(counts: Counts, table: str) -> Check:
    name = "source rows then and now"
    if counts.source_now is None:
        return Check(level=1, table=table, name=name, status=CheckStatus.NOT_CHECKED, reason=counts.unasked)
    difference = counts.source_now - counts.source_then
    return Check(
        level=1,
        table=table,
        name=name,
        status=CheckStatus.DRIFT if difference else CheckStatus.PASSED,
        source=str(counts.source_then),
        target=str(counts.source_now),
        difference=str(difference),
        reason="the source has changed since the batch read it" if difference else None,
    )


def _equal(table: str, name: str, source: int, target: int, *, reason: str | None = None) -> Check:
    return Check(
        level=1,
        table=table,
        name=name,
        status=CheckStatus.PASSED if source == target else CheckStatus.FAILED,
        source=str(source),
        target=str(target),
        difference=str(target - source),
        reason=reason,
    )


def _since(world: ValidateWorld, db: duckdb.DuckDBPyConnection, shape: OrgShape, population: Population) -> datetime:
    """From when on the project has made records, by the org's own clock as far as a look at some of them tells it."""
    ours = population.since.replace(microsecond=0)
    ids = [
        one
        for (one,) in db.execute(
            "SELECT id FROM (SELECT id, created, chunk_no FROM mine UNION ALL SELECT id, created, 0 FROM older)"
            f" WHERE created AND id IS NOT NULL ORDER BY chunk_no LIMIT {_FIRST_IDS}"
        ).fetchall()
    ]
    if not ids:
        return ours
    made = shape.fetch(world.org, ids)["made"].min()
    return min(ours, datetime.fromtimestamp(made, UTC)) if isinstance(made, int) else ours


def _bounds(population: Population, since: datetime) -> Iterator[datetime]:
    """Moments between which the batch made about `SLICE_ROWS` records each."""
    rows = 0
    ended = sorted((chunk.end_time, chunk.success_count or 0) for chunk in population.chunks if chunk.end_time)
    last = since
    for end, count in ended:
        rows += count
        if rows >= SLICE_ROWS and end.replace(microsecond=0) > last:
            last = end.replace(microsecond=0)
            rows = 0
            yield last


def _counted(world: ValidateWorld, shape: OrgShape, start: datetime | None, end: datetime | None) -> Iterator[int]:
    """The counts of a slice; of its halves, and theirs, where the org gives up on it.

    Raises:
        OrgRefused: For another reason, or a slice that is too short to be halved.
    """
    try:
        yield world.org.count(_soql(shape, start, end))
    except OrgRefused as error:
        first, last = start or _EARLIEST, end or world.clock.now()
        if error.code not in _TOO_LARGE or last - first < _SHORTEST:
            raise
        middle = (first + (last - first) / 2).replace(microsecond=0)
        yield from _counted(world, shape, start, middle)
        yield from _counted(world, shape, middle, end)


def _soql(shape: OrgShape, start: datetime | None, end: datetime | None) -> str:
    """The same filter in each slice: records with a key."""
    parts = [f"{shape.key_field} != null"]
    if start is not None:
        parts.append(f"CreatedDate >= {_instant(start)}")
    if end is not None:
        parts.append(f"CreatedDate < {_instant(end)}")
    return f"SELECT COUNT() FROM {shape.object} WHERE {' AND '.join(parts)}"


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
