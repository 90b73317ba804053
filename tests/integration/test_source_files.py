"""Folders of CSV and Parquet files as a source."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forcelift.errors import ExitCode, SourceChanged, SourceError
from forcelift.protocols.source import ColumnKind
from forcelift.source import open_source


def read(source, table, columns, **options) -> pa.Table:
    options = {"where": None, **options}
    batches = list(source.read(table, columns=columns, **options))
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches) if batches else pa.table({})


def write_csv(path, rows, *, line_end="\r\n"):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=line_end).writerows(rows)


def test_tables_are_files_and_folders(tmp_path):
    write_csv(tmp_path / "FLIGHTS.csv", [["A"], ["1"]])
    pq.write_table(pa.table({"A": [1]}), tmp_path / "planes.PARQUET")
    (tmp_path / "weather").mkdir()
    write_csv(tmp_path / "weather" / "part-1.csv", [["A"], ["1"]])
    write_csv(tmp_path / "weather" / "part-2.csv", [["A"], ["2"]])
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden.csv").touch()
    (tmp_path / "notes.txt").touch()
    source = open_source(f"files:{tmp_path}")
    assert source.tables() == ["FLIGHTS", "planes", "weather"]
    assert read(source, "weather", ["A"]).column("A").to_pylist() == ["1", "2"]
    assert source.describe("planes").columns[0].kind is ColumnKind.INTEGER
    assert source.snapshot() is None
    assert source.now().utcoffset() == dt.timedelta(0)
    with pytest.raises(SourceError, match="no table `Weather`") as raised:
        source.describe("Weather")
    assert "`weather`" in str(raised.value.hint)


def test_folders_that_cannot_serve(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        open_source(f"files:{tmp_path / 'missing'}")
    assert not (tmp_path / "missing").exists()
    (tmp_path / "mixed").mkdir()
    write_csv(tmp_path / "mixed" / "a.csv", [["A"]])
    (tmp_path / "mixed" / "b.parquet").touch()
    with pytest.raises(SourceError, match="mixes CSV and Parquet"):
        open_source(f"files:{tmp_path}")
    (tmp_path / "mixed" / "b.parquet").unlink()
    write_csv(tmp_path / "mixed.csv", [["A"]])
    with pytest.raises(SourceError, match="two tables"):
        open_source(f"files:{tmp_path}")


def test_csv_text_arrives_unharmed_and_empty_is_null(tmp_path):
    rows = [
        ["1", 'a "quote", comma', "line\r\nfeed\nand\rreturn"],
        ["2", "ไทย 🙂", " outer "],
        ["3", "", "NA"],
        ["4", "null", "\\N"],
    ]
    write_csv(tmp_path / "T.csv", [["ID", "TEXT", "ตาราง"], *rows])
    (tmp_path / "T.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "T.csv").read_bytes() + b'5,"",\r\n')
    source = open_source(f"files:{tmp_path}")
    table = read(source, "T", ["ตาราง", "ID", "TEXT"])
    assert table.schema.names == ["ตาราง", "ID", "TEXT"]
    assert table.to_pylist() == [
        {"ID": row[0], "TEXT": row[1] or None, "ตาราง": row[2] or None} for row in [*rows, ["5", "", ""]]
    ]
    assert source.count("T", where=None) == 5
    assert source.count("T", where="\"ID\" > '3'") == 2


BROKEN = [
    (b"A,B\n1,2\n3\n", 3, "1 fields, not 2"),
    (b'A,B\n1,"x\ny\nz"\n3,4,5\n', 5, "3 fields, not 2"),
    (b'A,B\n1,2\n3,"never\n\n', 3, "never closed"),
    (b'A,B\n1,5" pipe\n', 2, "a quote stands inside"),
    (b'A,B\n1,"x" \n', 2, "a quote stands inside"),
    (b"A,B\n1,2\n\n3,4\n", 3, "empty line"),
    (b"A,B\n1,2\r3,4\n", 2, "carriage return"),
    (b"A,\xff\n1,2\n", 1, "not UTF-8"),
    (b'A,"B\n1,2\n', 1, "never closed"),
]


@pytest.mark.parametrize(("content", "line", "fault"), BROKEN)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
@pytest.mark.parametrize("planned", [True, False])
def test_a_broken_row_is_named_by_file_and_line(tmp_path, content, line, fault, ending, planned):
    path = tmp_path / f"T{ending}"
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    source = open_source(f"files:{tmp_path}")

    def read_all():
        chunks = source.plan_chunks("T", where=None, key=["A"], rows_per_chunk=1)
        for predicate in [chunk.predicate for chunk in chunks] if planned else [None]:
            read(source, "T", ["A", "B"], predicate=predicate)

    with pytest.raises(SourceError) as raised:
        read_all()
    assert f"`T{ending}`, line {line}: " in raised.value.message
    assert fault in raised.value.message
    assert "pipe" not in raised.value.message
    assert raised.value.exit_code is ExitCode.SOURCE
    assert raised.value.__cause__ is None or "pipe" not in str(raised.value.__cause__)


def test_a_broken_row_keeps_its_name_through_a_where(tmp_path):
    (tmp_path / "T.csv").write_bytes(b"A,B\n1,2\n3\n")
    source = open_source(f"files:{tmp_path}")
    for call in (
        lambda: read(source, "T", ["A"], where="A = '1'"),
        lambda: read(source, "T", ["A"], order_by=["B"]),
        lambda: source.count("T", where="A = '1'"),
    ):
        with pytest.raises(SourceError, match=r"`T.csv`, line 3: the row has 1 fields, not 2"):
            call()


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", "lacks"), (b"A,,B\n", "lacks the name"), (b"A,B,A\n", "names the column `A` twice"), (b"\n1\n", "lacks")],
)
def test_header_lines_that_name_no_columns(tmp_path, content, fault):
    (tmp_path / "T.csv").write_bytes(content)
    with pytest.raises(SourceError, match=f"header line of `T.csv` {fault}"):
        open_source(f"files:{tmp_path}").describe("T")


def test_files_of_one_table_must_agree(tmp_path):
    (tmp_path / "T").mkdir()
    write_csv(tmp_path / "T" / "a.csv", [["A", "B"]])
    write_csv(tmp_path / "T" / "b.csv", [["B", "A"]])
    (tmp_path / "P").mkdir()
    pq.write_table(pa.table({"A": [1]}), tmp_path / "P" / "a.parquet")
    pq.write_table(pa.table({"A": ["x"]}), tmp_path / "P" / "b.parquet")
    source = open_source(f"files:{tmp_path}")
    with pytest.raises(SourceError, match=r"`b.csv` and `a.csv` of table `T` have different header lines"):
        source.describe("T")
    with pytest.raises(SourceError, match=r"`b.parquet` and `a.parquet` of table `P` have different columns"):
        source.describe("P")


def test_tables_without_rows(tmp_path):
    (tmp_path / "T.csv").write_bytes(b"A,B\r\n\r\n")
    (tmp_path / "U.csv").write_bytes(b"A,B")
    pq.write_table(pa.table({"A": pa.array([], pa.int64())}), tmp_path / "P.parquet")
    source = open_source(f"files:{tmp_path}")
    for name in ("T", "U", "P"):
        (chunk,) = source.plan_chunks(name, where=None, key=["A"], rows_per_chunk=10)
        assert chunk.rows_estimate == 0
        assert read(source, name, ["A"], predicate=chunk.predicate).num_rows == 0
        assert read(source, name, ["A"]).num_rows == 0
        assert source.count(name, where=None, predicate=chunk.predicate) == source.count(name, where=None) == 0
        assert source.count(name, where="A IS NULL") == 0
        assert source.sample(name, columns=["A"], where=None, rows=5).num_rows == 0


def test_another_encoding_is_handed_on_as_bytes(tmp_path):
    (tmp_path / "T.csv").write_bytes("รหัส,ชื่อ\n1,กรุงเทพ\n".encode("tis-620") + b"2,\xff\n")
    source = open_source(f"files:{tmp_path}", encoding="tis-620")
    assert [column.arrow for column in source.describe("T").columns] == [pa.binary()] * 2
    table = read(source, "T", ["รหัส", "ชื่อ"])
    assert table.column("ชื่อ").to_pylist() == ["กรุงเทพ".encode("tis-620"), b"\xff"]
    assert source.count("T", where=None) == 2
    with pytest.raises(SourceError, match="utf-16"):
        open_source(f"files:{tmp_path}", encoding="utf-16")
    with pytest.raises(SourceError, match="not known"):
        open_source(f"files:{tmp_path}", encoding="klingon")


def test_a_changed_file_is_noticed_before_it_is_read(tmp_path):
    write_csv(tmp_path / "T.csv", [["A"], *([str(n)] for n in range(100))])
    pq.write_table(pa.table({"A": list(range(100))}), tmp_path / "P.parquet")
    source = open_source(f"files:{tmp_path}")
    for name, file in (("T", "T.csv"), ("P", "P.parquet")):
        chunk = source.plan_chunks(name, where=None, key=["A"], rows_per_chunk=10)[3]
        before = source.fingerprint(name)
        assert read(source, name, ["A"], predicate=chunk.predicate).num_rows == 10
        status = (tmp_path / file).stat()
        os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert source.fingerprint(name) != before
        for call in (source.count, lambda table, **more: read(source, table, ["A"], **more)):
            with pytest.raises(SourceChanged, match=f"`{file}` of table `{name}` has changed"):
                call(name, where=None, predicate=chunk.predicate)


def test_small_files_share_a_slice_and_large_ones_are_cut(tmp_path):
    (tmp_path / "T").mkdir()
    for part, rows in enumerate([2, 3, 25, 1, 4]):
        write_csv(tmp_path / "T" / f"p{part}.csv", [["A"], *([f"{part}-{n}"] for n in range(rows))], line_end="\n")
    source = open_source(f"files:{tmp_path}")
    chunks = source.plan_chunks("T", where=None, key=["A"], rows_per_chunk=10)
    assert [chunk.rows_estimate for chunk in chunks] == [5, 10, 10, 10]
    read_rows = [read(source, "T", ["A"], predicate=chunk.predicate).num_rows for chunk in chunks]
    assert (
        read_rows == [source.count("T", where=None, predicate=chunk.predicate) for chunk in chunks] == [5, 10, 10, 10]
    )


def test_a_where_sees_all_columns_and_order_puts_nulls_last(tmp_path):
    write_csv(tmp_path / "T.csv", [["ID", "V"], ["3", "x"], ["1", ""], ["2", "y"], ["4", "x"]])
    source = open_source(f"files:{tmp_path}")
    where = "CAST(T.ID AS INTEGER) < 4 -- a comment"
    assert read(source, "T", ["ID"], where=where, order_by=["V", "ID"]).column("ID").to_pylist() == ["3", "2", "1"]
    assert source.count("T", where=where) == 3
    for bad, said in (("NOPE = 1", "NOPE"), ("ID = (", "syntax"), ("CAST(V AS INTEGER) = 1", "ConversionException")):
        with pytest.raises(SourceError, match=f"table `T` cannot be read: .*{said}"):
            read(source, "T", ["ID"], where=bad)
        with pytest.raises(SourceError, match=f"table `T` cannot be read: .*{said}"):
            source.count("T", where=bad)


def test_parquet_types_arrive_exactly(tmp_path):
    columns = {
        "i8": (pa.array([None, -5], pa.int8()), -5),
        "u64": (pa.array([None, 2**64 - 1], pa.uint64()), Decimal(2**64 - 1)),
        "f32": (pa.array([None, 0.1], pa.float32()), 0.1),
        "dec": (pa.array([None, Decimal("1.50")], pa.decimal128(20, 2)), Decimal("1.50")),
        "day": (pa.array([None, dt.date(4000, 12, 31)], pa.date32()), dt.date(4000, 12, 31)),
        "tz": (
            pa.array([None, 0], pa.timestamp("ms", "Asia/Bangkok")),
            dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        ),
        "dict": (pa.array([None, "ก"]).dictionary_encode(), "ก"),
        "time": (pa.array([None, dt.time(1, 2, 3)], pa.time32("ms")), "01:02:03.000"),
        "bin": (pa.array([None, b"\xff"]), b"\xff"),
        "a.b": (pa.array([None, "dot"]), "dot"),
        "a": (pa.array([None, True]), True),
    }
    table = pa.table({name: array for name, (array, _) in columns.items()} | {"nested": pa.array([[1], []])})
    pq.write_table(table, tmp_path / "T.parquet")
    source = open_source(f"files:{tmp_path}")
    found = read(source, "T", list(columns))
    described = {column.name: column.arrow for column in source.describe("T").columns}
    assert {field.name: field.type for field in found.schema} == {name: described[name] for name in columns}
    assert found.slice(1).to_pylist() == [{name: value for name, (_, value) in columns.items()}]
    assert read(source, "T", ["a"]).schema.names == ["a"]
    assert (
        read(source, "T", ["i8", "tz"], where="u64 > 5", order_by=["i8"]).to_pylist()
        == found.select(["i8", "tz"]).slice(1).to_pylist()
    )
    with pytest.raises(SourceError, match="cannot be read"):
        source.read("T", columns=["nested"], where=None)


def test_int96_timestamps(tmp_path):
    stamp = dt.datetime(2024, 2, 29, 1, 2, 3)
    pq.write_table(pa.table({"at": [stamp]}), tmp_path / "T.parquet", use_deprecated_int96_timestamps=True)
    assert read(open_source(f"files:{tmp_path}"), "T", ["at"]).column("at").cast(pa.timestamp("us")).to_pylist() == [
        stamp
    ]


def test_damaged_parquet(tmp_path):
    pq.write_table(pa.table({"A": list(range(10_000))}), tmp_path / "T.parquet")
    content = (tmp_path / "T.parquet").read_bytes()
    source = open_source(f"files:{tmp_path}")
    (tmp_path / "T.parquet").write_bytes(content[:-20])
    with pytest.raises(SourceError, match=r"`T.parquet` cannot be read as Parquet"):
        source.describe("T")
    (tmp_path / "T.parquet").write_bytes(content[:50] + b"\xff" * 2000 + content[2050:])
    with pytest.raises(SourceError, match="cannot be read"):
        read(source, "T", ["A"])


def test_a_cut_off_gzip_file(tmp_path):
    packed = gzip.compress(b"A,B\n" + b"".join(b"%d,%d\n" % (n, n * 7919) for n in range(50_000)))
    (tmp_path / "T.csv.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "U.csv.gz").write_bytes(b"this was never packed")
    (tmp_path / "V.csv.gz").write_bytes(packed[:100] + b"\xff" * 500 + packed[600:])
    source = open_source(f"files:{tmp_path}")
    with pytest.raises(SourceError, match=r"`T.csv.gz` cannot be read to its end"):
        read(source, "T", ["A"])
    with pytest.raises(SourceError, match=r"`T.csv.gz` cannot be read to its end"):
        source.plan_chunks("T", where=None, key=["A"], rows_per_chunk=10)

    for name in ("U", "V"):
        with pytest.raises(SourceError, match=rf"`{name}.csv.gz` cannot be read to its end"):
            read(source, name, ["A"])


def test_slices_of_a_gzip_file(tmp_path):
    (tmp_path / "T.csv.gz").write_bytes(gzip.compress(b"A\n" + b"".join(b"%d\n" % n for n in range(1000))))
    source = open_source(f"files:{tmp_path}")
    chunks = source.plan_chunks("T", where=None, key=["A"], rows_per_chunk=300)
    found = [n for c in chunks for n in read(source, "T", ["A"], predicate=c.predicate).column("A").to_pylist()]
    assert found == [str(n) for n in range(1000)]


def test_the_first_batch_comes_before_the_last_row_is_read(tmp_path):
    (tmp_path / "T.csv").write_bytes(b"A,B\n" + b"1,2\n" * 2_100_000 + b"broken\n")
    batches = open_source(f"files:{tmp_path}").read("T", columns=["A"], where=None)
    assert next(batches).num_rows == 50_000
    with pytest.raises(SourceError, match=r"`T.csv`, line 2100002: the row has 1 fields, not 2"):
        list(batches)


def test_a_sample_takes_few_rows_from_each_place_of_a_large_row_group(tmp_path):
    total, wanted = 400_000, 40
    pq.write_table(pa.table({"A": range(total)}), tmp_path / "T.parquet", row_group_size=total)
    source = open_source(f"files:{tmp_path}")
    found = source.sample("T", columns=["A"], where=None, rows=wanted).column("A").to_pylist()
    assert found == [start + row for start in range(0, total, total // 20) for row in range(2)]


def test_samples_come_from_all_over(tmp_path):
    write_csv(tmp_path / "T.csv", [["A"], *([str(n)] for n in range(5000))])
    pq.write_table(pa.table({"A": [str(n) for n in range(5000)]}), tmp_path / "P.parquet")
    source = open_source(f"files:{tmp_path}")
    for name in ("T", "P"):
        for where in (None, "A::INTEGER % 2 = 0"):
            found = [int(n) for n in source.sample(name, columns=["A"], where=where, rows=100).column("A").to_pylist()]
            assert len(set(found)) == 100
            assert min(found) < 1000
            assert max(found) > 4000


def test_estimates_are_near(tmp_path):
    write_csv(tmp_path / "T.csv", [["A", "B"], *([str(n), "x" * (n % 50)] for n in range(60_000))])
    table = open_source(f"files:{tmp_path}").describe("T")
    assert table.rows_estimate == pytest.approx(60_000, rel=0.1)
    assert table.bytes_estimate == (tmp_path / "T.csv").stat().st_size


def test_readers_may_be_left_in_the_middle_and_run_side_by_side(tmp_path):
    write_csv(tmp_path / "T.csv", [["A", "B"], *([str(n), "x\ny" * 9] for n in range(20_000))])
    pq.write_table(pa.table({"A": [str(n) for n in range(20_000)]}), tmp_path / "P.parquet", row_group_size=3000)
    source = open_source(f"files:{tmp_path}")
    for name in ("T", "P"):
        for where in (None, "A <> '7'"):
            batches = source.read(name, columns=["A"], where=where, batch_rows=100)
            assert next(batches).num_rows <= 100
            batches.close()
        chunks = source.plan_chunks(name, where=None, key=["A"], rows_per_chunk=1000)
        assert len(chunks) == 20

        def ids(chunk, name=name):
            table = read(source, name, ["A"], predicate=chunk.predicate, order_by=["A"])
            return [int(n) for n in table.column("A").to_pylist()]

        with ThreadPoolExecutor(8) as pool:
            assert sorted(n for found in pool.map(ids, chunks) for n in found) == list(range(20_000))
    source.close()
    assert source.count("P", where="A = '5'") == 1
    source.close()
