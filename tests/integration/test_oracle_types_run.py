"""Every type of Oracle at its extremes, through a run: the org has the value, or the row is refused for a reason."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import oracledb
import pytest
from tests.integration.cli_migration import Migration
from tests.oracle_server.server import OracleServer
from tests.oracle_support import PASSWORD, connect, oracle

from forcelift.errors import ExitCode
from forcelift.source.oracle_types import Declared, oracle_column
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

__all__ = ["oracle"]

KEY = {"type": "string", "externalId": True, "unique": True}
TEXT: dict[str, Any] = {"type": "string", "length": 255}
LONG: dict[str, Any] = {"type": "textarea", "length": 32000}
DAY, MOMENT, FLAG = {"type": "date"}, {"type": "datetime"}, {"type": "boolean"}


def number(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "double", "precision": precision, "scale": scale}


class Refused(str):
    """The code that a row is refused with."""


DIGITS = "12345678901234567890123456789012345678"
# Declared type, the value as SQL, the org's field, what the org then has; by one row a line.
CASES: list[tuple[str, str, dict[str, Any], Any]] = [
    ("NUMBER(18)", "999999999999999999", TEXT, "999999999999999999"),
    ("NUMBER(18)", "-999999999999999999", TEXT, "-999999999999999999"),
    ("NUMBER(38)", "9" * 38, TEXT, "9" * 38),
    ("NUMBER(38)", "9" * 38, number(18, 0), Refused("REJECTED_NUMBER_SIZE")),
    ("NUMBER(15,2)", "-9999999999999.99", number(18, 2), -9999999999999.99),
    ("NUMBER(38,10)", "9" * 28 + ".0123456789", TEXT, "9" * 28 + ".0123456789"),
    ("NUMBER(5,-3)", "12345678", number(18, 0), 12346000.0),
    ("NUMBER(38,-2)", "1" + "0" * 39, TEXT, "1" + "0" * 39),
    ("NUMBER(3,5)", "0.00123", number(18, 5), 0.00123),
    ("NUMBER", f"-0.{DIGITS}", TEXT, f"-.{DIGITS}"),
    ("NUMBER", "0.5", number(18, 2), 0.5),
    ("NUMBER", f"0.{DIGITS}", number(18, 2), 0.12),
    ("FLOAT", "1E+100", number(18, 0), Refused("REJECTED_NUMBER_SIZE")),
    ("BINARY_DOUBLE", "0.1d", number(18, 4), 0.1),
    ("BINARY_DOUBLE", "BINARY_DOUBLE_NAN", number(18, 4), Refused("REJECTED_INVALID_NUMBER")),
    ("BINARY_DOUBLE", "BINARY_DOUBLE_INFINITY", number(18, 4), Refused("REJECTED_INVALID_NUMBER")),
    ("BINARY_DOUBLE", "-BINARY_DOUBLE_INFINITY", number(18, 4), Refused("REJECTED_INVALID_NUMBER")),
    ("BINARY_FLOAT", "0.1f", number(18, 4), 0.1),
    ("BINARY_FLOAT", "BINARY_FLOAT_NAN", number(18, 4), Refused("REJECTED_INVALID_NUMBER")),
    ("VARCHAR2(20)", "' กข\"''x '", TEXT, "กข\"'x"),
    ("VARCHAR2(20)", "''", TEXT, None),
    ("CHAR(5)", "'ab'", TEXT, "ab"),
    ("NCHAR(3)", "N'ก'", TEXT, "ก"),
    ("NVARCHAR2(10)", "N'ก😀'", TEXT, "ก😀"),
    ("CLOB", "'long ก'", LONG, "long ก"),
    ("NCLOB", "N'long ก'", LONG, "long ก"),
    ("DATE", "DATE '2024-02-29' + 0.75", DAY, "2024-02-29"),
    ("DATE", "DATE '2024-02-29' + 0.75", MOMENT, "2024-02-29T11:00:00.000+0000"),
    ("DATE", "DATE '0001-01-01'", DAY, Refused("REJECTED_INVALID_DATE")),
    ("DATE", "DATE '9999-12-31'", DAY, Refused("REJECTED_INVALID_DATE")),
    ("DATE", "DATE '-4712-01-01'", DAY, Refused("REJECTED_INVALID_DATE")),
    ("DATE", "DATE '-0044-03-15'", TEXT, "-0043-03-15T00:00:00"),
    ("TIMESTAMP", "TIMESTAMP '-0001-12-31 23:59:59.123456'", MOMENT, Refused("REJECTED_INVALID_DATE")),
    ("DATE", "DATE '4000-12-31'", DAY, "4000-12-31"),
    ("TIMESTAMP(0)", "TIMESTAMP '2024-02-29 23:59:58.4'", MOMENT, "2024-02-29T16:59:58.000+0000"),
    ("TIMESTAMP", "TIMESTAMP '1700-01-02 00:00:00.123456'", MOMENT, "1700-01-01T17:17:56.000+0000"),
    ("TIMESTAMP(9)", "TIMESTAMP '3999-12-31 23:59:59.999999999'", MOMENT, "3999-12-31T16:59:59.000+0000"),
    ("TIMESTAMP(9)", "TIMESTAMP '9999-12-31 23:59:59.999999999'", MOMENT, Refused("REJECTED_INVALID_DATE")),
    ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP '2024-03-01 06:59:59.1 +07:00'", MOMENT, "2024-02-29T23:59:59.000+0000"),
    ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP '2024-02-29 20:29:59 -03:30'", MOMENT, "2024-02-29T23:59:59.000+0000"),
    (
        "TIMESTAMP WITH LOCAL TIME ZONE",
        "TIMESTAMP '2024-03-01 06:59:59 +07:00'",
        MOMENT,
        "2024-02-29T23:59:59.000+0000",
    ),
    ("INTERVAL DAY TO SECOND", "INTERVAL '-12 03:04:05.5' DAY TO SECOND", TEXT, "-12 03:04:05.500000"),
    ("INTERVAL YEAR TO MONTH", "INTERVAL '1-6' YEAR TO MONTH", TEXT, "+01-06"),
    ("XMLTYPE", "XMLTYPE('<a>ก</a>')", LONG, "<a>ก</a>"),
    ("JSON", '\'{"a": [1, "ก"]}\'', LONG, '{"a": [1, "ก"]}'),
    ("ROWID", "'AAARFxAACAAAACAAAC'", TEXT, "AAARFxAACAAAACAAAC"),
]


@pytest.fixture
def project(oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    """A table with a column for each case, and a row that holds its value alone, into a twin with a field for each."""
    names = [f"C{at}" for at in range(len(CASES))]
    with connect(oracle) as connection:
        cursor = connection.cursor()
        columns = ", ".join(f"{name} {case[0]}" for name, case in zip(names, CASES, strict=True))
        cursor.execute(f"CREATE TABLE kinds (id NUMBER(5) PRIMARY KEY, {columns})")
        for at, (name, (_, value, *_)) in enumerate(zip(names, CASES, strict=True)):
            _insert(cursor, at, name, value)
        connection.commit()
    fields = {f"{name}__c": case[2] for name, case in zip(names, CASES, strict=True)}
    schema = {"Kind__c": {"fields": {"Name": {"type": "string"}, "Key__c": KEY, **fields}}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": schema}))
    try:
        with TwinServer(org) as server:
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            plan = {
                "version": 1,
                "project": "kinds",
                "source": {
                    "url": f"oracle://127.0.0.1:{oracle.port}/{oracle.service}",
                    "user": "KPS",
                    "password": "${ORACLE_PASSWORD}",
                    "timezone": "Asia/Bangkok",
                },
                "target": {"url": server.url, "auth": {"flow": "token", "access_token": "${CLI_TEST_TOKEN}"}},
                "tables": [
                    {
                        "table": "KINDS",
                        "object": "Kind__c",
                        "key": "ID",
                        "external_id": "Key__c",
                        "fields": {
                            "ID": "Key__c",
                            **{name: {"field": f"{name}__c", "future_date": "keep"} if case[2] in (DAY, MOMENT)
                               else f"{name}__c" for name, case in zip(names, CASES, strict=True)},
                        },
                    }
                ],
            }  # fmt: skip
            (tmp_path / "forcelift.yaml").write_text(json.dumps(plan, ensure_ascii=False))
            yield Migration(folder=tmp_path, org=org, server=server)
            assert server.internal_errors == []
    finally:
        org.close()


def _insert(cursor: oracledb.Cursor, at: int, name: str, value: str) -> None:
    sign, word = (-1.0, value[1:]) if value.startswith("-B") else (1.0, value)
    odd = {"NAN": float("nan"), "INFINITY": float("inf")}.get(word.rpartition("_")[2])
    if not word.startswith("BINARY_") or odd is None:
        cursor.execute(f"INSERT INTO kinds (id, {name}) VALUES ({at}, {value})")
        return
    kind = oracledb.DB_TYPE_BINARY_FLOAT if "FLOAT" in word else oracledb.DB_TYPE_BINARY_DOUBLE
    cursor.setinputsizes(None, kind)
    cursor.execute(f"INSERT INTO kinds (id, {name}) VALUES (:1, :2)", [at, sign * odd])


def test_what_oracle_has_the_org_has_or_it_is_refused_with_the_reason(project: Migration) -> None:
    project.document("run", "--batch", "kinds", code=ExitCode.ROWS_REFUSED)
    fields = ", ".join(f"C{at}__c" for at in range(len(CASES)))
    answer = httpx.get(
        f"{project.server.url}/services/data/v66.0/query",
        params={"q": f"SELECT Key__c, {fields} FROM Kind__c"},
        headers={"Authorization": f"Bearer {project.server.access_token}"},
    )
    records = {record["Key__c"]: record for record in answer.raise_for_status().json()["records"]}
    with closing(sqlite3.connect(project.audit_file)) as audit:
        refused = dict(audit.execute("SELECT RECORD_ID, SF_ERROR_CODE FROM MIGRATION_FAILED_RECORDS"))
    found: list[Any] = []
    for at, _ in enumerate(CASES):
        record = records.get(str(at))
        found.append(Refused(refused[str(at)]) if record is None else record[f"C{at}__c"])
    expected = [case[3] for case in CASES]
    assert [(CASES[at][:2], value) for at, value in enumerate(found)] == [
        (CASES[at][:2], value) for at, value in enumerate(expected)
    ]
    assert [type(one) for one in found] == [type(one) for one in expected]
    assert project.run("validate", "kinds", "--levels", "all").returncode == ExitCode.DONE


THAI = "ร้านกาแฟ ๑๒๓"
STORY = "".join(f"เรื่องที่ {at} " for at in range(1000))[:1999] + "ฯ"
"""2,000 bytes in windows-874; a multiple of it is what UTL_RAW gives in pieces only."""


@pytest.mark.parametrize("charset", ["US7ASCII", "WE8ISO8859P1"])
def test_thai_bytes_in_a_database_that_knows_no_thai(
    oracle: OracleServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    oracle.store.charset = charset
    with connect(oracle) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "CREATE TABLE shops (code VARCHAR2(10) PRIMARY KEY, name VARCHAR2(40), note NVARCHAR2(40),"
            " story VARCHAR2(4000), tale CLOB)"
        )
        for code, raw in (("A", THAI.encode("cp874")), ("B", b"caf\xdb\xff"), ("C", None)):
            text = "NULL" if raw is None else f"UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW('{raw.hex()}'))"
            cursor.execute(f"INSERT INTO shops (code, name, note) VALUES ('{code}', {text}, N'โน้ต')")
        part = f"UTL_RAW.CAST_TO_VARCHAR2(HEXTORAW('{STORY[:2000].encode('cp874').hex()}'))"
        cursor.execute(
            f"UPDATE shops SET story = {part} || {part}, tale = TO_CLOB({part}) || {part} || {part} || {part}"
            " WHERE code = 'A'"
        )
        connection.commit()
        (plain,) = cursor.execute("SELECT name FROM shops WHERE code = 'A'").fetchone()
        assert plain != THAI, "read as text it is lost"
    schema = {"Shop__c": {"fields": {"Name": TEXT, "Code__c": KEY, "Note__c": TEXT, "Story__c": LONG, "Tale__c": LONG}}}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORACLE_PASSWORD", PASSWORD)
    org = TwinOrg.open(None, schema=schema_from_dict({"objects": schema}))
    try:
        with TwinServer(org) as server:
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            (tmp_path / "forcelift.yaml").write_text(
                f"""
