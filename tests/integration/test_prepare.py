"""`forcelift prepare` and `restore` against a served twin with five kinds of automations in mixed states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.prepare_fixtures import BIG, PRODUCTION, ROWS, SWITCHED, PreparedOrg, prepared_org
from tests.integration.twin_front_fixtures import TOOLING


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    with prepared_org(tmp_path) as made:
        entered(made, monkeypatch)
        yield made


def entered(made: PreparedOrg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)


def names(document: dict[str, object], **wanted: str) -> set[tuple[str, str]]:
    items = document["automations"]
    assert isinstance(items, list)
    return {(one["kind"], one["name"]) for one in items if all(one[key] == value for key, value in wanted.items())}


def test_a_preview_tells_everything_and_changes_nothing(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    document = sandbox.document("prepare")
    assert names(document, decision="switch") == SWITCHED
    assert names(document, decision="managed") == {("validation_rule", "Sale__c.pkg__Packed")}
    assert names(document, decision="inactive") == {
        ("validation_rule", "Sale__c.Asleep"),
        ("trigger", "SleepingTrigger"),
        ("flow", "Draft_Flow"),
        ("workflow_rule", "Sale__c.Idle_Rule"),
        ("duplicate_rule", "Sale__c.Never"),
    }
    acts = {one["name"]: one["acts"] for one in document["automations"]}
    assert acts["Sale__c.No_Big"] == "refuses records where Amount__c > 100"
    assert acts["SaleTrigger"] == "runs Apex before insert, after update"
    assert acts["Sale_Flow"] == "runs version 2 of the flow"
    assert document["executed"] is False
    shown = sandbox.run("prepare")
    assert shown.returncode == 0, shown.stderr
    assert "Nothing was changed" in shown.stdout
    assert sandbox.picture() == before


@pytest.mark.parametrize("kind", ["sandbox", "production"])
def test_prepare_and_restore_leave_every_byte_as_it_was(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared_org(tmp_path, org=PRODUCTION if kind == "production" else None) as made:
        entered(made, monkeypatch)
        before, active = made.picture(), made.active()
        done = made.document("prepare", "--execute")
        assert done["off"] == len(SWITCHED)
        assert done["is_production"] == (kind == "production")
        assert made.active() == active - SWITCHED
        status = made.run("status")
        assert f"WARNING: {len(SWITCHED)} automations of the org switched off" in status.stdout
        assert "prepare `prepare`" in status.stdout
        looked = made.document("restore")
        assert names(looked, outcome="restore") == SWITCHED
        assert made.active() == active - SWITCHED
        back = made.document("restore", "--execute")
        assert names(back, outcome="restored") == SWITCHED
        assert made.picture() == before
        assert made.document("restore", "--execute")["automations"] == []
        verified = made.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout


def test_what_the_plan_leaves_on_stays_on(sandbox: PreparedOrg) -> None:
    sandbox.write_plan(leave_on="No_Big, SaleTrigger")
    active = sandbox.active()
    document = sandbox.document("prepare", "--execute")
    kept = {("validation_rule", "Sale__c.No_Big"), ("trigger", "SaleTrigger")}
    assert names(document, decision="leave") == kept
    assert sandbox.active() == active - (SWITCHED - kept)


def test_a_misspelt_name_to_leave_on_is_refused(sandbox: PreparedOrg) -> None:
    sandbox.write_plan(leave_on="Sale__c.No_Bigg")
    before = sandbox.picture()
    done = sandbox.run("prepare", "--execute")
    assert done.returncode == 2
    assert "did you mean `Sale__c.No_Big`?" in done.stderr
    assert sandbox.picture() == before


def test_somebodys_change_is_told_and_not_overwritten(sandbox: PreparedOrg) -> None:
    before, active = sandbox.picture(), sandbox.active()
    sandbox.document("prepare", "--execute")
    sandbox.change_rule(errorMessage="A new text")
    changed = {("validation_rule", "Sale__c.No_Big")}
    back = sandbox.document("restore", "--execute", code=1)
    assert names(back, outcome="changed") == changed
    assert names(back, outcome="restored") == SWITCHED - changed
    assert "Metadata.errorMessage" in next(one["why"] for one in back["automations"] if one["why"])
    assert sandbox.active() == active - changed
    rule = next(one for one in sandbox.org.automations.current().validation_rules if one.name == "No_Big")
    assert (rule.error_message, rule.active) == ("A new text", False)
    assert "could not be put back" in sandbox.run("status").stdout
    # A prepare does not go over it either.
    again = sandbox.run("prepare", "--execute")
    assert again.returncode == 3
    assert "somebody changed" in again.stderr
    # The way out, by name.
    over = sandbox.document("restore", "--execute", "--overwrite", "No_Big")
    assert names(over, outcome="overwritten") == changed
    assert sandbox.picture() == before


def test_a_change_can_be_taken_as_it_is(sandbox: PreparedOrg) -> None:
    sandbox.document("prepare", "--execute")
    sandbox.change_rule(errorMessage="A new text", active=True)
    back = sandbox.document("restore", "--execute", "--keep", "Sale__c.No_Big")
    assert names(back, outcome="kept") == {("validation_rule", "Sale__c.No_Big")}
    rule = next(one for one in sandbox.org.automations.current().validation_rules if one.name == "No_Big")
    assert (rule.error_message, rule.active) == ("A new text", True)
    assert "WARNING" not in sandbox.run("status").stdout


def test_what_somebody_put_back_himself_is_found_so(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    sandbox.document("prepare", "--execute")
    sandbox.change_rule(active=True)
    back = sandbox.document("restore", "--execute")
    assert names(back, outcome="found") == {("validation_rule", "Sale__c.No_Big")}
    assert sandbox.picture() == before


def test_the_last_of_two_holders_puts_back(sandbox: PreparedOrg) -> None:
    before, active = sandbox.picture(), sandbox.active()
    sandbox.document("prepare", "--execute", "--name", "first")
    joined = sandbox.document("prepare", "--execute", "--name", "second")
    assert names(joined, decision="join") == SWITCHED
    held = sandbox.document("restore", "--execute", "--name", "first")
    assert names(held, outcome="held") == SWITCHED
    assert sandbox.active() == active - SWITCHED
    sandbox.document("restore", "--execute", "--name", "second")
    assert sandbox.picture() == before


def test_a_run_switches_off_loads_and_puts_back(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    plain = sandbox.document("run", "--batch", "plain", code=1)
    assert plain["exit_code"] == 1
    assert sandbox.count("Sale__c") == ROWS - BIG
    done = sandbox.document("run", "--prepare", "--batch", "prepared")
    assert done["exit_code"] == 0
    assert sandbox.count("Sale__c") == ROWS
    assert sandbox.picture() == before
    assert "WARNING" not in sandbox.run("status").stdout


def test_a_run_that_fails_puts_back(sandbox: PreparedOrg) -> None:
    before = sandbox.picture()
    with sandbox.client as client:
        body = '[{"message": "no", "errorCode": "API_DISABLED_FOR_ORG"}]'
        refusal = {"action": "answer", "method": "POST", "path": "/jobs/ingest$", "times": None, "status": 403}
        client.arm({**refusal, "body": body, "content_type": "application/json"})
    done = sandbox.run("run", "--prepare")
    assert done.returncode == 5, done.stderr
    assert "switching off" in done.stderr
    assert sandbox.picture() == before


def test_a_missing_external_id_field_is_made_and_can_be_used(sandbox: PreparedOrg) -> None:
    sandbox.write_plan(external_id="Legacy_Key__c")
    assert sandbox.run("run").returncode == 2
    looked = sandbox.document("prepare")
    assert [(one["field"], one["state"]) for one in looked["fields"]] == [("Legacy_Key__c", "missing")]
    assert sandbox.run("run").returncode == 2
    made = sandbox.document("prepare", "--execute")
    (field,) = made["fields"]
    assert field["state"] == "fine"
    assert field["notes"] == ["indexed"]
    assert field["granted_to"] == "profile System Administrator"
    sandbox.document("restore", "--execute")
    assert sandbox.document("prepare", "--execute")["fields"][0]["made_with_length"] is None
    assert sandbox.document("run", code=0)["exit_code"] == 0
    assert sandbox.count("Sale__c") == ROWS


def test_a_field_that_nobody_may_see_is_granted_and_not_made_again(sandbox: PreparedOrg) -> None:
    block = {"type": "Text", "label": "Legacy", "length": 40, "externalId": True, "unique": True}
    with sandbox.client as client:
        body = {"FullName": "Sale__c.Legacy_Key__c", "Metadata": block}
        assert client.post(f"{TOOLING}/sobjects/CustomField", json=body).status_code == 201
    sandbox.write_plan(external_id="Legacy_Key__c")
    assert [one["state"] for one in sandbox.document("prepare")["fields"]] == ["unseen"]
    (field,) = sandbox.document("prepare", "--execute")["fields"]
    assert (field["state"], field["made_with_length"]) == ("fine", None)
    assert sandbox.document("prepare")["fields"][0]["state"] == "fine"


def test_production_runs_the_tests_that_the_plan_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with prepared_org(tmp_path, org=PRODUCTION) as made:
        entered(made, monkeypatch)
        before = made.picture()
        made.write_plan(more=", run_tests: [NoSuchTest]")
        refused = made.run("prepare", "--execute")
        assert refused.returncode == 5
        assert "Apex class NoSuchTest not found" in refused.stderr
        assert made.picture() == before
        made.write_plan(more=", run_tests: [OtherTest]")
        assert made.document("prepare", "--execute")["off"] == len(SWITCHED)
        made.document("restore", "--execute")
        assert made.picture() == before


def test_a_process_that_switches_in_the_org_is_waited_for(sandbox: PreparedOrg) -> None:
    """Two prepares at once: neither sees the other's half, and both hold everything in the end."""
    before = sandbox.picture()
    other = sandbox.start("prepare", "--execute", "--name", "other")
    mine = sandbox.document("prepare", "--execute", "--name", "mine")
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, out + err
    assert mine["off"] == len(SWITCHED)
    status = sandbox.run("status")
    assert "prepare `mine`" in status.stdout
    assert "prepare `other`" in status.stdout
    sandbox.document("restore", "--execute", "--all")
    assert sandbox.picture() == before
