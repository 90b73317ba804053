"""Carry out the levels that were asked for, table by table, and write down what they gave.

Reads:   ledgers, source and org.
Writes:  rows of the audit database, TARGET_CHECKSUM, and while it works the files of an `OrgScan`.
Re-run:  results are only added; an object that was being read is read on from where an earlier process came to.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from forcelift.after.validate.aggregates import aggregate_checks
from forcelift.after.validate.both_sides import BothSides, both_sides, columns_by_form, drift_check
from forcelift.after.validate.business_rules import group_checks, needed_fields, query_checks
from forcelift.after.validate.checks import Check, CheckStatus, Cost, Found
from forcelift.after.validate.counts import count_checks, count_table
from forcelift.after.validate.org_rows import OrgColumn, OrgShape
from forcelift.after.validate.org_scan import OrgScan, Scan, page_rows_for
from forcelift.after.validate.population import Population, joined
from forcelift.after.validate.proof import prove
from forcelift.after.validate.samples import sample, sample_checks
from forcelift.after.validate.world import ValidateWorld
from forcelift.rules.column import Form

_BYTES_PER_FIELD = 16  # a rough mean of what a CSV cell takes, quotes and comma included


def validate_tables(world: ValidateWorld) -> Found:
    """All levels of all tables that were asked for.

    Raises:
        SourceError, TargetError: A side cannot be asked; what was found before is written down.
    """
    found = Found()
    tables = {row.table_name for row in world.audit.tables(world.batch.batch_id)}
    for name in world.works:
        if name not in tables:
            reason = "the batch did not load it"
            found.checks += [
                Check(level=level, table=name, name="table", status=CheckStatus.NOT_CHECKED, reason=reason)
                for level in world.settings.levels
            ]
            continue
        found.checks += TableValidation(world, name).run()
    return found


class TableValidation:
    """The levels of one table."""

    def __init__(self, world: ValidateWorld, table: str) -> None:
        self._world, self._table = world, table
        work = world.works[table]
        self.shape = OrgShape.of(work, world.org.describe(work.spec.object), world.parent_keys)
        self.population = Population.of(world, table)
        self._scan: Scan | None = None
        self._both: BothSides | None = None
        self._stack = ExitStack()
        levels = world.settings.levels
        keep = (
            [column.name for columns in columns_by_form(self.shape).values() for column in columns]
            if 2 in levels
            else []
        )
        keep += needed_fields(self.shape) if 4 in levels else []
        self._keep = list(dict.fromkeys(keep))
        staged = [chunk.staged for chunk in self.population.chunks if chunk.staged is not None]
        self._page_rows = page_rows_for(
            world.memory_mb,
            rows=sum(part.rows for one in staged for part in one.parts),
            csv_bytes=sum(part.bytes for one in staged for part in one.parts),
        )
        self._reader = OrgScan(
            org=world.org,
            storage=world.storage,
            clock=world.clock,
            batch_id=world.batch.batch_id,
            shape=self.shape,
            keep=self._keep,
            hashed=5 in levels,
            ledgers=(*self.population.files, *self.population.older, *self.population.newer),
            page_rows=self._page_rows,
        )

    def run(self) -> list[Check]:
        """All levels that were asked for, in their order; each is written down as soon as it is done."""
        checks: list[Check] = []
        for cost in self.costs():
            self._world.tell(cost.sentence())
        with self:
            for level in sorted(self._world.settings.levels):
                found = self._level(level)
                self._world.audit.add_validations(self._world.batch.batch_id, [check.document() for check in found])
                checks += found
        return checks

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if kind is None and self._scan is not None and self._world.scans is None:
            # A next validation looks at the org anew; one that was interrupted goes on with what was read.
            self._reader.remove()

    def costs(self) -> list[Cost]:
        """What the levels ask of the org, by the rows that the ledgers know; records of others come on top."""
        rows = sum(chunk.success_count or 0 for chunk in self.population.chunks)
        levels, table = self._world.settings.levels, self._table
        costs: list[Cost] = []
        if 1 in levels:
            costs.append(Cost(level=1, table=table, api_calls=2 + rows // 500_000))
        if 3 in levels:
            costs.append(Cost(level=3, table=table, api_calls=1 + self._world.settings.sample_rows // 150))
        scanned = [level for level in (2, 4, 5) if level in levels and (level != 4 or needed_fields(self.shape))]
        for level in scanned[:1]:
            width = 2 + (len(self.shape.columns) if 5 in levels else 1 + len(self._keep))
            costs.append(
                Cost(
                    level=level,
                    table=table,
                    query_jobs=1,
                    rows=rows,
                    api_calls=5 + -(-rows // self._page_rows),
                    result_mb=rows * width * _BYTES_PER_FIELD // 1_000_000,
                )
            )
        return costs

    def _level(self, level: int) -> list[Check]:
        if not self.population.chunks:
            reason = "no chunk of it has ended"
            return [Check(level=level, table=self._table, name="table", status=CheckStatus.NOT_CHECKED, reason=reason)]
        if self.shape.unasked and level in (2, 3, 4, 5):
            named = "; ".join(f"`{name}`: {why}" for name, why in self.shape.unasked.items())
            partial = Check(level=level, table=self._table, name="fields", status=CheckStatus.NOT_CHECKED, reason=named)
            return [partial] if level == 5 else [partial, *self._compared(level)]
        return self._compared(level)

    def _compared(self, level: int) -> list[Check]:
        world, table = self._world, self._table
        if level == 1:
            counts = count_table(world, self.population, self.shape)
            return count_checks(counts, self.population, table)
        if level == 2:
            return aggregate_checks(self.sides(), self.shape, world.settings.variance_percent)
        if level == 3:
            return sample_checks(sample(world, self.population, self.shape, self.owned_elsewhere()), table)
        if level == 4:
            return self._business_rules()
        proof = prove(world, self.population, self.shape, self._scanned())
        world.audit.set_target_checksums(world.batch.batch_id, proof.checksums)
        return list(proof.checks)

    def _business_rules(self) -> list[Check]:
        world, rules = self._world, self.shape.work.plan.checks
        if not rules:
            reason = "the plan names no `checks` for this table"
            return [Check(level=4, table=self._table, name="checks", status=CheckStatus.NOT_CHECKED, reason=reason)]
        found: list[Check] = []
        if any(rule.sum is not None for rule in rules):
            found += group_checks(self.sides(), self.shape)
            found += drift_check(4, self.shape, self.sides())
        found += query_checks(world, self.shape)
        order = {rule.name: place for place, rule in enumerate(rules)}
        return sorted(found, key=lambda check: order.get(check.name, len(order)))

    @property
    def number_columns(self) -> list[OrgColumn]:
        """Number fields that columns of the plan fill."""
        return columns_by_form(self.shape)[Form.NUMBER]

    def sides(self) -> BothSides:
        """Both sides of the fields that levels 2 and 4 need; read once for both."""
        if self._both is None:
            sides = both_sides(self._world, self.population, self.shape, self._scanned(), self._keep)
            self._both = self._stack.enter_context(sides)
        return self._both

    def _scanned(self) -> Scan:
        shared = self._world.scans
        key = self.shape.work.plan.table, self._reader.query, tuple(self._keep)
        if self._scan is None and shared is not None:
            self._scan = shared.find(key)
        if self._scan is None:
            began = self._world.clock.now()
            self._scan = self._reader.read()
            if shared is not None:
                shared.keep(key, self._scan, self._reader.remove)
            if self._scan.asked_at < began:
                moment = f"{self._scan.asked_at:%Y-%m-%d %H:%M:%S} UTC"
                self._world.tell(
                    f"`{self._table}` is compared as the org was at {moment}, when an interrupted validation had begun "
                    "to read it"
                )
        return self._scan

    def owned_elsewhere(self) -> set[str]:
        """Ids that newer batches own; asked only where there are such batches."""
        if not self.population.may_be_superseded:
            return set()
        memory_mb = max(128, self._world.memory_mb // 3)
        with joined(self.population, self._world.ledger, scratch=self._world.scratch, memory_mb=memory_mb) as db:
            return {one for (one,) in db.execute("SELECT id FROM mine WHERE superseded").fetchall()}
