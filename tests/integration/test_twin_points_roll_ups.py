"""Point 48, the rest of it: roll-ups save the master again, so that what refuses the master fails the detail's row."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.twin_http_fixtures import BASE, Client
from tests.twin_store_support import clock_of, make_org, records, run_job, write_csv

from forcelift.twin.org import TwinOrg
from forcelift.twin.recycle_bin import RecycleBin
from forcelift.twin.roll_up_saves import MasterRules, RollUpSaves
from forcelift.twin.server import TwinServer

CHUNK = 200


def roll_up(child: str, lookup: str, function: str = "COUNT", of: str | None = None) -> dict[str, Any]:
    told = {"child": child, "lookup": lookup, "function": function, **({"of": of} if of else {})}
    return {"type": "double", "rollUp": told}


OBJECTS: dict[str, Any] = {
    "Tour__c": {
        "fields": {
            "Ext__c": {"type": "string", "externalId": True, "unique": True},
            "Trips__c": roll_up("Trip__c", "Tour__c"),
            "Weight__c": roll_up("Trip__c", "Tour__c", "SUM", "Weight__c"),
        }
    },
    "Trip__c": {
        "fields": {
            "Ext__c": {"type": "string", "externalId": True, "unique": True},
            "Tour__c": {"type": "reference", "referenceTo": "Tour__c", "relationshipOrder": 0, "nillable": True},
            "Note__c": {"type": "string", "length": 40, "externalId": True},
            "Weight__c": {"type": "double"},
            "Legs__c": roll_up("Leg__c", "Trip__c"),
            "Sum__c": roll_up("Leg__c", "Trip__c", "SUM", "Miles__c"),
        }
    },
    "Leg__c": {
        "fields": {
            "Ext__c": {"type": "string", "externalId": True, "unique": True},
            "Trip__c": {"type": "reference", "referenceTo": "Trip__c", "relationshipOrder": 0, "updateable": True},
            "Miles__c": {"type": "double"},
        }
    },
    "Stop__c": {"fields": {"Trip__c": {"type": "reference", "referenceTo": "Trip__c"}}},
}


def rule(formula: str, *, name: str = "Limit", on: str = "Trip__c", **more: Any) -> dict[str, Any]:
    return {"name": name, "object": on, "formula": formula, "error_message": "Not so: no", **more}


def trigger(*effects: dict[str, Any], on: str = "Trip__c", event: str = "before update") -> dict[str, Any]:
    return {"name": f"{on[:4]}Trigger", "object": on, "events": [event], "effects": list(effects)}


@contextmanager
def touring(*tours: str, trips: Iterable[str] = ("a", "b"), **automations: Any) -> Iterator[TwinOrg]:
    with make_org(objects=OBJECTS, automations=automations) as org:
        if tours:
            run_job(org, "insert", "Tour__c", write_csv(["Ext__c"], [[tour] for tour in tours]))
        rows = [[trip, tours[0] if tours else "#N/A"] for trip in trips]
        done = run_job(org, "insert", "Trip__c", write_csv(["Ext__c", "Tour__r.Ext__c"], rows))
        assert done.failed == []
        yield org


def legs(*rows: tuple[str, str, object]) -> str:
    return write_csv(["Ext__c", "Trip__r.Ext__c", "Miles__c"], rows)


def stored(org: TwinOrg) -> set[str]:
    return {name for (name,) in records(org, "Leg__c", "Ext__c")}


REFUSED = "FIELD_CUSTOM_VALIDATION_EXCEPTION:Not so: no:--"


def test_point_48_a_rule_of_the_master_fails_its_details_in_bulk_and_rest() -> None:
    limit = rule("Legs__c > 3", error_field="Note__c")
    with touring(validation_rules=[limit]) as org, TwinServer(org, work=False) as server, Client(server) as client:
        sent = [(f"a{n}", "a", 1) for n in range(3)] + [(f"b{n}", "b", 1) for n in range(4)]
        done = run_job(org, "insert", "Leg__c", legs(*sent))
        assert {row["Ext__c"] for row in done.saved} == {"a0", "a1", "a2"}
        assert {row["sf__Error"] for row in done.failed} == {REFUSED}, "the error names no field of the detail"
        assert len(done.failed) == 4, "all that one save of the master was about"
        assert stored(org) == {"a0", "a1", "a2"}
        trips = {row["Ext__c"]: row["Id"] for row in client.query("SELECT Id, Ext__c FROM Trip__c")["records"]}
        refused = client.post(f"{BASE}/sobjects/Leg__c", json={"Ext__c": "a3", "Trip__c": trips["a"]})
        assert (refused.status_code, refused.json()) == (
            400,
            [{"errorCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "Not so: no"}],
        )
        assert client.post(f"{BASE}/sobjects/Leg__c", json={"Ext__c": "b0", "Trip__c": trips["b"]}).status_code == 201
        upserted = run_job(org, "upsert", "Leg__c", legs(("a0", "a", 7), ("a4", "a", 1)), externalIdFieldName="Ext__c")
        assert len(upserted.failed) == 2, "the update stands in the save that the new one spoils"
        assert run_job(org, "upsert", "Leg__c", legs(("a0", "a", 7)), externalIdFieldName="Ext__c").failed == []
        assert client.query("SELECT Sum__c FROM Trip__c WHERE Ext__c = 'a'")["records"][0]["Sum__c"] == 9.0


@pytest.mark.parametrize(("limit", "saved"), [(400, 400), (250, 250), (199, 50)])
def test_point_48_what_a_chunk_adds_counts_for_the_next_one(limit: int, saved: int) -> None:
    """Method: chunks of 200, 200 and 50 for one master; a refused chunk leaves room for a later, smaller one."""
    with touring(validation_rules=[rule(f"Legs__c > {limit}")]) as org:
        done = run_job(org, "insert", "Leg__c", legs(*((f"x{n}", "a", 1) for n in range(450))))
        assert (len(done.saved), len(done.failed)) == (saved, 450 - saved)
        assert stored(org) == {row["Ext__c"] for row in done.saved}


def test_point_48_a_detail_that_moves_is_asked_of_both_masters() -> None:
    rules = [
        rule("AND(Legs__c < 1, PRIORVALUE(Legs__c) = 1)", name="Never_empty"),
        rule("AND(ISCHANGED(Sum__c), Sum__c > 10)", name="Sum"),
    ]
    with touring(validation_rules=rules) as org:
        first = run_job(org, "insert", "Leg__c", legs(("1", "a", 4), ("2", "b", 5), ("3", "b", 5)))
        assert first.failed == []
        move = run_job(org, "upsert", "Leg__c", legs(("1", "b", 0)), externalIdFieldName="Ext__c")
        assert [row["sf__Error"] for row in move.failed] == [REFUSED], "a would be empty"
        move = run_job(org, "upsert", "Leg__c", legs(("2", "a", 7)), externalIdFieldName="Ext__c")
        assert [row["sf__Error"] for row in move.failed] == [REFUSED], "a would have 11"
        # The first row empties a and fails; without it the second one no longer fits into b.
        both = run_job(org, "upsert", "Leg__c", legs(("1", "b", 0), ("3", "b", 6)), externalIdFieldName="Ext__c")
        assert len(both.failed) == 2
        move = run_job(org, "upsert", "Leg__c", legs(("2", "a", 6)), externalIdFieldName="Ext__c")
        assert move.failed == []


def test_point_48_deletes_and_undeletes_save_the_master_too() -> None:
    rules = [
        rule("AND(Legs__c < 2, PRIORVALUE(Legs__c) = 2)", name="Two"),
        rule("Legs__c > 3", name="Three"),
    ]
    with touring(validation_rules=rules) as org:
        rows = run_job(org, "insert", "Leg__c", legs(*((str(n), "a", 1) for n in range(3)))).saved
        ids = [row["sf__Id"] for row in rows]
        assert run_job(org, "delete", "Leg__c", write_csv(["Id"], [[ids[0]]])).failed == []
        done = run_job(org, "delete", "Leg__c", write_csv(["Id"], [[ids[1]]]))
        assert [row["sf__Error"] for row in done.failed] == [REFUSED]
        assert len(stored(org)) == 2
        assert run_job(org, "insert", "Leg__c", legs(("4", "a", 1))).failed == []
        bin, user = RecycleBin(org), org.users[0].id
        assert run_job(org, "insert", "Leg__c", legs(("5", "a", 1), ("6", "a", 1))).failed != []
        [back] = bin.undelete([ids[0]], user_id=user)
        assert back.error is not None
        assert (back.error.status_code, back.error.fields) == ("FIELD_CUSTOM_VALIDATION_EXCEPTION", ())
        org.automations.remove(("validation_rules", "Trip__c.Three"))
        assert [each.error for each in bin.undelete([ids[0]], user_id=user)] == [None]
        assert len(stored(org)) == 4
        # The master may go with all its details: they are not asked for.
        [trip] = records(org, "Trip__c", "Id", where="Ext__c = 'a'")
        assert run_job(org, "delete", "Trip__c", write_csv(["Id"], [trip])).failed == []


def test_point_48_triggers_of_the_master_act_and_what_they_fill_is_kept() -> None:
    effects = [
        {"effect": "fill", "field": "Note__c", "formula": 'TEXT(Legs__c) & " legs"'},
        {"effect": "reject", "when": "Legs__c > 2", "message": "Full", "how": "exception"},
    ]
    with touring(triggers=[trigger(*effects)]) as org:
        before = dict(records(org, "Trip__c", "Ext__c", "LastModifiedDate"))
        clock_of(org).advance(timedelta(hours=1))
        done = run_job(org, "insert", "Leg__c", legs(("1", "a", 1), ("2", "a", 1)))
        assert done.failed == []
        assert dict(records(org, "Trip__c", "Ext__c", "Note__c")) == {"a": "2 legs", "b": None}
        after = dict(records(org, "Trip__c", "Ext__c", "LastModifiedDate"))
        assert (after["a"] - before["a"], after["b"]) == (timedelta(hours=1), before["b"])
        # An exception in a trigger ends the save of all masters of the chunk, and so that of all details.
        done = run_job(org, "insert", "Leg__c", legs(("3", "a", 1), ("4", "b", 1)))
        assert {row["sf__Error"].partition(":")[0] for row in done.failed} == {"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"}
        assert len(done.failed) == 2
        assert "TripTrigger: execution of BeforeUpdate caused by" in done.failed[0]["sf__Error"]
        assert dict(records(org, "Trip__c", "Ext__c", "Note__c")) == {"a": "2 legs", "b": None}
        found = run_job(org, "upsert", "Trip__c", "Note__c,Weight__c\n2 legs,1\n", externalIdFieldName="Note__c")
        assert (len(found.saved), found.saved[0]["sf__Created"]) == (1, "false"), "found by what the trigger filled"


def test_point_48_what_the_save_of_a_master_costs_is_part_of_the_job() -> None:
    with touring(triggers=[trigger({"effect": "time", "row_ms": 5, "chunk_ms": 100})]) as org:
        job = run_job(org, "insert", "Leg__c", legs(*((str(n), "ab"[n % 2], 1) for n in range(300)))).job["id"]
        clock_of(org).advance(timedelta(seconds=1))
        org.run_until_idle()
        assert org.jobs.get(job)["apexProcessingTime"] == 2 * (100 + 2 * 5), "two chunks, each with both masters"


def test_point_48_the_masters_master_is_saved_after_it() -> None:
    """Method: a trigger of the trip fills what the tour sums up, and the tour's rule fails the leg."""
    fill = trigger({"effect": "fill", "field": "Weight__c", "formula": "Legs__c * 10"})
    heavy = rule("Weight__c > 25", on="Tour__c")
    with touring("t", triggers=[fill], validation_rules=[heavy]) as org:
        assert run_job(org, "insert", "Leg__c", legs(("1", "a", 1), ("2", "b", 1))).failed == []
        done = run_job(org, "insert", "Leg__c", legs(("3", "a", 1)))
        assert [row["sf__Error"] for row in done.failed] == [REFUSED]
        assert sorted(records(org, "Trip__c", "Ext__c", "CAST(Weight__c AS INTEGER)")) == [("a", 10), ("b", 10)]
        assert stored(org) == {"1", "2"}


