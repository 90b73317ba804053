"""Oracle's types: how a column is declared, described to clients, and kept in DuckDB.

A NUMBER with a precision is a DuckDB DECIMAL where one can hold it. Any other NUMBER is kept as Oracle's own bytes,
which sort as their values do. Timestamps finer than a microsecond, and those with a zone, are texts of a fixed form
(UTC, nine digits), which sort as their instants do; a zone stands behind the instant. Intervals are months, or
nanoseconds. A ROWID is a number of 63 bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CHARSET_UTF8 = 873
CHARSET_UTF16 = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class OraType:
    """A type with its sizes. `length` is in bytes, or in characters where `by_char`."""

    kind: str
    precision: int | None = None
    scale: int | None = None
    length: int = 0
    by_char: bool = False

    @property
    def stored(self) -> str:
        """The DuckDB type that holds values of this one."""
        if self.kind == "NUMBER":
            return _number_stored(self.precision, self.scale)
        if self.kind in ("TIMESTAMP", "INTERVAL DAY TO SECOND"):
            fine = self.kind == "TIMESTAMP" and (self.scale or 0) > 6
            return "VARCHAR" if fine else "TIMESTAMP" if self.kind == "TIMESTAMP" else "DECIMAL(38,0)"
        return _STORED[self.kind]

    @property
    def number(self) -> int:
        """The type's number on the wire."""
        return _NUMBERS[self.kind]

    @property
    def form(self) -> int:
        """1 for the database's characters, 2 for national ones, else 0."""
        return 2 if self.is_national else 1 if self.kind in _TEXTS else 0

    @property
    def is_national(self) -> bool:
        return self.kind in ("NCHAR", "NVARCHAR2", "NCLOB")

    @property
    def is_text(self) -> bool:
        return self.kind in _TEXTS

    @property
    def is_number(self) -> bool:
        return self.kind in ("NUMBER", "FLOAT")

    @property
    def is_binary_float(self) -> bool:
        return self.kind in ("BINARY_FLOAT", "BINARY_DOUBLE")

    @property
    def is_moment(self) -> bool:
        return self.kind in ("DATE", "TIMESTAMP", *ZONED)

    @property
    def is_lob(self) -> bool:
        return self.kind in ("CLOB", "NCLOB", "BLOB")

    @property
    def is_raw_number(self) -> bool:
        """True for a NUMBER kept as Oracle's bytes."""
        return self.is_number and self.stored == "BLOB"

    def described(self) -> tuple[int, int, int, int]:
        """Precision, scale, buffer size and characters as a describe reports them."""
        if self.kind == "NUMBER":
            return (self.precision or 0, -127 if self.precision is None else self.scale or 0, 22, 0)
        if self.kind == "FLOAT":
            return (self.precision or 126, -127, 22, 0)
        if self.kind in ("CHAR", "VARCHAR2"):
            return (0, 0, max(self.length * (4 if self.by_char else 1), 1), self.length)
        if self.is_national and self.kind != "NCLOB":
            return (0, 0, max(self.length * 2, 2), self.length)
        scale = self.scale or 0
        sizes = {"RAW": max(self.length, 1), "DATE": 7, "TIMESTAMP": 11, ZONED[0]: 13, ZONED[1]: 11, "ROWID": 18}
        sizes |= {"CLOB": 4000, "NCLOB": 4000, "BLOB": 4000, "BINARY_FLOAT": 4, "BINARY_DOUBLE": 8}
        sizes |= {
            "INTERVAL YEAR TO MONTH": 5,
            "INTERVAL DAY TO SECOND": 11,
            "LONG": 0,
            "LONG RAW": 0,
            "BOOLEAN": 4,
            "XMLTYPE": 2000,
            "JSON": 8200,
        }
        return (self.precision or 0, scale, sizes[self.kind], 0)

    @property
    def name(self) -> str:
        """DATA_TYPE of the dictionary."""
        if self.kind in ("TIMESTAMP", *ZONED):
            rest = self.kind.removeprefix("TIMESTAMP")
            return f"TIMESTAMP({6 if self.scale is None else self.scale}){rest}"
        if self.kind == "INTERVAL DAY TO SECOND":
            return f"INTERVAL DAY({self.precision or 0}) TO SECOND({6 if self.scale is None else self.scale})"
        if self.kind == "INTERVAL YEAR TO MONTH":
            return f"INTERVAL YEAR({self.precision or 2}) TO MONTH"
        return self.kind

    def sized(self, length: int) -> OraType:
        """The same type with another length."""
        return replace(self, length=length)


ZONED = ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP WITH LOCAL TIME ZONE")
_TEXTS = ("CHAR", "VARCHAR2", "NCHAR", "NVARCHAR2", "CLOB", "NCLOB", "LONG")
_STORED = {
    **dict.fromkeys((*_TEXTS, *ZONED), "VARCHAR"),
    "FLOAT": "BLOB",
    "BLOB": "BLOB",
    "RAW": "BLOB",
    "LONG RAW": "BLOB",
    "DATE": "TIMESTAMP",
    "INTERVAL YEAR TO MONTH": "BIGINT",
    "BINARY_FLOAT": "FLOAT",
    "BINARY_DOUBLE": "DOUBLE",
    "ROWID": "BIGINT",
    "BOOLEAN": "BOOLEAN",
    "XMLTYPE": "VARCHAR",
    "JSON": "VARCHAR",
}
_NUMBERS = {
    "VARCHAR2": 1,
    "NVARCHAR2": 1,
    "NUMBER": 2,
    "FLOAT": 2,
    "LONG": 8,
    "ROWID": 11,
    "DATE": 12,
    "RAW": 23,
    "LONG RAW": 24,
    "CHAR": 96,
    "NCHAR": 96,
    "BINARY_FLOAT": 100,
    "BINARY_DOUBLE": 101,
    "CLOB": 112,
    "NCLOB": 112,
    "BLOB": 113,
    "TIMESTAMP": 180,
    ZONED[0]: 181,
    ZONED[1]: 231,
    "INTERVAL YEAR TO MONTH": 182,
    "INTERVAL DAY TO SECOND": 183,
    "BOOLEAN": 252,
    "XMLTYPE": 109,
    "JSON": 119,
}


def _number_stored(precision: int | None, scale: int | None) -> str:
    if precision is None:
        return "BLOB"
    scale = scale or 0
    digits, places = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    return f"DECIMAL({digits},{places})" if digits <= 38 else "BLOB"


NUMBER = OraType(kind="NUMBER")
"""A NUMBER without a precision, as expressions have it; kept as Oracle's bytes."""
INTEGER = OraType(kind="NUMBER", precision=38, scale=0)
DATE = OraType(kind="DATE")
ROWID = OraType(kind="ROWID")


def varchar(length: int) -> OraType:
    """A VARCHAR2 of so many bytes."""
    return OraType(kind="VARCHAR2", length=max(1, min(length, 32767)))
