"""The dictionary of the Oracle test server, cuts by ROWID, samples, partitions and refusals."""

from __future__ import annotations

from datetime import datetime

import oracledb
import pytest
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, code_of, connect, connection, oracle

__all__ = ["connection", "oracle"]

DDL = """
CREATE TABLE sales (
    sale_id    NUMBER(12) CONSTRAINT sales_pk PRIMARY KEY,
    tenant     VARCHAR2(20 CHAR) NOT NULL,
    note       NVARCHAR2(30),
    amount     NUMBER(18,2) DEFAULT 0,
    free       NUMBER,
    sold_at    TIMESTAMP(3) WITH TIME ZONE,
    changed    DATE DEFAULT SYSDATE,
    ref_id     NUMBER(12) REFERENCES tenants (id),
    CONSTRAINT sales_uk UNIQUE (tenant, changed)
)
"""


@pytest.fixture
def cursor(connection: oracledb.Connection) -> oracledb.Cursor:
    made = connection.cursor()
    made.execute("CREATE TABLE tenants (id NUMBER(12) PRIMARY KEY)")
    made.execute("INSERT INTO tenants VALUES (1)")
    made.execute(DDL)
    made.execute("CREATE INDEX sales_ix ON sales (sold_at, amount)")
    made.execute("COMMENT ON TABLE sales IS 'ยอดขาย'")
    made.execute("COMMENT ON COLUMN sales.amount IS 'in baht'")
    return made


def test_columns_are_described_as_they_were_declared(cursor: oracledb.Cursor) -> None:
    found = cursor.execute(
        "SELECT column_name, data_type, data_length, data_precision, data_scale, nullable, char_length, char_used"
        " FROM all_tab_columns WHERE owner = :o AND table_name = :t ORDER BY column_id",
        o="KPS",
        t="SALES",
    ).fetchall()
    assert found == [
        ("SALE_ID", "NUMBER", 22, 12, 0, "N", 0, None),
        ("TENANT", "VARCHAR2", 80, None, None, "N", 20, "C"),
        ("NOTE", "NVARCHAR2", 60, None, None, "Y", 30, "C"),
        ("AMOUNT", "NUMBER", 22, 18, 2, "Y", 0, None),
        ("FREE", "NUMBER", 22, None, None, "Y", 0, None),
        ("SOLD_AT", "TIMESTAMP(3) WITH TIME ZONE", 13, None, 3, "Y", 0, None),
        ("CHANGED", "DATE", 7, None, None, "Y", 0, None),
        ("REF_ID", "NUMBER", 22, 12, 0, "Y", 0, None),
    ]


def test_keys_indexes_and_comments(cursor: oracledb.Cursor) -> None:
    keys = cursor.execute(
        "SELECT c.constraint_name, c.constraint_type, k.column_name, k.position"
        " FROM all_constraints c JOIN all_cons_columns k ON k.owner = c.owner AND k.constraint_name = c.constraint_name"
        " WHERE c.table_name = 'SALES' AND c.constraint_type IN ('P', 'U') ORDER BY 1, 4"
    ).fetchall()
    assert keys == [("SALES_PK", "P", "SALE_ID", 1), ("SALES_UK", "U", "TENANT", 1), ("SALES_UK", "U", "CHANGED", 2)]
    parents = cursor.execute(
        "SELECT p.table_name FROM user_constraints c JOIN user_constraints p ON p.constraint_name = c.r_constraint_name"
        " WHERE c.table_name = 'SALES' AND c.constraint_type = 'R'"
    )
    assert parents.fetchall() == [("TENANTS",)]
    indexes = cursor.execute(
        "SELECT i.index_name, i.uniqueness, c.column_name FROM all_indexes i JOIN all_ind_columns c"
        " ON c.index_owner = i.owner AND c.index_name = i.index_name WHERE i.table_name = 'SALES'"
        " ORDER BY i.index_name, c.column_position"
    ).fetchall()
    assert indexes[0:2] == [("SALES_IX", "NONUNIQUE", "SOLD_AT"), ("SALES_IX", "NONUNIQUE", "AMOUNT")]
    assert indexes[2] == ("SALES_PK", "UNIQUE", "SALE_ID")
    assert cursor.execute("SELECT comments FROM all_tab_comments WHERE table_name = 'SALES'").fetchall() == [
        ("ยอดขาย",)
    ]
    comments = "SELECT column_name, comments FROM all_col_comments WHERE table_name = 'SALES' AND comments IS NOT NULL"
    assert cursor.execute(comments).fetchall() == [("AMOUNT", "in baht")]


