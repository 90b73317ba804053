"""The checklist's tables: columns, order, sizes and indexes, on SQLite and as they will be on Oracle."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import oracle, postgresql
from sqlalchemy.schema import CreateTable
from tests.oracle_server.definitions import RESERVED
from tests.unit import audit_checklist_sql as checklist
from tests.unit.audit_fixtures import BEGAN, StillClock, open_store, plan_chunks

from forcelift.audit import tables
from forcelift.audit.dialects import replace_sysdate


@pytest.mark.parametrize(
    ("table", "wanted"),
    [(tables.audit_log, checklist.AUDIT_LOG), (tables.failed_records, checklist.FAILED_RECORDS)],
    ids=["audit_log", "failed_records"],
)
def test_columns_are_the_checklists_in_its_order(table, wanted):
    dialect = oracle.dialect()
    found = [f"{column.name} {column.type.compile(dialect)}" for column in table.columns]
    expected = wanted.split("\n")[:-1]
    assert found == expected


def test_sqlite_has_the_checklists_names_and_indexes():
    with open_store(StillClock()) as store:
        names = sa.inspect(store.engine)
        found = {
            table: {index["name"]: index["column_names"] for index in names.get_indexes(table)}
            for table in ("MIGRATION_AUDIT_LOG", "MIGRATION_FAILED_RECORDS", "MIGRATION_BACKUP_LOG")
        }
        columns = [column["name"] for column in names.get_columns("MIGRATION_AUDIT_LOG")]
    assert found == {
        "MIGRATION_AUDIT_LOG": {
            "IDX_AUDIT_BATCH": ["BATCH_ID"],
            "IDX_AUDIT_TABLE": ["TABLE_NAME"],
            "IDX_AUDIT_STATUS": ["STATUS"],
            "IDX_AUDIT_DATE": ["CREATED_DATE"],
        },
        "MIGRATION_FAILED_RECORDS": {"IDX_FAILED_TABLE": ["TABLE_NAME"], "IDX_FAILED_RESOLVED": ["RESOLVED"]},
        "MIGRATION_BACKUP_LOG": {},
    }
    assert columns == [line.split()[0] for line in checklist.AUDIT_LOG.splitlines()]


def test_names_stay_unquoted_so_that_every_database_finds_them():
    for dialect in (oracle.dialect(), postgresql.dialect()):
        for table in (tables.audit_log, tables.failed_records, tables.backup_log):
            assert '"' not in str(CreateTable(table).compile(dialect=dialect))


def test_start_time_has_the_checklists_default_and_is_null_until_a_chunk_begins():
    assert tables.audit_log.c.start_time.server_default is not None
    with open_store(StillClock()) as store:
        [chunk] = plan_chunks(store)
        assert chunk.start_time is None
        with store.write() as connection:
            connection.exec_driver_sql("INSERT INTO MIGRATION_AUDIT_LOG (BATCH_ID, TABLE_NAME) VALUES ('b', 'T')")
        with store.read() as connection:
            log = tables.audit_log
            found = connection.execute(sa.select(log.c.start_time).order_by(log.c.audit_id)).scalars().all()
    assert found[0] is None
    assert isinstance(found[1], datetime)


def test_reserved_words_of_oracle_are_quoted():
    for table in tables.metadata.sorted_tables:
        assert table.name.upper() not in RESERVED
        statement = str(CreateTable(table).compile(dialect=oracle.dialect()))
        for column in table.columns:
            if column.name.upper() in RESERVED:
                assert f'\t"{column.name}" ' in statement


def test_long_texts_stand_before_those_without_limit():
    """Else Oracle refuses an insert of both: ORA-24816, for a long bind behind a longer one."""
    for table in tables.metadata.sorted_tables:
        kinds = [column.type.compile(oracle.dialect()) for column in table.columns]
        clobs = [at for at, kind in enumerate(kinds) if kind == "CLOB"]
        long = [at for at, kind in enumerate(kinds) if kind == "VARCHAR2(4000)"]
        if clobs and long:
            assert max(long) < min(clobs), table.name


def test_every_table_compiles_for_oracle_and_postgresql():
    for dialect in (oracle.dialect(), postgresql.dialect()):
        for table in tables.metadata.sorted_tables:
            assert str(CreateTable(table).compile(dialect=dialect)).lstrip().startswith("CREATE TABLE")


def test_backup_insert_runs_unchanged():
    with open_store(StillClock()) as store:
        with store.write() as connection:
            connection.exec_driver_sql(checklist.BACKUP_INSERT)
        with store.read() as connection:
            row = connection.execute(sa.select(tables.backup_log)).one()
    assert (row.table_name, row.backup_table, row.row_count) == (
        "KPS_T_SALES_MD",
        "KPS_T_SALES_MD_BKP_20240115",
        261_000_000,
    )
    assert isinstance(row.created_date, datetime)
    assert row.created_date.tzinfo is not None
    assert row.created_date > BEGAN.replace(year=2024)


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("VALUES (SYSDATE)", "VALUES (NOW)"),
        ("values (sysdate,SysDate)", "values (NOW,NOW)"),
        ("SELECT 'SYSDATE', 'it''s SYSDATE', \"SYSDATE\"", "SELECT 'SYSDATE', 'it''s SYSDATE', \"SYSDATE\""),
        ("-- SYSDATE\nSELECT SYSDATE /* SYSDATE\n */", "-- SYSDATE\nSELECT NOW /* SYSDATE\n */"),
        ("SELECT MY_SYSDATE, SYSDATES", "SELECT MY_SYSDATE, SYSDATES"),
    ],
)
def test_only_the_bare_word_sysdate_is_replaced(statement, wanted):
    assert replace_sysdate(statement, "NOW") == wanted


def test_statements_for_people_stand_in_the_package_as_the_checklist_has_them():
    from forcelift.audit.glances import dashboard_sql

    for name, text in (
        ("status", checklist.STATUS),
        ("failed", checklist.FAILED),
        ("performance", checklist.PERFORMANCE),
    ):
        purpose, statement = dashboard_sql(name).split("\n", 1)
        assert re.fullmatch(r"-- [A-Z][a-z ]+", purpose)
        assert statement == text
