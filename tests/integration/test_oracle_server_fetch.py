"""Executing and fetching at the Oracle test server: batches, prefetch, binds, many at once."""

from __future__ import annotations

import oracledb
import pyarrow as pa
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import code_of, connection, oracle

__all__ = ["connection", "oracle"]


@pytest.fixture
def numbers(connection: oracledb.Connection) -> oracledb.Cursor:
    """A table of a thousand rows."""
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE n (id NUMBER(10) PRIMARY KEY, name VARCHAR2(40), amount NUMBER(12,2))")
    cursor.executemany("INSERT INTO n VALUES (:1, :2, :3)", [(at, f"name {at}", at / 4) for at in range(1000)])
    connection.commit()
    return cursor


@pytest.mark.parametrize(("size", "batches"), [(1, 1000), (7, 143), (250, 4), (999, 2), (1000, 1), (5000, 1)])
def test_batches_have_the_asked_size_and_lose_nothing(
    connection: oracledb.Connection, numbers: oracledb.Cursor, size: int, batches: int
) -> None:
    frames = [pa.table(one) for one in connection.fetch_df_batches("SELECT * FROM n ORDER BY id", size=size)]
    assert len(frames) == batches
    whole = pa.concat_tables(frames)
    assert whole.column("ID").to_pylist() == list(range(1000))
    assert whole.column("NAME").to_pylist()[999] == "name 999"
    assert all(frame.num_rows == size for frame in frames[:-1])


def test_an_empty_result_still_has_its_schema(connection: oracledb.Connection, numbers: oracledb.Cursor) -> None:
    (frame,) = connection.fetch_df_batches("SELECT id, name FROM n WHERE id < 0", size=100)
    assert pa.table(frame).num_rows == 0
    assert pa.table(frame).column_names == ["ID", "NAME"]


@pytest.mark.parametrize("prefetch", [0, 1, 2, 100, 2000])
def test_rows_come_once_whatever_is_fetched_ahead(numbers: oracledb.Cursor, prefetch: int) -> None:
    with numbers.connection.cursor() as cursor:
        cursor.prefetchrows, cursor.arraysize = prefetch, 33
        for _ in range(2):
            assert [row[0] for row in cursor.execute("SELECT id FROM n ORDER BY id")] == list(range(1000))


def test_several_cursors_are_read_side_by_side(numbers: oracledb.Cursor) -> None:
    connection = numbers.connection
    a, b = connection.cursor(), connection.cursor()
    a.arraysize = b.arraysize = 10
    a.execute("SELECT id FROM n ORDER BY id")
    b.execute("SELECT id FROM n ORDER BY id DESC")
    pairs = list(zip((row[0] for row in a), (row[0] for row in b), strict=True))
    assert pairs == [(at, 999 - at) for at in range(1000)]


