"""`forcelift profile` as people and scripts use it: screen, JSON, exit codes, acceptance, samples, empty tables."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.profile_defects import PLAN, SCHEMA, make_project
from tests.scenarios.scenario_support import Project, Screen, assert_clear_error, make_sqlite, run_words

COUNTS = "SELECT count(*) FROM profile", "SELECT count(*) FROM accepted_finding WHERE withdrawn_at IS NULL"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, "sqlite")


def profile(project: Project, *words: str) -> Screen:
    return run_words("profile", "--plan", str(project.plan), *words)


def command(project: Project, *words: str) -> Screen:
    return run_words("profile", *words, "--plan", str(project.plan))


def finding_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for table in document["tables"] for one in table["findings"] if one["name"] == name)


def test_a_finding_is_accepted_by_name_and_remembered(project: Project) -> None:
    first = profile(project, "--json")
    assert first.code == 1, first.err
    name = "sales.AMOUNT.negative"
    assert finding_of(first.document, name)["is_open"]
    done = command(project, "accept", name, "--by", "QA Lead", "--reason", "refunds", "--json")
    assert done.code == 0, done.err
    assert done.document["rows"] == 6
    assert done.document["profile_id"] == first.document["profile_id"]
    second = profile(project, "--json").document
    found = finding_of(second, name)
    assert not found["is_open"]
    assert (found["accepted"]["by"], found["accepted"]["reason"], found["accepted"]["rows"]) == (
        "QA Lead",
        "refunds",
        6,
    )
    assert second["totals"]["open_findings"] == first.document["totals"]["open_findings"] - 1
    with closing(sqlite3.connect(project.folder / "source.db")) as source:
        source.execute("UPDATE sales SET AMOUNT = '-2' WHERE ID = 'K00000'")
        source.commit()
    grown = finding_of(profile(project, "--json").document, name)
    assert (grown["is_open"], grown["rows"]) == (True, 7)
    assert [project.audit(query)[0][0] for query in COUNTS] == [3, 1]
    assert command(project, "reopen", name, "--by", "QA Lead").code == 0
    assert project.audit(COUNTS[1]) == [(0,)]
    actions = [action for (action,) in project.audit("SELECT action FROM journal ORDER BY seq")]
    assert [one for one in actions if one not in ("evidence", "rows")] == [
        "profiled", "finding_accepted", "profiled", "profiled", "finding_reopened",
    ]  # fmt: skip
    cited = project.audit("SELECT name, passed FROM evidence WHERE kind = 'profile' ORDER BY evidence_no")
    assert cited[0] == (first.document["profile_id"], 0)
    assert len(cited) == 3
    assert run_words("audit", "verify", "--plan", str(project.plan)).code == 0
    assert project.traces() == (0, 0)


def test_the_screen_says_what_to_do_and_hides_what_is_personal(project: Project) -> None:
    page, keys = project.folder / "out.html", project.folder / "keys"
    screen = profile(project, "--html", str(page), "--export-keys", str(keys))
    assert screen.code == 1
    for text in (
        "sales -> Sale__c", "rejected, with code REJECTED_PICKLIST", "K00199 = 'Lost'",
        "forcelift profile accept stores.CODE",
        "copies equal: 4, copies by external id rule: 2", "profile-20", f"page: {page}",
    ):  # fmt: skip
        assert text in screen.out, text
    personal = ("ร้านค้า", "someone@example.com", "padded")
    everything = [
        screen.out,
        page.read_text(encoding="utf-8"),
        *(one.read_text(encoding="utf-8") for one in keys.iterdir()),
    ]
    assert not [text for text in personal for held in everything if text in held]
    assert (keys / "sales.rejected.csv").exists()
    stored = project.audit("SELECT document FROM profile")[0][0]
    assert not [text for text in personal if text in stored]
    assert not list(project.state.glob("staging/profile-*"))


def test_what_is_wrong_is_said_before_anything_is_read(project: Project) -> None:
    (project.folder / "full").mkdir()
    (project.folder / "full" / "x").touch()
    cases = [
        (profile(project, "--table", "sale"), 2, "did you mean `sales`?"),
        (profile(project, "--sample-percent", "0"), 2, "is not a number above 0"),
        (profile(project, "--export-keys", str(project.folder / "full")), 2, "is not empty"),
        (profile(project, "--html", str(project.folder / "no" / "x.html")), 2, "does not exist"),
    ]
    for screen, code, text in cases:
        assert_clear_error(screen, code=code, says=[text])
    early = command(project, "accept", "sales.ID.null_key", "--by", "x", "--reason", "y")
    assert_clear_error(early, code=3, says=["there is no profile", "forcelift profile"])
    assert profile(project, "--json").code == 1
    wrong = command(project, "accept", "sales.ID.null_keys", "--by", "x", "--reason", "y")
    assert_clear_error(wrong, code=2, says=["did you mean `sales.ID.null_key`?"])
    blank = command(project, "accept", "sales.ID.null_key", "--by", " ", "--reason", "y")
    assert_clear_error(blank, code=2, says=["--by"])


def clean_project(folder: Path, rows: int) -> Project:
    """Stores alone, without a defect."""
    project = Project(folder)
    text = PLAN.format(url="sqlite:///source.db", user="")
    project.plan.write_text(text[: text.index("  - table: people")], encoding="utf-8")
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    lines = [[f"S{number}", "Airport"] for number in range(rows)]
    make_sqlite(project, "CREATE TABLE stores (CODE VARCHAR, NAME VARCHAR);", {"stores": lines})
    return project


@pytest.mark.parametrize("rows", [0, 1])
def test_a_sound_table_ends_with_zero(rows: int, tmp_path: Path) -> None:
    screen = profile(clean_project(tmp_path, rows), "--json", "--html", str(tmp_path / "p.html"))
    assert screen.code == 0, screen.err
    table = screen.document["tables"][0]
    assert (table["rows"], table["to_send"], table["findings"], table["distinct_keys"]) == (rows, rows, [], rows)
    assert profile(Project(tmp_path)).out.rstrip().endswith("none open")


def test_a_sample_reads_a_share_and_says_so(tmp_path: Path) -> None:
    project = clean_project(tmp_path, 20_000)
    screen = profile(project, "--sample-percent", "10", "--json")
    assert screen.code == 0, screen.err
    table = screen.document["tables"][0]
    assert 1_000 <= table["rows"] <= 3_000
    assert "even slices" in table["sample"]
    assert "by the database itself" in table["counted"]
    assert "changed meanwhile" not in table["counted"], "SQL counts the very slices that are read"
    assert screen.document["sample_percent"] == "10"
    assert "a sample: " in profile(project, "--sample-percent", "10").out


def test_parents_of_a_sample_are_not_missed(project: Project) -> None:
    """A child whose parent lies in a slice that was not read is no orphan."""
    with closing(sqlite3.connect(project.folder / "source.db")) as source:
        source.executemany("INSERT INTO stores VALUES (?, 'x')", [(f"N{number}",) for number in range(10_000)])
        source.execute("UPDATE sales SET STORE = 'N' || (rowid % 10000) WHERE STORE = 'S1'")
        source.commit()
    screen = profile(project, "--sample-percent", "20", "--json")
    tables = {table["table"]: table for table in screen.document["tables"]}
    assert tables["stores"]["rows"] < 5_000
    orphans = [one for one in tables["sales"]["findings"] if one["kind"] == "missing_parent"]
    assert all(example["value"] == "S9" for one in orphans for example in one["examples"])


def test_columns_that_go_nowhere_are_judged_if_asked(project: Project) -> None:
    """Their figures are there in any case."""
    text = project.plan.read_text(encoding="utf-8")
    mapped = "      NOTE: {field: Note__c, personal: false}\n"
    assert mapped in text
    project.plan.write_text(text.replace(mapped, ""), encoding="utf-8")
    for words, wanted in (((), False), (("--all-columns",), True)):
        table = profile(project, "--json", "--table", "stores", "--table", "sales", *words).document["tables"][-1]
        (note,) = (one for one in table["columns"] if one["name"] == "NOTE")
        assert (note["is_personal"], note["field"], note["longest"], note["least"]) == (True, None, 10, None)
        assert ("mojibake" in {one["kind"] for one in table["findings"] if one["column"] == "NOTE"}) == wanted


def test_null_key_stop_is_told_and_does_not_stop_a_profile(project: Project) -> None:
    text = project.plan.read_text(encoding="utf-8")
    project.plan.write_text(
        text.replace("    duplicates: keep_first\n", "    duplicates: keep_first\n    null_key: stop\n")
    )
    found = finding_of(profile(project, "--json").document, "sales.ID.null_key")
    assert found["rows"] == 3
    assert "the batch ends" in found["outcome"]


def test_rules_that_keep_are_told_too(project: Project) -> None:
    text = project.plan.read_text(encoding="utf-8")
    changed = text.replace("AMOUNT: {field: Amount__c,", "AMOUNT: {field: Amount__c, negative: keep,")
    assert changed != text
    project.plan.write_text(changed, encoding="utf-8")
    found = finding_of(profile(project, "--json").document, "sales.AMOUNT.negative")
    assert (found["rows"], found["action"], found["outcome"]) == (6, "kept", "sent as it is")
    assert json.dumps(found)


def test_a_value_that_does_not_fit_its_column_is_a_finding(project: Project) -> None:
    """SQLite stores any value anywhere; the batch that holds one comes as text, the others do not."""
    with closing(sqlite3.connect(project.folder / "source.db")) as source:
        source.execute("UPDATE sales SET AMOUNT = 'unknown' WHERE ID IN ('K00000', 'K00149')")
        source.commit()
    text = project.plan.read_text(encoding="utf-8")
    project.plan.write_text(
        text.replace("project: defects\n", "project: defects\nchunks: {rows: 40}\n"), encoding="utf-8"
    )
    document = profile(project, "--json").document
    found = finding_of(document, "sales.AMOUNT.invalid_number")
    assert (found["rows"], found["examples"][0]) == (2, {"key": "K00000", "value": "unknown"})
    amount = next(one for table in document["tables"] for one in table["columns"] if one["name"] == "AMOUNT")
    assert (amount["nulls"], float(amount["least"]), float(amount["most"])) == (0, -1, 1234567)