def test_statistics_are_there_once_gathered(cursor: oracledb.Cursor) -> None:
    query = "SELECT num_rows, last_analyzed FROM all_tables WHERE table_name = 'TENANTS'"
    assert cursor.execute(query).fetchall() == [(None, None)]
    cursor.connection.commit()
    cursor.callproc("DBMS_STATS.GATHER_TABLE_STATS", ["KPS", "TENANTS"])
    rows, analyzed = cursor.execute(query).fetchone()
    assert rows == 1
    assert isinstance(analyzed, datetime)


def test_cuts_by_rowid_hold_every_row_once(cursor: oracledb.Cursor) -> None:
    cursor.execute("CREATE TABLE many (id NUMBER(10))")
    cursor.executemany("INSERT INTO many VALUES (:1)", [(at,) for at in range(5000)])
    cursor.connection.commit()
    extents = cursor.execute(
        "SELECT o.data_object_id, e.relative_fno, e.block_id, e.blocks FROM dba_extents e JOIN dba_objects o"
        " ON o.owner = e.owner AND o.object_name = e.segment_name WHERE e.owner = 'KPS' AND e.segment_name = 'MANY'"
        " ORDER BY e.relative_fno, e.block_id"
    ).fetchall()
    assert len(extents) == 7
    found: list[int] = []
    for data_object, file, block, blocks in extents:
        low, high = cursor.execute(
            "SELECT ROWIDTOCHAR(DBMS_ROWID.ROWID_CREATE(1, :1, :2, :3, 0)),"
            " ROWIDTOCHAR(DBMS_ROWID.ROWID_CREATE(1, :4, :5, :6, 32767)) FROM dual",
            [data_object, file, block, data_object, file, block + blocks - 1],
        ).fetchone()
        part = cursor.execute("SELECT id FROM many WHERE ROWID BETWEEN :1 AND :2", [low, high]).fetchall()
        assert part
        found += [row[0] for row in part]
    assert sorted(found) == list(range(5000))


def test_a_sample_is_a_share_and_repeats_with_its_seed(cursor: oracledb.Cursor) -> None:
    cursor.execute("CREATE TABLE many (id NUMBER(10))")
    cursor.executemany("INSERT INTO many VALUES (:1)", [(at,) for at in range(20000)])
    query = "SELECT id FROM many SAMPLE (10) SEED (7) ORDER BY id"
    first = cursor.execute(query).fetchall()
    assert 1700 < len(first) < 2300
    assert cursor.execute(query).fetchall() == first
    blocks = cursor.execute("SELECT id FROM many SAMPLE BLOCK (20) SEED (1)").fetchall()
    assert len(blocks) % 100 == 0
    assert 0 < len(blocks) < 20000


def test_partitions_are_read_apart(cursor: oracledb.Cursor) -> None:
    cursor.execute(
        "CREATE TABLE parted (id NUMBER(10), day DATE) PARTITION BY RANGE (day) ("
        " PARTITION p1 VALUES LESS THAN (DATE '2024-01-01'), PARTITION p2 VALUES LESS THAN (MAXVALUE))"
    )
    cursor.execute("INSERT INTO parted VALUES (1, DATE '2023-12-31')")
    cursor.execute("INSERT INTO parted VALUES (2, DATE '2024-01-01')")
    cursor.execute("INSERT INTO parted VALUES (3, NULL)")
    assert cursor.execute("SELECT id FROM parted PARTITION (p1)").fetchall() == [(1,)]
    assert cursor.execute("SELECT id FROM parted PARTITION (p2) ORDER BY id").fetchall() == [(2,), (3,)]
    names = "SELECT partition_name, partition_position FROM all_tab_partitions WHERE table_name = 'PARTED' ORDER BY 2"
    assert cursor.execute(names).fetchall() == [("P1", 1), ("P2", 2)]
    objects = "SELECT COUNT(DISTINCT data_object_id) FROM all_objects WHERE object_name = 'PARTED'"
    assert cursor.execute(objects).fetchone() == (2,)


