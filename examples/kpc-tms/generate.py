"""Make the sixteen tables of the KPC TMS example, of any size, with defects in known numbers.

    python examples/kpc-tms/generate.py --scale 0.00001 --into duckdb:///kpc.duckdb
    python examples/kpc-tms/generate.py --scale 0.00001 --into oracle://KPS@127.0.0.1:1521/KPCPROD

At scale 1 the tables hold 481,000,000 rows in all. A row is computed from its number alone, by columns, so every run
and every slice gives the same rows; nothing larger than a slice is ever in memory. Where rows go: `oracle://`,
`duckdb:///`, `sqlite:///`, or `parquet:FOLDER`. The password for Oracle is read from ORACLE_PASSWORD.

Every defect strikes the rows whose number leaves a certain remainder when divided by 1,000 (see `DEFECTS`), each row at
most one. `expected` counts them for a number of rows.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl

FULL_ROWS = {
    "KPS_M_CURRENCY": 40,
    "KPS_M_PAYTYPE": 60,
    "KPS_M_BRANCH": 400,
    "KPS_M_CATEGORY": 900,
    "KPS_M_TENANT": 3_600,
    "KPS_M_BRAND": 15_000,
    "KPS_M_STAFF": 30_000,
    "KPS_M_PRODUCT": 950_000,
    "KPS_M_MEMBER": 14_000_000,
    "KPS_T_SHIFT": 2_000_000,
    "KPS_T_REFUND": 6_000_000,
    "KPS_T_STOCK": 18_000_000,
    "KPS_T_PROMOTION": 25_000_000,
    "KPS_T_COUPON": 45_000_000,
    "KPS_T_SALES_MD": 261_000_000,
    "KPS_T_SALESPAY_MD": 109_000_000,
}
"""Rows of each table at scale 1: 481,000,000 in all."""
LEAST_ROWS = 20
SLICE_ROWS = 200_000
PERIOD = 1000

# Remainders of a row's number; those of KPS_T_SALES_MD from 11 on, so that rows 0 to 9 of each thousand are sound.
DEFECTS = {
    "KPS_T_SALES_MD": {
        "null_key": 11,
        "duplicate_key": 23,
        "missing_tenant": 37,
        "long_description": 41,
        "ancient_date": 53,
        "future_date": 59,
        "negative_amount": 61,
        "empty_status": 67,
        "control_character": 71,
        "buddhist_era": 73,
        "literal_na": 79,
        "outer_blanks": 83,
    },
    "KPS_T_SALESPAY_MD": {"missing_sale": 19, "unknown_paytype": 29},
    "KPS_M_MEMBER": {"duplicate_key": 7},
}
REJECTED = {
    "KPS_T_SALES_MD": ("null_key", "missing_tenant", "future_date", "buddhist_era", "literal_na"),
    "KPS_T_SALESPAY_MD": ("missing_sale", "unknown_paytype"),
    "KPS_M_MEMBER": (),
}
"""Defects for which the plan rejects the row; `duplicate_key` drops one of two, the others are mended and counted."""
_BEGAN = pl.datetime(2022, 1, 1)
_THAI = ["กรุงเทพฯ", "ภูเก็ต", "เชียงใหม่", "สุวรรณภูมิ", "ดอนเมือง", "พัทยา", "หาดใหญ่", "สมุย"]
_GOODS = ["น้ำหอม", "เครื่องสำอาง", "ช็อกโกแลต", "นาฬิกา", "กระเป๋าหนัง", "ของที่ระลึก", "สุราต่างประเทศ", "ผ้าไหมไทย"]


def rows_of(scale: float) -> dict[str, int]:
    """Rows of each table at a scale; at least 20, so that small ones do not vanish."""
    return {name: max(min(LEAST_ROWS, full), round(full * scale)) for name, full in FULL_ROWS.items()}


def expected(table: str, rows: int) -> dict[str, int]:
    """How many rows of so many have each defect."""
    return {name: len(range(at, rows, PERIOD)) for name, at in DEFECTS.get(table, {}).items()}


# Columns, each from the row's number.


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: Oracle's type, and its values by the row's number `n` and the rows of all tables."""

    name: str
    type: str
    value: Callable[[pl.Expr, dict[str, int]], pl.Expr]


def _code(letter: str, digits: int, number: pl.Expr) -> pl.Expr:
    return pl.lit(letter) + number.cast(pl.String).str.zfill(digits)


def _pick(words: list[str], number: pl.Expr) -> pl.Expr:
    return pl.lit(pl.Series(words)).gather((number % len(words)).cast(pl.UInt32))


def _mixed(number: pl.Expr, salt: int) -> pl.Expr:
    """A number that looks random, the same on every machine."""
    return ((number + salt) * 2_654_435_761) % 4_294_967_291


