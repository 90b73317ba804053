"""The sales table that every contestant loads: 12 columns, Thai text, 466 bytes a row as CSV.

Writes:  a DuckDB file; the same for the same seed. CSV files for other clients are the floor's, of 93 MB each.
One description in fifty is dirty (control characters, carriage returns, outer blanks, too long), as real tables are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import duckdb
import polars as pl

OBJECT: Final = "KPS_Sales__c"
KEY: Final = "External_ID__c"
TABLE: Final = "KPS_T_SALES_MD"
DESCRIPTION_MAX: Final = 255
MEMORY_MB: Final = 2048  # the plan's default
WIDE: Final = (20, 198)
"""Letters of descriptions: from so many, fewer than both together. With these a cleaned row has 466 bytes of CSV."""

NARROW: Final = (20, 41)
"""The same for rows of 250 bytes."""

_BLOCK: Final = 250_000
_WORDS: Final = (
    "สินค้า ราคา ลดพิเศษ ของแท้ น้ำหอม เครื่องสำอาง ช็อกโกแลต นาฬิกา กระเป๋า เดินทาง สนามบิน สุวรรณภูมิ ดอนเมือง "
    "ภูเก็ต ลูกค้า สมาชิก คะแนน ส่วนลด ใบเสร็จ ชำระเงิน บัตรเครดิต เงินสด คืนสินค้า เปลี่ยนขนาด สีแดง สีน้ำเงิน "
    "รุ่นใหม่ ของขวัญ ห่อ จัดส่ง ด่วน ตรวจสอบ แล้ว พนักงาน เคาน์เตอร์ ชั้นสอง อาคาร ผู้โดยสาร ขาออก ขาเข้า"
).split()

# Column of the table -> (field, SQL type, describe attributes)
FIELDS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "SALES_ID": (KEY, "BIGINT", {"type": "string", "length": 40, "externalId": True, "idLookup": True, "unique": True}),
    "TENANT_CODE": ("Tenant_Code__c", "VARCHAR", {"type": "string", "length": 20}),
    "BRANCH_CODE": ("Branch_Code__c", "VARCHAR", {"type": "string", "length": 20}),
    "RECEIPT_NO": ("Receipt_No__c", "VARCHAR", {"type": "string", "length": 40}),
    "STATUS": ("Status__c", "VARCHAR", {"type": "string", "length": 20}),
    "EMAIL": ("Email__c", "VARCHAR", {"type": "email", "length": 80}),
    "QUANTITY": ("Quantity__c", "INTEGER", {"type": "double", "precision": 9, "scale": 0}),
    "SALES_AMOUNT": ("Sales_Amount__c", "DECIMAL(18,2)", {"type": "currency", "precision": 18, "scale": 2}),
    "SALES_DATE": ("Sales_Date__c", "DATE", {"type": "date"}),
    "CREATED_DATE": ("Oracle_Created_Date__c", "TIMESTAMP", {"type": "datetime"}),
    "UPDATED_DATE": ("Oracle_Updated_Date__c", "TIMESTAMP", {"type": "datetime"}),
    "DESCRIPTION": ("Description__c", "VARCHAR", {"type": "textarea", "length": DESCRIPTION_MAX}),
}

PLAN: Final = """\
version: 1
project: Benchmark
source: {{url: "duckdb:///{database}", timezone: Asia/Bangkok}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{SF_ACCESS_TOKEN}}"}}
audit: {{url: "sqlite:///{state}/audit.db"}}
staging: {state}/staging
limits: {{memory_mb: {memory_mb}}}
tables:
  - table: KPS_T_SALES_MD
    object: KPS_Sales__c
    key: SALES_ID
    external_id: External_ID__c
    fields:
      SALES_ID: External_ID__c
      TENANT_CODE: Tenant_Code__c
      BRANCH_CODE: Branch_Code__c
      RECEIPT_NO: Receipt_No__c
      STATUS: {{field: Status__c, values: {{A: Active, C: Closed, V: Void}}}}
      EMAIL: {{field: Email__c}}
      QUANTITY: Quantity__c
      SALES_AMOUNT: Sales_Amount__c
      SALES_DATE: Sales_Date__c
      CREATED_DATE: Oracle_Created_Date__c
      UPDATED_DATE: Oracle_Updated_Date__c
      DESCRIPTION: {{field: Description__c, too_long: truncate, control_characters: remove, unicode: nfc}}
