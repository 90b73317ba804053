"""What active automations do to loads: rules, triggers, flows, workflow and duplicate rules, and the time they cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from tests.twin_store_support import Done, clock_of, finished, make_org, make_schema, records, run_job, write_csv

from forcelift.twin.automation_models import ValidationRule
from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import SchemaError
from forcelift.twin.formulas import check_formula
from forcelift.twin.org import TwinOrg
from forcelift.twin.pace import Pace
from forcelift.twin.schema import ObjectSchema

HEAD = "Ext__c,Place__c,Miles__c,Loose__c,State__c,Seats__c,Day__c,Open__c\n"


def trip_schema() -> ObjectSchema:
    found = make_schema().object("Trip__c")
    assert found is not None
    return found


def rule(formula: str, **more: Any) -> dict[str, Any]:
    return {
        "validation_rules": [{"name": "Rule", "object": "Trip__c", "formula": formula, "error_message": "No", **more}]
    }


def trigger(*effects: dict[str, Any], events: tuple[str, ...] = ("before insert", "before update"), **more: Any) -> Any:
    return {"triggers": [{"name": "Trg", "object": "Trip__c", "events": events, "effects": effects, **more}]}


def load(org: TwinOrg, content: str, operation: str = "insert") -> Done:
    return run_job(org, operation, "Trip__c", content, key="Ext__c" if operation == "upsert" else None)


@pytest.mark.parametrize(
    ("formula", "refused"),
    [
        ("Miles__c < 0", {"b"}),
        ("ISBLANK(Loose__c)", {"a", "c"}),
        ("AND(NOT(ISBLANK(Miles__c)), Miles__c * 2 >= 10, Seats__c <> 3)", {"a"}),
        ("ISPICKVAL(State__c, 'Done') || LEN(Loose__c) > 3", {"b", "d"}),
        ("TEXT(State__c) = 'New'", {"a", "c"}),
        ("Day__c > TODAY()", {"b"}),
        ("Day__c + 31 > TODAY() && Day__c < TODAY()", {"a"}),
        ("YEAR(Day__c) = 2025 || MONTH(Day__c) = 2", {"a", "b"}),
        ("IF(Open__c, Seats__c, 99) = 99", {"d"}),
        ("NOT(Open__c) && ISNEW()", {"d"}),
        ("ISCHANGED(Place__c)", set()),
        ("CASE(Place__c, 'BKK', 1, 'CNX', 2, 0) = 2", {"b"}),
        ("Place__c & '!' = \"BKK!\"", {"a", "c"}),
        ("REGEX(Place__c, '[B-C].[K-X]')", {"a", "b", "c"}),
        ("CONTAINS(Loose__c, 'o') && BEGINS(Loose__c, 'lo')", {"b"}),
        ("TEXT(Seats__c) = '3'", {"d"}),
        ("Seats__c = NULL", {"b"}),
        ("BLANKVALUE(Seats__c, 0) / 0 = 1", set()),
        ("ABS(Miles__c) ^ 2 = 6.25", {"b"}),
        ("Miles__c > 10 ^ 400", set()),
        ("MOD(Seats__c, 2) = 1 /* odd */", {"a", "d"}),
        ("ISBLANK(Day__c) || Day__c - DATE(2026, 1, 1) > 3", {"b", "c", "d"}),
    ],
)
def test_validation_rules_refuse_exactly_the_rows_for_which_they_are_true(formula: str, refused: set[str]) -> None:
    content = (
        HEAD + "a,BKK,5,,,1,2025-12-31,\nb,CNX,-2.5,long,Done,,2026-02-01,\n"
        "c,BKK,,,,2,,true\nd,x,1,abcde,#N/A,3,,false\n"
    )
    with make_org(automations=rule(formula, error_field="Place__c")) as org:
        done = load(org, content)
        assert {row["Ext__c"] for row in done.failed} == refused
        assert {row["sf__Error"] for row in done.failed} <= {"FIELD_CUSTOM_VALIDATION_EXCEPTION:No:Place__c --"}
        assert len(done.saved) + len(done.failed) == 4


def test_rules_see_prior_values_and_values_that_the_file_does_not_give() -> None:
    with make_org(
        automations=rule("OR(PRIORVALUE(Miles__c) > Miles__c, ISCHANGED(Loose__c), Place__c = 'bad')")
    ) as org:
        load(org, "Ext__c,Place__c,Miles__c,Loose__c\na,x,5,l\nb,x,5,l\nc,x,5,l\nd,x,5,l\n", "upsert")
        done = load(org, "Ext__c,Miles__c,Loose__c\na,4,\nb,6,\nc,,#N/A\nd,,l\n", "upsert")
        assert {row["Ext__c"] for row in done.failed} == {"a", "c"}
        assert done.failed[0]["sf__Error"] == "FIELD_CUSTOM_VALIDATION_EXCEPTION:No:--"
        assert dict(records(org, "Trip__c", "Ext__c", "Miles__c")) == {
            "a": Decimal(5), "b": Decimal(6), "c": Decimal(5), "d": Decimal(5),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("formula", "says"),
    [
        ("", "syntax error"),
        ("Nope__c = 1", "Field Nope__c does not exist"),
        ("Plane__r.Tail__c = 'x'", "reaches beyond the record"),
        ("$User.Id = 'x'", "reaches beyond the record"),
        ("VLOOKUP(Place__c)", "Unknown function VLOOKUP"),
        ("State__c = 'New'", "a picklist can be asked by"),
        ("Miles__c = 'x'", "compares number with text"),
        ("Miles__c + 1", "gives number, but boolean is needed"),
        ("LEN(Place__c, 1) = 1", "LEN takes 1 arguments"),
        ("LEN(Miles__c) = 1", "LEN takes text where number stands"),
        ("REGEX(Place__c, '[')", "cannot be computed"),
        ("ISCHANGED(1 + 1)", "ISCHANGED takes a field"),
        ("NOT(" * 70 + "TRUE" + ")" * 70, "nested more than"),
        ("TRUE" + " " * 5_000, "longer than 5000"),
    ],
)
def test_a_rule_whose_formula_is_beyond_the_subset_is_kept_and_acts_on_nothing(formula: str, says: str) -> None:
    assert says in str(check_formula(formula, trip_schema()))
    with make_org(automations=rule(formula)) as org:
        (unread,) = org.automations.unread()
        assert (unread.full_name, unread.active) == ("Trip__c.Rule", True)
        assert says in unread.reason
        assert org.automations.active_on("Trip__c").validation_rules == ()
        (kept,) = org.automations.current().validation_rules
        assert (kept.active, kept.formula) == (True, formula)
        assert load(org, "Ext__c,Place__c\na,x\n", "insert").failed == []


@pytest.mark.parametrize(
    "automations",
    [
        trigger({"effect": "reject", "message": "no", "when": "VLOOKUP(Place__c)"}),
        trigger({"effect": "fill", "field": "Loose__c", "formula": "VLOOKUP(Place__c)"}),
        {"flows": [{"name": "F", "object": "Trip__c", "condition": "VLOOKUP(Place__c)"}]},
    ],
)
def test_effects_are_the_twins_own_language_and_refused_when_the_org_is_opened(automations: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match=r"automations\.\w+\.\w+\..*VLOOKUP"):
        make_org(automations=automations)


def test_triggers_reject_rows_fill_fields_and_see_only_their_events() -> None:
    effects = (
        {"effect": "fill", "field": "Loose__c", "formula": "UPPER(Place__c)"},
        {"effect": "fill", "field": "Seats__c", "value": 7, "when": "ISBLANK(Seats__c)"},
        {"effect": "reject", "message": "no: far, far", "when": "Loose__c = 'FAR'", "field": "Place__c"},
    )
    with make_org(automations=trigger(*effects, events=("before insert",))) as org:
        done = load(org, "Ext__c,Place__c\na,bkk\nb,far\n", "upsert")
        assert done.errors("Ext__c") == {"b": "FIELD_CUSTOM_VALIDATION_EXCEPTION:no: far, far:Place__c --"}
        assert records(org, "Trip__c", "Loose__c", "Seats__c") == [("BKK", 7)]
        done = load(org, "Ext__c,Place__c\na,far\n", "upsert")
        assert records(org, "Trip__c", "Place__c", "Loose__c") == [("far", "BKK")]


def test_what_a_trigger_fills_goes_through_the_rules_of_fields() -> None:
    fills = (
        {"effect": "fill", "field": "Loose__c", "formula": "Place__c & Place__c & Place__c"},
        {"effect": "fill", "field": "Miles__c", "formula": "VALUE(Place__c)"},
        {"effect": "fill", "field": "Code__c", "value": "one"},
        {"effect": "fill", "field": "Place__c", "value": None, "when": "Place__c = 'no'"},
    )
    with make_org(automations=trigger(*fills)) as org:
        done = load(org, "Ext__c,Place__c\na,12\nb,1e9\nc,1234567\nd,no\ne,13\n")
        errors = {key: error.partition(":")[0] for key, error in done.errors("Ext__c").items()}
        assert errors == {
            "b": "NUMBER_OUTSIDE_VALID_RANGE", "c": "STRING_TOO_LONG", "d": "REQUIRED_FIELD_MISSING",
            "e": "DUPLICATE_VALUE",
        }  # fmt: skip
        assert records(org, "Trip__c", "Ext__c", "Loose__c", "Miles__c") == [("a", "121212", Decimal(12))]


@pytest.mark.parametrize(
    ("effect", "error"),
    [
        (
            {"effect": "exceed_limit", "limit": "dml_statements", "when": "Place__c = 'bad'"},
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:Trg: execution of BeforeInsert caused by: System.LimitException: "
            "Too many DML statements: 151:--",
        ),
        (
            {"effect": "reject", "how": "exception", "message": "boom", "when": "Place__c = 'bad'"},
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:Trg: execution of BeforeInsert caused by: System.DmlException: "
            "boom:--",
        ),
        (
            {"effect": "recurse", "depth": 17, "when": "Place__c = 'bad'"},
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:Trg: execution of BeforeInsert caused by: System.DmlException: "
            "maximum trigger depth exceeded:--",
        ),
        (
            {"effect": "time", "row_ms": 301},
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:Trg: execution of BeforeInsert caused by: System.LimitException: "
            "Apex CPU time limit exceeded:--",
        ),
    ],
)
def test_an_unhandled_exception_fails_its_chunk_of_200_and_no_other(effect: dict[str, Any], error: str) -> None:
    rows = [[f"K{n}", "bad" if n == 250 else "x"] for n in range(500)]
    with make_org(automations=trigger(effect)) as org:
        done = run_timed(org, write_csv(["Ext__c", "Place__c"], rows))
        assert {row["sf__Error"] for row in done.failed} == {error}
        chunks = Counter(int(row["Ext__c"][1:]) // 200 for row in done.failed)
        assert chunks == ({0: 200, 1: 200} if effect["effect"] == "time" else {1: 200})


def run_timed(org: TwinOrg, content: str) -> Done:
    """Process a job, moving the org's clock from one piece of work to the next."""
    job = org.jobs.create({"operation": "insert", "object": "Trip__c"}, org.users[0])["id"]
    org.jobs.put_content(job, [content.encode()])
    org.jobs.patch(job, "UploadComplete")
    while not org.jobs.find(job).is_terminal:
        org.run_until_idle()
        clock_of(org).advance(timedelta(seconds=org.processor.busy_s()))
    return finished(org, job)


