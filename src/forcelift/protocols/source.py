"""What a source adapter offers: a description, counts, chunks that it can find again, and Arrow batches.

A chunk's predicate belongs to the adapter: the rest of the program stores it as JSON and hands it back untouched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol, runtime_checkable

import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace

Predicate = dict[str, Any]

ADDRESS = "forcelift address"
"""The column in which `Source.locate` says where a row is."""

BROKEN_TEXT: Final = "\x00\U0010fffe"
"""How a text that is not in the encoding that its source promises is delivered: as this and its bytes in hexadecimal.

So a text column stays one whatever it holds, and a sound one costs nothing: the rules look at each text with a control
character anyway. No text of a source begins so, since Unicode keeps U+10FFFE from being a character.
"""

BROKEN_NUMBER: Final = -(10**38)
"""How a value of a decimal column that is no number (`NaN`) is delivered: by these unscaled digits.

They are one more than any precision of `pa.decimal128` has, so no number of a source is taken for one that is none, and
the column stays a decimal whatever it holds.
"""


class ColumnKind(StrEnum):
    """What a column holds, whatever the database calls it."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"  # without a zone
    INSTANT = "instant"  # with a zone, or UTC
    BINARY = "binary"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    `arrow` is the type that `Source.read` delivers, decided by the declared type and never by the first rows. Text
    whose encoding must be undone by a rule arrives as `pa.binary()`. `comment` is what people wrote of it there.
    """

    name: str
    kind: ColumnKind
    declared: str
    arrow: pa.DataType
    nullable: bool = True
    precision: int | None = None
    scale: int | None = None
    comment: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """A table or view as the source describes it. Estimates are None where the source has none."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()
    rows_estimate: int | None = None
    bytes_estimate: int | None = None
    comment: str | None = field(default=None, compare=False)

    def column(self, name: str) -> Column | None:
        """The column of that exact name, or None."""
        return next((column for column in self.columns if column.name == name), None)


class ForeignKey(Struct, frozen=True, kw_only=True):
    """Columns of a table that name a row of another, or of the same."""

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


class ChunkPredicate(Struct, frozen=True, kw_only=True):
    """A slice of a table. All slices of one plan together hold every row once, also rows with a null key."""

    predicate: Predicate
    rows_estimate: int


class SharedSnapshot(Struct, frozen=True, kw_only=True):
    """A state of the source that a living process reads, and the name under which another may import it."""

    state: str
    exported: str


@runtime_checkable
class ExportsSnapshot(Protocol):
    """A source whose one state other processes may read as well, while this one lives."""

    def exported(self) -> str:
        """The name under which the state can be imported."""
        ...


@runtime_checkable
class AnswersSql(Protocol):
    """A source that takes queries in its own SQL."""

    def ask(self, sql: str, *, rows_max: int) -> list[tuple[Any, ...]]:
        """The rows of a query of the plan, at most so many. It is run where nothing can be written.

        Raises:
            SourceError: The source does not take it.
        """
        ...


class ColumnFigures(Struct, frozen=True, kw_only=True):
    """One column as its database counts it.

    Attributes:
        present: Rows that have a value.
        distinct: Different values, nulls apart; None where the database compares no such values (LOBs), and then there
            are no extremes either.
        least, most: As text, cut where long. Of texts by the order of code points.
        average: Of numbers.
        shortest, longest, average_length: In characters; of what is no text in bytes.
        top: The most frequent values and their rows, the most frequent first; None if there are too many to count.
    """

    name: str
    present: int
    distinct: int | None = None
    distinct_is_exact: bool = True
    least: str | None = None
    most: str | None = None
    average: float | None = None
    shortest: int | None = None
    longest: int | None = None
    average_length: float | None = None
    top: tuple[tuple[str, int], ...] | None = None

    def evolve(self, **changes: Any) -> ColumnFigures:
        """The same with some figures changed."""
        return replace(self, **changes)


class TableFigures(Struct, frozen=True, kw_only=True):
    """A table as its database counts it.

    Attributes:
        columns: By name. Columns are left out of which SQL would tell something else than what is read.
        told: In words how it was counted: what follows "columns were counted".
    """

    rows: int
    columns: Mapping[str, ColumnFigures]
    told: str


