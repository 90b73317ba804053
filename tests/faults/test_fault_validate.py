"""A validation that is killed, stopped, or loses source or org on its way: how it ends, and that it is gone on with."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.fault_twin import BASE, TwinProcess

ROWS, CHUNK_ROWS, PAGE_ROWS = 12_000, 4_000, 300
PAGES = ROWS // PAGE_ROWS
PATIENCE_S = 120.0
RESULTS = "/jobs/query/.*/results$"

SCHEMA = """\
objects:
  Thing__c:
    fields:
      Name: {type: string}
      Key__c: {type: string, externalId: true, unique: true}
      Amount__c: {type: currency, precision: 12, scale: 2}
      Day__c: {type: date}
"""
PLAN = """\
version: 1
project: Interrupted
source: {{url: "sqlite:///source.db"}}
target: {{url: "{url}", auth: {{flow: token, access_token: "${{INTERRUPTED_TOKEN}}"}}}}
tables:
  - table: things
    object: Thing__c
    key: code
    external_id: Key__c
    fields: {{name: Name, amount: Amount__c, day: Day__c}}
chunks: {{rows: {rows}}}
"""
# Small pages, so that there are many moments between two of them; all else is the command as people have it.
COMMAND = f"""\
import forcelift.after.validate.org_scan as scan
scan.PAGE_ROWS = scan._PAGE_ROWS_MIN = {PAGE_ROWS}
from forcelift.cli.main import main
main()
"""


@dataclass
class Drill:
    """A loaded org in a process of its own, and commands in theirs."""

    folder: Path
    twin: TwinProcess
    token: str
    left: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *words],
            cwd=self.folder,
            env={**os.environ, "INTERRUPTED_TOKEN": self.token, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.left.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def validate(self, *words: str) -> tuple[int, dict[str, Any]]:
        code, out, err = self.end(self.start("validate", "--json", *words))
        assert out, err
        document: dict[str, Any] = json.loads(out)
        return code, document

    def wait_for_pages(self, more: int, process: subprocess.Popen[str]) -> bool:
        """Until so many more pages were answered; False if the process ended before."""
        wanted = self.pages() + more
        return self.wait_until(lambda: self.pages() >= wanted, process)

    def wait_until(self, is_so: Callable[[], bool], process: subprocess.Popen[str]) -> bool:
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            if is_so():
                return True
            if process.poll() is not None:
                return False
            time.sleep(0.002)
        raise AssertionError("waited too long")

    def pages(self) -> int:
        return self.twin.count("GET", RESULTS)

    def query_jobs(self) -> int:
        return self.twin.count("POST", "/jobs/query$")

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = httpx.request(method, self.twin.url + path, headers=headers, trust_env=False, timeout=60, **more)
        assert answer.is_success, answer.text
        return answer

    def change(self, number: int, values: dict[str, Any]) -> None:
        soql = f"SELECT Id FROM Thing__c WHERE Key__c = 'K{number}'"
        record_id = self.call("GET", f"{BASE}/query", params={"q": soql}).json()["records"][0]["Id"]
        self.call("PATCH", f"{BASE}/sobjects/Thing__c/{record_id}", json=values)

    def slow_pages(self, seconds: float) -> None:
        """Each page of results takes so long."""
        order = {"action": "delay", "method": "GET", "path": RESULTS, "seconds": seconds, "times": None}
        headers = {"Authorization": f"Bearer {self.twin.control_token}"}
        answer = httpx.post(f"{self.twin.url}/__twin__/faults", json=order, headers=headers, trust_env=False)
        assert answer.status_code == 201, answer.text

    def audit(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self.folder}/state/audit.db?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def files_left(self) -> list[str]:
        return [str(path) for path in (self.folder / "state" / "staging" / "validate").glob("**/*") if path.is_file()]


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    """A batch that went well."""
    with closing(sqlite3.connect(tmp_path / "source.db")) as source:
        source.execute("CREATE TABLE things (code TEXT PRIMARY KEY, name TEXT, amount DECIMAL(12, 2), day DATE)")
        first = date(2024, 1, 1)
        rows = [(f"K{n}", f"name {n}", n * 0.25, str(first + timedelta(days=n % 500))) for n in range(ROWS)]
        source.executemany("INSERT INTO things VALUES (?, ?, ?, ?)", rows)
        source.commit()
    twin = TwinProcess(tmp_path, schema=SCHEMA).start()
    made = Drill(tmp_path, twin, str(twin.access_token))
    try:
        (tmp_path / "forcelift.yaml").write_text(PLAN.format(url=twin.url, rows=CHUNK_ROWS), encoding="utf-8")
        code, _, err = made.end(made.start("run"))
        assert code == 0, err
        yield made
    finally:
        for process in made.left:
            if process.poll() is None:
                process.kill()
            process.communicate()
        twin.stop()


def assert_proved(drill: Drill, document: dict[str, Any]) -> None:
    """Everything was compared, the damage to two records was found, and nothing stays behind."""
    records = next(one for one in document["checks"] if one["check"] == "records")
    assert (records["source"], records["difference"]) == (str(ROWS), "2")
    assert [(one["key"], one["field"]) for one in records["examples"]] == [("K11", "Amount__c"), ("K7000", "Day__c")]
    sums = drill.audit("SELECT TARGET_CHECKSUM = SOURCE_CHECKSUM FROM MIGRATION_AUDIT_LOG ORDER BY CHUNK_ID")
    assert sorted(sums) == [(0,), (0,), (1,)]
    assert drill.files_left() == []


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_level_5_killed_at_random_goes_on_and_finds_the_same(drill: Drill, seed: int) -> None:
    """Goal: nothing is lost, doubled or read for nothing. Method: `kill -9` after a random number of pages."""
    rng = random.Random(seed)
    drill.change(11, {"Amount__c": 0.01})
    drill.change(7000, {"Day__c": None})
    kills = 0
    while kills < 3:
        process = drill.start("validate", "--level", "5", "--json")
        if not drill.wait_for_pages(rng.randint(1, PAGES // 2), process):
            break
        process.kill()
        process.wait()
        kills += 1
    assert kills == 3
    assert drill.files_left() != []
    before = drill.pages()
    code, document = drill.validate("--level", "5")
    assert code == 1
    assert_proved(drill, document)
    # One query for all four processes, and the last read what the others had not sealed.
    assert drill.query_jobs() == 1
    assert drill.pages() - before <= PAGES
    assert drill.audit("SELECT count(*) FROM validation_result") == [(len(document["checks"]),)]


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(drill: Drill) -> None:
    drill.change(11, {"Amount__c": 0.01})
    drill.change(7000, {"Day__c": None})
    process = drill.start("validate", "--levels", "1,5", "--json")
    assert drill.wait_for_pages(20, process)
    process.send_signal(signal.SIGINT)
    code, out, err = drill.end(process)
    assert (code, out) == (130, "")
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert drill.audit("SELECT DISTINCT level FROM validation_result") == [(1,)]
    before = drill.pages()
    code, document = drill.validate("--levels", "1,5")
    assert code == 1
    assert_proved(drill, document)
    assert (drill.query_jobs(), drill.pages() - before < PAGES) == (1, True)


def test_an_org_that_goes_away_ends_with_5_and_is_gone_on_with(drill: Drill) -> None:
    drill.change(11, {"Amount__c": 0.01})
    drill.change(7000, {"Day__c": None})
    process = drill.start("validate", "--levels", "1,5", "--json")
    assert drill.wait_for_pages(20, process)
    drill.twin.kill()
    code, out, err = drill.end(process)
    assert (code, out) == (5, "")
    assert "Traceback" not in err
    assert drill.audit("SELECT DISTINCT level FROM validation_result") == [(1,)]
    drill.twin.start()
    drill.token = str(drill.twin.access_token)
    before = drill.pages()
    code, document = drill.validate("--levels", "1,5")
    assert code == 1
    assert_proved(drill, document)
    assert (drill.query_jobs(), drill.pages() - before < PAGES) == (1, True)


def test_a_source_that_goes_away_ends_with_4_and_level_5_needs_none(drill: Drill) -> None:
    """It goes while the org is read; then level 2 finds no source, and level 5 names records without their fields."""
    drill.change(11, {"Amount__c": 0.01})
    drill.change(7000, {"Day__c": None})
    drill.slow_pages(0.05)
    source, aside = drill.folder / "source.db", drill.folder / "aside.db"
    process = drill.start("validate", "--levels", "1,2,5", "--json")
    assert drill.wait_for_pages(3, process)
    source.rename(aside)
    code, out, err = drill.end(process)
    assert (code, out) == (4, "")
    assert "Traceback" not in err
    assert drill.audit("SELECT DISTINCT level FROM validation_result") == [(1,)]
    aside.rename(source)
    code, document = drill.validate("--levels", "1,2,5")
    assert code == 1
    assert_proved(drill, document)
    assert drill.query_jobs() == 1
    process = drill.start("validate", "--level", "5", "--json")
    assert drill.wait_for_pages(3, process)
    source.rename(aside)
    code, out, err = drill.end(process)
    assert code == 1, err
    records = next(one for one in json.loads(out)["checks"] if one["check"] == "records")
    assert [(one["key"], one["field"]) for one in records["examples"]] == [("K11", None), ("K7000", None)]
    assert all("the source does not give the row" in one["note"] for one in records["examples"])
