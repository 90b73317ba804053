"""`forcelift report` in all its forms, of a real run; and what people say of an issue."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO

import pypdfium2
import pytest
from tests.integration.cli_migration import ORPHANS, SALES, TENANTS, Migration, cli_schema, make_source, write_plan

from forcelift.after.report.steps import Step
from forcelift.errors import UsageError
from forcelift.handover.reporting import add_note, notes_of, report_batch
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

CODE = "REJECTED_MISSING_PARENT"


@pytest.fixture(scope="module")
def migration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Migration]:
    """A batch `note` that was loaded: its orphans were rejected."""
    folder = tmp_path_factory.mktemp("forms")
    make_source(folder)
    with pytest.MonkeyPatch.context() as patch, TwinOrg.open(schema=cli_schema()) as org, TwinServer(org) as server:
        patch.chdir(folder)
        patch.setenv("CLI_TEST_TOKEN", server.access_token)
        write_plan(folder, server)
        loaded = Migration(folder=folder, org=org, server=server)
        assert loaded.run("run", "--batch", "note").returncode == 1
        yield loaded


def _journal(migration: Migration, action: str) -> list[dict[str, object]]:
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        rows = audit.execute("SELECT payload FROM journal WHERE action = ? ORDER BY seq", (action,)).fetchall()
    return [json.loads(payload) for (payload,) in rows]


def test_all_forms_say_the_same_and_are_journalled(migration: Migration) -> None:
    names = ["all.md", "all.html", "all.pdf"]
    done = migration.run("report", *(word for name in names for word in ("--out", name)))
    assert done.returncode == 1, done.stderr
    total = f"{SALES + TENANTS:,}"
    texts = {}
    for name in names[:2]:
        texts[name] = (migration.folder / name).read_text(encoding="utf-8")
    pages = pypdfium2.PdfDocument(BytesIO((migration.folder / "all.pdf").read_bytes()))
    texts["all.pdf"] = "\n".join(page.get_textpage().get_text_range() for page in pages)
    for text in texts.values():
        assert total in text
        assert "95.8333%" in text
        assert CODE in text.replace("\\", "")
    assert migration.run("report", "--out", "all.json").returncode == 1
    figures = json.loads((migration.folder / "all.json").read_text(encoding="utf-8"))
    assert figures["tables"][-1]["source"] == SALES + TENANTS
    made = {one["format"]: one for one in _journal(migration, "report_made")}
    assert set(made) == {"markdown", "html", "pdf", "json"}
    for name, form in zip(names, ("markdown", "html", "pdf"), strict=True):
        assert made[form]["sha256"] == hashlib.sha256((migration.folder / name).read_bytes()).hexdigest()
    assert "<html" in texts["all.html"]
    assert "<script" not in texts["all.html"]


def test_thai_pages_have_thai_words_and_years(migration: Migration) -> None:
    done = migration.run("report", "--lang", "th", "--buddhist-era", "--html", "any-name", "--out", "th.md")
    assert done.returncode == 1, done.stderr
    page = (migration.folder / "any-name").read_text(encoding="utf-8")
    assert 'lang="th"' in page
    for word in ("รายงานการย้ายข้อมูล", "สถิติการย้ายข้อมูล", "ไม่พบข้อมูลแม่ใน org", "ย้ายข้อมูลแม่ก่อน", "พุทธศักราช"):
        assert word in page
    text = (migration.folder / "th.md").read_text(encoding="utf-8")
    years = {int(year) for year in re.findall(r" (2\d{3}) ", text)}
    assert years
    assert min(years) > 2500


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "report.docx"), "names no form"),
        (("--buddhist-era",), "goes with `--lang th`"),
        (("--out", "a.md", "--html", "a.md"), "named twice"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is(
    migration: Migration, words: tuple[str, ...], said: str
) -> None:
    done = migration.run("report", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(migration.folder.glob("a.md"))


def test_a_file_that_is_there_stops_all_of_them(migration: Migration) -> None:
    (migration.folder / "b.html").write_text("mine", encoding="utf-8")
    done = migration.run("report", "--out", "a.md", "--out", "b.html")
    assert done.returncode == 3
    assert not (migration.folder / "a.md").exists()
    assert (migration.folder / "b.html").read_text(encoding="utf-8") == "mine"


def test_the_seconds_of_all_steps_are_the_duration(migration: Migration) -> None:
    document = migration.document("report", code=1)
    speed = document["performance"]
    steps = {one["step"]: one for one in speed["steps"]}
    assert set(steps) >= {"source", "cleaning", "network", "org", "quota"}
    assert sum(one["seconds"] for one in steps.values()) == pytest.approx(speed["seconds"], abs=0.01)
    for name in ("source", "cleaning", "network", "org"):
        assert steps[name]["seconds"] > 0, name
    assert steps["quota"]["seconds"] == 0
    assert speed["bottleneck"] in {one.value for one in Step}
    content = report_batch(migration.plan)
    assert content.curves is not None
    assert content.curves.done[-1] == pytest.approx(SALES - ORPHANS + TENANTS)
    assert content.quota is not None
    assert content.quota.rows == SALES - ORPHANS + TENANTS


def test_notes_take_the_place_of_message_and_remedy(migration: Migration) -> None:
    first = migration.run(
        "report", "note", CODE, "--cause", "Old tenants", "--resolution", "They come | later", "--by", "Data Engineer"
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    migration.run("report", "note", CODE, "--table", "sales", "--cause", "Closed shops", "--by", "DBA")
    text = migration.run("report").stdout
    assert "**Root Cause:** Closed shops" in text, "a table's note counts before one of all tables"
    assert "**Resolution:** They come \\| later" in text
    listed = migration.document("report", "note", "--list")["notes"]
    assert [(one["number"], one["table"], one["by"]) for one in listed] == [
        (1, None, "Data Engineer"),
        (2, "sales", "DBA"),
    ]
    (written, other) = _journal(migration, "report_note")
    assert (written["note"], other["note"]) == (1, 2)
    assert "Old tenants" not in json.dumps(written), "free words stand in the table alone, which a purge can empty"
    gone = migration.run("report", "note", "--remove", "2", "--by", "DBA")
    assert gone.returncode == 0
    assert "Old tenants" in migration.run("report").stdout
    assert [one["note"] for one in _journal(migration, "report_note_removed")] == [2]
    again = migration.run("report", "note", "--remove", "2", "--by", "DBA")
    assert again.returncode == 3
    assert migration.run("audit", "verify").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"by": "me"}, "says a cause, a resolution"),
        ({"cause": " "}, "says a cause, a resolution"),
        ({"cause": "x"}, "who says so"),
        ({"cause": "x", "by": "  "}, "who says so"),
        ({"cause": "x", "by": "me", "code": "REJECTED_MISING_PARENT"}, "failed with `REJECTED_MISING_PARENT`"),
        ({"cause": "x", "by": "me", "table": "tenants"}, "no row of table `tenants`"),
        ({"cause": "ก" * 1400, "by": "me"}, "at most 4,000 bytes"),
    ],
)
def test_a_note_that_says_nothing_or_is_nobodys_is_refused(
    migration: Migration, words: dict[str, str], said: str
) -> None:
    before = notes_of(migration.plan)
    given = {"code": CODE, "table": None, "cause": None, "resolution": None, "by": None} | words
    with pytest.raises(UsageError, match=said):
        add_note(migration.plan, None, **given)  # type: ignore[arg-type]  # mypy does not see the keys
    assert notes_of(migration.plan) == before


def test_a_note_needs_a_code_or_to_be_listed_or_removed(migration: Migration) -> None:
    done = migration.run("report", "note", CODE, "--list")
    assert done.returncode == 2
    assert "one of an issue's code" in done.stderr


def test_a_batch_may_bear_the_name_of_a_command(migration: Migration) -> None:
    assert "**Batch:** note" in migration.run("report", "--", "note").stdout


def test_automations_that_are_off_are_told_first(migration: Migration) -> None:
    from forcelift.audit import AuditStore
    from forcelift.audit.org_states import Holder, NewState
    from forcelift.protocols.clock import SystemClock

    with AuditStore.open(f"sqlite:///{migration.audit_file}", clock=SystemClock()) as audit:
        (batch,) = audit.batches()
        state = NewState(kind="ApexTrigger", name="Sale_Trigger", object="Sale__c", before={"a": 1}, off={"a": 0})
        audit.take_states(batch.org_id, [state], Holder(kind="prepare", name="p", by="me", since=batch.started_at))
    migration.run("report", "--out", "r.html")
    page = (migration.folder / "r.html").read_text(encoding="utf-8")
    assert "1 automation is still switched off in this org: Sale_Trigger, since 20" in page
    assert " UTC by me" in page
    assert page.index('role="alert"') < page.index("<header")
    (told,) = migration.document("report", code=1)["switched_off"]
    assert (told["kind"], told["name"], told["by"]) == ("ApexTrigger", "Sale_Trigger", "me")
    first = next(line for line in migration.run("report").stdout.splitlines() if line.startswith(">"))
    assert "Sale_Trigger, since 20" in first
    assert " UTC by me" in first