def test_a_wide_row_straddles_packets(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    columns = ", ".join(f"c{at} VARCHAR2(4000)" for at in range(40))
    cursor.execute(f"CREATE TABLE wide (id NUMBER, {columns})")
    values = [[at, *(chr(65 + (at + of) % 26) * (of * 97 % 4000) or None for of in range(40))] for at in range(20)]
    cursor.executemany(f"INSERT INTO wide VALUES ({', '.join(f':{at}' for at in range(1, 42))})", values)
    assert cursor.execute("SELECT * FROM wide ORDER BY id").fetchall() == [tuple(row) for row in values]
    frame = pa.table(connection.fetch_df_all("SELECT * FROM wide ORDER BY id"))
    assert list(frame.to_pylist()[3].values())[1:] == values[3][1:]


def test_binds_by_name_by_place_and_repeated(numbers: oracledb.Cursor) -> None:
    query = "SELECT id FROM n WHERE id = :a OR id = :b OR id = :a + 1 ORDER BY id"
    assert numbers.execute(query, {"a": 5, "b": 9}).fetchall() == [(5,), (6,), (9,)]
    assert numbers.execute(query, a=7, b=7).fetchall() == [(7,), (8,)]
    assert numbers.execute("SELECT id FROM n WHERE name IN (:1, :2)", ["name 3", "name 3"]).fetchall() == [(3,)]
    assert numbers.execute("SELECT COUNT(*) FROM n WHERE name = :1 OR :2 IS NULL", ["none", None]).fetchone() == (1000,)


def test_many_rows_at_once_and_the_count_of_each(numbers: oracledb.Cursor) -> None:
    numbers.executemany("UPDATE n SET amount = 1 WHERE id < :1", [(3,), (0,), (5,)], arraydmlrowcounts=True)
    assert numbers.getarraydmlrowcounts() == [3, 0, 5]
    assert numbers.rowcount == 8
    numbers.executemany("DELETE FROM n WHERE id = :1", [(at,) for at in range(10)])
    assert numbers.rowcount == 10


def test_batch_errors_keep_the_good_rows(numbers: oracledb.Cursor) -> None:
    rows = [(5, "twice", 1), (2001, "good", 1), (2002, "x" * 50, 1), (2003, "good", 1), (2001, "twice", 1)]
    numbers.executemany("INSERT INTO n VALUES (:1, :2, :3)", rows, batcherrors=True)
    assert [(one.offset, one.full_code) for one in numbers.getbatcherrors()] == [
        (0, "ORA-00001"),
        (2, "ORA-12899"),
        (4, "ORA-00001"),
    ]
    assert numbers.execute("SELECT id FROM n WHERE id > 2000 ORDER BY id").fetchall() == [(2001,), (2003,)]


def test_without_batch_errors_the_rows_before_the_bad_one_stay(numbers: oracledb.Cursor) -> None:
    with pytest.raises(oracledb.IntegrityError) as error:
        numbers.executemany("INSERT INTO n VALUES (:1, 'x', 0)", [(3001,), (3002,), (5,), (3003,)])
    assert code_of(error) == "ORA-00001"
    assert numbers.execute("SELECT id FROM n WHERE id > 3000 ORDER BY id").fetchall() == [(3001,), (3002,)]


def test_returning_gives_identities_and_rowids(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE g (id NUMBER GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name VARCHAR2(10))")
    key, place = cursor.var(oracledb.DB_TYPE_NUMBER, arraysize=3), cursor.var(oracledb.DB_TYPE_VARCHAR, arraysize=3)
    statement = "INSERT INTO g (name) VALUES (:1) RETURNING id, ROWID INTO :2, :3"
    cursor.execute(statement, ["a", key, place])
    assert key.getvalue(0) == [1]
    assert cursor.lastrowid == place.getvalue(0)[0]
    cursor.setinputsizes(None, key, place)
    cursor.executemany(statement, [("b",), ("c",), ("d",)])
    assert [key.getvalue(at) for at in range(3)] == [[2], [3], [4]]
    names = cursor.var(oracledb.DB_TYPE_VARCHAR)
    cursor.execute("UPDATE g SET name = name || 'x' WHERE id > :1 RETURNING name INTO :2", [2, names])
    assert sorted(names.getvalue(0)) == ["cx", "dx"]
    cursor.execute("DELETE FROM g WHERE id < :1 RETURNING name INTO :2", [0, names])
    assert names.getvalue(0) == []
    with pytest.raises(oracledb.DatabaseError) as error:
        cursor.execute("INSERT INTO g (id, name) VALUES (9, 'e')")
    assert code_of(error) == "ORA-32795"


def test_a_statement_is_parsed_without_being_run(numbers: oracledb.Cursor) -> None:
    numbers.parse("SELECT id, name FROM n WHERE id = :1")
    assert [one.name for one in numbers.description] == ["ID", "NAME"]


def test_a_changed_bind_type_is_met_by_a_full_execute(numbers: oracledb.Cursor) -> None:
    query = "SELECT id FROM n WHERE name = :1"
    assert numbers.execute(query, ["name 4"]).fetchall() == [(4,)]
    assert numbers.execute(query, ["name 44444444444444444444444444444444444444444444444444444"]).fetchall() == []
    assert numbers.execute("SELECT id FROM n WHERE id = :1", [4]).fetchall() == [(4,)]
    assert numbers.execute("SELECT id FROM n WHERE id = :1", ["4"]).fetchall() == [(4,)]


def test_closed_cursors_are_closed_at_the_server(oracle: OracleServer, numbers: oracledb.Cursor) -> None:
    """More statements than a session may hold open: the driver closes those that it drops from its cache."""
    for at in range(400):
        assert numbers.execute(f"SELECT {at} FROM dual").fetchone() == (at,)