def _moment(number: pl.Expr, salt: int) -> pl.Expr:
    seconds = _mixed(number, salt) % (3 * 365 * 86_400)
    return _BEGAN + pl.duration(seconds=seconds)


def _day(number: pl.Expr, salt: int) -> pl.Expr:
    return _BEGAN + pl.duration(days=_mixed(number, salt) % (3 * 365))


def _has(table: str, defect: str, number: pl.Expr) -> pl.Expr:
    return number % PERIOD == DEFECTS[table][defect]


def _column(name: str, kind: str, value: Callable[[pl.Expr], pl.Expr]) -> Column:
    return Column(name=name, type=kind, value=lambda n, rows: value(n))


def _parent(name: str, table: str, letter: str, digits: int, salt: int) -> Column:
    return Column(
        name=name,
        type="VARCHAR2(20)",
        value=lambda n, rows: _code(letter, digits, _mixed(n, salt) % rows[table]),
    )


def _key(name: str, letter: str, digits: int) -> Column:
    return _column(name, "VARCHAR2(20)", lambda n: _code(letter, digits, n))


def _thai_name(name: str, words: list[str]) -> Column:
    return _column(name, "VARCHAR2(240)", lambda n: _pick(words, n) + pl.lit(" ") + n.cast(pl.String))


def _amount(name: str, salt: int) -> Column:
    return _column(name, "NUMBER(12,2)", lambda n: _money(n, salt))


def _money(number: pl.Expr, salt: int) -> pl.Expr:
    return (_mixed(number, salt) % 9_000_000 + 100).cast(pl.Decimal(12, 0)).cast(pl.Decimal(14, 2)) / 100


def _sale_id(number: pl.Expr) -> pl.Expr:
    return 2_022_000_000_000 + number


def _sales_key(n: pl.Expr, rows: dict[str, int]) -> pl.Expr:
    table = "KPS_T_SALES_MD"
    return (
        pl.when(_has(table, "null_key", n))
        .then(None)
        .when(_has(table, "duplicate_key", n))
        .then(_sale_id(n - 1))
        .otherwise(_sale_id(n))
    )


def _description(n: pl.Expr) -> pl.Expr:
    table = "KPS_T_SALES_MD"
    text = _pick(_GOODS, _mixed(n, 3)) + pl.lit(" ขายที่ ") + _pick(_THAI, _mixed(n, 4))
    return (
        pl.when(_has(table, "long_description", n))
        .then(pl.lit("สินค้าปลอดอากร " * 20))
        .when(_has(table, "control_character", n))
        .then(text + pl.lit("\x07 end"))
        .when(_has(table, "literal_na", n))
        .then(pl.lit("#N/A"))
        .when(_has(table, "outer_blanks", n))
        .then(pl.lit("  ") + text + pl.lit("  "))
        .otherwise(text)
    )


def _sales_day(n: pl.Expr) -> pl.Expr:
    table = "KPS_T_SALES_MD"
    return (
        pl.when(_has(table, "ancient_date", n))
        .then(pl.datetime(1650, 5, 1))
        .when(_has(table, "future_date", n))
        .then(pl.datetime(2099, 1, 1))
        .when(_has(table, "buddhist_era", n))
        .then(pl.datetime(2567, 1, 15))
        .otherwise(_day(n, 5))
    )