@runtime_checkable
class CountsColumns(Protocol):
    """A database that counts what its columns hold by SQL of its own, so that no row travels for it."""

    def figures(
        self,
        table: str,
        *,
        columns: Sequence[str],
        exact: Collection[str],
        where: str | None,
        slices: Sequence[Predicate] | None = None,
    ) -> TableFigures:
        """Figures of columns, of the rows within `where` and one of the slices, in the one state that reads see.

        Args:
            exact: Columns whose different values are counted exactly, even where the database could do it nearly.
            slices: As `plan_chunks` made them; None for the whole table.
        """
        ...


@runtime_checkable
class ForgetsSnapshot(Protocol):
    """A source that keeps a state for a while only (Oracle overwrites its undo): reads may raise `SnapshotLost`."""

    def spans(self, table: str, *, predicate: Predicate, parts: int) -> list[Predicate]:
        """A slice in up to so many shorter ones, which together hold its rows once; itself where it cannot be cut."""
        ...

    def afresh(self) -> Source | None:
        """The same source as it is now, through the same sessions; None where no read sees a state of before."""
        ...

    def snapshot_seconds(self) -> float | None:
        """How long a state lasts, by the source's own measure; None where it cannot be asked or nothing is kept."""
        ...


class Source(Protocol):
    """A place that rows are read from. Methods may be called from several threads at once.

    Raises (all methods): `SourceUnavailable` when it does not answer, `SourceError` when it lacks what was asked for.
    """

    kind: str

    def describe(self, table: str) -> SourceTable:
        """The table's columns and keys. Raises `SourceError` with the nearest known names if there is no such table."""
        ...

    def tables(self) -> list[str]:
        """Names of all tables and views that can be read, sorted."""
        ...

    def now(self) -> datetime:
        """The source's own clock, aware, UTC; the machine's where the source has none (files)."""
        ...

    def fingerprint(self, table: str) -> str:
        """A text that changes when the table's data changed, as far as the adapter can tell cheaply; else empty."""
        ...

    def snapshot(self) -> str | None:
        """The name of the one state that all reads see (an SCN, an exported snapshot); None if there is none."""
        ...

    def plan_chunks(
        self, table: str, *, where: str | None, key: Sequence[str], rows_per_chunk: int
    ) -> list[ChunkPredicate]:
        """Cut the rows within `where` into slices of about `rows_per_chunk`; a table without rows gives one."""
        ...

    def count(
        self,
        table: str,
        *,
        where: str | None,
        predicate: Predicate | None = None,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> int:
        """Rows within `where`, the slice and `among`: a count of its own, not a by-product of reading."""
        ...

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate | None = None,
        order_by: Sequence[str] = (),
        batch_rows: int = 50_000,
        key: Sequence[str] = (),
        among: pa.Array | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of a slice with exactly these columns, in this order and in the types of `describe`.

        `among` leaves the rows at these addresses only, which `locate` gave for the same slice and the same `key`; the
        source itself picks them out, as far as it can.

        A column with values that its type cannot hold (a text in an INTEGER column of SQLite) is, in such a batch, a
        struct of parts, of which at most one has a value in each row: `value` in the type of `describe`, `real` (a
        double), `text`. Text that is not UTF-8 stands in it as `BROKEN_TEXT`.

        Rows are sorted by `order_by` (nulls last, then in any order) within the slice. A row that cannot be read raises
        `SourceError` that names file and line or table and column; no row is ever left out.
        """
        ...

    def locate(
        self,
        table: str,
        *,
        columns: Sequence[str],
        where: str | None,
        predicate: Predicate,
        key: Sequence[str],
        batch_rows: int = 50_000,
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows of a slice in any order, with one more column behind: `ADDRESS`.

        An address is the adapter's own, a 64-bit integer or a text, and as stable as the slice itself: what finds the
        slice again finds the address. Rows that share one (a view's, where nothing but its `key` tells rows apart) are
        equal in `key` to the last byte. It may be null where a part of `key` is.
        """
        ...

    def sample(self, table: str, *, columns: Sequence[str], where: str | None, rows: int) -> pa.Table:
        """Up to `rows` rows from all over the table, cheaply (no sort of the table), to learn sizes and shapes."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...
