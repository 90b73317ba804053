"""Awkward data on a whole way: plan file, source, rules, CSV, HTTP to a twin, and back by REST and by bulk query.

What must come back is worked out here by Python's own means (str, Decimal, zoneinfo), from the written rules alone.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import httpx
import polars as pl
import pytest

from forcelift.cli.main import run_command
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.server import TwinServer

API = "/services/data/v66.0"
TOKEN = "AWKWARD_TEST_TOKEN"
ZONE = "America/New_York"
LONG = 131_072
_BLANKS = "\t\n\x0b\x0c\r "
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_TRUE, _FALSE = {"true", "t", "yes", "y", "1", "on"}, {"false", "f", "no", "n", "0", "off"}
_EXACT = Context(prec=500)
_batches = count(1)

SCHEMA: dict[str, Any] = {
    "objects": {
        "Awkward__c": {
            "fields": {
                "Key__c": {"type": "string", "length": 40, "externalId": True, "unique": True, "caseSensitive": True},
                "Body__c": {"type": "textarea", "length": LONG},
                "Line__c": {"type": "string", "length": 30},
                "Strict__c": {"type": "string", "length": 255},
                "Big__c": {"type": "double", "precision": 18, "scale": 0},
                "Price__c": {"type": "currency", "precision": 16, "scale": 2},
                "Flag__c": {"type": "boolean"},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Must__c": {"type": "string", "length": 20, "required": True},
            }
        }
    }
}
FIELDS = ("Body__c", "Line__c", "Strict__c", "Big__c", "Price__c", "Flag__c", "Day__c", "At__c", "Must__c")
COLUMNS = ("ID", "BODY", "LINE", "STRICT", "BIG", "PRICE", "FLAG", "DAY", "AT", "MUST")

PLAN = """\
version: 1
project: awkward
source: {{url: "{url}", encoding: {encoding}}}
target: {{url: "{target}", auth: {{flow: token, access_token: "${{{token}}}"}}}}
tables:
  - table: awkward
    object: Awkward__c
    key: ID
    external_id: Key__c
    fields:
      ID: Key__c
      BODY: Body__c
      LINE: {{field: Line__c, too_long: truncate, unicode: nfc, na_text: to_null, zero_width: remove}}
      STRICT: {{field: Strict__c, outer_blanks: reject, control_characters: reject}}
      BIG: Big__c
      PRICE: Price__c
      FLAG: Flag__c
      DAY: {{field: Day__c, future_date: keep, buddhist_era: keep}}
      AT: {{field: At__c, timezone: {zone}, future_date: keep, buddhist_era: keep}}
      MUST: Must__c
"""


@dataclass(frozen=True)
class Sent:
    """A row that must arrive: the canonical text of each field."""

    fields: dict[str, str | None]


@dataclass(frozen=True)
class Refused:
    """A row that must be rejected, with the rule that counts."""

    rule: str


@dataclass
class _Verdict:
    """What becomes of one row, column by column in the plan's order."""

    rules: list[str] = field(default_factory=list)

    def text(self, value: str | None, *, strict: bool = False, null_literal: bool = False) -> str | None:
        """Trim, empty, `#N/A`, line ends, controls, as RULES.md orders them."""
        if value is None:
            return None
        trimmed = value.strip(_BLANKS)
        if strict and trimmed != value:
            self.rules.append("outer_blanks")
        for _ in range(2):
            if not trimmed:
                return None
            if trimmed == "#N/A":
                if null_literal:
                    return None
                self.rules.append("na_text")
                return trimmed
            cleaned = _CONTROLS.sub("", trimmed.replace("\r\n", "\n").replace("\r", "\n"))
            if strict and _CONTROLS.search(trimmed):
                self.rules.append("control_characters")
            trimmed = cleaned.strip(_BLANKS)
        return trimmed or None

    def number(self, value: str | None, *, digits: int, scale: int) -> str | None:
        text = self.text(value)
        if text is None or (self.rules and self.rules[-1] == "na_text"):
            return None
        if not _NUMBER.fullmatch(text):
            self.rules.append("invalid_number")
            return None
        rounded = _EXACT.create_decimal(text).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP, _EXACT)
        if abs(rounded) >= 10 ** (digits - scale):
            self.rules.append("number_size")
        return plain(rounded)

    def boolean(self, value: str | None) -> str | None:
        text = self.text(value)
        if text is None:
            return "false"
        lowered = text.lower()
        if lowered not in _TRUE | _FALSE:
            self.rules.append("na_text" if text == "#N/A" else "invalid_boolean")
        return "true" if lowered in _TRUE else "false"

    def day(self, value: str | None) -> str | None:
        text = self.text(value)
        if text is None:
            return None
        try:
            found = date.fromisoformat(text) if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII) else None
        except ValueError:
            found = None
        if found is None or not 1700 <= found.year <= 4000:
            self.rules.append("na_text" if text == "#N/A" else "invalid_date")
            return None
        return found.isoformat()

    def moment(self, value: str | None) -> str | None:
        text = self.text(value)
        if text is None:
            return None
        utc = _instant(text)
        if utc is None or not 1700 <= utc.year <= 4000:
            self.rules.append("na_text" if text == "#N/A" else "invalid_date")
            return None
        return utc.strftime(f"{utc.year:04d}-%m-%dT%H:%M:%SZ")


