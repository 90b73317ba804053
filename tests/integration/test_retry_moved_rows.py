"""Rows that were mended in the source, and so stand in another place there, are found by their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_failed_retry import OBJECTS, audit

from forcelift.errors import ExitCode
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

if TYPE_CHECKING:
    from tests.postgres_support import Postgres

pytest_plugins = ["tests.postgres_support"]

ROWS, WRONG = 6_000, 50
PLAN = """\
version: 1
project: Moved rows
source: {{url: "{source}"}}
target:
  url: {url}
  auth: {{flow: token, access_token: "${{CLI_TEST_TOKEN}}"}}
tables:
  - table: {table}
    object: Note__c
    key: note_id
    external_id: Key__c
    fields:
      text: Text__c
chunks: {{rows: 1000}}
"""


@pytest.fixture
def org(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    monkeypatch.chdir(tmp_path)
    twin = TwinOrg.open(None, schema=schema_from_dict({"objects": OBJECTS}))
    try:
        with TwinServer(twin) as server:
            monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
            yield Migration(folder=tmp_path, org=twin, server=server)
            assert server.internal_errors == []
    finally:
        twin.close()


def mend(org: Migration, source: str, table: str, correct: Callable[[], None]) -> None:
    """Load, correct the rows in the source, retry: all are found, and each is sent once."""
    org.plan.write_text(PLAN.format(source=source, url=org.server.url, table=table), encoding="utf-8")
    org.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    assert audit(org, "SELECT COUNT(*) > 1 FROM MIGRATION_AUDIT_LOG") == [(1,)]
    assert org.count("Note__c") == ROWS - WRONG
    correct()
    done = org.document("failed", "retry")
    assert (done["rows"], done["mended"]) == (WRONG, WRONG)
    assert org.count("Note__c") == ROWS
    assert org.document("validate", "first", "--level", "5")["statuses"]["failed"] == 0


def texts(*, wrong: bool) -> Iterator[tuple[str, str]]:
    for number in range(ROWS):
        is_wrong = wrong and number < WRONG
        yield f"N{number}", "much too long for its field" if is_wrong else f"text {number}"


def test_rows_that_postgresql_moves_when_they_are_changed(org: Migration, postgres: Postgres, database: str) -> None:
    with psycopg.connect(postgres.dsn(database), autocommit=True) as connection:
        connection.execute("CREATE TABLE notes (note_id text PRIMARY KEY, text text)")
        with connection.cursor() as cursor, cursor.copy("COPY notes FROM STDIN") as copy:
            for row in texts(wrong=True):
                copy.write_row(row)
        connection.execute("ANALYZE notes")

        def correct() -> None:
            connection.execute("UPDATE notes SET text = 'short' WHERE text LIKE 'much%'")

        mend(org, postgres.plan_url(database), "notes", correct)


def test_rows_of_a_file_that_was_written_anew(org: Migration) -> None:
    folder = org.folder / "data"
    folder.mkdir()

    def write(*, wrong: bool) -> None:
        lines = [f"{key},{text}\n" for key, text in texts(wrong=wrong)]
        (folder / "notes.csv").write_text("note_id,text\n" + "".join(lines), encoding="utf-8")

    write(wrong=True)
    mend(org, "files:./data", "notes", lambda: write(wrong=False))
