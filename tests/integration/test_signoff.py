"""Sign-offs, consents, proof, export, purge and the later parts of the checklist, through the command line."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from tests.integration.cli_migration import Migration, cli_schema, make_source, write_plan

from forcelift.account.recorded import open_recorded
from forcelift.errors import ExitCode
from forcelift.handover.proving import prove, sealed_files
from forcelift.twin.org import TwinOrg
from forcelift.twin.server import TwinServer

ROLES = ("Data Engineer", "DBA", "Business Owner", "QA Lead")


@pytest.fixture
def migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Migration]:
    make_source(tmp_path)
    monkeypatch.chdir(tmp_path)
    with TwinOrg.open(schema=cli_schema()) as org, TwinServer(org) as server:
        write_plan(tmp_path, server)
        monkeypatch.setenv("CLI_TEST_TOKEN", server.access_token)
        yield Migration(folder=tmp_path, org=org, server=server)


def load(migration: Migration, batch: str = "first") -> None:
    migration.document("run", "--batch", batch, code=ExitCode.ROWS_REFUSED)


def report(migration: Migration, name: str = "report.md") -> Path:
    assert migration.run("report", "--out", name).returncode in (0, 1)
    return migration.folder / name


def sign(migration: Migration, phase: str, role: str = "DBA", *more: str) -> dict[str, Any]:
    return migration.document("signoff", "--phase", phase, "--role", role, "--name", "A. Person", *more)


def add_to_plan(migration: Migration, line: str) -> None:
    migration.plan.write_text(migration.plan.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def items(migration: Migration, phase: str) -> dict[str, dict[str, str]]:
    done = migration.run("checklist", "--phase", phase, "--json")
    return {item["name"]: item for item in json.loads(done.stdout)[phase]}


def csv_rows(file: Path) -> int:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return sum(1 for _ in csv.reader(lines)) - 1


def test_before_binds_plan_check_profile_and_estimate_and_names_what_is_missing(migration: Migration) -> None:
    assert migration.run("check").returncode in (0, 1)
    refused = migration.run("signoff", "--phase", "before", "--role", "DBA", "--name", "A. Person")
    assert refused.returncode == ExitCode.STATE
    for words in ("profile: none is recorded; `forcelift profile`", "estimate: none is recorded"):
        assert words in refused.stderr
    assert "check:" not in refused.stderr
    assert migration.run("profile").returncode in (0, 1)
    assert migration.run("estimate").returncode in (0, 1)
    signed = sign(migration, "before", "dba", "--note", "looks well")
    assert (signed["role"], signed["note"], signed["binds"]["without"]) == ("DBA", "looks well", {})
    with open_recorded(migration.plan) as (loaded, state):
        assert signed["binds"]["plan"]["sha256"] == loaded.sha256
        evidence = {one.evidence_no: one for one in state.audit.evidence(loaded.plan.project)}
        for kind in ("check", "profile", "estimate"):
            bound = evidence[signed["binds"][kind]["evidence"]]
            assert (bound.kind, bound.sha256) == (kind, signed["binds"][kind]["sha256"])
        head = state.audit.journal_head()
    assert signed["head"] == {"seq": head.seq, "hash": head.hash}
    assert signed["lacking"] == ["Data Engineer", "Business Owner", "QA Lead"]
    proof = migration.document("audit", "verify", "--head", signed["head"]["hash"])
    assert (proof["is_whole"], proof["known_heads"]) == (True, [signed["head"]["hash"]])

    add_to_plan(migration, "thresholds: {fail_rate_warning: 2}")
    listed = migration.document("signoff", "list", code=ExitCode.ROWS_REFUSED)
    assert [one["why_stale"] for one in listed["sign_offs"]] == ["the plan has changed since"]
    refused = migration.run("signoff", "--phase", "before", "--role", "DBA", "--name", "A. Person")
    assert refused.stderr.count("is of another state of the plan") == 3


def test_what_is_left_out_is_named_with_its_reason_and_journalled(migration: Migration) -> None:
    assert migration.run("check").returncode in (0, 1)
    words = ("--without", "profile", "--without", "estimate")
    done = migration.run("signoff", "--phase", "before", "--role", "DBA", "--name", "A", *words)
    assert (done.returncode, "--because" in done.stderr) == (ExitCode.USAGE, True)
    signed = sign(migration, "before", "DBA", *words, "--because", "a drill")
    assert signed["binds"]["without"] == {"profile": "a drill", "estimate": "a drill"}
    wrong = migration.run("signoff", "--phase", "before", "--role", "DBA", "--name", "A", "--without", "report")
    assert (wrong.returncode, "does not bind `report`" in wrong.stderr) == (ExitCode.USAGE, True)
    wrong = migration.run("signoff", "--phase", "before", "--role", "Business Ower", "--name", "A")
    assert "did you mean `Business Owner`?" in wrong.stderr
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        [payload] = audit.execute("SELECT payload FROM journal WHERE action = 'signed_off'").fetchone()
    assert json.loads(payload)["sha256"] == signed["binds_sha256"]


def test_after_binds_the_newest_report_and_the_data_and_later_changes_show(migration: Migration) -> None:
    load(migration)
    refused = migration.run("signoff", "--phase", "after", "--role", "DBA", "--name", "A. Person")
    assert (refused.returncode, "report: none was written" in refused.stderr) == (ExitCode.STATE, True)
    file = report(migration)
    signed = sign(migration, "after")
    assert signed["binds"]["report"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert migration.document("status")["sign_offs"][0]["is_stale"] is False

    content = file.read_bytes()
    file.write_bytes(content.replace(b"A", b"B", 1))
    [one] = migration.document("signoff", "list", code=1)["sign_offs"]
    assert one["why_stale"].endswith("was changed after it was written")
    proof = migration.document("audit", "verify", code=1)
    assert proof["faults"] == [f"the report `{file}` was changed after it was written"]
    file.write_bytes(content)
    assert migration.document("signoff", "list")["sign_offs"][0]["is_stale"] is False

    # A report that says the same and shows who has signed is no other report; one with a validation is.
    assert "A. Person" in report(migration, "second.md").read_text(encoding="utf-8")
    assert migration.document("signoff", "list")["sign_offs"][0]["is_stale"] is False
    assert migration.run("validate", "first", "--level", "1").returncode in (0, 1)
    report(migration, "third.md")
    [one] = migration.document("signoff", "list", code=1)["sign_offs"]
    assert "a newer report that says something else was written" in one["why_stale"]
    sign(migration, "after")
    listed = migration.document("signoff", "list")
    assert [row["because"] for row in listed["withdrawn"]] == ["signed anew"]

    migration.document("rollback", "first", "--execute", "--reason", "wrong prices")
    seen = migration.document("status")["sign_offs"][0]
    assert seen["is_stale"] is True
    assert "the data of table `sales` of batch `first` have changed since" in seen["why_stale"]
    assert "OUT OF DATE" in migration.run("status").stdout
    refused = migration.run("signoff", "--phase", "after", "--role", "DBA", "--name", "A. Person")
    assert "the data have changed since it was written (" in refused.stderr
    assert migration.document("audit", "verify")["is_whole"] is True

    number = str(listed["sign_offs"][0]["number"])
    taken = migration.document("signoff", "withdraw", number, "--because", "the totals are wrong")
    assert taken["because"] == "the totals are wrong"
    again = migration.run("signoff", "withdraw", number, "--because", "again")
    assert again.returncode == ExitCode.STATE


def test_a_sign_off_of_the_project_binds_all_its_batches(migration: Migration) -> None:
    load(migration)
    load(migration, "second")
    report(migration)
    refused = migration.run("signoff", "--phase", "after", "--role", "DBA", "--name", "A", "--project")
    assert "`forcelift report --project --out FILE`" in refused.stderr, "a batch's report is not the project's"
    assert migration.run("report", "--project", "--out", "project.md").returncode in (0, 1)
    signed = sign(migration, "after", "DBA", "--project")
    assert (signed["batch_id"], set(signed["binds"]["data"])) == (None, {"first", "second"})
    both = migration.run("signoff", "--phase", "after", "--role", "DBA", "--name", "A", "--project", "--batch", "first")
    assert both.returncode == ExitCode.USAGE
    assert migration.document("status", "--batch", "first")["sign_offs"][0]["is_stale"] is False
    items = {
        one["name"]: one for one in migration.document("checklist", "--phase", "after", "--project", code=1)["after"]
    }
    assert items["final_report"]["state"] == "done"
    assert "project.md" in items["final_report"]["evidence"]
    assert "DBA: " in items["final_sign_off"]["evidence"]
    assert items["count_validation"]["how"] == "forcelift validate --project"
    load(migration, "third")
    items = {
        one["name"]: one for one in migration.document("checklist", "--phase", "after", "--project", code=1)["after"]
    }
    assert items["final_report"]["state"] == items["final_sign_off"]["state"] == "stale"
    [one] = migration.document("signoff", "list", code=1)["sign_offs"]
    assert "batch `third` was begun since" in one["why_stale"]


@pytest.mark.slow
def test_a_report_that_is_older_than_the_data_or_gone_is_refused(migration: Migration) -> None:
    load(migration)
    file = report(migration)
    file.unlink()
    refused = migration.run("signoff", "--phase", "after", "--role", "DBA", "--name", "A. Person")
    assert "is gone; `forcelift report first --out FILE`" in refused.stderr
    notes = migration.document("audit", "verify")["notes"]
    assert any("is not where it was written" in note for note in notes)
    signed = sign(migration, "after", "DBA", "--without", "report", "--because", "it is with the owner")
    assert "report" not in signed["binds"]


def test_a_tail_that_was_cut_off_is_found_by_the_head_of_a_sign_off(migration: Migration) -> None:
    load(migration)
    report(migration)
    head = sign(migration, "after")["head"]["hash"]
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        # Whoever can write the whole file takes all traces of the sign-off with it.
        seq = audit.execute("SELECT min(seq) - 1 FROM journal WHERE action = 'signed_off'").fetchone()[0]
        audit.execute("DELETE FROM sign_off")
        audit.execute("DELETE FROM journal WHERE seq > ?", [seq])
        last = audit.execute("SELECT hash FROM journal WHERE seq = ?", [seq]).fetchone()[0]
        audit.execute("UPDATE journal_head SET seq = ?, hash = ?", [seq, last])
        audit.commit()
    assert migration.document("audit", "verify")["is_whole"] is True
    [fault] = migration.document("audit", "verify", "--head", head, code=1)["faults"]
    assert fault.startswith(f"the head {head} is not in the journal")


def test_a_head_signed_with_a_key_from_outside(migration: Migration) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    load(migration)
    key = Ed25519PrivateKey.generate()
    none = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none)
    (migration.folder / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (migration.folder / "key.pub").write_bytes(public)
    assert migration.run("audit", "head", "--out", "head.json", "--sign-with", "key.pem").returncode == 0
    words = ("--signed-head", "head.json", "--signature", "head.json.sig", "--public-key", "key.pub")
    report(migration)
    proof = migration.document("audit", "verify", *words)
    assert proof["known_heads"] == [json.loads((migration.folder / "head.json").read_text())["hash"]]
    changed = (migration.folder / "head.json").read_text().replace('"seq": ', '"seq": 1')
    (migration.folder / "head.json").write_text(changed)
    refused = migration.run("audit", "verify", *words)
    assert (refused.returncode, "is no signature of" in refused.stderr) == (ExitCode.STATE, True)


def test_a_second_person_consents_to_exactly_what_was_asked_and_once(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_to_plan(migration, "roles: {second_person_for: [rollback]}")
    load(migration)
    words = ("rollback", "first", "--execute", "--reason", "wrong prices")
    refused = migration.run(*words)
    assert (refused.returncode, "request 1" in refused.stderr) == (ExitCode.STATE, True)
    assert migration.run(*words).stderr.count("request 1") == 1, "asked twice is one request"
    assert migration.count("Sale__c") > 0
    assert migration.document("approve")["waiting"][0]["details"]["batch"] == "first"

    same = migration.run("approve", "1", "--name", "B. Person")
    assert (same.returncode, "at this login" in same.stderr) == (ExitCode.STATE, True)
    with monkeypatch.context() as other:
        other.setattr("forcelift.account.recorded.login", lambda: "second")
        given = migration.document("approve", "1", "--name", "B. Person", "--valid-hours", "2")
    assert (given["name"], given["shared_login"]) == ("B. Person", False)
    # A part of the batch is something else than all of it.
    other_scope = migration.run("rollback", "first", "--table", "sales", "--execute", "--reason", "x")
    assert "request 2" in other_scope.stderr
    assert migration.run(*words).returncode == 0
    assert migration.count("Sale__c") == 0
    # What was consented to is used up; and taking the step out of the file does not help a batch that recorded it.
    plan = migration.plan.read_text(encoding="utf-8")
    migration.plan.write_text(plan.replace("[rollback]", "[]"), encoding="utf-8")
    migration.run("run", "--resume", "first")
    migration.plan.write_text(plan, encoding="utf-8")
    assert "request 3" in migration.run(*words).stderr
    with monkeypatch.context() as other:
        other.setattr("forcelift.account.recorded.login", lambda: "second")
        assert migration.run("approve", "3", "--name", "second", "--shared-login").returncode == 0
    assert migration.document("audit", "verify")["is_whole"] is True
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        told = [row[0] for row in audit.execute("SELECT action FROM journal WHERE action LIKE 'consent%' ORDER BY seq")]
    assert told == ["consent_asked", "consent_given", "consent_asked", "consent_used", "consent_asked", "consent_given"]


def test_steps_that_are_none_are_refused_with_the_nearest(migration: Migration) -> None:
    add_to_plan(migration, "roles: {second_person_for: [rolback, purge]}")
    refused = migration.run("status")
    assert refused.returncode == ExitCode.USAGE
    assert "`rolback` is no step that a second person can be wanted for" in refused.stderr
    assert "did you mean `rollback`?" in refused.stderr


def test_purge_takes_what_is_personal_leaves_what_counts_and_verify_tells_it_from_lost(migration: Migration) -> None:
    load(migration)
    before = migration.document("status")["batch"]
    storage = migration.folder / "state" / "staging"
    preview = migration.document("audit", "purge", "--batch", "first")
    assert (preview["executed"], preview["batches"][0]["failed_records"] > 0) == (False, True)
    unsaid = migration.run("audit", "purge", "--batch", "first", "--execute", "--reason", "retention")
    assert (unsaid.returncode, "--no-way-back" in unsaid.stderr) == (ExitCode.USAGE, True)
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        keys = {row[0] for row in audit.execute("SELECT RECORD_ID FROM MIGRATION_FAILED_RECORDS")}
        texts = {row[0] for row in audit.execute("SELECT SF_ERROR_MESSAGE FROM MIGRATION_FAILED_RECORDS") if row[0]}
    assert keys
    words = ("audit", "purge", "--batch", "first", "--execute", "--no-way-back", "--reason", "retention")
    assert migration.document(*words)["batches"][0]["done"] is True

    with closing(sqlite3.connect(migration.audit_file)) as audit:
        rows = audit.execute("SELECT RECORD_ID, RECORD_DATA, SF_ERROR_MESSAGE FROM MIGRATION_FAILED_RECORDS").fetchall()
        assert len(rows) == preview["batches"][0]["failed_records"]
        assert all(row[0].startswith("(purged) ") and row[1:] == (None, None) for row in rows)
        assert audit.execute("SELECT count(*) FROM failed_key").fetchone() == (0,)
    files = sorted(storage.rglob("*.parquet"))
    lines = pl.concat([pl.read_parquet(file) for file in files])
    assert lines.height == sum(table["source"] for table in before["tables"])
    assert {lines[name].null_count() for name in ("key", "message", "hash")} == {lines.height}
    assert set(lines["id"].unique()) == {None, "(purged)"}
    after = migration.document("status")["batch"]["tables"]
    for table in (*after, *before["tables"]):
        for group in table["refused_by_code"]:
            group["example"] = ""  # a text of a row, which went with the others
    assert after == before["tables"]

    proof = migration.document("audit", "verify")
    assert proof["is_whole"] is True
    assert any("personal data of batch first" in line for line in proof["purged"])
    files[0].unlink()
    # What counts after a purge may not go with it.
    [fault] = migration.document("audit", "verify", code=1)["faults"]
    assert "is lost" in fault
    for command in (["rollback", "first"], ["validate", "first"]):
        refused = migration.run(*command)
        assert (refused.returncode, "were purged at" in refused.stderr) == (ExitCode.STATE, True), command
    again = migration.run(*words)
    assert (again.returncode, "was purged already" in again.stderr) == (ExitCode.STATE, True)
    assert texts is not None


@pytest.mark.slow
def test_a_purge_that_was_interrupted_is_gone_on_with(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    load(migration)
    words = ("audit", "purge", "--batch", "first", "--execute", "--no-way-back", "--reason", "retention")
    from forcelift.audit import AuditStore

    real, calls = AuditStore.purge_chunk, []

    def die_at_the_third(self: AuditStore, *arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, *arguments, **options)

    monkeypatch.setattr(AuditStore, "purge_chunk", die_at_the_third)
    assert migration.run(*words).returncode == ExitCode.INTERRUPTED
    monkeypatch.setattr(AuditStore, "purge_chunk", real)
    assert migration.document("audit", "verify")["is_whole"] is True
    assert any("not through" in line for line in migration.document("audit", "verify")["purged"])
    assert migration.document(*words)["batches"][0]["done"] is True
    assert migration.document("audit", "verify")["is_whole"] is True


@pytest.mark.parametrize("form", ["csv", pytest.param("parquet", marks=pytest.mark.slow)])
def test_export_has_every_table_with_digests_and_no_formulas(migration: Migration, form: str) -> None:
    load(migration)
    with open_recorded(migration.plan) as (_, state):
        state.audit.journal("noted", {"n": 1})
    done = migration.document("audit", "export", "--format", form, "--out", "out")
    folder = migration.folder / "out"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == done["sha256"]
    from forcelift.audit import tables

    assert {one["table"] for one in manifest["tables"]} == {table.name for table in tables.metadata.sorted_tables}
    with closing(sqlite3.connect(migration.audit_file)) as audit:
        for one in manifest["tables"]:
            file = folder / one["file"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == one["sha256"]
            assert file.stat().st_mode & 0o777 == 0o600
            in_file = csv_rows(file) if form == "csv" else pl.read_parquet(file).height
            assert in_file == one["rows"]
            if one["table"] not in ("journal", "journal_head", "lease"):
                assert (one["rows"],) == audit.execute(f'SELECT count(*) FROM "{one["table"]}"').fetchone()
    again = migration.run("audit", "export", "--out", "out")
    assert (again.returncode, "holds something" in again.stderr) == (ExitCode.STATE, True)
    assert migration.document("audit", "verify")["is_whole"] is True


def test_the_checklist_after_is_done_by_evidence_and_undone_by_a_later_change(migration: Migration) -> None:
    empty = migration.run("checklist", "--phase", "after")
    assert empty.returncode == ExitCode.ROWS_REFUSED
    load(migration)
    before = items(migration, "after")
    assert {item["state"] for name, item in before.items() if name != "automations_on"} == {"open"}
    assert before["automations_on"]["state"] == "done"
    assert migration.run("validate", "first").returncode in (0, 1)
    report(migration)
    for role in ROLES:
        sign(migration, "after", role)
    found = items(migration, "after")
    assert found["final_report"]["state"] == found["final_sign_off"]["state"] == "done"
    assert found["count_validation"]["state"] == "done", found["count_validation"]
    assert all(role in found["final_sign_off"]["evidence"] for role in ROLES)
    migration.document("rollback", "first", "--execute", "--reason", "wrong prices")
    found = items(migration, "after")
    assert found["final_sign_off"]["state"] == found["final_report"]["state"] == "stale"
    assert found["count_validation"]["state"] == "stale", found["count_validation"]


def test_the_checklist_during_says_what_is_a_persons_word(migration: Migration) -> None:
    assert migration.run("check").returncode in (0, 1)
    found = items(migration, "during")
    assert {item["state"] for item in found.values()} == {"open"}
    load(migration)
    add_to_plan(migration, "roles: {on_call: A. Person}")
    assert migration.run("check").returncode in (0, 1)
    done = migration.run("checklist", "tick", "monitor", "--by", "A", "--note", "watches all night")
    assert done.returncode == 0, done.stderr
    found = items(migration, "during")
    states = {name: item["state"] for name, item in found.items()}
    assert states == {"monitor": "done", "thresholds": "open", "on_call": "done", "kill_switch": "done"}
    assert "this version has no dashboard" in found["monitor"]["evidence"]
    assert "tried just now, and undone" in found["kill_switch"]["evidence"]
    with open_recorded(migration.plan) as (_, state):
        assert state.audit.control("first").stop is False
    refused = migration.run("checklist", "tick", "kill_switch", "--by", "A", "--note", "b")
    assert refused.returncode == ExitCode.USAGE


def test_every_ledger_byte_is_compared(migration: Migration) -> None:
    """One byte of each ledger file is changed, at a place that a seed names; put back, all is whole."""
    load(migration)
    chance = random.Random(20260131)
    files = sorted((migration.folder / "state" / "staging" / "ledger").rglob("*.parquet"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        kept = file.with_suffix(".kept")
        shutil.copy2(file, kept)
        file.write_bytes(bytes(content))
        [fault] = migration.document("audit", "verify", code=1)["faults"]
        assert file.name in fault, (file, place)
        assert "was changed after it was sealed" in fault
        kept.replace(file)
    files[-1].unlink()
    [fault] = migration.document("audit", "verify", code=1)["faults"]
    assert "is lost: it is not there, and nothing purged it" in fault


@pytest.mark.slow
def test_any_byte_of_images_and_of_a_rollbacks_files_is_found(migration: Migration) -> None:
    """Every file of which a seal is recorded, not only the ledger's: a byte at a place that a seed names."""
    httpx.post(
        f"{migration.server.url}/services/data/v66.0/sobjects/Sale__c",
        headers={"Authorization": f"Bearer {migration.server.access_token}"},
        json={"Sale__c": "30", "Amount__c": 1.5, "Name": "earlier"},
    ).raise_for_status()
    load(migration)
    migration.document("rollback", "first", "--execute", "--reason", "wrong prices")
    assert migration.document("audit", "verify")["is_whole"] is True
    root = migration.folder / "state" / "staging"
    with open_recorded(migration.plan) as (_, state):
        sealed = sorted({one.name for one in sealed_files(state) if (root / one.name).exists()})
    assert {name.partition("/")[0] for name in sealed} >= {"ledger", "images", "rollback"}
    chance = random.Random(20260131)
    for name in sealed:
        file = root / name
        before = file.read_bytes()
        content = bytearray(before)
        place = chance.randrange(len(content))
        content[place] ^= 1 << chance.randrange(8)
        file.write_bytes(bytes(content))
        faults = prove(migration.plan).faults
        assert any(name in fault for fault in faults), (name, place)
        file.write_bytes(before)
    assert prove(migration.plan).faults == ()