def _instant(text: str) -> datetime | None:
    """A clock time of `ZONE`, the first of two that a fold has; None for none, and in a gap."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?", text, re.ASCII):
        return None
    try:
        wall = datetime.fromisoformat(text[:19])
    except ValueError:
        return None
    if not 2 <= wall.year <= 9990:
        return None
    zoned = wall.replace(tzinfo=ZoneInfo(ZONE), fold=0)
    utc = zoned.astimezone(UTC)
    return utc if utc.astimezone(ZoneInfo(ZONE)).replace(tzinfo=None, fold=0) == wall else None


def plain(number: Decimal) -> str:
    """A decimal without exponent, trailing zeros and minus zero."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def expected(row: Mapping[str, str | None], *, compose: Any) -> Sent | Refused:
    """What must become of a row.

    Args:
        compose: Gives the text that a text of column `LINE` must become: composed, cut at 30 UTF-16 units between
            grapheme clusters; None where the test does not foresee it.
    """
    verdict = _Verdict()
    body = verdict.text(row["BODY"])
    if body is not None and utf16(body) > LONG:
        verdict.rules.append("too_long")
    values = {
        "Body__c": body,
        "Line__c": compose(verdict.text(row["LINE"], null_literal=True)),
        "Strict__c": verdict.text(row["STRICT"], strict=True),
        "Big__c": verdict.number(row["BIG"], digits=18, scale=0),
        "Price__c": verdict.number(row["PRICE"], digits=16, scale=2),
        "Flag__c": verdict.boolean(row["FLAG"]),
        "Day__c": verdict.day(row["DAY"]),
        "At__c": verdict.moment(row["AT"]),
        "Must__c": verdict.text(row["MUST"]),
    }
    if values["Must__c"] is None:
        verdict.rules.append("empty_required")
    return Refused(verdict.rules[0]) if verdict.rules else Sent(values)


def utf16(text: str) -> int:
    """Length as Salesforce counts it."""
    return len(text.encode("utf-16-le")) // 2


def row_of(**values: str | None) -> dict[str, str | None]:
    """A harmless row with some values of its own."""
    return {**dict.fromkeys(COLUMNS), "FLAG": "N", "MUST": "x", **values}


@dataclass(frozen=True)
class Loaded:
    """What a run left: by key the outcome and code of the ledger, and the records as both APIs show them."""

    code: int
    err: str
    outcomes: dict[str | None, tuple[str, str | None]]
    rest: dict[str, dict[str, str | None]]
    bulk: dict[str, dict[str, str | None]]
    audit: Path


@dataclass
class AwkwardWorld:
    """A served twin that takes one table after another; each run has a folder and keys of its own."""

    folder: Path
    server: TwinServer
    client: httpx.Client

    def run(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        kind: str = "sqlite",
        encoding: str = "utf-8",
        plan: str = PLAN,
        url: str | None = None,
        prefix: str,
    ) -> Loaded:
        """Load rows from a source of that kind, or what stands at `url`; read back records whose keys begin so."""
        folder = self.folder / f"run{next(_batches)}"
        folder.mkdir()
        url = url or write_source(folder, kind, rows)
        text = plan.format(url=url, target=self.server.url, token=TOKEN, zone=ZONE, encoding=encoding)
        (folder / "forcelift.yaml").write_text(text, encoding="utf-8")
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run_command(["run", "--plan", str(folder / "forcelift.yaml"), "--json"])
        return Loaded(
            code=int(code),
            err=err.getvalue(),
            outcomes=outcomes(folder),
            rest=self.by_rest(prefix),
            bulk=self.by_bulk(prefix),
            audit=folder / "state" / "audit.db",
        )

    def by_rest(self, prefix: str) -> dict[str, dict[str, str | None]]:
        """Records by REST queries, values as canonical text."""
        answer = self.client.get(f"{API}/query", params={"q": _soql(prefix)})
        records: list[dict[str, Any]] = []
        while True:
            assert answer.status_code == 200, answer.text
            page = answer.json()
            records += page["records"]
            if page["done"]:
                break
            answer = self.client.get(page["nextRecordsUrl"])
        return {record["Key__c"]: {name: _of_json(record[name]) for name in FIELDS} for record in records}

    def by_bulk(self, prefix: str) -> dict[str, dict[str, str | None]]:
        """Records by a bulk query, values as canonical text."""
        job = self.client.post(f"{API}/jobs/query", json={"operation": "query", "query": _soql(prefix)}).json()
        end = time.monotonic() + 60
        while self.client.get(f"{API}/jobs/query/{job['id']}").json()["state"] != "JobComplete":
            assert time.monotonic() < end, "the query did not end"
        answer = self.client.get(f"{API}/jobs/query/{job['id']}/results", headers={"Accept": "text/csv"})
        assert answer.status_code == 200, answer.text
        assert answer.headers.get("Sforce-Locator") in (None, "null")
        csv.field_size_limit(10_000_000)
        lines = list(csv.reader(io.StringIO(answer.content.decode(), newline="")))
        records = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
        return {record["Key__c"]: {name: _of_csv(name, record[name]) for name in FIELDS} for record in records}


