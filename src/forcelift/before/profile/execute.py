"""Profile all tables of a plan, parents before children, as a run would take them.

Reads:  the source, and the org for parents that stand there already.
Writes: scratch files only, and with an export folder the keys of all findings.
Re-run: begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import polars as pl

from forcelift.before.profile.circles import Circles
from forcelift.before.profile.records import EXAMPLES_MAX, TableProfile
from forcelift.before.profile.scan import TableScan
from forcelift.before.profile.world import ProfileWorld
from forcelift.jobs.work import TableWork
from forcelift.rules import ParentKeys


def profile_tables(world: ProfileWorld) -> Iterator[TableProfile]:
    """Profile each table; a group of tables that refer to each other is given together.

    Raises:
        SourceError: A table cannot be read, or changed while it was.
    """
    looked_up = {info.parent_table for work in world.works.values() for info in work.rules.lookups.values()}
    scans: dict[str, TableScan] = {}
    groups = groupby(world.works.values(), key=lambda work: work.spec.group)
    for number, (_, works) in enumerate(groups):
        group = {work.plan.table: work for work in works}
        mine = []
        for place, (name, work) in enumerate(group.items()):
            folder = world.scratch / f"{number:04}-{place:04}"
            folder.mkdir()
            parents = _parents(world, work, scans, links=False)
            scan = TableScan(world, work, parents=parents, is_parent=name in looked_up, folder=folder)
            scans[name] = scan
            mine.append(scan)
            scan.scan()
        _finish_links(world, group, scans, number)
        for scan in mine:
            yield scan.profile()


def _finish_links(
    world: ProfileWorld, group: Mapping[str, TableWork], scans: Mapping[str, TableScan], number: int
) -> None:
    if not any(info.is_link for work in group.values() for info in work.rules.lookups.values()):
        return
    circles = Circles(group, world.scratch / f"{number:04}.duckdb", memory_mb=max(128, world.memory_mb // 4))
    try:
        for name, work in group.items():
            scans[name].finish_links(_parents(world, work, scans, links=True), circles)
        for circle in circles.find(keys_max=EXAMPLES_MAX):
            scans[circle.table].add_circle(circles, circle)
    finally:
        circles.close()


def _parents(
    world: ProfileWorld, work: TableWork, scans: Mapping[str, TableScan], *, links: bool
) -> dict[str, ParentKeys]:
    """The parents that a table's lookups may name: those that would be sent, and those in the org."""
    return {
        column: world.make_parents(info, _accepted(world, info.parent_table, info.key_field, scans))
        for column, info in work.rules.lookups.items()
        if info.is_link == links
    }


def _accepted(
    world: ProfileWorld, table: str | None, key_field: str, scans: Mapping[str, TableScan]
) -> Callable[[], pl.LazyFrame]:
    work = world.works.get(table) if table is not None else None

    def keys() -> pl.LazyFrame:
        # A parent that is left out, or is looked up by another field, is known to the org alone.
        if work is None or table is None or work.key_field.name != key_field:
            return pl.LazyFrame(schema={"key": pl.String})
        path: Path = scans[table].accepted_file
        return pl.scan_parquet(path, glob=False)

    return keys
