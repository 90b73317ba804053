"""How fast rows come out of Oracle: our source beside the bare driver on the same query, and the server's rate.

The server is the tests' own, in a process of its own: its rate says nothing of Oracle, and the share of the driver's
rate that is left behind our source does not depend on it much. Run by `make bench-oracle`, or
`python -m bench.oracle_read [--rows N] [--turns N]`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import oracledb
import pyarrow as pa
from tests.oracle_server.encode import encode_rows
from tests.oracle_server.types import OraType

from forcelift.source import oracle
from forcelift.source.oracle import OracleSource, open_oracle

USER, PASSWORD = "KPS", "Kps_Bench_1"
SHARE_LEAST: Final = 0.8
ENCODED_LEAST: Final = 250_000.0
GROWTH_MOST_MB: Final = 64.0
BATCH_ROWS: Final = 50_000
FIRST: Final = datetime.fromisoformat("2022-01-01")  # as DATE has it, without a zone
COLUMNS: Final = {
    "SALES_ID": "NUMBER(12)",
    "TENANT_CODE": "VARCHAR2(20)",
    "SALES_AMOUNT": "NUMBER(14,2)",
    "CREATED_DATE": "DATE",
    "UPDATED_DATE": "TIMESTAMP(6)",
    "STATUS": "CHAR(1)",
    "DESCRIPTION": "VARCHAR2(200)",
    "PIECES": "NUMBER(5)",
}
BARE, OURS = "bare driver", "forcelift's source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One read of the whole table: rows, wall seconds, CPU seconds of this process, and its memory before and after."""

    rows: int
    wall_s: float
    cpu_s: float
    grown_mb: float

    @property
    def rate(self) -> float:
        return self.rows / self.wall_s