def test_views_are_hidden_from_those_without_the_grant(oracle: OracleServer, cursor: oracledb.Cursor) -> None:
    oracle.add_user("READER", PASSWORD)
    reader = connect(oracle, "READER").cursor()
    for view in ("dba_extents", "v$parameter", "dba_objects"):
        with pytest.raises(oracledb.DatabaseError) as error:
            reader.execute(f"SELECT COUNT(*) FROM {view}")
        assert code_of(error) == "ORA-00942"
    assert reader.execute("SELECT COUNT(*) FROM all_tables").fetchone() == (0,)
    cursor.execute("GRANT READ ON tenants TO reader")
    assert reader.execute("SELECT owner, table_name FROM all_tables").fetchall() == [("KPS", "TENANTS")]
    undo = "SELECT value FROM v$parameter WHERE name = 'undo_retention'"
    assert cursor.execute(undo).fetchall() == [("900",)]


REFUSED = [
    ("SELECT ORA_HASH(id) FROM tenants", "ORA-03001"),
    ("SELECT id FROM tenants CONNECT BY PRIOR id = id", "ORA-03001"),
    ("SELECT ROWNUM FROM tenants", "ORA-03001"),
    ("SELECT * FROM tenants t, sales s WHERE t.id = s.ref_id (+)", "ORA-03001"),
    ("SELECT TO_CHAR(changed) FROM sales", "ORA-03001"),
    ("SELECT TO_CHAR(changed, 'Day') FROM sales", "ORA-03001"),
    ("BEGIN EXECUTE IMMEDIATE 'x'; END;", "ORA-03001"),
    ("BEGIN NULL; END;", "ORA-03001"),
    ("ALTER TABLE sales DROP COLUMN note", "ORA-03001"),
    ("CREATE TABLE x (a NUMBER PRIMARY KEY) ORGANIZATION INDEX", "ORA-03001"),
    ("SELECT INSTR(note, 'x', -1) FROM sales", "ORA-03001"),
    ("SELECT CURRENT_DATE FROM dual", "ORA-03001"),
    ("SELECT * FROM sales WHERE ROWNUM = 2", "ORA-03001"),
    ("SELECT * FROM (SELECT id, id FROM tenants)", "ORA-03001"),
    ("SELECT CAST('abc' AS VARCHAR2(2)) FROM dual", "ORA-03001"),
    ("SELECT CAST('2024-01-01' AS DATE) FROM dual", "ORA-03001"),
    ("SELECT * FROM sales WHERE changed = '2024-01-01'", "ORA-03001"),
    ("SELECT TIMESTAMP '0001-01-01 00:00:00 +07:00' FROM dual", "ORA-03001"),
    ("SELECT DATE '-4713-01-01' FROM dual", "ORA-01841"),
    ("SELECT DISTINCT tenant FROM sales ORDER BY sold_at", "ORA-01791"),
    ("CREATE VIEW v AS SELECT 1 x FROM dual", "ORA-03001"),
    ("CREATE TABLE x (a SDO_GEOMETRY)", "ORA-03001"),
    ("MERGE INTO sales USING dual ON (1 = 1) WHEN MATCHED THEN UPDATE SET note = 'x'", "ORA-03001"),
    ("SELECT md5('x') FROM dual", "ORA-03001"),
    ("SELECT * FROM sales LIMIT 5", "ORA-00933"),
    ("SELECT id FROM tenants ILIKE 'x'", "ORA-00933"),
    ("SELECT * FROM nothing", "ORA-00942"),
    ("SELECT nothing FROM sales", "ORA-00904"),
    ("SELECT read_csv('x') FROM dual", "ORA-03001"),
    ("SELECT * FROM read_csv", "ORA-00942"),
    ("SELECT 1", "ORA-00923"),
    ("SELECT 1 + 'x' FROM dual", "ORA-01722"),
    ("SELECT 1 / 0 FROM dual", "ORA-01476"),
    ("SELECT tenant FROM sales WHERE tenant > sold_at", "ORA-03001"),
    ("SELECT id, COUNT(*) FROM tenants", "ORA-00979"),
    ("SELECT id FROM tenants t JOIN sales s ON id = ref_id JOIN tenants u ON 1 = 1", "ORA-00918"),
    ("CREATE TABLE sales (x NUMBER)", "ORA-00955"),
    ("SELECT TO_DATE('2024-13-01', 'YYYY-MM-DD') FROM dual", "ORA-01861"),
    ("SELECT DATE '2024-02-30' FROM dual", "ORA-01839"),
]


