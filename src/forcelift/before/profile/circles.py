"""Rows that refer to themselves over any number of others: A to B to A.

Reads:  the lookups that a run would send in its link pass.
Writes: a DuckDB file in a scratch folder, so that memory is bounded for tables of any size.

Each row has one successor by each lookup column. Following all of them 2, 4, 8, ... steps at once, rows whose way ends
fall out; after more steps than there are rows whoever is still arrived at stands in a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import polars as pl
from msgspec import Struct

from forcelift.embedded import connect
from forcelift.jobs.work import TableWork
from forcelift.rules import LookupInfo
from forcelift.rules.duplicates import key_hash
from forcelift.rules.keys import normalised

_PAGE_ROWS = 10_000

CHOICES_MAX = 64
"""How many ways to leave each table by one of its lookups are tried in a group of tables."""


class CircleRows(Struct, frozen=True, kw_only=True):
    """Rows of one table that stand in a circle of one lookup column."""

    table: str
    column: str
    rows: int
    keys: tuple[str, ...]


class Circles:
    """Collects the lookups of one group of tables and finds the circles among their rows.

    Args:
        works: The tables of the group.
        path: Where the DuckDB file is made.
    """

    def __init__(self, works: Mapping[str, TableWork], path: Path, *, memory_mb: int) -> None:
        self._works = works
        self._lookups = {
            name: [info for info in work.rules.lookups.values() if info.is_link and self._can_follow(info)]
            for name, work in works.items()
        }
        self._database = connect(path)
        self._database.execute(f"SET memory_limit = '{int(memory_mb)}MB'")
        self._database.execute("SET threads = 2")
        self._database.execute("SET preserve_insertion_order = false")
        self._database.execute(
            "CREATE TABLE edge (place VARCHAR, col VARCHAR, node UBIGINT, next UBIGINT, key VARCHAR)"
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _can_follow(self, info: LookupInfo) -> bool:
        parent = self._works.get(info.parent_table or "")
        return parent is not None and parent.key_field.name == info.key_field

    def add(self, table: str, links: pl.DataFrame) -> None:
        """Take in links (`Cleaned.links`) of rows that a run would send."""
        rules = self._works[table].rules
        for info in self._lookups[table]:
            frame = links.filter(pl.col(info.target).is_not_null())
            if not frame.height:
                continue
            own = normalised(frame["key"], case_sensitive=rules.key_case_sensitive)
            parent = normalised(frame[info.target], case_sensitive=info.case_sensitive)
            edges = pl.DataFrame(
                {
                    "place": pl.repeat(table, frame.height, dtype=pl.String, eager=True),
                    "col": pl.repeat(info.column, frame.height, dtype=pl.String, eager=True),
                    "node": _nodes(table, own),
                    "next": _nodes(info.parent_table or "", parent),
                    "key": frame["key"],
                }
            )
            self._database.register("batch", edges.to_arrow(compat_level=pl.CompatLevel.oldest()))
            self._database.execute("INSERT INTO edge SELECT * FROM batch")
            self._database.unregister("batch")

    def find(self, *, keys_max: int) -> list[CircleRows]:
        """The rows in circles, by table and column."""
        self._database.execute("CREATE TABLE hit (place VARCHAR, col VARCHAR, node UBIGINT)")
        for choice in self._choices():
            self._follow(choice)
        self._database.execute("CREATE TABLE circle AS SELECT DISTINCT * FROM hit")
        counted = self._database.execute(
            "SELECT place, col, count(*) FROM circle GROUP BY place, col ORDER BY place, col"
        ).fetchall()
        result = []
        for place, column, rows in counted:
            keys = self._database.execute(
                "SELECT DISTINCT key FROM edge SEMI JOIN circle USING (place, col, node) WHERE place = ? AND col = ?"
                " ORDER BY key LIMIT ?",
                [place, column, keys_max],
            ).fetchall()
            result.append(CircleRows(table=place, column=column, rows=rows, keys=tuple(key for (key,) in keys)))
        return result

    def keys_of(self, circle: CircleRows) -> Iterator[pl.Series]:
        """All keys of the rows in a circle, page by page."""
        cursor = self._database.cursor()
        cursor.execute(
            "SELECT DISTINCT key FROM edge SEMI JOIN circle USING (place, col, node) WHERE place = ? AND col = ?"
            " ORDER BY key",
            [circle.table, circle.column],
        )
        while page := cursor.fetchmany(_PAGE_ROWS):
            yield pl.Series([key for (key,) in page], dtype=pl.String)

    def _choices(self) -> Iterator[Sequence[tuple[str, str]]]:
        """Ways to leave each table by one lookup: first each column that points at its own table, then all together."""
        singles: list[list[tuple[str, str]]] = []
        for name, infos in self._lookups.items():
            singles += [[(name, info.column)] for info in infos if info.parent_table == name]
        yield from singles
        several = [[(name, info.column) for info in infos] for name, infos in self._lookups.items() if infos]
        if len(several) > 1:
            for tried, choice in enumerate(product(*several)):
                if tried == CHOICES_MAX:
                    return
                yield choice

    def _follow(self, choice: Sequence[tuple[str, str]]) -> None:
        named = " OR ".join("(place = ? AND col = ?)" for _ in choice)
        values = [word for pair in choice for word in pair]
        # A key that occurs twice has one record in the org, and so one way on.
        self._database.execute(
            f"CREATE OR REPLACE TABLE jump AS SELECT node, min(next) AS next FROM edge WHERE {named} GROUP BY node",
            values,
        )
        rows = self._count("jump")
        steps = 1
        while rows and steps <= rows_bound(self._count("edge")):
            self._database.execute(
                "CREATE OR REPLACE TABLE further AS SELECT a.node, b.next FROM jump a JOIN jump b ON a.next = b.node"
            )
            self._database.execute("DROP TABLE jump")
            self._database.execute("ALTER TABLE further RENAME TO jump")
            rows, steps = self._count("jump"), steps * 2
        if rows:
            self._database.execute(
                "INSERT INTO hit SELECT place, col, node FROM edge"
                f" SEMI JOIN (SELECT next AS node FROM jump) USING (node) WHERE {named}",
                values,
            )

    def _count(self, table: str) -> int:
        ((rows,),) = self._database.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(rows)


def rows_bound(rows: int) -> int:
    """Steps after which a way without a circle has ended for certain."""
    return max(1, rows)


def _nodes(table: str, norms: pl.Series) -> pl.Series:
    """A number for each record: 64 bits of a hash of its table and key; two of 10^8 meet by chance once in 4,000."""
    named = norms.to_frame("norm").select(pl.concat_str(pl.lit(f"{table}\x1f"), "norm").alias("norm"))["norm"]
    return key_hash(named)["low"]