def _soql(prefix: str) -> str:
    return f"SELECT Key__c, {', '.join(FIELDS)} FROM Awkward__c WHERE Key__c LIKE '{prefix}%'"


def _of_json(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    if isinstance(value, int | float):
        return plain(Decimal(repr(value)))
    text = str(value)
    return f"{text.removesuffix('.000+0000')}Z" if text.endswith(".000+0000") else text


def _of_csv(name: str, value: str) -> str | None:
    if not value:
        return None
    if name in ("Big__c", "Price__c"):
        return plain(Decimal(value))
    return f"{value.removesuffix('.000Z')}Z" if name == "At__c" else value


def outcomes(folder: Path) -> dict[str | None, tuple[str, str | None]]:
    """By key outcome and code, from the ledger files that the audit database names."""
    found: dict[str | None, tuple[str, str | None]] = {}
    if not (folder / "state" / "audit.db").exists():
        return found
    with closing(sqlite3.connect(folder / "state" / "audit.db")) as audit:
        files = audit.execute("SELECT ledger_file FROM chunk WHERE ledger_file IS NOT NULL").fetchall()
    for (file,) in files:
        frame = pl.read_parquet(folder / "state" / "staging" / file)
        for key, outcome, code in frame.select("key", "outcome", "code").iter_rows():
            found[key] = (outcome, code)
    return found


def write_source(folder: Path, kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table `awkward` as a source of that kind; values are texts, or bytes for CSV and SQLite. Gives its URL."""
    lines = [[row[name] for name in COLUMNS] for row in rows]
    names = ", ".join(f'"{name}" VARCHAR' for name in COLUMNS)
    marks = ", ".join("?" for _ in COLUMNS)
    if kind == "sqlite":
        casts = ", ".join("CAST(? AS TEXT)" for _ in COLUMNS)
        with closing(sqlite3.connect(folder / "source.db")) as connection:
            connection.execute(f"CREATE TABLE awkward ({names})")
            raw = [[_utf8(value) for value in line] for line in lines]
            connection.executemany(f"INSERT INTO awkward VALUES ({casts})", raw)
            connection.commit()
        return "sqlite:///source.db"
    if kind == "csv":
        (folder / "data").mkdir()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(COLUMNS)
        writer.writerows([(_utf8(value) or b"").decode("latin-1") for value in line] for line in lines)
        (folder / "data" / "awkward.csv").write_bytes(text.getvalue().encode("latin-1"))
        return "files:./data"
    with closing(duckdb.connect(str(folder / "source.duckdb"))) as connection:
        connection.execute(f"CREATE TABLE awkward ({names})")
        if lines:
            connection.executemany(f"INSERT INTO awkward VALUES ({marks})", lines)
        if kind == "duckdb":
            return "duckdb:///source.duckdb"
        (folder / "data").mkdir()
        connection.execute(f"COPY awkward TO '{folder / 'data' / 'awkward.parquet'}' (FORMAT parquet)")
        return "files:./data"


def _utf8(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def failed_records(audit: Path) -> dict[str, tuple[str, Any]]:
    """By RECORD_ID the code and the parsed RECORD_DATA of the failed records."""
    with closing(sqlite3.connect(audit)) as connection:
        rows = connection.execute("SELECT RECORD_ID, SF_ERROR_CODE, RECORD_DATA FROM MIGRATION_FAILED_RECORDS")
        return {key: (code, json.loads(data)) for key, code, data in rows}


@contextmanager
def awkward_world(folder: Path) -> Iterator[AwkwardWorld]:
    """The world, with the twin's token in the environment."""
    with (
        closing(TwinOrg.open(folder / "org.duckdb", schema=schema_from_dict(SCHEMA))) as org,
        TwinServer(org) as server,
        httpx.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {server.access_token}"},
            verify=False,  # plain HTTP to this machine: no certificate is asked for
            timeout=60,
        ) as client,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(TOKEN, server.access_token)
        yield AwkwardWorld(folder=folder, server=server, client=client)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwkwardWorld]:
    """One world for a module's tests."""
    with awkward_world(tmp_path_factory.mktemp("awkward")) as made:
        yield made