def test_point_48_a_detail_of_two_masters_saves_both_and_theirs() -> None:
    """Method: a seat belongs to two trips, of different tours; triggers say up there what they have seen."""
    seats = {
        "Seat__c": {
            "fields": {
                "First__c": {"type": "reference", "referenceTo": "Trip__c", "relationshipOrder": 0},
                "Bus__c": {"type": "reference", "referenceTo": "Bus__c", "relationshipOrder": 1},
            }
        },
        "Bus__c": {
            "fields": {
                "Ext__c": {"type": "string", "externalId": True, "unique": True},
                "Depot__c": {"type": "reference", "referenceTo": "Depot__c", "relationshipOrder": 0},
                "Seats__c": roll_up("Seat__c", "Bus__c"),
            }
        },
        "Depot__c": {"fields": {"Note__c": {"type": "string"}, "Buses__c": roll_up("Bus__c", "Depot__c")}},
    }
    objects = {**OBJECTS, **seats}
    objects["Trip__c"] = {"fields": {**OBJECTS["Trip__c"]["fields"], "Seats__c": roll_up("Seat__c", "First__c")}}
    objects["Tour__c"] = {"fields": {**OBJECTS["Tour__c"]["fields"], "Note__c": {"type": "string"}}}
    triggers = [
        trigger({"effect": "fill", "field": "Note__c", "formula": f'TEXT({field}) & " seen"'}, on=name)
        for name, field in (("Tour__c", "Trips__c"), ("Depot__c", "Buses__c"))
    ]
    small = rule("Seats__c > 1", on="Bus__c")
    with make_org(objects=objects, automations={"triggers": triggers, "validation_rules": [small]}) as org:
        tour = run_job(org, "insert", "Tour__c", "Ext__c\nt\n").saved[0]["sf__Id"]
        depot = run_job(org, "insert", "Depot__c", "Note__c\nx\n").saved[0]["sf__Id"]
        trips = run_job(org, "insert", "Trip__c", write_csv(["Ext__c", "Tour__c"], [["a", tour], ["b", tour]])).saved
        run_job(org, "insert", "Bus__c", write_csv(["Ext__c", "Depot__c"], [["1", depot], ["2", depot]]))
        for name in ("Tour__c", "Depot__c"):
            assert records(org, name, "Note__c") == [("2 seen",)], "inserts of trips and buses have told them"
            with org.store.write() as cursor:
                cursor.execute(f"UPDATE data.{name} SET Note__c = NULL")
        rows = [[trips[0]["sf__Id"], "1"], [trips[1]["sf__Id"], "1"], [trips[1]["sf__Id"], "2"]]
        done = run_job(org, "insert", "Seat__c", write_csv(["First__c", "Bus__r.Ext__c"], rows))
        assert [row["sf__Error"] for row in done.failed] == [REFUSED] * 2
        for name in ("Tour__c", "Depot__c"):
            assert records(org, name, "Note__c") == [("2 seen",)]


