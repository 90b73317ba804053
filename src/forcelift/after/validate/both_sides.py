"""The same fields of the same records from both sides, as tables that DuckDB can add up.

Reads:   the source once more, chunk by chunk, cleaned by the plan; the files of an `OrgScan`.
Writes:  a folder on the scratch disk, removed at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from msgspec import Struct

from forcelift.after.validate.checks import Check, CheckStatus
from forcelift.after.validate.org_rows import OrgColumn, OrgShape
from forcelift.after.validate.org_scan import Scan
from forcelift.after.validate.population import Population, joined, text_literal
from forcelift.after.validate.sent_rows import SentRows
from forcelift.after.validate.world import ValidateWorld
from forcelift.rules.column import Form
from forcelift.rules.targets import form_of, scale_of


class BothSides(Struct, frozen=True, kw_only=True):
    """Views `sent` and `org` in DuckDB: `id` and fields under their names, of the same records.

    `sent` holds the rows that the source still gives as they were sent, `org` those of them that the org has. `drift`
    counts the accepted rows that the source does not give any more, for the reason that `drift_words` has.
    """

    db: duckdb.DuckDBPyConnection
    drift: int
    drift_words: str

    @property
    def is_unknown(self) -> bool:
        """Whether all rows have changed since, so that nothing is left to compare."""
        return self.drift > 0 and not self.ask("SELECT 1 FROM sent LIMIT 1")

    def ask(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.db.execute(query, list(parameters)).fetchall()


@contextmanager
def both_sides(
    world: ValidateWorld, population: Population, shape: OrgShape, scan: Scan, fields: Sequence[str]
) -> Iterator[BothSides]:
    """Read both sides. `fields` must be among those that the scan kept."""
    with (
        joined(population, world.ledger, scratch=world.scratch, memory_mb=max(128, world.memory_mb // 3)) as db,
        tempfile.TemporaryDirectory(prefix="sent-", dir=world.scratch) as folder,
    ):
        rows = SentRows(world, shape.work.plan.table, only=fields)
        drift = _write_sent(rows, population, shape, fields, Path(folder), db)
        listed = ", ".join(text_literal(str(world.storage.path(name))) for name in scan.files)
        names = ", ".join(
            f"o.{quoted('key' if name == shape.key_field else f'f:{name}')} AS {quoted(name)}" for name in fields
        )
        db.execute(
            f"CREATE VIEW org AS SELECT o.id, {names} FROM read_parquet([{listed}]) AS o"
            " SEMI JOIN sent AS s ON s.id = o.id"
        )
        yield BothSides(db=db, drift=drift, drift_words=rows.drift_words)


def _write_sent(
    rows: SentRows,
    population: Population,
    shape: OrgShape,
    fields: Sequence[str],
    folder: Path,
    db: duckdb.DuckDBPyConnection,
) -> int:
    drift = 0
    for chunk in population.chunks:
        superseded = [
            one
            for (one,) in db.execute(
                "SELECT id FROM mine WHERE superseded AND chunk_no = ?", [chunk.chunk_no]
            ).fetchall()
        ]
        sent = rows.of_chunk(chunk)
        gone = pl.Series(superseded, dtype=pl.String).implode()
        kept = sent.rows.filter(~pl.col("id").is_in(gone)) if superseded else sent.rows
        drift += sent.drift.filter(~pl.col("id").is_in(gone)).height if superseded else sent.drift.height
        named = kept.rename({"key": shape.key_field})
        named.select("id", *fields).write_parquet(folder / f"c{chunk.chunk_no:06d}.parquet", compression="lz4")
    if not population.chunks:
        schema = {name: pl.String() for name in ("id", *fields)}
        pl.DataFrame(schema=schema).write_parquet(folder / "c000000.parquet")
    # The folder's name is our own and holds no pattern.
    db.execute(f"CREATE VIEW sent AS SELECT * FROM read_parquet({text_literal(f'{folder}/*.parquet')})")
    return drift


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def number(column: OrgColumn) -> str:
    """A number field's canonical text as an exact decimal."""
    return f"CAST({quoted(column.name)} AS DECIMAL(38, {scale_of(column.field.type, column.field.scale)}))"


def columns_by_form(shape: OrgShape) -> Mapping[Form, list[OrgColumn]]:
    """Number, date and datetime fields that the plan's columns fill; neither the key nor constants."""
    found: dict[Form, list[OrgColumn]] = {Form.NUMBER: [], Form.DATE: [], Form.DATETIME: []}
    rules = shape.work.rules
    lookups = {lookup.target for lookup in rules.lookups.values()}
    for column in shape.columns:
        form = form_of(column.field.type)
        is_mapped = column.name not in rules.constants and column.name not in lookups
        if form in found and is_mapped and column.name != shape.key_field:
            found[form].append(column)
    return found


def drift_check(level: int, shape: OrgShape, sides: BothSides) -> list[Check]:
    """Rows that were left out of a level's comparisons, so that they do not look compared."""
    if not sides.drift:
        return []
    return [
        Check(
            level=level,
            table=shape.work.plan.table,
            name="rows changed in the source since",
            status=CheckStatus.DRIFT,
            source=str(sides.drift),
            reason=f"left out on both sides: they {sides.drift_words}; level 5 compares these too",
        )
    ]


def decimal(value: Any) -> Decimal | None:
    """A number as any driver gives it, exactly; a binary float by its shortest decimal."""
    if value is None:
        return None
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(str(value))
