"""SQLite files as a source: exact values, honest errors, slices of every kind of table."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pyarrow as pa
import pytest

from forcelift.errors import SourceError, SourceUnavailable
from forcelift.protocols.source import BROKEN_TEXT, ColumnKind
from forcelift.rules import frame_of
from forcelift.source import open_source


@pytest.fixture
def make(tmp_path):
    """Make a database from a script and rows, and open it as a source."""
    sources = []

    def build(script: str, rows: dict[str, list[tuple]] | None = None, **options):
        path = tmp_path / "data.db"
        connection = sqlite3.connect(path)
        connection.executescript(script)
        for table, values in (rows or {}).items():
            connection.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * len(values[0]))})", values)
        connection.commit()
        connection.close()
        sources.append(open_source(f"sqlite:///{path}", **options))
        return sources[-1]

    yield build
    for source in sources:
        source.close()


def read(source, table, columns, **options) -> pa.Table:
    options = {"where": None, **options}
    batches = list(source.read(table, columns=columns, **options))
    for batch in batches:
        batch.validate(full=True)
    return pa.Table.from_batches(batches) if batches else pa.table({})


def test_values_arrive_by_declared_type_after_thousands_of_nulls(make):
    rows = [(n, None, None, None, None, None, None, None, None) for n in range(3000)]
    rows += [(3000, 2**63 - 1, "1.10", 0.1, "ก\x00ข", b"\xff\x00", 1, "2024-02-30", "n/a")]
    source = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, i BIGINT, d DECIMAL(12,2), r REAL, s TEXT, b BLOB, f BOOLEAN,"
        " day DATE, at TIMESTAMP)",
        {"t": rows},
    )
    table = read(source, "t", ["id", "i", "d", "r", "s", "b", "f", "day", "at"], order_by=["id"], batch_rows=100)
    assert [(column.name, column.arrow) for column in source.describe("t").columns] == [
        (field.name, field.type) for field in table.schema
    ]
    assert table.num_rows == 3001
    assert table.slice(3000).to_pylist() == [
        {
            "id": 3000,
            "i": 2**63 - 1,
            "d": Decimal("1.1"),
            "r": 0.1,
            "s": "ก\x00ข",
            "b": b"\xff\x00",
            "f": True,
            "day": "2024-02-30",
            "at": "n/a",
        }
    ]
    assert table.column("i").null_count == table.column("s").null_count == 3000


def test_decimals_are_the_shortest_text_of_the_stored_number(make):
    stored = [0.1 + 0.2, 1e18, 2**63 - 1, -(2**63), -0.0, 5.551115123125783e-17, 1e-300, 123456789.12, "17.50", None]
    source = make("CREATE TABLE t (d NUMERIC)", {"t": [(value,) for value in stored]})
    assert read(source, "t", ["d"]).column("d").to_pylist() == [
        Decimal("0.30000000000000004"),
        Decimal(10) ** 18,
        Decimal(2**63 - 1),
        Decimal(-(2**63)),
        Decimal(0),
        Decimal("0.0000000000000000555"),
        Decimal(0),
        Decimal("123456789.12"),
        Decimal("17.5"),
        None,
    ]


def test_numbers_in_columns_without_a_type_are_told_to_the_last_digit(make):
    source = make("CREATE TABLE t (v)", {"t": [(0.1 + 0.2,), (2**62,), ("x",), (None,)]})
    assert read(source, "t", ["v"]).column("v").to_pylist() == ["0.30000000000000004", str(2**62), "x", None]


def test_dates_of_any_class_reach_the_rules_as_text(make):
    source = make("CREATE TABLE t (d DATE)", {"t": [("2024-01-31",), (2013,), (2460000.5,), ("",)]})
    assert read(source, "t", ["d"]).column("d").to_pylist() == ["2024-01-31", "2013", "2460000.5", ""]
    assert source.describe("t").columns[0].kind is ColumnKind.TEXT


def text_of(value) -> str:
    if isinstance(value, bytes):
        return value.decode()
    shown = str(value).lower()
    return shown if shown in ("true", "false") else f"{Decimal(value):f}".split(".")[0]


@pytest.mark.parametrize(
    ("declared", "value", "arrives"),
    [
        ("INTEGER", "abc", "abc"),
        ("INTEGER", "", ""),
        ("INTEGER", 1.5, "1.5"),
        ("INTEGER", 1e19, "10000000000000000000"),
        ("INTEGER", b"\xff1", BROKEN_TEXT + "ff31"),
        ("REAL", "abc", "abc"),
        ("REAL", "ก".encode(), "ก"),
        ("NUMERIC", "abc", "abc"),
        ("DECIMAL(30,0)", 1e25, "1" + "0" * 25),
        ("NUMERIC", float("inf"), "Infinity"),
        ("BOOLEAN", 2, "2"),
        ("BOOLEAN", 0.5, "0.5"),
        ("BOOLEAN", "yes", "yes"),
        ("TEXT", b"abc", "abc"),
        ("TEXT", b"\xff", BROKEN_TEXT + "ff"),
        ("DATE", b"2024", "2024"),
        ("BLOB", 3, b"3"),
        ("BLOB", 0.1, b"0.1"),
    ],
)
@pytest.mark.parametrize("stored", ["TABLE", "VIEW", "WITHOUT ROWID"])
def test_a_misfit_arrives_beside_the_values_that_fit(make, declared, value, arrives, stored):
    rows = [(n, 1) for n in range(1, 200)] + [(200, value), (201, None), *((n, 0) for n in range(202, 300))]
    ending = "WITHOUT ROWID" if stored == "WITHOUT ROWID" else ""
    source = make(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared}) {ending}; CREATE VIEW w AS SELECT id, v FROM t",
        {"t": rows},
    )
    table = "w" if stored == "VIEW" else "t"
    for order in ([], ["v", "id"]):
        batches = list(source.read(table, columns=["id", "v"], where=None, order_by=order, batch_rows=50))
        frames = [frame_of(batch) for batch in batches]
        found = {row["id"]: row["v"] for frame in frames for row in frame.to_dicts()}
        assert sum(frame.height for frame in frames) == len(found) == 299
        assert found[200] == arrives
        assert found[201] is None
        # What fits is what it is without a misfit in the table, whether its batch holds one or not.
        assert {text_of(found[n]) for n in range(1, 200)} <= {"1", "true"}
        assert {text_of(found[n]) for n in range(202, 300)} <= {"0", "false"}
    sample = source.sample(table, columns=["v"], where="id > 190", rows=10_000)
    assert arrives in frame_of(sample)["v"].to_list()


def test_misfits_in_several_columns_come_in_turn(make):
    rows = [(n, "x" if n == 30 else n, b"\xe0" if n == 60 else 0.5, n if n % 40 else "y") for n in range(100)]
    source = make("CREATE TABLE t (id INTEGER, a INTEGER, b REAL, c DECIMAL)", {"t": rows})
    frames = [frame_of(one) for one in source.read("t", columns=["id", "a", "b", "c"], where=None, batch_rows=7)]
    assert [n for frame in frames for n in frame["id"]] == list(range(100))
    shown = {n: row for frame in frames for n, *row in frame.rows()}
    assert shown[30][0] == "x"
    assert shown[60][1] == BROKEN_TEXT + "e0"
    assert [n for n in shown if shown[n][2] == "y"] == [0, 40, 80]


def test_bytes_among_numbers_are_left_to_the_rules_where_text_has_another_encoding(make):
    source = make("CREATE TABLE t (v INTEGER)", {"t": [(1,), (b"\xa1",), ("abc",), (2.5,)]}, encoding="tis-620")
    (batch,) = source.read("t", columns=["v"], where=None)
    assert frame_of(batch)["v"].to_list() == ["1", BROKEN_TEXT + "a1", "abc", "2.5"]


def test_the_second_query_for_misfits_sees_the_state_of_the_first(make, tmp_path):
    script = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)"
    source = make(script, {"t": [*((n, n) for n in range(500)), (500, "x")]})
    batches = source.read("t", columns=["id", "v"], where=None, batch_rows=100)
    first = next(batches)
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('DELETE FROM t WHERE id < 50');"
        "c.execute('INSERT INTO t VALUES (-1, 0), (501, 0)'); c.commit()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "data.db")], check=True)
    found = [n for batch in (first, *batches) for n in batch.column("id").to_pylist()]
    assert found == list(range(501))


def test_misfits_can_be_read_as_text(make):
    source = make("CREATE TABLE t (v INTEGER); INSERT INTO t VALUES (1), ('x'), (0.5)", text_columns={"t": ["v"]})
    assert read(source, "t", ["v"]).column("v").to_pylist() == ["1", "x", "0.5"]


def test_bytes_that_are_not_utf8_are_handed_on_value_by_value(make, tmp_path):
    script = (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (5, 'ok'), (9, CAST(X'A1A2' AS TEXT))"
    )
    source = make(script)
    assert read(source, "t", ["v"]).column("v").to_pylist() == ["ok", BROKEN_TEXT + "a1a2"]
    raw = open_source(f"sqlite:///{tmp_path / 'data.db'}", encoding="tis-620")
    assert read(raw, "t", ["v"]).column("v").to_pylist() == [b"ok", b"\xa1\xa2"]


def test_odd_names_work_everywhere(make):
    table, column = 'ตาราง "x" y', 'ชื่อ "a"; --'
    quoted = ['"' + name.replace('"', '""') + '"' for name in (table, column)]
    source = make(f"CREATE TABLE {quoted[0]} ({quoted[1]} TEXT, rowid TEXT)", {quoted[0]: [("ก", "z")] * 3})
    assert source.tables() == [table]
    assert read(source, table, [column, "rowid"], order_by=[column]).column(0).to_pylist() == ["ก"] * 3
    assert source.count(table, where=None) == 3
    assert len(source.plan_chunks(table, where=None, key=[column], rows_per_chunk=1)) == 3


def test_keys_are_described(make):
    source = make(
        "CREATE TABLE t (a TEXT NOT NULL, b INT, c TEXT UNIQUE, d INT, PRIMARY KEY (b, a));"
        "CREATE UNIQUE INDEX u ON t (d, c); CREATE UNIQUE INDEX part ON t (d) WHERE c IS NULL;"
        "CREATE UNIQUE INDEX expr ON t (lower(c)); CREATE VIEW w AS SELECT a FROM t"
    )
    table = source.describe("t")
    assert table.primary_key == ("b", "a")
    assert set(table.unique_keys) == {("c",), ("d", "c")}
    assert [column.nullable for column in table.columns] == [False, True, True, True]
    assert source.tables() == ["t", "w"]
    assert source.describe("w").primary_key == ()


def test_unknown_names_are_answered_with_near_ones(make):
    source = make("CREATE TABLE FLIGHTS (CARRIER TEXT)")
    with pytest.raises(SourceError, match="no table `flights`") as table:
        source.describe("flights")
    assert "`FLIGHTS`" in str(table.value.hint)
    with pytest.raises(SourceError, match="no column `CARIER`") as column:
        source.read("FLIGHTS", columns=["CARIER"], where=None)
    assert "`CARRIER`" in str(column.value.hint)
    with pytest.raises(SourceError, match="no column `X`"):
        source.read("FLIGHTS", columns=["CARRIER"], where=None, order_by=["X"])


@pytest.mark.parametrize(
    ("where", "said"), [("NOPE = 1", "no such column: NOPE"), ("(v = 1", "syntax error|incomplete"), ("v =", "syntax")]
)
def test_a_where_that_fails_is_told_in_the_databases_words(make, where, said):
    source = make("CREATE TABLE t (v INT)")
    for call in (
        lambda: source.count("t", where=where),
        lambda: list(source.read("t", columns=["v"], where=where)),
        lambda: source.plan_chunks("t", where=where, key=["v"], rows_per_chunk=10),
        lambda: source.sample("t", columns=["v"], where=where, rows=5),
    ):
        with pytest.raises(SourceError, match=f"table `t` cannot be read: .*({said})"):
            call()


def test_a_where_may_end_in_a_comment_and_hold_or(make):
    source = make("CREATE TABLE t (v INT)", {"t": [(n,) for n in range(10)]})
    where = "v = 1 OR v = 2 -- the first two"
    chunks = source.plan_chunks("t", where=where, key=["v"], rows_per_chunk=1)
    assert [source.count("t", where=where, predicate=chunk.predicate) for chunk in chunks] == [1, 1]
    assert source.count("t", where=where) == 2


def test_nothing_is_created_or_written(make, tmp_path):
    with pytest.raises(SourceError, match="there is no file"):
        open_source(f"sqlite:///{tmp_path / 'missing.db'}")
    assert not (tmp_path / "missing.db").exists()
    source = make("CREATE TABLE t (v INT); INSERT INTO t VALUES (1)")
    before = (tmp_path / "data.db").read_bytes()
    read(source, "t", ["v"], order_by=["v"])
    source.close()
    assert (tmp_path / "data.db").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["data.db"]


def test_files_that_are_no_database(tmp_path):
    (tmp_path / "text.db").write_text("not a database at all")
    with pytest.raises(SourceError, match=r"`.*text.db` cannot be read: file is not a database"):
        open_source(f"sqlite:///{tmp_path / 'text.db'}")
    with pytest.raises(SourceError, match="is a folder"):
        open_source(f"sqlite:///{tmp_path}")


def test_a_damaged_database_is_an_error_and_not_fewer_rows(make, tmp_path):
    source = make("CREATE TABLE t (v TEXT)", {"t": [("x" * 500,)] * 2000})
    path = tmp_path / "data.db"
    path.write_bytes(path.read_bytes()[:200_000] + b"\xff" * 50_000 + path.read_bytes()[250_000:])
    with pytest.raises(SourceError, match="cannot be read"):
        read(source, "t", ["v"])


def test_a_lock_of_another_program_may_pass(make, tmp_path, monkeypatch):
    monkeypatch.setattr("forcelift.source.sqlite.BUSY_TIMEOUT_MS", 1)
    source = make("CREATE TABLE t (v INT); INSERT INTO t VALUES (1)")
    # POSIX locks bind between processes only, so the writer must be another one.
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"locked\n"
        with pytest.raises(SourceUnavailable, match="locked by another program"):
            source.count("t", where=None)
        writer.stdin.close()
    assert source.count("t", where=None) == 1


def test_the_first_batch_comes_before_the_last_row_is_read(make):
    source = make("CREATE TABLE t (v INTEGER)", {"t": [*((n,) for n in range(5000)), ("misfit",)]})
    batches = source.read("t", columns=["v"], where=None, batch_rows=100)
    assert next(batches).column("v").to_pylist()[:3] == [0, 1, 2]
    assert sum(batch.num_rows for batch in batches) > 4800


def test_a_reader_may_be_left_in_the_middle(make):
    source = make("CREATE TABLE t (v INTEGER)", {"t": [(n,) for n in range(5000)]})
    batches = source.read("t", columns=["v"], where=None, batch_rows=10)
    next(batches)
    batches.close()
    open_one = source.read("t", columns=["v"], where=None, batch_rows=10)
    next(open_one)
    source.close()


def test_slices_are_read_in_parallel(make):
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", {"t": [(n * 3, f"v{n}") for n in range(20_000)]})
    chunks = source.plan_chunks("t", where=None, key=["id"], rows_per_chunk=1000)
    assert [chunk.rows_estimate for chunk in chunks] == [1000] * 20

    def ids(chunk):
        return read(source, "t", ["id"], predicate=chunk.predicate, order_by=["id"]).column("id").to_pylist()

    with ThreadPoolExecutor(8) as pool:
        assert [n for found in pool.map(ids, chunks) for n in found] == [n * 3 for n in range(20_000)]


def test_an_index_on_the_where_column_does_not_replace_the_walk(make, tmp_path):
    rows = [(n, n % 2) for n in range(1000)]
    source = make("CREATE TABLE t (id INTEGER PRIMARY KEY, v INT); CREATE INDEX i ON t (v)", {"t": rows})
    chunks = source.plan_chunks("t", where="v = 1", key=["id"], rows_per_chunk=100)
    assert [source.count("t", where="v = 1", predicate=chunk.predicate) for chunk in chunks] == [100] * 5


def test_order_by_puts_nulls_last(make):
    source = make("CREATE TABLE t (a INT, b TEXT)", {"t": [(None, "x"), (2, "y"), (1, "z"), (1, None), (1, "a")]})
    table = read(source, "t", ["a", "b"], order_by=["a", "b"])
    assert table.column("a").to_pylist() == [1, 1, 1, 2, None]
    assert table.column("b").to_pylist()[:3] == ["a", "z", None]


@pytest.mark.parametrize("kind", ["TABLE", "WITHOUT ROWID", "VIEW"])
def test_samples_come_from_all_over_the_table(make, kind):
    ending = "WITHOUT ROWID" if kind == "WITHOUT ROWID" else ""
    source = make(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT) {ending}; CREATE VIEW w AS SELECT * FROM t",
        {"t": [(n, "x") for n in range(10_000)]},
    )
    name = "w" if kind == "VIEW" else "t"
    sample = source.sample(name, columns=["v", "id"], where=None, rows=100)
    ids = sample.column("id").to_pylist()
    assert len(set(ids)) == 100
    assert min(ids) < 500
    assert max(ids) > 9500
    assert source.sample(name, columns=["id"], where="id < 10", rows=100).num_rows <= 10
    assert source.sample(name, columns=["id"], where="id < 0", rows=100).num_rows == 0


def test_the_fingerprint_follows_the_file(make, tmp_path):
    source = make("CREATE TABLE t (v INT)")
    before = source.fingerprint("t")
    assert source.fingerprint("t") == before
    connection = sqlite3.connect(tmp_path / "data.db")
    connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(5000)])
    connection.commit()
    connection.close()
    assert source.fingerprint("t") != before
    assert source.snapshot() is None
    assert source.now().utcoffset().total_seconds() == 0


def test_a_predicate_of_another_source_is_refused(make):
    source = make("CREATE TABLE t (v INT)")
    for predicate in ({"by": "pieces", "pieces": []}, {"by": "rowid", "after": "1 OR 1=1", "upto": None}, {}):
        with pytest.raises(SourceError, match="stored chunk"):
            source.count("t", where=None, predicate=predicate)


def test_row_estimates_are_bounded_by_the_files_size(make, tmp_path):
    source = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (-9000000000000000000), (9000000000000000000)"
    )
    estimate = source.describe("t").rows_estimate
    assert estimate is not None
    assert 2 <= estimate <= (tmp_path / "data.db").stat().st_size
    sample = source.sample("t", columns=["id"], where=None, rows=10)
    assert sorted(sample.column("id").to_pylist()) == [-9 * 10**18, 9 * 10**18]


def test_a_database_in_wal_mode_is_read_while_another_program_writes(make, tmp_path):
    source = make("PRAGMA journal_mode = WAL; CREATE TABLE t (v INT); INSERT INTO t VALUES (1)")
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO t VALUES (2)'); c.commit();"
        "c.execute('INSERT INTO t VALUES (3)'); print('open', flush=True); sys.stdin.read()"
    )
    before = source.fingerprint("t")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "data.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"open\n"
        assert sorted(read(source, "t", ["v"]).column("v").to_pylist()) == [1, 2]
        assert source.fingerprint("t") != before
        writer.stdin.close()
    assert source.count("t", where=None) == 2


def test_other_calls_do_not_drop_the_lock_of_a_read(make, tmp_path):
    """Goal: nobody writes under a read. Method: other calls come and go, then another program asks for the lock."""
    source = make("CREATE TABLE t (v INT)", {"t": [(n,) for n in range(50_000)]})
    batches = source.read("t", columns=["v"], where=None, batch_rows=100)
    first = next(batches).num_rows
    source.count("t", where=None)
    source.fingerprint("t")
    open_source(f"sqlite:///{tmp_path / 'data.db'}").close()
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0);"
        "c.execute('BEGIN EXCLUSIVE'); print('taken')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data.db")]
    during = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "database is locked" in during.stderr
    assert first + sum(batch.num_rows for batch in batches) == 50_000
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "taken\n"