def test_point_48_required_and_unique_fields_of_the_master_are_looked_at() -> None:
    same = trigger({"effect": "fill", "field": "Ext__c", "value": "b", "when": "Legs__c > 1"})
    with touring(triggers=[same]) as org:
        assert run_job(org, "insert", "Leg__c", legs(("1", "a", 1))).failed == []
        done = run_job(org, "insert", "Leg__c", legs(("2", "a", 1)))
        assert [row["sf__Error"].partition(":")[0] for row in done.failed] == ["DUPLICATE_VALUE"]


def test_point_48_a_formula_of_the_master_sees_its_roll_ups_when_it_is_saved_itself() -> None:
    with touring(validation_rules=[rule('AND(Legs__c = 2, Note__c = "two")')]) as org:
        run_job(org, "insert", "Leg__c", legs(("1", "a", 1), ("2", "a", 1)))
        content = "Ext__c,Note__c\na,two\nb,two\n"
        done = run_job(org, "upsert", "Trip__c", content, externalIdFieldName="Ext__c")
        assert [row["Ext__c"] for row in done.failed] == ["a"]


def test_point_48_rules_that_are_off_and_objects_that_nobody_sums_up_change_nothing() -> None:
    with touring(validation_rules=[rule("TRUE", active=False)]) as org:
        assert run_job(org, "insert", "Leg__c", legs(("1", "a", 1))).failed == []
    with touring(validation_rules=[rule("NOT(ISNEW())")]) as org:
        [trip] = records(org, "Trip__c", "Id", where="Ext__c = 'a'")
        assert run_job(org, "insert", "Stop__c", write_csv(["Trip__c"], [trip])).failed == [], "a lookup sums nothing"
        assert len(run_job(org, "insert", "Leg__c", legs(("1", "a", 1))).failed) == 1
        rules = MasterRules(schema=org.schema, active_on=org.automations.active_on)
        with org.store.read() as cursor:
            for name, needed in (("Stop__c", False), ("Tour__c", False), ("Trip__c", True), ("Leg__c", True)):
                entry = org.schema.object(name)
                assert entry is not None
                saves = RollUpSaves(cursor, rules, entry, now=org.clock.now(), user_id=org.users[0].id)
                assert saves.needed is needed


