"""Column types of the audit database, one meaning each, spelt as each database needs it.

The checklist's `NUMBER` holds whole numbers and divides into fractions. SQLite and PostgreSQL divide integers into
integers, so counts are REAL on SQLite (exact up to 2^53 rows) and NUMERIC on PostgreSQL: 99 of 100 is 99.0 everywhere.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine


@cache
def _oracle_number() -> TypeEngine[Any]:
    from sqlalchemy.dialects.oracle import NUMBER  # a twentieth of a short command, where there is no Oracle

    number: TypeEngine[Any] = NUMBER()  # type: ignore[no-untyped-call]  # SQLAlchemy left it untyped
    return number


class Count(TypeDecorator[int]):
    """A number of rows; a Python int outside, a number that divides into fractions inside."""

    impl = sa.Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _number(dialect)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class Measure(TypeDecorator[float]):
    """A number with a fraction: seconds, megabytes, a rate."""

    impl = sa.Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return _number(dialect)

    def process_bind_param(self, value: float | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "sqlite":
            return value
        return Decimal(repr(value))

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        return None if value is None else float(value)


def _number(dialect: Dialect) -> TypeEngine[Any]:
    if dialect.name == "sqlite":
        return dialect.type_descriptor(sa.REAL())
    if dialect.name == "oracle":
        return dialect.type_descriptor(_oracle_number())
    return dialect.type_descriptor(sa.Numeric())


class Moment(TypeDecorator[datetime]):
    """An instant: aware and in UTC outside, TIMESTAMP without a zone (always UTC) inside."""

    impl = sa.TIMESTAMP
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone must not reach the audit database")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise TypeError(f"expected a timestamp from the audit database, got {type(value).__name__}")
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Document(TypeDecorator[Any]):
    """A JSON document, kept as text, the same on every database.

    Keys keep their order, which means something in a plan: fields are sent in the order in which it names them.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else _json(value, sort_keys=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks; equal values give equal text. Raises TypeError for what JSON lacks."""
    return _json(value, sort_keys=True)


def _json(value: Any, *, sort_keys: bool) -> str:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class _Varchar(sa.String):
    """Text whose length stands in the DDL as the checklist writes it."""


@compiles(_Varchar, "oracle")
def _varchar_oracle(kind: _Varchar, compiler: DDLCompiler, **options: Any) -> str:
    # SQLAlchemy would add CHAR; the checklist leaves the unit to the database, whose default is bytes.
    return f"VARCHAR2({kind.length})"


@compiles(Count, "oracle")
@compiles(Measure, "oracle")
def _number_oracle(kind: TypeEngine[Any], compiler: DDLCompiler, **options: Any) -> str:
    return "NUMBER"


def varchar(size_bytes: int) -> TypeEngine[Any]:
    """Text of at most so many bytes of UTF-8."""
    return _Varchar(size_bytes)


class _Whole(sa.BigInteger):
    """A whole number: BIGINT, and what the checklist calls it on Oracle."""


@compiles(_Whole, "oracle")
def _whole_oracle(kind: _Whole, compiler: DDLCompiler, **options: Any) -> str:
    return "NUMBER"


@compiles(_Whole, "sqlite")
def _whole_sqlite(kind: _Whole, compiler: DDLCompiler, **options: Any) -> str:
    return "INTEGER"


class MaybeEmpty(TypeDecorator[str]):
    """Text that may be empty and is never missing: '' outside, null inside, since Oracle keeps no empty text."""

    impl = _Varchar
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return value or None

    def process_result_value(self, value: Any, dialect: Dialect) -> str:
        return "" if value is None else str(value)


def maybe_empty(size_bytes: int) -> TypeEngine[Any]:
    """Text of at most so many bytes that may be empty; the column must allow null."""
    return MaybeEmpty(size_bytes)


def clob() -> TypeEngine[Any]:
    """Text without a limit."""
    return sa.Text().with_variant(sa.CLOB(), "oracle")


def whole_number() -> TypeEngine[Any]:
    """A number that nobody divides: identities (which SQLite gives out only if spelt INTEGER) and numberings."""
    return _Whole()


class PresentMoment(sa.sql.expression.ColumnElement[datetime]):
    """The database's present time as a column default: SYSTIMESTAMP in the checklist."""

    inherit_cache = True
    type = sa.TIMESTAMP()


@compiles(PresentMoment)
def _present_moment(element: PresentMoment, compiler: SQLCompiler, **options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(PresentMoment, "oracle")
def _present_moment_oracle(element: PresentMoment, compiler: SQLCompiler, **options: Any) -> str:
    return "SYSTIMESTAMP"


@compiles(PresentMoment, "postgresql")
def _present_moment_postgresql(element: PresentMoment, compiler: SQLCompiler, **options: Any) -> str:
    return "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"
