"""What hangs on the records to be deleted: who keeps whom in the org, and in which order they may go.

Reads:   the org, by every lookup that points at their objects.
Writes:  a database of records and links in a temporary folder, which spills to disk.
"""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import polars as pl
from msgspec import Struct

from forcelift.after.rollback.decide import UndoTable
from forcelift.after.rollback.scope import DELETE, RESTORE
from forcelift.embedded import connect
from forcelift.errors import OrgNotFound, OrgRefused
from forcelift.jobs.by_ids import pages_by_ids
from forcelift.protocols.org import Org

MEMORY_MB: Final = 256

DEPTH_MAX: Final = 20
"""Waves of deletions beyond those of the tables. Records that hang on each other more deeply go together in the last:
where the lookup forbids it, those that the org refuses are kept, and the next rollback gets further."""

_OWN_ROWS: Final = ("Share", "History", "ChangeEvent")
_FEED: Final = "Feed"
_FEED_OF_ORG: Final = "Type NOT IN ('TrackedChange', 'CreateRecordEvent')"


def own_rows(object_name: str, child: str) -> bool:
    """Whether the org itself keeps these rows of each record: sharing, field history, change events.

    They go with the record, and nobody hung them on it.
    """
    return any(child == f"{_stem(object_name)}{ending}" for ending in _OWN_ROWS)


def condition_of_others(object_name: str, child: str) -> str | None:
    """What tells rows that people made from those that the org did; None where all count. Posts in a feed do."""
    return _FEED_OF_ORG if child == f"{_stem(object_name)}{_FEED}" else None


def _stem(object_name: str) -> str:
    """`Sale__c` has `Sale__Share`, `Account` has `AccountShare`."""
    return f"{object_name.removesuffix('__c')}__" if object_name.endswith("__c") else object_name


def table_layers(tables: Mapping[str, UndoTable]) -> dict[str, int]:
    """In which wave the records of each table may go at the earliest: children of others' lookups first."""
    layers: dict[str, int] = {}
    # In load order parents stand before their children, so that backwards every child is known.
    for name in reversed(list(tables)):
        children = [child for child, table in tables.items() if name in table.work.spec.waits_for]
        layers[name] = 1 + max((layers[child] for child in children), default=-1)
    return layers


class Decided(Struct, frozen=True, kw_only=True):
    """One chunk's decisions: the file, its table's object, and the wave of its table."""

    file: Path
    object: str
    layer: int