def test_what_was_not_taught_is_refused(cursor: oracledb.Cursor) -> None:
    for statement, code in REFUSED:
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute(statement).fetchall()
        assert code_of(error) == code, statement
        assert cursor.execute("SELECT COUNT(*) FROM tenants").fetchone() == (1,)


MEANT = [
    ("NVL(NULL, 5)", 5),
    ("NVL('', 'x')", "x"),
    ("NVL2(NULL, 'a', 'b')", "b"),
    ("DECODE(NULL, NULL, 'same', 'other')", "same"),
    ("COALESCE(NULL, NULL, 3)", 3),
    ("SUBSTR('abcdef', -3, 2)", "de"),
    ("SUBSTR('abc', 0, 1)", "a"),
    ("SUBSTR('abc', 5)", None),
    ("INSTR('abcabc', 'c')", 3),
    ("LENGTH('กขค')", 3),
    ("LENGTHB('กขค')", 9),
    ("LENGTH('')", None),
    ("'a' || NULL || 'b'", "ab"),
    ("'' || ''", None),
    ("1 / 3 * 3", 1),
    ("TO_CHAR(1 / 3)", "." + "3" * 40),
    ("TO_CHAR(2 / 3)", "." + "6" * 39 + "7"),
    ("0.1 + 0.2", 0.3),
    ("ROUND(2.5)", 3),
    ("ROUND(-2.5)", -3),
    ("ROUND(1234.567, -2)", 1200),
    ("TRUNC(1.99, 1)", 1.9),
    ("MOD(-7, 3)", -1),
    ("TRUNC(DATE '2024-05-06' + 0.75)", datetime(2024, 5, 6)),
    ("DATE '2024-03-01' - DATE '2024-02-01'", 29),
    ("ADD_MONTHS(DATE '2024-01-31', 1)", datetime(2024, 2, 29)),
    ("ADD_MONTHS(DATE '2024-02-29', 1)", datetime(2024, 3, 31)),
    ("DATE '2024-01-01' + 1 / 24", datetime(2024, 1, 1, 1)),
    ("TO_DATE('2024-05-06 07:08:09', 'YYYY-MM-DD HH24:MI:SS')", datetime(2024, 5, 6, 7, 8, 9)),
    ("TO_CHAR(DATE '0099-05-06', 'DD/MM/YYYY')", "06/05/0099"),
    ("CAST('12.345' AS NUMBER(5,2))", 12.35),
    ("CASE WHEN 1 = 1 THEN 'x' END", "x"),
    ("EXTRACT(YEAR FROM DATE '2024-05-06')", 2024),
    ("GREATEST(1, NULL)", None),
    ("RAWTOHEX(STANDARD_HASH('abc', 'MD5'))", "900150983CD24FB0D6963F7D28E17F72"),
    ("RAWTOHEX(UTL_RAW.CAST_TO_RAW('ก'))", "E0B881"),
    ("q'[it's]'", "it's"),
    ("TRIM('  x ')", "x"),
    ("LPAD('7', 3, '0')", "007"),
]


def test_expressions_mean_what_oracle_documents(connection: oracledb.Connection) -> None:
    cursor = connection.cursor()
    for expression, value in MEANT:
        assert cursor.execute(f"SELECT {expression} FROM dual").fetchone() == (value,), expression