@contextmanager
def served() -> Iterator[str]:
    """The test server as a process; gives its address."""
    command = [sys.executable, "-m", "tests.oracle_server", "--user", USER, "--password", PASSWORD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(60)


def fill(dsn: str, rows: int) -> None:
    """The table, with Thai in every row."""
    with oracledb.connect(user=USER, password=PASSWORD, dsn=dsn) as connection:
        cursor = connection.cursor()
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        cursor.execute(f"CREATE TABLE sales ({columns}, CONSTRAINT sales_pk PRIMARY KEY (sales_id))")
        marks = ", ".join(f":{at}" for at in range(1, len(COLUMNS) + 1))
        for start in range(0, rows, 20_000):
            some = [
                (at, f"T{at % 500}", at / 100, FIRST + timedelta(minutes=at), FIRST + timedelta(seconds=at), "A",
                 f"ใบเสร็จเลขที่ {at} ของร้าน", at % 99)
                for at in range(start, min(start + 20_000, rows))
            ]  # fmt: skip
            cursor.executemany(f"INSERT INTO sales VALUES ({marks})", some)
            connection.commit()


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def timed(read: Callable[[], int]) -> Turn:
    """One turn of a reader."""
    gc.collect()
    before, wall, cpu = resident_mb(), time.perf_counter(), time.process_time()
    rows = read()
    return Turn(
        rows=rows,
        wall_s=time.perf_counter() - wall,
        cpu_s=time.process_time() - cpu,
        grown_mb=resident_mb() - before,
    )


def bare_reader(dsn: str, query: str, schema: pa.Schema, size: int) -> Callable[[], int]:
    """The driver alone: the same query, types and size of replies, and nothing done with the rows."""
    connection = oracledb.connect(user=USER, password=PASSWORD, dsn=dsn)

    def read() -> int:
        frames = connection.fetch_df_batches(query, size=size, requested_schema=schema)
        return sum(frame.num_rows() for frame in frames)

    return read


def our_reader(source: OracleSource) -> Callable[[], int]:
    def read() -> int:
        batches = source.read("SALES", columns=list(COLUMNS), where=None, batch_rows=BATCH_ROWS)
        return sum(batch.num_rows for batch in batches)

    return read


def query_of(source: OracleSource) -> tuple[str, pa.Schema, int]:
    """What our source sends for the whole table: the query, the types that it asks for, and the size of a reply."""
    found: list[tuple[str, pa.Schema, int]] = []
    original = oracle.batches

    def looked_at(
        connection: oracledb.Connection, query: str, schema: pa.Schema, **more: float
    ) -> Iterator[pa.RecordBatch]:
        found.append((query, schema, int(more["size"])))
        return iter(())

    oracle.batches = looked_at  # type: ignore[assignment]  # only to read what would be sent
    try:
        list(source.read("SALES", columns=list(COLUMNS), where=None, batch_rows=BATCH_ROWS))
    finally:
        oracle.batches = original
    return found[0]


def encoding_rate(rows: int = 50_000) -> float:
    """Rows per CPU second that the server turns into the wire's form, as they come from its engine."""

    def numbers(values: list[int], precision: int, scale: int) -> tuple[pa.Array, OraType]:
        array = pa.array(values, pa.int64()).cast(pa.decimal128(19, 0)).cast(pa.decimal128(precision, scale))
        return array, OraType(kind="NUMBER", precision=precision, scale=scale)

    kinds = [
        numbers(list(range(rows)), 12, 0),
        (pa.array([f"T{at % 500}" for at in range(rows)]), OraType(kind="VARCHAR2", length=20)),
        numbers(list(range(rows)), 14, 2),
        (pa.array([FIRST] * rows, pa.timestamp("us")), OraType(kind="DATE")),
        (pa.array([f"ใบเสร็จเลขที่ {at}" for at in range(rows)]), OraType(kind="VARCHAR2", length=200)),
        numbers([at % 99 for at in range(rows)], 5, 0),
    ]
    columns = [(array, kind, "value") for array, kind in kinds]
    encode_rows(columns, 0)
    began = time.process_time()
    for _ in range(10):
        encode_rows(columns, 0)
    return 10 * rows / (time.process_time() - began)


def main() -> int:
    """Measure and print; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.oracle_read", description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    turns: dict[str, list[Turn]] = {BARE: [], OURS: []}
    with served() as dsn:
        fill(dsn, given.rows)
        source = open_oracle(f"oracle://{dsn}", user=USER, password=PASSWORD)
        readers = {BARE: bare_reader(dsn, *query_of(source)), OURS: our_reader(source)}
        for read in readers.values():
            read()  # libraries and buffers have their memory from here on
        for _ in range(given.turns):
            for name, read in readers.items():
                turns[name].append(timed(read))
        source.close()
    out = sys.stdout.write
    for name, found in turns.items():
        assert {turn.rows for turn in found} == {given.rows}
        wall, cpu = (statistics.median(getattr(one, key) for one in found) for key in ("wall_s", "cpu_s"))
        out(f"{name:<20} {given.rows / wall:>10,.0f} rows/s   {given.rows / cpu:>10,.0f} rows a CPU second\n")
    share = statistics.median(one.rate for one in turns[OURS]) / statistics.median(one.rate for one in turns[BARE])
    bare_cpu, our_cpu = (sum(one.cpu_s for one in turns[name]) for name in (BARE, OURS))
    grown = sum(one.grown_mb for one in turns[OURS])
    encoded = encoding_rate()
    goals = [
        ("share of the bare driver's rows/s", f"{share:.2f}", share >= SHARE_LEAST),
        ("the same by CPU seconds of the client", f"{bare_cpu / our_cpu:.2f}", bare_cpu / our_cpu >= SHARE_LEAST),
        (f"memory grown over {given.turns} reads", f"{grown:.0f} MB", grown <= GROWTH_MOST_MB),
        ("rows that the server encodes a CPU second", f"{encoded:,.0f}", encoded >= ENCODED_LEAST),
    ]
    for what, value, is_met in goals:
        out(f"{what:<44} {value:>12}   {'met' if is_met else 'MISSED'}\n")
    return 0 if all(is_met for *_, is_met in goals) else 1


if __name__ == "__main__":
    raise SystemExit(main())