def test_recursion_up_to_the_limit_is_harmless() -> None:
    with make_org(automations=trigger({"effect": "recurse", "depth": 16})) as org:
        assert load(org, "Place__c\nx\n").saved


def flow(*effects: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = {"name": "Flow", "object": "Trip__c", "versions": [{"number": 1}, {"number": 2, "effects": effects}], **more}
    return {"flows": [{"active_version": 2, **made}]}


def test_flows_run_before_triggers_or_after_the_save_by_their_active_version() -> None:
    fill = {"effect": "fill", "field": "Loose__c", "value": "flow"}
    see = trigger({"effect": "reject", "message": "seen", "when": "Loose__c = 'flow'"})
    with make_org(automations=flow(fill, timing="before_save") | see) as org:
        assert load(org, "Place__c\nx\n").failed[0]["sf__Error"].startswith("FIELD_CUSTOM_VALIDATION_EXCEPTION:seen")
    with make_org(automations=flow(fill, timing="after_save") | see) as org:
        load(org, "Place__c\nx\n")
        assert records(org, "Trip__c", "Loose__c") == [("flow",)]
    with make_org(automations=flow(fill, active_version=1)) as org:
        load(org, "Place__c\nx\n")
        assert records(org, "Trip__c", "Loose__c") == [(None,)]
    broken = flow({"effect": "exceed_limit", "limit": "soql_queries"}, condition="Place__c = 'bad'", label="My Flow")
    with make_org(automations=broken) as org:
        done = load(org, "Place__c\nx\nbad\n")
        assert {row["sf__Error"] for row in done.failed} == {
            'CANNOT_EXECUTE_FLOW_TRIGGER:We can\'t save this record because the "My Flow" process failed. '
            "System.LimitException: Too many SOQL queries: 101:--"
        }
        assert len(done.failed) == 2


def workflow(on: str, **more: Any) -> dict[str, Any]:
    made = {"name": "Work", "object": "Trip__c", "condition": "Miles__c > 5", "on": on,
            "field_updates": [{"field": "Seats__c", "formula": "BLANKVALUE(Seats__c, 0) + 1"}]}  # fmt: skip
    return {"workflow_rules": [{**made, **more}]}


@pytest.mark.parametrize(
    ("on", "seats"),
    [("onCreateOnly", [1, 1, 1]), ("onCreateOrTriggeringUpdate", [1, 1, 1]), ("onAllChanges", [1, 2, 3])],
)
def test_workflow_rules_update_fields_when_their_kind_says(on: str, seats: list[int]) -> None:
    with make_org(automations=workflow(on)) as org:
        for count in seats:
            load(org, "Ext__c,Place__c,Miles__c\nw,x,6\nquiet,x,1\n", "upsert")
            assert dict(records(org, "Trip__c", "Ext__c", "Seats__c")) == {"w": count, "quiet": None}


def test_a_field_update_fires_update_triggers_once_more_and_no_validation_rule() -> None:
    see = trigger({"effect": "fill", "field": "Loose__c", "value": "again"}, events=("before update",))
    with make_org(automations=workflow("onAllChanges") | see | rule("Seats__c = 1")) as org:
        assert load(org, "Ext__c,Place__c,Miles__c\nw,x,6\nquiet,x,1\n").failed == []
        assert dict(records(org, "Trip__c", "Ext__c", "Loose__c")) == {"w": "again", "quiet": None}


def duplicates(**more: Any) -> dict[str, Any]:
    made = {"name": "Same", "object": "Trip__c", "match_fields": ["Loose__c", "Seats__c"], **more}
    return {"duplicate_rules": [made]}


def test_duplicate_rules_look_at_stored_records_and_at_earlier_chunks() -> None:
    with make_org(automations=duplicates()) as org:
        load(org, "Ext__c,Place__c,Loose__c,Seats__c\nold,x,Same,1\n")
        rows = [
            ["a", "x", " SAME ", 1],
            ["b", "x", "same", 2],
            ["c", "x", "", 1],
            ["d", "x", "new", 3],
            ["e", "x", "New", 3],
        ]
        rows += [[f"f{n}", "x", f"f{n}", 1] for n in range(200)] + [["late", "x", "NEW", 3]]
        done = load(org, write_csv(["Ext__c", "Place__c", "Loose__c", "Seats__c"], rows))
        assert done.errors("Ext__c") == dict.fromkeys(("a", "late"), "DUPLICATES_DETECTED:Use one of these records?:--")
        again = load(org, "Ext__c,Place__c,Loose__c,Seats__c\nold,y,same,1\n", "upsert")
        assert again.failed == []
    for harmless in (duplicates(action="allow"), duplicates(on_insert=False), duplicates(active=False)):
        with make_org(automations=harmless) as org:
            assert load(org, "Place__c,Loose__c,Seats__c\nx,s,1\n").saved
            assert load(org, "Place__c,Loose__c,Seats__c\nx,s,1\n").saved


def test_what_is_switched_off_while_the_org_runs_acts_no_more() -> None:
    with make_org(automations=rule("TRUE")) as org:
        assert load(org, "Place__c\nx\n").failed
        kept = org.automations.find("validation_rules", "Trip__c.Rule")
        assert isinstance(kept, ValidationRule)
        org.automations.put(("validation_rules", replace(kept, active=False)))
        assert load(org, "Place__c\nx\n").saved


def test_time_of_automations_passes_on_the_orgs_clock_and_is_told() -> None:
    with make_org(automations=trigger({"effect": "time", "row_ms": 10, "chunk_ms": 500})) as org:
        before = org.clock.now()
        done = run_timed(org, write_csv(["Place__c"], [["x"]] * 400))
        assert org.clock.now() - before == timedelta(seconds=5)
        assert (done.job["apexProcessingTime"], done.job["totalProcessingTime"]) == (5000, 5000)


def test_a_batch_that_takes_over_five_minutes_is_put_back_and_the_job_fails_after_twenty_times() -> None:
    slow = trigger({"effect": "time", "chunk_ms": 50_000})
    with make_org(automations=slow) as org:
        done = run_timed(org, write_csv(["Place__c"], [["x"]] * 10_000))
        # Six chunks of 50 s fit into 300 s, so fifty chunks take nine goes.
        assert (done.job["state"], done.job["retries"], len(done.saved)) == ("JobComplete", 8, 10_000)
    pace = Pace(rows_per_second=5, parallel_batches=8)
    with TwinOrg.open(schema=make_schema(), clock=ManualClock(), pace=pace) as org:
        done = run_timed(org, write_csv(["Place__c"], [["x"]] * 1_000))
        assert (done.job["state"], done.job["retries"]) == ("Failed", 21)
        assert done.job["errorMessage"].startswith("Timeout : A batch was retried more than 20 times")
        assert (done.job["numberRecordsProcessed"], len(done.unprocessed)) == (0, 1_000)


def test_a_pace_is_kept_on_the_orgs_clock() -> None:
    pace = Pace(rows_per_second=100, start_delay_s=3)
    with TwinOrg.open(schema=make_schema(), clock=ManualClock(), pace=pace) as org:
        before = org.clock.now()
        done = run_timed(org, write_csv(["Place__c"], [["x"]] * 1_000))
        assert org.clock.now() - before == timedelta(seconds=13)
        assert done.job["totalProcessingTime"] == 13_000
        assert org.step() is None


def test_parents_that_triggers_lock_stand_in_the_way_of_other_batches() -> None:
    lock = trigger({"effect": "lock_parent", "field": "Plane__c"}, {"effect": "time", "chunk_ms": 6_000})
    pace = Pace(parallel_batches=4)
    for automations, failed in ((lock, 200), (trigger({"effect": "time", "chunk_ms": 6_000}), 0)):
        schema = make_schema(automations=automations)
        with TwinOrg.open(schema=schema, clock=ManualClock(), seed=7, pace=pace) as org:
            plane = run_job(org, "insert", "Plane__c", "Tail__c\nP\n").saved[0]["sf__Id"]
            rows = [["x", plane]] * 200 + [["x", ""]] * 9_800 + [["x", plane]] * 200
            done = run_timed(org, write_csv(["Place__c", "Plane__c"], rows))
            assert Counter(row["sf__Error"].partition(":")[0] for row in done.failed) == (
                {"UNABLE_TO_LOCK_ROW": failed} if failed else {}
            )
            assert len(done.saved) == 10_200 - failed


def test_a_rule_acts_once_the_field_that_it_names_is_there() -> None:
    with make_org(automations=rule("Fresh__c = 'bad'")) as org:
        assert [unread.full_name for unread in org.automations.unread()] == ["Trip__c.Rule"]
        org.fields.create("Trip__c.Fresh__c", {"type": "Text", "label": "Fresh", "length": 9})
        org.fields.grant("Trip__c", "Fresh__c")
        assert org.automations.unread() == ()
        assert [each.name for each in org.automations.active_on("trip__c").validation_rules] == ["Rule"]
