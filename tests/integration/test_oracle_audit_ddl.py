"""The audit tables that `audit ddl --dialect oracle` prints, made on the Oracle test server."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import oracledb
from tests.oracle_support import connection, oracle

from forcelift.cli.main import run_command

__all__ = ["connection", "oracle"]

# Of the checklist's CREATE TABLE statements.
FAILED_RECORDS = [
    ("FAILED_ID", "NUMBER", None, "N"),
    ("AUDIT_ID", "NUMBER", None, "Y"),
    ("TABLE_NAME", "VARCHAR2", 100, "N"),
    ("RECORD_ID", "VARCHAR2", 100, "N"),
    ("SF_ERROR_CODE", "VARCHAR2", 50, "Y"),
    ("SF_ERROR_MESSAGE", "VARCHAR2", 4000, "Y"),
    ("SF_ERROR_FIELDS", "VARCHAR2", 1000, "Y"),
    ("RETRY_COUNT", "NUMBER", None, "Y"),
    ("LAST_RETRY_DATE", "TIMESTAMP(6)", None, "Y"),
    ("RESOLVED", "CHAR", 1, "Y"),
    ("RESOLVED_DATE", "TIMESTAMP(6)", None, "Y"),
    ("RESOLUTION_NOTES", "VARCHAR2", 4000, "Y"),
    ("RECORD_DATA", "CLOB", None, "Y"),
    ("CREATED_DATE", "TIMESTAMP(6)", None, "Y"),
]
INDEXES = [
    ("MIGRATION_AUDIT_LOG", "IDX_AUDIT_BATCH", "BATCH_ID"),
    ("MIGRATION_AUDIT_LOG", "IDX_AUDIT_DATE", "CREATED_DATE"),
    ("MIGRATION_AUDIT_LOG", "IDX_AUDIT_STATUS", "STATUS"),
    ("MIGRATION_AUDIT_LOG", "IDX_AUDIT_TABLE", "TABLE_NAME"),
    ("MIGRATION_FAILED_RECORDS", "IDX_FAILED_RESOLVED", "RESOLVED"),
    ("MIGRATION_FAILED_RECORDS", "IDX_FAILED_TABLE", "TABLE_NAME"),
]


def test_the_printed_tables_can_be_made_and_are_the_checklist_s(connection: oracledb.Connection) -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert run_command(["audit", "ddl", "--dialect", "oracle"]) == 0
    cursor = connection.cursor()
    for statement in out.getvalue().split(";\n"):
        if statement.strip():
            cursor.execute(statement.strip())
    columns = (
        "SELECT column_name, data_type, CASE WHEN data_type IN ('CHAR', 'VARCHAR2') THEN char_length END, nullable"
        " FROM user_tab_columns WHERE table_name = :t ORDER BY column_id"
    )
    assert cursor.execute(columns, t="MIGRATION_FAILED_RECORDS").fetchall() == FAILED_RECORDS
    indexes = (
        "SELECT table_name, index_name, column_name FROM user_ind_columns"
        " WHERE index_name LIKE 'IDX_AUDIT%' OR index_name LIKE 'IDX_FAILED%' ORDER BY 1, 2"
    )
    assert cursor.execute(indexes).fetchall() == INDEXES
    identities = (
        "SELECT table_name, generation_type FROM user_tab_identity_cols WHERE column_name LIKE '%\\_ID' ESCAPE '\\'"
    )
    assert sorted(cursor.execute(identities).fetchall())[-2:] == [
        ("MIGRATION_AUDIT_LOG", "ALWAYS"),
        ("MIGRATION_FAILED_RECORDS", "ALWAYS"),
    ]
    cursor.execute("INSERT INTO MIGRATION_AUDIT_LOG (BATCH_ID, TABLE_NAME) VALUES ('b', 'T')")
    found = (
        "SELECT AUDIT_ID, CREATED_BY, CASE WHEN CREATED_DATE IS NULL THEN 0 ELSE 1 END,"
        " CASE WHEN START_TIME IS NULL THEN 0 ELSE 1 END FROM MIGRATION_AUDIT_LOG"
    )
    assert cursor.execute(found).fetchall() == [(1, "AIRFLOW", 1, 1)]
    cursor.execute(
        "INSERT INTO MIGRATION_BACKUP_LOG (TABLE_NAME, BACKUP_TABLE, ROW_COUNT, CREATED_DATE)"
        " VALUES ('KPS_T_SALES_MD', 'KPS_T_SALES_MD_BKP_20240115', 261000000, SYSDATE)"
    )
    assert cursor.execute("SELECT ROW_COUNT FROM MIGRATION_BACKUP_LOG").fetchall() == [(261000000,)]
