"""`forcelift prepare` and `restore` against a served twin with five kinds of automations in mixed states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.integration.prepare_fixtures import BIG, OBJECTS, PRODUCTION, ROWS, SWITCHED, PreparedOrg, prepared_org
from tests.integration.twin_front_fixtures import TOOLING, tooling

from forcelift.account.recorded import automations_off, open_recorded


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


def test_what_somebody_deleted_meanwhile_is_told_and_can_be_forgotten(sandbox: PreparedOrg) -> None:
    sandbox.document("prepare", "--execute")
    sandbox.org.automations.remove(("validation_rules", "Sale__c.No_Big"))
    back = sandbox.document("restore", "--execute", code=1)
    gone = {("validation_rule", "Sale__c.No_Big")}
    assert names(back, outcome="changed") == gone
    assert names(back, outcome="restored") == SWITCHED - gone
    assert "does not exist any more" in next(one["why"] for one in back["automations"] if one["why"])
    over = sandbox.document("restore", "--execute", "--overwrite", "No_Big", code=1)
    assert names(over, outcome="changed") == gone, "what is gone is not made anew"
    sandbox.document("restore", "--execute", "--keep", "No_Big")
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


def test_what_the_plan_leaves_on_and_somebody_else_holds_off_is_told_as_off(sandbox: PreparedOrg) -> None:
    sandbox.document("prepare", "--execute", "--name", "other")
    sandbox.write_plan(leave_on="No_Big, Asleep")
    document = sandbox.document("prepare")
    assert names(document, decision="leave_off") == {("validation_rule", "Sale__c.No_Big")}
    assert names(document, decision="leave") == set()
    assert ("validation_rule", "Sale__c.Asleep") in names(document, decision="inactive")
    shown = sandbox.run("prepare").stdout
    assert "OFF though this plan leaves them on" in shown
    ran = sandbox.run("run", "--prepare")
    assert "validation rule Sale__c.No_Big is off though the plan leaves it on" in ran.stderr


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PreparedOrg]:
    fields = {**OBJECTS["Sale__c"]["fields"], "Note__c": {"type": "string", "length": 9, "trackHistory": True}}
    fields["Number__c"] = {"type": "autoNumber"}
    quiet = {"fields": OBJECTS["Other__c"]["fields"], "enableHistory": False}
    objects = {"Sale__c": {"fields": fields}, "Other__c": quiet}
    with prepared_org(tmp_path, objects=objects) as made:
        entered(made, monkeypatch)
        yield made


def test_field_history_is_told_and_switched_on_where_the_plan_asks(tracked: PreparedOrg) -> None:
    tracked.write_plan(more=", track_history: [Sale__c.Amount__c, sale__c.note__C]")
    (told,) = tracked.document("prepare")["history"]
    assert (told["object"], told["tracked"], told["to_switch_on"]) == ("Sale__c", ["Note__c"], ["Amount__c"])
    assert told["mapped"] == 2
    checked = json.loads(tracked.run("check", "--json").stdout)
    (result,) = [one for one in checked["checks"] if one["name"] == "field_history"]
    assert (result["verdict"], result["evidence"]) == ("warn", ["Sale__c.Amount__c: asked for, and not tracked"])
    before = tracked.field("Amount__c")
    (done,) = tracked.document("prepare", "--execute")["history"]
    assert (done["switched_on"], done["to_switch_on"], done["refused"]) == (["Amount__c"], [], {})
    assert tracked.field("Amount__c") == {**before, "trackHistory": True}
    tracked.document("restore", "--execute")
    assert tracked.field("Amount__c")["trackHistory"] is True, "it stays on"
    (again,) = tracked.document("prepare", "--execute")["history"]
    assert (again["switched_on"], again["tracked"]) == ([], ["Amount__c", "Note__c"])
    assert "stays on" not in tracked.run("prepare").stdout


def test_history_that_cannot_be_switched_on_is_told_and_the_rest_is_done(tracked: PreparedOrg) -> None:
    tracked.write_plan(more=", track_history: [Sale__c.Name, Sale__c.Number__c, Sale__c.Amount__c]")
    (done,) = tracked.document("prepare", "--execute")["history"]
    assert done["switched_on"] == ["Amount__c"]
    assert set(done["refused"]) == {"Name", "Number__c"}
    assert "Setup" in done["refused"]["Name"]
    shown = tracked.run("prepare", "--execute").stdout
    assert "not switched on: Number__c" in shown


def test_history_of_an_object_that_tracks_none_is_told(tracked: PreparedOrg) -> None:
    text = tracked.plan.read_text(encoding="utf-8").replace("Sale__c\n", "Other__c\n", 1)
    text = text.replace("    external_id: Sale__c\n", "    operation: insert\n    external_id: Name\n")
    tracked.plan.write_text(text.replace("leave_on: []", "track_history: [Other__c.Amount__c]"), encoding="utf-8")
    (done,) = tracked.document("prepare", "--execute")["history"]
    assert done["switched_on"] == []
    assert "does not have history tracking enabled" in done["refused"]["Amount__c"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("Sale__c.Nothing__c", "there is no such field"), ("Sals__c.Amount__c", "no object that the plan loads"),
     ("Amount__c", "Sale__c.Amount__c")],
)  # fmt: skip
def test_a_misspelt_history_field_is_refused(tracked: PreparedOrg, name: str, words: str) -> None:
    before = tracked.picture()
    tracked.write_plan(more=f", track_history: [{name}]")
    refused = tracked.run("prepare", "--execute")
    assert refused.returncode == 2
    assert words in refused.stderr
    assert tracked.picture() == before


def test_the_twin_takes_the_whole_block_of_a_field_and_nothing_less(tracked: PreparedOrg) -> None:
    block = tracked.field("Note__c")
    with tracked.client as client:
        (row,) = tooling(client, "SELECT Id FROM CustomField WHERE DeveloperName = 'Note'")
        url = f"{TOOLING}/sobjects/CustomField/{row['Id']}"
        for body in ({"trackHistory": False}, {**block, "length": 20}, {**block, "trackHistory": "yes"}):
            assert client.patch(url, json={"Metadata": body}).status_code == 400
        assert tracked.field("Note__c") == block
        assert client.patch(url, json={"Metadata": {**block, "trackHistory": False}}).status_code == 204
    assert tracked.field("Note__c") == {**block, "trackHistory": False}


def test_status_tells_loudly_what_is_off_since_when_and_by_whom(sandbox: PreparedOrg) -> None:
    sandbox.document("prepare", "--execute", "--name", "weekend")
    off = json.loads(sandbox.run("status", "--json").stdout)["automations_off"]
    assert {(one["kind"], one["name"]) for one in off} == SWITCHED
    for one in off:
        assert datetime.fromisoformat(one["off_since"]).tzinfo is not None
        assert one["verified"]
        assert one["by"]
        (holder,) = one["held_by"]
        assert (holder["kind"], holder["name"]) == ("prepare", "weekend")
    with open_recorded(sandbox.plan) as (_, state):
        lines = automations_off(state)
        assert automations_off(state, org_id="00D000000000000") == ()
    assert len(lines) == len(off)
    assert all(" off since 20" in line and "held by" in line and "weekend" in line for line in lines)
    shown = sandbox.run("status").stdout
    assert shown.startswith("WARNING")
    assert off[0]["off_since"][:10] in shown
    assert off[0]["by"] in shown.replace("\n", "")
