"""What the scenarios share: a project in a folder, the command line run in this process, and looks at what it left.

What became of a run is read from the outside: the audit database by SQL, the org by its REST API or its data file.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import httpx
import oracledb
import polars as pl
import psycopg

from forcelift.cli.main import run_command
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import load_schema
from forcelift.twin.server import TwinServer

SCENARIOS = Path(__file__).parent
SCREEN_LINES = 20
_API = "/services/data/v66.0"


@dataclass(frozen=True, slots=True)
class Screen:
    """What a command line printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The document of `--json`."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a plan, its source and its twin."""

    folder: Path

    @property
    def plan(self) -> Path:
        return self.folder / "forcelift.yaml"

    @property
    def org_file(self) -> Path:
        return self.folder / "org.duckdb"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def change_plan(self, change: Mapping[str, str]) -> None:
        """Replace texts of the plan, each of which must stand there once."""
        text = self.plan.read_text(encoding="utf-8")
        for old, new in change.items():
            assert text.count(old) == 1, f"`{old}` stands {text.count(old)} times in the plan"
            text = text.replace(old, new)
        self.plan.write_text(text, encoding="utf-8")

    def run(self, *words: str) -> Screen:
        """`forcelift run` with these words, in this process."""
        return run_words("run", "--plan", str(self.plan), *words)

    def audit(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the audit database."""
        with closing(sqlite3.connect(f"file:{self.state / 'audit.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def batches(self) -> list[tuple[str, str]]:
        """Id and state of every batch; none where no audit database was made."""
        if not (self.state / "audit.db").exists():
            return []
        return [(name, state) for name, state in self.audit("SELECT batch_id, state FROM batch ORDER BY batch_no")]

    def traces(self) -> tuple[int, int]:
        """Records and ingest jobs that the org holds; its own users and record types do not count."""
        if not self.org_file.exists():
            return 0, 0
        with closing(duckdb.connect(str(self.org_file), read_only=True)) as connection:
            tables = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'data' AND ends_with(table_name, '__c')"
            ).fetchall()
            counts = [_one(connection, f'SELECT count(*) FROM data."{name}"') for (name,) in tables]
            return sum(counts), _one(connection, "SELECT count(*) FROM meta.ingest_job")

    @contextmanager
    def served(self) -> Iterator[OrgReader]:
        """The org over HTTP."""
        with (
            closing(TwinOrg.open(self.org_file, schema=load_schema(self.folder / "schema.yaml"))) as org,
            TwinServer(org) as server,
            httpx.Client(
                base_url=server.url, headers={"Authorization": f"Bearer {server.access_token}"}, verify=False
            ) as client,
        ):
            yield OrgReader(client)

    def outcomes(self, batch_id: str | None = None) -> dict[str, list[list[str | None]]]:
        """By table the sorted `[key, outcome, code]` of all rows of the ledger, with lookup passes taken in."""
        chosen = f"a.BATCH_ID = '{batch_id}'" if batch_id else "1 = 1"
        files = self.audit(
            "SELECT a.TABLE_NAME, c.ledger_file FROM MIGRATION_AUDIT_LOG a JOIN chunk c USING (audit_id)"
            f" WHERE {chosen} AND c.ledger_file IS NOT NULL ORDER BY a.AUDIT_ID"
        )
        found: dict[str, list[list[str | None]]] = {}
        for table, file in files:
            frame = pl.read_parquet(self.state / "staging" / file)
            found.setdefault(table, []).extend([list(row) for row in frame.select("key", "outcome", "code").rows()])
        return {table: sorted(rows, key=_sortable) for table, rows in found.items()}

    def failed_records(self) -> list[tuple[Any, ...]]:
        """Table, RECORD_ID, code, fields, and RECORD_DATA parsed, of all failed records."""
        rows = self.audit(
            "SELECT TABLE_NAME, RECORD_ID, SF_ERROR_CODE, SF_ERROR_FIELDS, RECORD_DATA FROM MIGRATION_FAILED_RECORDS"
        )
        return [(*row[:4], json.loads(row[4]) if row[4] else None) for row in rows]


class OrgReader:
    """Reads records by REST queries."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def query(self, soql: str) -> list[dict[str, Any]]:
        """All records of a query, page by page."""
        records: list[dict[str, Any]] = []
        answer = self.client.get(f"{_API}/query", params={"q": soql})
        while True:
            assert answer.status_code == 200, answer.text
            page = answer.json()
            records += page["records"]
            if page["done"]:
                return records
            answer = self.client.get(page["nextRecordsUrl"])

    def records(self, object_name: str, key: str, fields: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """By key the fields' values as canonical text, made from what REST shows; lookups as `Relation__r.Key__c`."""
        wanted = ", ".join(dict.fromkeys([key, *fields]))
        kinds = {
            entry["name"]: entry["type"]
            for entry in self.client.get(f"{_API}/sobjects/{object_name}/describe").json()["fields"]
        }
        found = {}
        for record in self.query(f"SELECT {wanted} FROM {object_name}"):
            found[record[key]] = {name: _canonical(_at(record, name), kinds.get(name)) for name in fields}
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """All ingest jobs."""
        listed: list[dict[str, Any]] = self.client.get(f"{_API}/jobs/ingest").json()["records"]
        return listed


def run_words(*words: str) -> Screen:
    """One command line, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(list(words))
    return Screen(int(code), out.getvalue(), err.getvalue())


def assert_clear_error(screen: Screen, *, code: int, says: Sequence[str] = ()) -> None:
    """One screen that names error, state and what to do next, without a traceback, and the right exit code."""
    shown = screen.err
    assert screen.code == code, f"exit code {screen.code}, not {code}:\n{screen.out}{shown}"
    assert "Traceback" not in shown + screen.out
    assert "This is a bug" not in shown, shown
    for label in ("error: ", "state: ", "next: "):
        assert label in shown, f"no `{label}` in:\n{shown}"
    for text in says:
        assert text in shown, f"`{text}` is not in:\n{shown}"
    assert len(shown.splitlines()) <= SCREEN_LINES, shown


def copy_case(case: str, folder: Path) -> Project:
    """A case's files in a folder of their own."""
    shutil.copytree(SCENARIOS / case, folder, dirs_exist_ok=True)
    return Project(folder)


def make_sqlite(project: Project, script: str, rows: Mapping[str, Sequence[Sequence[Any]]] | None = None) -> None:
    """`source.db` from an SQL script and rows by table."""
    with closing(sqlite3.connect(project.folder / "source.db")) as connection:
        connection.executescript(script)
        for table, lines in (rows or {}).items():
            if lines:
                connection.executemany(f"INSERT INTO {table} VALUES ({_marks(lines[0])})", lines)
        connection.commit()


def make_duckdb(project: Project, script: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """`source.duckdb` from the same."""
    with closing(duckdb.connect(str(project.folder / "source.duckdb"))) as connection:
        _fill(connection, script, rows)


def make_parquet(project: Project, script: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """A folder `data` of Parquet files, written by DuckDB in the types of the script."""
    folder = project.folder / "data"
    folder.mkdir()
    with closing(duckdb.connect()) as connection:
        _fill(connection, script, rows)
        for table in rows:
            connection.execute(f"COPY (SELECT * FROM {table}) TO '{folder / table}.parquet' (FORMAT parquet)")


def make_csv(
    project: Project, script: str, rows: Mapping[str, Sequence[Sequence[Any]]], *, encoding: str = "utf-8"
) -> None:
    """A folder `data` of CSV files; null is an empty field, and bytes stand in them as they are."""
    folder = project.folder / "data"
    folder.mkdir()
    with closing(duckdb.connect()) as connection:
        connection.execute(script)
        for table, lines in rows.items():
            names = [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()]
            with (folder / f"{table}.csv").open("w", encoding=encoding, errors="surrogateescape", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(names)
                writer.writerows([_as_csv_text(value) for value in line] for line in lines)


def _as_csv_text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def make_postgresql(dsn: str, script: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Tables of the same names in a PostgreSQL database: bytes where the script says BLOB, text everywhere else."""
    with closing(duckdb.connect()) as drafts, psycopg.connect(dsn) as connection:
        drafts.execute(script)
        for table, lines in rows.items():
            described = drafts.execute(f"DESCRIBE {table}").fetchall()
            columns = ", ".join(f'"{name}" {"bytea" if kind == "BLOB" else "text"}' for name, kind, *_ in described)
            connection.execute(f'CREATE TABLE "{table}" ({columns})')
            if lines:
                marks = ", ".join("%s" for _ in lines[0])
                connection.cursor().executemany(f'INSERT INTO "{table}" VALUES ({marks})', lines)


def make_oracle(dsn: str, password: str, script: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Tables of the same names in an Oracle database of the user KPS: bytes where the script says BLOB, else text."""
    with (
        closing(duckdb.connect()) as drafts,
        oracledb.connect(user="KPS", password=password, dsn=dsn) as connection,
    ):
        drafts.execute(script)
        cursor = connection.cursor()
        for table, lines in rows.items():
            described = drafts.execute(f"DESCRIBE {table}").fetchall()
            is_bytes = [kind == "BLOB" for _, kind, *_ in described]
            columns = ", ".join(
                f'"{name}" {"RAW(2000)" if raw else "VARCHAR2(4000)"}'
                for (name, *_), raw in zip(described, is_bytes, strict=True)
            )
            cursor.execute(f'CREATE TABLE "{table}" ({columns})')
            if lines:
                cursor.setinputsizes(*(oracledb.DB_TYPE_RAW if raw else oracledb.DB_TYPE_VARCHAR for raw in is_bytes))
                marks = ", ".join(f":{at}" for at in range(1, len(lines[0]) + 1))
                cursor.executemany(f'INSERT INTO "{table}" VALUES ({marks})', [list(line) for line in lines])
        connection.commit()


def _fill(connection: duckdb.DuckDBPyConnection, script: str, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    connection.execute(script)
    for table, lines in rows.items():
        if lines:
            connection.executemany(f"INSERT INTO {table} VALUES ({_marks(lines[0])})", [list(line) for line in lines])


def _marks(line: Sequence[Any]) -> str:
    return ", ".join("?" for _ in line)


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def _sortable(row: Sequence[str | None]) -> tuple[str, ...]:
    return tuple(value or "" for value in row)


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for name in path.split("."):
        value = None if value is None else value[name]
    return value


def _canonical(value: Any, kind: str | None) -> str | None:
    """The canonical text of a value as REST shows it in JSON."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if kind == "datetime":
        assert value.endswith(".000+0000"), value
        return f"{value.removesuffix('.000+0000')}Z"
    return str(value)
