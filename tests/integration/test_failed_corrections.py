"""Refused rows exported to CSV, corrected by a person, imported, and sent with the corrected values."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.integration.cli_migration import Migration
from tests.integration.test_failed_retry import (
    LONG_NOTES,
    ORPHANS,
    PLAN,
    audit,
    migration,
    outcomes,
    query,
)

from forcelift.errors import ExitCode

__all__ = ["migration"]


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def save(file: Path, rows: list[dict[str, Any]], *, separator: str = ",") -> None:
    """As a spreadsheet saves it."""
    with file.open("w", encoding="utf-8-sig", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def loaded(migration: Migration) -> Migration:
    """A batch with long texts, some of which look like formulas, a number and a date that are refused."""
    with duckdb.connect(str(migration.folder / "source.duckdb")) as source:
        source.execute("UPDATE notes SET text = '=1+1' || repeat('y', 40) WHERE note_id = 'N7'")
    plan = PLAN.format(url=migration.server.url, too_long="reject", missing_parent="reject")
    plan = plan.replace("field: Text__c, too_long: reject", "field: Text__c, too_long: reject, personal: false")
    migration.plan.write_text(plan, encoding="utf-8")
    migration.document("run", "--batch", "first", code=ExitCode.ROWS_REFUSED)
    return migration


def test_corrected_cells_count_and_all_others_are_the_sources(loaded: Migration) -> None:
    out = loaded.folder / "notes.csv"
    refused = loaded.run("failed", "export", "--out", str(out))
    assert refused.returncode == ExitCode.USAGE  # two tables have open rows
    done = loaded.document("failed", "export", "--table", "notes", "--code", "REJECTED_TOO_LONG", "--out", str(out))
    assert (done["rows"], done["masked"]) == (LONG_NOTES, ["note_id", "shop"])
    assert out.stat().st_mode & 0o777 == 0o600
    rows = {row["key"]: row for row in rows_of(out)}
    assert rows["N7"]["text"].startswith("'=1+1")
    assert rows["N0"]["refused as"] == "REJECTED_TOO_LONG"
    assert {row["shop"] for row in rows.values()} == {"***"}
    rows["N0"]["text"] = "corrected"
    rows["N7"]["text"] = "'=2"
    rows["N14"]["shop"] = "S1"  # behind the mask another value
    save(out, [rows["N0"], rows["N7"], rows["N14"], rows["N21"]], separator=";")
    taken = loaded.document("failed", "import", str(out), "--table", "notes")
    assert (taken["rows"], taken["corrected"], taken["cells"], taken["columns"]) == (4, 3, 3, ["text", "shop"])
    retried = loaded.document("failed", "retry", "--table", "notes", code=ExitCode.ROWS_REFUSED)
    assert retried["mended"] == 2
    assert query(loaded, "SELECT Text__c FROM Note__c WHERE Key__c = 'N0'")[0]["Text__c"] == "corrected"
    assert query(loaded, "SELECT Text__c FROM Note__c WHERE Key__c = 'N7'")[0]["Text__c"] == "=2"
    assert query(loaded, "SELECT Shop__r.Code__c FROM Note__c WHERE Key__c = 'N0'")[0]["Shop__r"]["Code__c"] == "S0"
    # The corrected shop of N14 waits for its text, which is still too long.
    plan = loaded.plan.read_text(encoding="utf-8")
    loaded.plan.write_text(plan.replace("too_long: reject", "too_long: truncate"), encoding="utf-8")
    loaded.document("failed", "retry")
    assert query(loaded, "SELECT Shop__r.Code__c FROM Note__c WHERE Key__c = 'N14'")[0]["Shop__r"]["Code__c"] == "S1"
    assert outcomes(loaded, "first")["notes", "created"] == 300
    level_5 = loaded.document("validate", "first", "--level", "5")
    assert level_5["statuses"]["failed"] == 0
    # What was corrected may be personal: it goes once its row is in the org.
    assert not list((loaded.folder / "state" / "staging" / "corrections").rglob("*.parquet"))
    assert loaded.document("audit", "verify")["is_whole"] is True
    [(payload,)] = audit(loaded, "SELECT payload FROM journal WHERE action = 'failed_corrected'")
    assert "corrected" not in payload.replace("failed_corrected", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "N1"}, "no open refused rows"),
        ({"note_id": "N999"}, "changes the column `note_id`"),
    ],
)
def test_a_file_that_names_other_rows_or_changes_keys_is_refused(
    loaded: Migration, change: dict[str, str], words: str
) -> None:
    out = loaded.folder / "notes.csv"
    loaded.document("failed", "export", "--table", "notes", "--out", str(out))
    rows = rows_of(out)
    assert len(rows) == LONG_NOTES + ORPHANS
    save(out, [{**rows[0], "text": "good"}, {**rows[1], **change}])
    refused = loaded.run("failed", "import", str(out), "--table", "notes")
    assert refused.returncode == ExitCode.USAGE
    assert words in refused.stderr
    assert audit(loaded, "SELECT COUNT(*) FROM journal WHERE action = 'failed_corrected'") == [(0,)]


def test_a_file_of_corrected_values_that_somebody_changed_is_found_and_not_sent(loaded: Migration) -> None:
    """What stands in it goes into the org in place of the source's values."""
    out = loaded.folder / "notes.csv"
    loaded.document("failed", "export", "--table", "notes", "--code", "REJECTED_TOO_LONG", "--out", str(out))
    rows = rows_of(out)
    rows[0]["text"] = "corrected"
    sent = f"SELECT Text__c FROM Note__c WHERE Key__c = '{rows[0]['key']}'"
    save(out, rows)
    assert loaded.document("failed", "import", str(out), "--table", "notes")["cells"] == 1
    [file] = (loaded.folder / "state" / "staging" / "corrections").rglob("*.parquet")
    assert loaded.document("audit", "verify")["is_whole"] is True
    before = file.read_bytes()
    for content in (before[:-1], before.replace(b"corrected", b"forged!!!"), None):
        file.write_bytes(content) if content is not None else file.unlink()
        [fault] = loaded.document("audit", "verify", code=ExitCode.ROWS_REFUSED)["faults"]
        assert "corrected values" in fault
        refused = loaded.run("failed", "retry", "--table", "notes")
        assert refused.returncode == ExitCode.STATE, refused.stderr
        assert "corrected values" in refused.stderr
    assert query(loaded, sent) == []
    # Gone for good, it is imported anew.
    assert loaded.document("failed", "import", str(out), "--table", "notes")["cells"] == 1
    loaded.document("failed", "retry", "--table", "notes", code=ExitCode.ROWS_REFUSED)
    assert query(loaded, sent)[0]["Text__c"] == "corrected"
    assert loaded.document("audit", "verify")["is_whole"] is True