@pytest.mark.parametrize("seed", range(3))
def test_point_48_random_loads_fail_as_a_plain_model_says(seed: int) -> None:
    """Method: upserts that add, change and move details over several chunks, against sums kept in a dict."""
    chance = random.Random(seed)
    trips = [f"t{n}" for n in range(6)]
    with touring(trips=trips, validation_rules=[rule("OR(Sum__c > 1200, Legs__c > 90)")]) as org:
        model: dict[str, tuple[str, int]] = {}
        failures = 0
        for _ in range(3):
            keys = chance.sample(range(900), chance.randint(300, 650))
            rows = [(f"k{key}", chance.choice(trips), chance.randint(0, 30)) for key in keys]
            done = run_job(org, "upsert", "Leg__c", legs(*rows), externalIdFieldName="Ext__c")
            expected: set[str] = set()
            for start in range(0, len(rows), CHUNK):
                chunk = rows[start : start + CHUNK]
                while True:
                    will = model | {key: (trip, miles) for key, trip, miles in chunk}
                    count = Counter(trip for trip, _ in will.values())
                    miles_of: Counter[str] = Counter()
                    for trip, miles in will.values():
                        miles_of[trip] += miles
                    bad = {trip for trip in trips if count[trip] > 90 or miles_of[trip] > 1200}
                    hit = {key for key, trip, _ in chunk if trip in bad or model.get(key, ("", 0))[0] in bad}
                    if not hit:
                        break
                    expected |= hit
                    chunk = [row for row in chunk if row[0] not in hit]
                model = will
            assert {row["Ext__c"] for row in done.failed} == expected
            failures += len(expected)
        told = {key: (trip, int(miles)) for key, trip, miles in _details(org)}
        assert told == model
        assert 0 < failures < 1500


def _details(org: TwinOrg) -> list[tuple[Any, ...]]:
    with org.store.read() as cursor:
        return cursor.execute(
            "SELECT l.Ext__c, t.Ext__c, l.Miles__c FROM data.Leg__c l JOIN data.Trip__c t ON t.Id = l.Trip__c"
        ).fetchall()