version: 1
project: shops
source: {{url: "oracle://127.0.0.1:{oracle.port}/{oracle.service}", user: KPS, password: "${{ORACLE_PASSWORD}}"}}
target: {{url: "{server.url}", auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}}}
tables:
  - table: SHOPS
    object: Shop__c
    key: CODE
    external_id: Code__c
    encoding: windows-874
    fields: {{CODE: Code__c, NAME: Name, NOTE: Note__c, STORY: Story__c, TALE: Tale__c}}
"""
            )
            migration = Migration(folder=tmp_path, org=org, server=server)
            migration.document("run", "--batch", "thai", code=ExitCode.ROWS_REFUSED)
            answer = httpx.get(
                f"{server.url}/services/data/v66.0/query",
                params={"q": "SELECT Code__c, Name, Note__c, Story__c, Tale__c FROM Shop__c WHERE Code__c = 'A'"},
                headers={"Authorization": f"Bearer {server.access_token}"},
            )
            (record,) = answer.raise_for_status().json()["records"]
            assert (record["Name"], record["Note__c"]) == (THAI, "โน้ต")
            assert (record["Story__c"], record["Tale__c"]) == (STORY * 2, STORY * 4)
            with closing(sqlite3.connect(migration.audit_file)) as audit:
                refused = audit.execute("SELECT RECORD_ID, SF_ERROR_CODE FROM MIGRATION_FAILED_RECORDS").fetchall()
            assert refused == [("B", "REJECTED_ENCODING_ERROR")]
            assert migration.run("validate", "thai", "--levels", "all").returncode == ExitCode.DONE
    finally:
        org.close()


def test_objects_are_refused_by_name() -> None:
    column = oracle_column(
        Declared(name="SHAPE", type="SDO_GEOMETRY", owner="MDSYS", length=1, precision=None, scale=None, nullable=True),
        stored=None,
    ).column
    assert (column.kind, column.declared) == ("unsupported", "MDSYS.SDO_GEOMETRY")