"""


def describe() -> dict[str, Any]:
    """The object's describe, as far as loaders read it."""
    fields = [{"name": "Id", "type": "id", "length": 18, "createable": False, "idLookup": True, "nillable": False}]
    fields += [{"name": name, **attributes} for name, _, attributes in FIELDS.values()]
    return {"name": OBJECT, "label": OBJECT, "keyPrefix": "a00", "fields": fields, "recordTypeInfos": []}


def make_database(path: Path, rows: int, *, seed: int = 7, letters: tuple[int, int] = WIDE) -> None:
    """Write the table as a DuckDB file, in key order; descriptions have from `letters[0]`, fewer than both together."""
    columns = ", ".join(f"{name} {kind}" for name, (_, kind, _) in FIELDS.items())
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE {TABLE} ({columns}, PRIMARY KEY (SALES_ID))")
        for first in range(0, rows, _BLOCK):
            block = _block(first, min(_BLOCK, rows - first), seed, letters)  # noqa: F841 - DuckDB finds it by its name
            connection.execute(f"INSERT INTO {TABLE} SELECT * FROM block")


def _block(first: int, rows: int, seed: int, letters: tuple[int, int]) -> pl.DataFrame:
    """Rows `first` and on. Randomness comes from hashes of the row number, so any block can be made alone."""
    number = pl.int_range(first, first + rows, dtype=pl.Int64, eager=True)

    def draw(column: int, below: int) -> pl.Series:
        return number.hash(seed * 1_000 + column) % below

    start = pl.lit(0).cast(pl.Datetime("us")) + pl.duration(days=19_000)
    words = pl.Series(_WORDS)
    texts = pl.DataFrame({str(n): words.gather(draw(100 + n, len(words)).cast(pl.UInt32)) for n in range(34)})
    sentence = texts.select(pl.concat_str(pl.all(), separator=" ").alias("text")).with_columns(
        n=draw(7, letters[1]) + letters[0]
    )
    text = sentence.select(pl.col("text").str.slice(0, "n").str.strip_chars()).to_series()
    frame = pl.DataFrame(
        {
            "SALES_ID": number + 10_000_000,
            "TENANT_CODE": ("T" + draw(1, 400).cast(pl.String).str.zfill(5)),
            "BRANCH_CODE": ("BKK-" + draw(2, 60).cast(pl.String).str.zfill(3)),
            "RECEIPT_NO": ("R" + draw(3, 10**9).cast(pl.String).str.zfill(12)),
            "STATUS": pl.Series(["A", "C", "V"]).gather(draw(4, 3).cast(pl.UInt32)),
            "EMAIL": ("customer" + draw(5, 10**6).cast(pl.String) + "@example.com"),
            "QUANTITY": (draw(6, 40) + 1).cast(pl.Int32),
            "cents": draw(8, 50_000_000).cast(pl.Int64),
            "day": draw(9, 1_400).cast(pl.Int64),
            "second": draw(10, 86_400).cast(pl.Int64),
            "DESCRIPTION": text,
            "dirt": draw(11, 200),
        }
    )
    dirty = (
        pl.when(pl.col("dirt") == 0)
        .then(pl.concat_str(pl.lit("  "), "DESCRIPTION", pl.lit(" ")))
        .when(pl.col("dirt") == 1)
        .then(pl.concat_str("DESCRIPTION", pl.lit('\r\nบรรทัดสอง, "อ้างอิง"')))
        .when(pl.col("dirt") == 2)
        .then(pl.concat_str(pl.lit("\x07"), "DESCRIPTION", pl.lit("\x00")))
        .when(pl.col("dirt") == 3)
        .then(pl.concat_str("DESCRIPTION", "DESCRIPTION", "DESCRIPTION", "DESCRIPTION"))
        .otherwise("DESCRIPTION")
    )
    moment = start + pl.duration(days=pl.col("day"), seconds=pl.col("second"))
    return frame.with_columns(
        SALES_AMOUNT=(pl.col("cents").cast(pl.Decimal(18, 2)) / 100).cast(pl.Decimal(18, 2)),
        SALES_DATE=moment.cast(pl.Date),
        CREATED_DATE=moment,
        UPDATED_DATE=moment + pl.duration(hours=5),
        DESCRIPTION=dirty,
    ).select(list(FIELDS))