class Links:
    """Records to be deleted (`doomed`), those that will point elsewhere (`moved`), and who hangs on whom (`link`)."""

    def __init__(self, database: duckdb.DuckDBPyConnection, org: Org) -> None:
        self._database, self._org = database, org
        self.not_examined: list[str] = []

    def add(self, decided: Decided, *, are_restored: bool) -> None:
        """Take over a chunk's decisions; records that were put back already hang where they hang."""
        path = glob.escape(str(decided.file))
        self._database.execute(
            "INSERT INTO doomed SELECT id, $object, $layer FROM read_parquet($file) "
            "WHERE action = $action AND code IS NULL",
            {"object": decided.object, "layer": decided.layer, "file": path, "action": DELETE},
        )
        if not are_restored:
            self._database.execute(
                "INSERT INTO moved SELECT id FROM read_parquet($file) WHERE action = $action",
                {"file": path, "action": RESTORE},
            )

    def collect(self, tables: Iterable[UndoTable]) -> None:
        """Ask the org for everything that points at what is to be deleted."""
        described = {table.describe.name: table.describe for table in tables}
        for object_name, describe in described.items():
            ids = self._frame("SELECT id FROM doomed WHERE object = $object ORDER BY id", object=object_name)["id"]
            if ids.len() == 0:
                continue
            for relationship in describe.child_relationships:
                child, lookup = relationship.child_object, relationship.field
                if own_rows(object_name, child):
                    continue
                try:
                    if not any(True for _ in self._org.query(f"SELECT Id FROM {child} WHERE {lookup} != null LIMIT 1")):
                        continue
                    for frame in self._children(child, lookup, ids, condition_of_others(object_name, child)):
                        self._database.register("page", frame.to_arrow())
                        self._database.execute("INSERT INTO link SELECT child, parent FROM page")
                        self._database.unregister("page")
                except (OrgRefused, OrgNotFound):
                    # Some system objects cannot be queried by themselves; a person is told which.
                    self.not_examined.append(f"{child}.{lookup}")

    def held(self) -> pl.DataFrame:
        """Records that stay because one stays that hangs on them, up to the top: `id`. They are doomed no more."""
        self._database.execute("CREATE TABLE held (id VARCHAR)")
        while True:
            kept = self._frame(
                "DELETE FROM doomed WHERE id IN (SELECT parent FROM link WHERE child NOT IN (SELECT id FROM doomed) "
                "AND child NOT IN (SELECT id FROM moved)) RETURNING id",
            )
            if kept.height == 0:
                return self._frame("SELECT DISTINCT id FROM held")
            self._database.register("kept", kept.to_arrow())
            self._database.execute("INSERT INTO held SELECT id FROM kept")
            self._database.unregister("kept")

    def waves(self) -> None:
        """Give each doomed record its wave: after all that hang on it, and not before its table's."""
        self._database.execute(
            "CREATE TABLE inner_link AS SELECT DISTINCT child, parent FROM link WHERE child <> parent "
            "AND child IN (SELECT id FROM doomed) AND parent IN (SELECT id FROM doomed)"
        )
        self._database.execute("CREATE TABLE wave AS SELECT id, max(layer) AS wave FROM doomed GROUP BY id")
        for _ in range(DEPTH_MAX):
            moved = self._frame(
                "UPDATE wave SET wave = later.wave + 1 FROM (SELECT l.parent, max(c.wave) AS wave FROM inner_link l "
                "JOIN wave c ON c.id = l.child GROUP BY l.parent) AS later "
                "WHERE later.parent = wave.id AND wave.wave <= later.wave RETURNING wave.id"
            )
            if moved.height == 0:
                return

    def wave_of(self, ids: pl.Series) -> pl.DataFrame:
        """`id` and `wave` of those that are to be deleted."""
        self._database.register("asked", ids.alias("id").to_frame().to_arrow())
        found = self._frame("SELECT w.id, w.wave::INTEGER AS wave FROM wave w SEMI JOIN asked a ON a.id = w.id")
        self._database.unregister("asked")
        return found

    def _frame(self, query: str, **values: str) -> pl.DataFrame:
        frame = pl.from_arrow(self._database.sql(query, params=values).to_arrow_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def _children(self, child: str, lookup: str, ids: pl.Series, more: str | None) -> Iterator[pl.DataFrame]:
        wanted = ids.alias("parent").to_frame()
        for page in pages_by_ids(self._org, f"SELECT Id, {lookup} FROM {child}", lookup, ids, more=more):
            frame = pl.read_csv(page, infer_schema=False, raise_if_empty=False)
            if frame.height:
                links = frame.select(pl.nth(0).alias("child"), pl.nth(1).alias("parent"))
                yield links.join(wanted, on="parent", how="semi")


@contextmanager
def open_links(org: Org, scratch: Path) -> Iterator[Links]:
    """A database of records and links, which spills to disk."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="rollback-") as folder:
        config: dict[str, str | bool | int] = {
            "memory_limit": f"{MEMORY_MB}MB",
            "threads": 2,
            "temp_directory": f"{folder}/spill",
        }
        with connect(Path(folder) / "links.duckdb", config=config) as database:
            database.execute("CREATE TABLE doomed (id VARCHAR, object VARCHAR, layer INTEGER)")
            database.execute("CREATE TABLE moved (id VARCHAR)")
            database.execute("CREATE TABLE link (child VARCHAR, parent VARCHAR)")
            yield Links(database, org)