def test_a_purge_takes_corrected_values_and_none_come_back(loaded: Migration) -> None:
    out = loaded.folder / "notes.csv"
    loaded.document("failed", "export", "--table", "notes", "--out", str(out))
    rows = rows_of(out)
    save(out, [{**rows[0], "text": "of a person"}])
    loaded.document("failed", "import", str(out), "--table", "notes")
    kept = loaded.folder / "state" / "staging" / "corrections"
    assert len(list(kept.rglob("*.parquet"))) == 1
    preview = loaded.document("audit", "purge", "--batch", "first")["batches"][0]
    assert preview["other_files"] >= 1
    loaded.document("audit", "purge", "--batch", "first", "--execute", "--no-way-back", "--reason", "retention")
    assert not list(kept.rglob("*.parquet"))
    for words in (
        ["failed", "retry"],
        ["failed", "import", str(out), "--table", "notes"],
        ["failed", "export", "--table", "notes", "--out", str(loaded.folder / "again.csv")],
    ):
        refused = loaded.run(*words)
        assert (refused.returncode, "were purged at" in refused.stderr) == (ExitCode.STATE, True), words
    assert not list(kept.rglob("*.parquet"))
    assert not (loaded.folder / "again.csv").exists()
    assert loaded.document("audit", "verify")["is_whole"] is True


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "no key column": lambda data: data.replace(b"key,", b"schluessel,", 1),
    "a column twice": lambda data: data.replace(b"key,", b"key,key,", 1),
    "utf-16": lambda data: data.decode("utf-8-sig").encode("utf-16"),
    "tis-620": lambda data: data + b"N1,\xa1\xa2,,,,,\n",
    "a row twice": lambda data: data + data.split(b"\r\n")[1] + b"\r\n",
    "a line cut short": lambda data: data + b"N0\n",
    "an open quote": lambda data: data + b'"N0',
    "nul": lambda data: data.replace(b"\r\n", b"\x00\r\n"),
}


def test_a_file_that_is_broken_is_refused_whole(loaded: Migration) -> None:
    out = loaded.folder / "notes.csv"
    loaded.document("failed", "export", "--table", "notes", "--code", "REJECTED_TOO_LONG", "--out", str(out))
    good = out.read_bytes().replace(b"y" * 40, b"good")
    for name, change in BROKEN.items():
        out.write_bytes(change(good))
        refused = loaded.run("failed", "import", str(out), "--table", "notes")
        assert refused.returncode == ExitCode.USAGE, (name, refused.stderr)
        assert "Traceback" not in refused.stderr, name
        assert not (loaded.folder / "state" / "staging" / "corrections").exists(), name
    assert audit(loaded, "SELECT COUNT(*) FROM journal WHERE action = 'failed_corrected'") == [(0,)]


def test_rows_that_are_resolved_or_of_another_batch_are_no_corrections(loaded: Migration) -> None:
    out = loaded.folder / "notes.csv"
    loaded.document("failed", "export", "--table", "notes", "--code", "REJECTED_TOO_LONG", "--out", str(out))
    save(out, [{**rows_of(out)[0], "text": "good"}])
    key = rows_of(out)[0]["key"]
    loaded.document("failed", "resolve", "--code", "REJECTED_TOO_LONG", "--note", "not needed", "--by", "A. Person")
    resolved = loaded.run("failed", "import", str(out), "--table", "notes")
    assert (resolved.returncode, "no open refused rows" in resolved.stderr) == (ExitCode.USAGE, True)
    # A batch that has no such row: the table is cut down to others.
    plan = loaded.plan.read_text(encoding="utf-8")
    others = f"- table: notes\n    where: \"note_id <> '{key}'\""
    loaded.plan.write_text(plan.replace("- table: notes", others), "utf-8")
    loaded.document("run", "--batch", "second", code=ExitCode.ROWS_REFUSED)
    other = loaded.run("failed", "import", str(out), "--batch", "second", "--table", "notes")
    assert (other.returncode, "no open refused rows" in other.stderr) == (ExitCode.USAGE, True)
