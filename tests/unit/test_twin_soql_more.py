"""What loaders and validators send beyond the plain SELECT: subtotals, labels, lookups with several targets, limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.twin_soql_org import NOW

from forcelift.twin.clock import ManualClock
from forcelift.twin.org import TwinOrg
from forcelift.twin.schema_file import schema_from_dict
from forcelift.twin.soql import SoqlError, compile_query, run

REFERENCE = {"type": "reference", "relationshipName": "Owner", "referenceTo": ["Group", "User"], "nillable": False}
SCHEMA: dict[str, Any] = {
    "users": [{"username": "a@twin.example", "name": "Anna"}],
    "objects": {
        "Area__c": {"fields": {}},
        "Deal__c": {
            "fields": {
                "OwnerId": {**REFERENCE, "defaultedOnCreate": True},
                "Stage__c": {
                    "type": "picklist",
                    "values": [{"value": "New", "label": "Neu"}, {"value": "Done", "label": "Fertig"}, "Also"],
                },
                "Tags__c": {"type": "multipicklist", "values": [{"value": "A", "label": "Erstes"}, "B"]},
                "Amount__c": {"type": "currency", "precision": 18, "scale": 2},
                "Share__c": {"type": "percent", "precision": 5, "scale": 1},
                "Day__c": {"type": "date"},
                "At__c": {"type": "datetime"},
                "Area__c": {
                    "type": "reference",
                    "referenceTo": "Area__c",
                    "relationshipName": "Area__r",
                    "childRelationshipName": "Deals__r",
                },
                "Other__c": {"type": "reference", "referenceTo": "Area__c", "relationshipName": "Other__r"},
            }
        },
    },
}
QUEUE = "00G000000000001AAA"


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with TwinOrg.open(None, schema=schema_from_dict(SCHEMA), clock=ManualClock(NOW), seed=3) as org:
        user = org.users[0].id
        with org.store.write() as cursor:
            cursor.execute(f"""
            INSERT INTO data."Group" BY NAME (SELECT '{QUEUE}' AS Id, 'Queue' AS Name, false AS IsDeleted);
            INSERT INTO data.Area__c BY NAME (SELECT 'a00000000000001AAA' AS Id, 'North' AS Name, false AS IsDeleted);
            INSERT INTO data.Deal__c BY NAME SELECT * FROM (VALUES
             ('a01000000000001AAA', 'one', 'Done', 'A;B', 1234567.5, 12.5, DATE '2026-01-31',
              TIMESTAMP '2026-01-31 15:05:00', 'a00000000000001AAA', '{user}', false),
             ('a01000000000002AAA', 'TWO', 'New', NULL, -1.25, NULL, DATE '2025-01-31', NULL, NULL, '{QUEUE}', false),
             ('a01000000000003AAA', 'three', 'Odd', NULL, NULL, NULL, NULL, NULL, NULL, '{QUEUE}', false)
            ) AS r(Id, Name, Stage__c, Tags__c, Amount__c, Share__c, Day__c, At__c, Area__c, OwnerId, IsDeleted)""")
        yield org


def ask(org: TwinOrg, soql: str, **options: Any) -> list[dict[str, Any]]:
    cursor = org.cursor()
    try:
        found = run(compile_query(soql, org.schema, now=NOW, **options), cursor, "66.0")
    finally:
        cursor.close()
    for record in found:
        if record["attributes"].get("type") == "AggregateResult":
            del record["attributes"]
    return found


def refusal(org: TwinOrg, soql: str, **options: Any) -> SoqlError:
    with pytest.raises(SoqlError) as caught:
        compile_query(soql, org.schema, now=NOW, **options)
    return caught.value


def test_a_lookup_with_several_targets_shows_the_object_name(org: TwinOrg) -> None:
    one, two = ask(org, "SELECT Owner.Name, Owner.Type, Owner.Id FROM Deal__c ORDER BY Id LIMIT 2")
    assert one["Owner"]["attributes"] == {
        "type": "Name",
        "url": f"/services/data/v66.0/sobjects/User/{org.users[0].id}",
    }
    assert (one["Owner"]["Name"], one["Owner"]["Type"]) == ("Anna", "User")
    assert (two["Owner"]["Name"], two["Owner"]["Type"]) == ("Queue", "Group")
    assert two["Owner"]["Id"] == QUEUE
    soql = "SELECT Owner.Type, COUNT(Id) n FROM Deal__c WHERE Owner.Username = null GROUP BY Owner.Type"
    assert ask(org, soql) == [{"Type": "Group", "n": 2}]
    assert "No such column 'Nope' on entity 'Name'" in refusal(org, "SELECT Owner.Nope FROM Deal__c").message
    assert refusal(org, "SELECT Owner.Profile.Name FROM Deal__c").error_code == "INVALID_FIELD"
    compiled = compile_query("SELECT Owner.Name FROM Deal__c", org.schema, bulk=True)
    assert [column.name for column in compiled.columns] == ["Owner.Name"]


def test_labels_stand_for_values_in_the_list_and_in_conditions(org: TwinOrg) -> None:
    rows = ask(org, "SELECT toLabel(Stage__c), toLabel(Tags__c) t FROM Deal__c")
    assert {(row["Stage__c"], row["t"]) for row in rows} == {("Fertig", "Erstes;B"), ("Neu", None), ("Odd", None)}
    assert [row["Name"] for row in ask(org, "SELECT Name FROM Deal__c WHERE toLabel(Stage__c) = 'fertig'")] == ["one"]
    both = ask(org, "SELECT Stage__c, toLabel(Stage__c) shown FROM Deal__c WHERE Stage__c = 'New'")[0]
    assert (both["Stage__c"], both["shown"]) == ("New", "Neu")
    assert "duplicate field selected" in refusal(org, "SELECT Stage__c, toLabel(Stage__c) FROM Deal__c").message
    assert refusal(org, "SELECT toLabel(Day__c) FROM Deal__c").error_code == "MALFORMED_QUERY"


def test_format_writes_as_a_user_reads(org: TwinOrg) -> None:
    soql = """SELECT FORMAT(Amount__c) a, FORMAT(Share__c) s, FORMAT(Day__c), FORMAT(At__c), FORMAT(Name) n
              FROM Deal__c ORDER BY Id"""
    one, two, three = ask(org, soql)
    assert (one["a"], one["s"], one["Day__c"], one["At__c"], one["n"]) == (
        "$1,234,567.50",
        "12.5%",
        "1/31/2026",
        "1/31/2026, 3:05 PM",
        "one",
    )
    assert (two["a"], three["a"]) == ("-$1.25", None)
    assert ask(org, "SELECT FORMAT(MAX(Day__c)) latest FROM Deal__c") == [{"latest": "1/31/2026"}]
    assert refusal(org, "SELECT Id FROM Deal__c WHERE FORMAT(Day__c) = 'x'").error_code == "MALFORMED_QUERY"


def test_rollup_and_cube_add_subtotals(org: TwinOrg) -> None:
    soql = """SELECT CALENDAR_YEAR(Day__c) y, Stage__c, COUNT(Id) n, GROUPING(Stage__c) g FROM Deal__c
              WHERE Day__c != null GROUP BY {}(CALENDAR_YEAR(Day__c), Stage__c)"""
    rolled = {(row["y"], row["Stage__c"], row["n"], row["g"]) for row in ask(org, soql.format("ROLLUP"))}
    leaves = {(2026, "Done", 1, 0), (2025, "New", 1, 0), (2026, None, 1, 1), (2025, None, 1, 1), (None, None, 2, 1)}
    assert rolled == leaves
    cubed = {(row["y"], row["Stage__c"], row["n"], row["g"]) for row in ask(org, soql.format("CUBE"))}
    assert cubed == leaves | {(None, "Done", 1, 0), (None, "New", 1, 0)}
    ordered = "SELECT Stage__c, COUNT(Id) n FROM Deal__c GROUP BY ROLLUP(Stage__c) ORDER BY Stage__c NULLS LAST"
    assert [row["Stage__c"] for row in ask(org, ordered)] == ["New", "Done", "Odd", None]
    shown = "SELECT toLabel(Stage__c) s, COUNT(Id) n FROM Deal__c GROUP BY Stage__c ORDER BY Stage__c"
    assert [row["s"] for row in ask(org, shown)] == ["Neu", "Fertig", "Odd"]
    wrong = "SELECT COUNT(Id) FROM Deal__c GROUP BY ROLLUP(Stage__c), Name"
    assert "stands alone" in refusal(org, wrong).message


def test_picklists_sort_by_their_entries_and_text_without_case(org: TwinOrg) -> None:
    def names(order: str) -> list[str]:
        return [row["Name"] for row in ask(org, f"SELECT Name FROM Deal__c ORDER BY {order}")]

    assert names("Stage__c") == ["TWO", "one", "three"]  # New, Done, then what is no entry
    assert names("Stage__c DESC") == ["three", "one", "TWO"]
    assert names("Name") == ["one", "three", "TWO"]
    assert ask(org, "SELECT MIN(Name) a, MAX(Name) z FROM Deal__c") == [{"a": "one", "z": "TWO"}]


def test_a_character_beyond_the_plane_is_two_escapes(org: TwinOrg) -> None:
    with org.store.write() as cursor:
        cursor.execute("UPDATE data.Area__c SET Name = '\U0001f600'")
    assert len(ask(org, r"SELECT Id FROM Area__c WHERE Name = '\ud83d\ude00'")) == 1
    assert len(ask(org, r"SELECT Id FROM Area__c WHERE Name LIKE '%\uD83D\uDE00'")) == 1
    assert ask(org, r"SELECT Id FROM Area__c WHERE Name = '\ud83d'") == []


@pytest.mark.parametrize(
    ("soql", "reason"),
    [
        ("SELECT Id FROM Deal__c ALL ROWS", "ALL ROWS not allowed in this context"),
        (
            "SELECT Id FROM Deal__c WHERE Area__c IN (SELECT Id FROM Area__c) OR Name = 'x'",
            "Semi join sub-selects are not allowed with the 'OR' operator",
        ),
        (
            "SELECT Id FROM Deal__c WHERE NOT Area__c IN (SELECT Id FROM Area__c)",
            "Semi join sub-selects are not allowed with the 'NOT' operator",
        ),
        (
            "SELECT Id FROM Deal__c WHERE Area__c IN (SELECT Id FROM Area__c) AND Other__c IN (SELECT Id FROM Area__c)"
            " AND OwnerId IN (SELECT Id FROM User)",
            "Maximum 2 semi join sub-selects are allowed",
        ),
        ("SELECT Id FROM Deal__c WHERE Area__c IN (SELECT Id FROM Area__c LIMIT 5)", "LIMIT is not allowed"),
        ("SELECT Id FROM Area__c WHERE Id IN (SELECT Owner.Id FROM Deal__c)", "cannot select a field of a parent"),
        ("SELECT Id, Name n FROM Deal__c", "only aggregate expressions use field aliasing"),
        (f"SELECT Id, {', '.join(['(SELECT Id FROM Deals__r)'] * 21)} FROM Area__c", "at most 20 subqueries"),
    ],
)
def test_refusals_by_name(org: TwinOrg, soql: str, reason: str) -> None:
    error = refusal(org, soql)
    assert (error.http_status, error.error_code) == (400, "MALFORMED_QUERY")
    assert reason in error.message


def test_typeof_is_refused_by_name(org: TwinOrg) -> None:
    soql = "SELECT Id, TYPEOF Owner WHEN User THEN Username, Email WHEN Group THEN Name ELSE Id END FROM Deal__c"
    error = refusal(org, soql)
    assert (error.http_status, error.message) == (501, "The twin does not carry out TYPEOF")
    assert "TYPEOF not supported in Bulk Query" in refusal(org, soql, bulk=True).message
    assert "unexpected token" in refusal(org, "SELECT TYPEOF Owner WHEN User THEN FROM Deal__c").message


def test_group_is_an_object_and_a_clause(org: TwinOrg) -> None:
    assert ask(org, "SELECT Name FROM Group")[0]["Name"] == "Queue"
    assert ask(org, "SELECT Group.Name, COUNT(Id) n FROM Group GROUP BY Group.Name") == [{"Name": "Queue", "n": 1}]


def test_bulk_takes_only_bounded_groups_of_fields(org: TwinOrg) -> None:
    compile_query("SELECT FIELDS(STANDARD) FROM Area__c", org.schema, bulk=True)
    error = refusal(org, "SELECT FIELDS(ALL) FROM Area__c LIMIT 5", bulk=True)
    assert (error.error_code, "FIELDS()" in error.message) == ("API_ERROR", True)