def test_queries_of_every_taught_shape(cursor: oracledb.Cursor) -> None:
    cursor.execute("CREATE TABLE q (id NUMBER(5), g VARCHAR2(5), x NUMBER(8,2), free NUMBER)")
    cursor.executemany(
        "INSERT INTO q VALUES (:1, :2, :3, :4)",
        [(at, "ab"[at % 2], at / 2 if at % 3 else None, at) for at in range(1, 11)],
    )
    for query, expected in (
        (
            "SELECT g, COUNT(*), SUM(x), AVG(free) FROM q GROUP BY g HAVING COUNT(*) > 1 ORDER BY g",
            [("a", 5, 12, 6), ("b", 5, 6.5, 5)],
        ),
        ("SELECT id FROM q ORDER BY x DESC, id FETCH FIRST 4 ROWS ONLY", [(3,), (6,), (9,), (10,)]),
        ("SELECT id FROM q ORDER BY id OFFSET 8 ROWS FETCH NEXT 5 ROWS ONLY", [(9,), (10,)]),
        ("SELECT id FROM (SELECT id FROM q ORDER BY id DESC) WHERE ROWNUM <= 2", [(10,), (9,)]),
        ("WITH h AS (SELECT MAX(free) m FROM q) SELECT id FROM q, h WHERE free = m", [(10,)]),
        ("SELECT id FROM q WHERE id > 9 UNION ALL SELECT 1 FROM dual ORDER BY 1", [(1,), (10,)]),
        ("SELECT id FROM q WHERE id < 4 MINUS SELECT 2 FROM dual ORDER BY 1", [(1,), (3,)]),
        ("SELECT id FROM q a WHERE EXISTS (SELECT 1 FROM q b WHERE b.id = a.id * 5)", [(1,), (2,)]),
        ("SELECT id FROM q WHERE (id, g) IN ((1, 'b'), (2, 'b'))", [(1,)]),
        ("SELECT id FROM q WHERE id IN (SELECT id * 2 FROM q) AND id NOT BETWEEN 3 AND 9 ORDER BY id", [(2,), (10,)]),
        ("SELECT COUNT(DISTINCT g), MIN(x), MAX(free) FROM q", [(2, 0.5, 10)]),
        ("SELECT TO_CHAR(MAX(x)), MIN(x) / 2, MAX(id) + MAX(free) FROM q", [("5", 0.25, 20)]),
        ("SELECT b.id FROM q a LEFT JOIN q b ON b.id = a.id + 9 WHERE a.id < 3 ORDER BY b.id", [(10,), (None,)]),
        (
            "SELECT MIN(id), MAX(id) FROM (SELECT id, NTILE(2) OVER (ORDER BY id) n FROM q) GROUP BY n ORDER BY 1",
            [(1, 5), (6, 10)],
        ),
        ("SELECT ROUND(SUM(x) * 100.0 / NULLIF(COUNT(*), 0), 2) FROM q", [(185,)]),
        ("SELECT DISTINCT g FROM q WHERE g LIKE 'a%' AND NOT g = 'b'", [("a",)]),
        ("SELECT /*+ FULL(q) */ CASE g WHEN 'a' THEN 1 ELSE 0 END FROM q WHERE id = 2 -- the end", [(1,)]),
    ):
        assert cursor.execute(query).fetchall() == expected, query


def test_a_copy_is_made_by_create_table_as_select(cursor: oracledb.Cursor) -> None:
    cursor.execute("INSERT INTO sales (sale_id, tenant, amount, free) VALUES (1, 'T', 1.5, 2)")
    cursor.execute("CREATE TABLE copied AS SELECT sale_id, tenant, amount, free, sold_at, changed FROM sales")
    assert cursor.execute("SELECT sale_id, tenant, amount, free FROM copied").fetchall() == [(1, "T", 1.5, 2)]
    columns = "SELECT data_type, data_precision, data_scale FROM user_tab_columns WHERE table_name = 'COPIED'"
    assert cursor.execute(f"{columns} ORDER BY column_id").fetchall()[:4] == [
        ("NUMBER", 12, 0),
        ("VARCHAR2", None, None),
        ("NUMBER", 18, 2),
        ("NUMBER", None, None),
    ]
    cursor.execute("DROP TABLE copied PURGE")
    with pytest.raises(oracledb.DatabaseError) as error:
        cursor.execute("SELECT * FROM copied")
    assert code_of(error) == "ORA-00942"


def test_texts_are_compared_and_cut_as_documented(cursor: oracledb.Cursor) -> None:
    """Blanks count where a function gives VARCHAR2, and a null to look for changes nothing."""
    query = (
        "SELECT DECODE('a', 'a ', 1, 0), CASE WHEN NVL('a', 'b') = 'a ' THEN 1 ELSE 0 END,"
        " CASE WHEN TRIM('a') = 'a ' THEN 1 ELSE 0 END, CASE WHEN 'a' = 'a ' THEN 1 ELSE 0 END,"
        " SUBSTR('abc', -5), SUBSTR('abc', -3), REPLACE('abc', '', 'x') FROM dual"
    )
    assert cursor.execute(query).fetchall() == [(0, 0, 0, 1, None, "abc", "abc")]
