"""Whatever is changed in the audit database past the program is found: each column of each table, by reflection."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa
from tests.unit.audit_cover_rows import columns, fill, other_value
from tests.unit.audit_fixtures import StillClock, make_failed, open_store, plan_chunks, settle

from forcelift.audit import cover, tables

SEED = 20260131


@pytest.fixture(scope="module")
def filled():
    with open_store(StillClock()) as store:
        fill(store)
        assert store.verify_journal() == []
        # Who changes rows past the program is held back by nothing. Within a transaction the word does nothing.
        connection = store.engine.raw_connection()
        connection.driver_connection.execute("PRAGMA foreign_keys=OFF")
        connection.close()
        yield store


def raw(store, statement, parameters=()):
    """Past the program: straight to the driver, in a transaction that nothing watches."""
    with store.engine.begin() as connection:
        return connection.exec_driver_sql(statement, parameters)


def stored(store, table: str, column: str):
    return raw(store, f'SELECT "{column}" FROM "{table}"').scalar_one()


def put(store, table: str, column: str, value) -> None:
    assert raw(store, f'UPDATE "{table}" SET "{column}" = ?', (value,)).rowcount == 1


def column_name(table: str, key: str) -> str:
    return str(tables.metadata.tables[table].c[key].name)


@pytest.mark.parametrize(("table", "key"), columns())
def test_a_changed_or_removed_value_of_any_column_is_found_and_so_is_a_blank(filled, table, key):
    column = column_name(table, key)
    before = stored(filled, table, column)
    others = [other_value(tables.metadata.tables[table].c[key], before)]
    others += [before + " "] if isinstance(before, str) else []
    others += [None] if tables.metadata.tables[table].c[key].nullable else []
    for other in others:
        put(filled, table, column, other)
        assert filled.verify_journal() != [], other
    put(filled, table, column, before)
    assert filled.verify_journal() == []


@pytest.mark.parametrize("table", [table.name for table in cover.covered_tables()])
def test_a_deleted_row_and_an_added_one_are_found(filled, table):
    names = [str(column.name) for column in tables.metadata.tables[table].c]
    [row] = raw(filled, f'SELECT {", ".join(f"{chr(34)}{name}{chr(34)}" for name in names)} FROM "{table}"').all()
    raw(filled, f'DELETE FROM "{table}"')
    assert any("is gone" in fault or "differ" in fault for fault in filled.verify_journal())
    places = ", ".join("?" for _ in names)
    listed = ", ".join(f'"{name}"' for name in names)
    raw(filled, f'INSERT INTO "{table}" ({listed}) VALUES ({places})', tuple(row))
    assert filled.verify_journal() == []
    changed = [value + 1 if isinstance(value, int | float) else f"{value}2" for value in row]
    if "audit_id" in tables.metadata.tables[table].c and table in cover.GROUPED:
        changed[names.index(tables.metadata.tables[table].c.audit_id.name)] = 1
    raw(filled, f'INSERT INTO "{table}" ({listed}) VALUES ({places})', tuple(changed))
    found = filled.verify_rows()
    # The checklist's own INSERT adds rows to MIGRATION_BACKUP_LOG: they are counted, and are no fault.
    assert found.faults if table != tables.backup_log.name else found.uncovered == 1
    first = names[0]
    raw(filled, f'DELETE FROM "{table}" WHERE "{first}" = ?', (changed[0],)) if table not in cover.GROUPED else raw(
        filled, f'DELETE FROM "{table}" WHERE rowid = (SELECT max(rowid) FROM "{table}")'
    )
    assert filled.verify_journal() == []


def test_any_byte_of_any_value_is_found(filled):
    """A byte that makes the text no UTF-8 is found like any other. Seeded; each failure names what was changed."""
    chance = random.Random(SEED)
    for table, key in chance.sample(columns(), 60):
        column = column_name(table, key)
        before = stored(filled, table, column)
        if not isinstance(before, str):
            continue
        data = bytearray(before.encode())
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
        text = "CAST(CAST(? AS BLOB) AS TEXT)"
        raw(filled, f'UPDATE "{table}" SET "{column}" = {text}', (bytes(data),))
        assert filled.verify_journal() != [], (SEED, table, column, place)
        put(filled, table, column, before)
    assert filled.verify_journal() == []


def test_every_table_is_covered_or_exempt_with_a_reason():
    names = {table.name for table in tables.metadata.sorted_tables}
    assert set(cover.EXEMPT_TABLES) <= names
    assert all(reason.strip() for reason in (*cover.EXEMPT_TABLES.values(), *cover.EXEMPT_COLUMNS.values()))
    for table, column in cover.EXEMPT_COLUMNS:
        assert column in tables.metadata.tables[table].c
    # Keys are read from the driver and compared with what was written: only these two kinds are the same in both.
    for table in cover.covered_tables():
        for column in cover.key_columns(table):
            assert isinstance(column.type, sa.Integer | sa.String), (table.name, column.key)


def test_a_row_changed_past_the_program_and_then_by_it_is_found():
    """The program's own later change must not make an earlier one of somebody else's good."""
    with open_store(StillClock()) as store:
        [chunk, _] = plan_chunks(store, 2)
        raw(store, "UPDATE MIGRATION_AUDIT_LOG SET TABLE_NAME = 'OTHER' WHERE AUDIT_ID = 1")
        store.start_chunk(chunk.audit_id)
        [fault] = store.verify_journal()
        assert "AUDIT_ID 1 was changed past the journal, before row" in fault


def test_failed_records_are_one_digest_for_each_chunk_and_not_a_line_for_each():
    with open_store(StillClock()) as store:
        one, two = plan_chunks(store, 2)
        before = store.journal_head().seq
        settle(store, one.audit_id, failed=make_failed(["a"] * 7))
        rows = store.journal_head().seq - before
        settle(store, two.audit_id, failed=make_failed([f"k{number}" for number in range(500)]))
        assert store.journal_head().seq - before - rows <= rows
        raw(store, "UPDATE MIGRATION_FAILED_RECORDS SET RESOLVED = 'Y' WHERE FAILED_ID = 300")
        [fault] = store.verify_journal()
        assert fault.startswith("MIGRATION_FAILED_RECORDS: the records of the chunk with AUDIT_ID 2")
        raw(store, "UPDATE MIGRATION_FAILED_RECORDS SET RESOLVED = 'N' WHERE FAILED_ID = 300")
        raw(store, "DELETE FROM MIGRATION_FAILED_RECORDS WHERE FAILED_ID = 300")
        [fault] = store.verify_journal()
        assert "500 records then, 499 now" in fault


def test_legitimate_changes_of_failed_records_are_covered_in_their_transaction():
    with open_store(StillClock()) as store:
        [chunk, _] = plan_chunks(store, 2)
        settle(store, chunk.audit_id, failed=make_failed(["a"] * 7))
        records = tables.failed_records
        with store.write() as connection:
            mine = records.c.failed_id == 3
            connection.execute(records.update().where(mine).values(retry_count=1, resolved="Y"))
        assert store.verify_journal() == []


def test_covered_tables_are_not_written_out_of_turn():
    with open_store(StillClock()) as store:
        plan_chunks(store, 1)
        with pytest.raises(RuntimeError, match="in turn"), store.write(in_turn=False) as connection:
            connection.execute(tables.batch.update().values(created_by="x"))


@pytest.mark.parametrize("cut", [1, 3])
def test_a_tail_cut_off_with_its_head_is_found_by_the_head_that_was_kept(cut):
    with open_store(StillClock()) as store:
        plan_chunks(store, 2)
        for number in range(5):
            store.journal("noted", {"n": number})
        kept = store.journal_head()
        raw(store, f"DELETE FROM journal WHERE seq > {kept.seq - cut}")
        last = raw(store, "SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1").one()
        raw(store, "UPDATE journal_head SET seq = ?, hash = ?", tuple(last))
        # Who cuts the head, too, leaves a journal that is whole in itself.
        assert store.verify_journal() == []
        assert store.verify_rows(frozenset({kept.hash})).known_heads == frozenset()
        assert store.verify_rows(frozenset({last.hash})).known_heads == {last.hash}


def test_reordered_rows_of_the_journal_are_found():
    with open_store(StillClock()) as store:
        plan_chunks(store, 2)
        for number in range(4):
            store.journal("noted", {"n": number})
        last = store.journal_head().seq
        raw(store, f"UPDATE journal SET seq = -1 WHERE seq = {last - 1}")
        raw(store, f"UPDATE journal SET seq = {last - 1} WHERE seq = {last - 2}")
        raw(store, f"UPDATE journal SET seq = {last - 2} WHERE seq = -1")
        assert store.verify_journal() != []


def test_a_row_put_into_the_journal_is_found():
    with open_store(StillClock()) as store:
        plan_chunks(store, 2)
        last = store.journal_head().seq
        raw(
            store,
            f"INSERT INTO journal SELECT {last + 1}, at, action, batch_id, payload, previous, hash FROM journal "
            "WHERE seq = 2",
        )
        assert store.verify_journal() != []