def _sale_of_payment(n: pl.Expr, rows: dict[str, int]) -> pl.Expr:
    # Rows 0 to 9 of each thousand sales are sound, so only what is meant to have no parent has none.
    thousands = max(rows["KPS_T_SALES_MD"] // PERIOD, 1)
    return (
        pl.when(_has("KPS_T_SALESPAY_MD", "missing_sale", n))
        .then(_sale_id(n) + 900_000_000_000)
        .otherwise(_sale_id(_mixed(n, 9) % thousands * PERIOD + n % 10))
    )


_STAMPS = (
    _column("CREATED_DATE", "DATE", lambda n: _moment(n, 1)),
    _column("UPDATED_DATE", "DATE", lambda n: _moment(n, 1) + pl.duration(hours=n % 48)),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "KPS_M_CURRENCY": (
        _key("CURRENCY_CODE", "C", 3),
        _column("RATE", "NUMBER(12,4)", lambda n: (n * 37 + 1).cast(pl.Decimal(12, 0)).cast(pl.Decimal(16, 4)) / 10),
    ),
    "KPS_M_PAYTYPE": (_key("PAYTYPE_CODE", "P", 3), _thai_name("PAYTYPE_NAME", ["เงินสด", "บัตรเครดิต", "โอนเงิน"])),
    "KPS_M_BRANCH": (_key("BRANCH_CODE", "B", 4), _thai_name("BRANCH_NAME", _THAI)),
    "KPS_M_CATEGORY": (_key("CATEGORY_CODE", "G", 4), _thai_name("CATEGORY_NAME", _GOODS)),
    "KPS_M_TENANT": (
        _key("TENANT_CODE", "T", 5),
        _thai_name("TENANT_NAME", ["ร้าน" + word for word in _THAI]),
        _parent("BRANCH_CODE", "KPS_M_BRANCH", "B", 4, 11),
    ),
    "KPS_M_BRAND": (_key("BRAND_CODE", "R", 5), _column("BRAND_NAME", "VARCHAR2(80)", lambda n: _code("Brand ", 5, n))),
    "KPS_M_STAFF": (
        _key("STAFF_CODE", "S", 6),
        _thai_name("STAFF_NAME", ["สมชาย", "สมหญิง", "มานี", "ปิติ"]),
        _parent("BRANCH_CODE", "KPS_M_BRANCH", "B", 4, 12),
    ),
    "KPS_M_PRODUCT": (
        _key("PRODUCT_CODE", "I", 8),
        _thai_name("PRODUCT_NAME", _GOODS),
        _parent("CATEGORY_CODE", "KPS_M_CATEGORY", "G", 4, 13),
        _parent("BRAND_CODE", "KPS_M_BRAND", "R", 5, 14),
        _amount("PRICE", 15),
    ),
    "KPS_M_MEMBER": (
        _column(
            "MEMBER_CODE",
            "VARCHAR2(20)",
            lambda n: _code("M", 9, pl.when(_has("KPS_M_MEMBER", "duplicate_key", n)).then(n - 1).otherwise(n)),
        ),
        _thai_name("MEMBER_NAME", ["คุณ" + word for word in _THAI]),
        _column("EMAIL", "VARCHAR2(120)", lambda n: _code("member", 9, n) + pl.lit("@example.com")),
        *_STAMPS,
    ),
    "KPS_T_SHIFT": (
        _key("SHIFT_ID", "H", 9),
        _parent("STAFF_CODE", "KPS_M_STAFF", "S", 6, 16),
        _column("OPENED_AT", "DATE", lambda n: _moment(n, 17)),
    ),
    "KPS_T_REFUND": (
        _key("REFUND_ID", "F", 9),
        _parent("TENANT_CODE", "KPS_M_TENANT", "T", 5, 18),
        _amount("AMOUNT", 19),
        *_STAMPS,
    ),
    "KPS_T_STOCK": (
        _key("STOCK_ID", "K", 9),
        _parent("PRODUCT_CODE", "KPS_M_PRODUCT", "I", 8, 20),
        _parent("BRANCH_CODE", "KPS_M_BRANCH", "B", 4, 21),
        _column("QUANTITY", "NUMBER(9)", lambda n: _mixed(n, 22) % 500),
    ),
    "KPS_T_PROMOTION": (
        _key("PROMOTION_ID", "O", 9),
        _parent("PRODUCT_CODE", "KPS_M_PRODUCT", "I", 8, 23),
        _column("DISCOUNT", "NUMBER(5,2)", lambda n: (_mixed(n, 24) % 90).cast(pl.Decimal(5, 2))),
        _column("STARTS_ON", "DATE", lambda n: _day(n, 25)),
    ),
    "KPS_T_COUPON": (
        _key("COUPON_ID", "U", 10),
        _parent("TENANT_CODE", "KPS_M_TENANT", "T", 5, 26),
        _amount("FACE_VALUE", 27),
        _column("USED", "CHAR(1)", lambda n: _pick(["Y", "N"], _mixed(n, 28))),
    ),
    "KPS_T_SALES_MD": (
        Column(name="SALES_ID", type="NUMBER(18)", value=_sales_key),
        *_STAMPS,
        _column("SALES_DATE", "DATE", _sales_day),
        _column(
            "SALES_AMOUNT",
            "NUMBER(14,2)",
            lambda n: pl.when(_has("KPS_T_SALES_MD", "negative_amount", n)).then(-_money(n, 6)).otherwise(_money(n, 6)),
        ),
        Column(
            name="TENANT_CODE",
            type="VARCHAR2(20)",
            value=lambda n, rows: (
                pl.when(_has("KPS_T_SALES_MD", "missing_tenant", n))
                .then(pl.lit("T99999"))
                .otherwise(_code("T", 5, _mixed(n, 7) % rows["KPS_M_TENANT"]))
            ),
        ),
        _column("DESCRIPTION", "VARCHAR2(1000)", _description),
        _column(
            "STATUS",
            "VARCHAR2(10)",
            lambda n: (
                pl.when(_has("KPS_T_SALES_MD", "empty_status", n)).then(None).otherwise(_pick(["A", "C"], _mixed(n, 8)))
            ),
        ),
    ),
    "KPS_T_SALESPAY_MD": (
        _key("PAY_ID", "Y", 10),
        Column(name="SALES_ID", type="NUMBER(18)", value=_sale_of_payment),
        Column(
            name="PAYTYPE_CODE",
            type="VARCHAR2(20)",
            value=lambda n, rows: (
                pl.when(_has("KPS_T_SALESPAY_MD", "unknown_paytype", n))
                .then(pl.lit("P999"))
                .otherwise(_code("P", 3, _mixed(n, 10) % rows["KPS_M_PAYTYPE"]))
            ),
        ),
        _amount("PAY_AMOUNT", 29),
        *_STAMPS,
    ),
}


def slices(table: str, rows: dict[str, int], size: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
    """The table's rows, so many at a time."""
    columns = [column.value(pl.col("n"), rows).alias(column.name) for column in TABLES[table]]
    for start in range(0, rows[table], size):
        numbers = pl.DataFrame({"n": pl.int_range(start, min(start + size, rows[table]), eager=True)})
        yield numbers.select(columns)


# Where rows go.


def into_parquet(folder: Path, rows: dict[str, int]) -> None:
    """One folder for each table, one file for each slice."""
    for table in TABLES:
        (folder / table).mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(slices(table, rows)):
            frame.write_parquet(folder / table / f"{number:06d}.parquet")


def into_duckdb(file: str, rows: dict[str, int]) -> None:
    """A DuckDB database; its tables have the columns' natural types."""
    import duckdb

    with duckdb.connect(file) as connection:
        for table in TABLES:
            for number, frame in enumerate(slices(table, rows)):
                connection.register("slice", frame.to_arrow())
                verb = f"CREATE OR REPLACE TABLE {table} AS" if number == 0 else f"INSERT INTO {table}"
                connection.execute(f"{verb} SELECT * FROM slice")
                connection.unregister("slice")


def into_sqlite(file: str, rows: dict[str, int]) -> None:
    """A SQLite database; moments are texts in it, amounts numbers."""
    with closing(sqlite3.connect(file)) as connection:
        for table, columns in TABLES.items():
            names = ", ".join(f"{column.name} {column.type}" for column in columns)
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE TABLE {table} ({names})")
            marks = ", ".join("?" * len(columns))
            for frame in slices(table, rows):
                plain = frame.with_columns(
                    pl.col(pl.Datetime).dt.strftime("%Y-%m-%d %H:%M:%S"), pl.col(pl.Decimal).cast(pl.Float64)
                )
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", plain.iter_rows())
            connection.commit()


def into_oracle(url: str, rows: dict[str, int]) -> None:
    """Tables of an Oracle user; the driver takes the slices as columns."""
    import oracledb

    parts = urlsplit(url)
    connection = oracledb.connect(
        user=parts.username,
        password=os.environ["ORACLE_PASSWORD"],
        host=parts.hostname,
        port=parts.port or 1521,
        service_name=parts.path.lstrip("/"),
    )
    with connection, connection.cursor() as cursor:
        for table, columns in TABLES.items():
            names = ", ".join(f"{column.name} {column.type}" for column in columns)
            cursor.execute(f"CREATE TABLE {table} ({names})")
            binds = ", ".join(f":{at}" for at in range(1, len(columns) + 1))
            for frame in slices(table, rows, 20_000):
                cursor.executemany(f"INSERT INTO {table} VALUES ({binds})", frame.to_arrow())
                connection.commit()


def main() -> None:
    """Make the tables as the command line says, and print how many rows each has."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, required=True, help="1 is 481,000,000 rows; 0.00001 is some thousands")
    parser.add_argument("--into", required=True, help="oracle://USER@host/service, duckdb:///FILE, sqlite:///FILE, "
                        "parquet:FOLDER")  # fmt: skip
    given = parser.parse_args()
    rows = rows_of(given.scale)
    kind, _, rest = given.into.partition(":")
    sinks: dict[str, Callable[[str], None]] = {
        "oracle": lambda rest: into_oracle(given.into, rows),
        "duckdb": lambda rest: into_duckdb(rest.removeprefix("///"), rows),
        "sqlite": lambda rest: into_sqlite(rest.removeprefix("///"), rows),
        "parquet": lambda rest: into_parquet(Path(rest), rows),
    }
    if kind not in sinks:
        parser.error(f"there is no `{kind}:` here")
    sinks[kind](rest)
    for table, count in rows.items():
        defects = ", ".join(f"{name} {number:,}" for name, number in expected(table, count).items())
        sys.stdout.write(f"{table:<20} {count:>12,}  {defects}\n")
    sys.stdout.write(f"{'in all':<20} {sum(rows.values()):>12,}\n")


if __name__ == "__main__":
    main()
