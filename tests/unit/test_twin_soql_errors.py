"""Queries that Salesforce refuses: code, place and reason."""

from __future__ import annotations

import pytest
from tests.unit.twin_soql_org import make_schema

from forcelift.twin.schema import Schema
from forcelift.twin.soql import SoqlError, compile_query, parse


@pytest.fixture(scope="module")
def schema() -> Schema:
    return make_schema()


def refused(soql: str, schema: Schema, **options: bool) -> SoqlError:
    with pytest.raises(SoqlError) as caught:
        compile_query(soql, schema, **options)
    return caught.value


def test_unknown_object_has_excerpt_caret_place_and_reason(schema: Schema) -> None:
    error = refused("select count() from XYZZY", schema)
    assert error.body() == [
        {
            "message": "\nselect count() from XYZZY\n                    ^\nERROR at Row:1:Column:21\n"
            "sObject type 'XYZZY' is not supported. If you are attempting to use a custom object, be sure to append "
            "the '__c' after the entity name. Please reference your WSDL or the describe call for the appropriate "
            "names.",
            "errorCode": "INVALID_TYPE",
        }
    ]
    assert error.http_status == 400


def test_excerpt_of_a_long_query_is_cut_between_words(schema: Schema) -> None:
    soql = (
        "SELECT Id,CreatedDate,CreatedById,OCE__ActualCap__c,Nope__c,Name,OCE__JobId__c FROM Sale__c WHERE Name = 'x'"
    )
    error = refused(soql.replace("OCE__ActualCap__c,", "Amount__c,").replace("OCE__JobId__c", "Day__c"), schema)
    _, excerpt, caret, place, reason = error.message.split("\n")
    assert excerpt[len(caret) - 1 :].startswith("Nope__c,Name")
    assert place == "ERROR at Row:1:Column:45"
    assert reason.startswith(
        "No such column 'Nope__c' on entity 'Sale__c'. If you are attempting to use a custom field"
    )
    assert len(excerpt) < 80


def test_rows_count_from_one(schema: Schema) -> None:
    error = refused("SELECT Id,\n  Nope__c\nFROM Sale__c", schema)
    assert error.message.startswith("\n  Nope__c\n  ^\nERROR at Row:2:Column:3\nNo such column 'Nope__c'")


@pytest.mark.parametrize(
    ("soql", "code", "reason"),
    [
        ("", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT FROM Sale__c", "MALFORMED_QUERY", "unexpected token: 'FROM'"),
        ("SELECT Id FROM Sale__c WHERE", "MALFORMED_QUERY", "unexpected token: '<EOF>'"),
        ("SELECT Id FROM Sale__c;", "MALFORMED_QUERY", "unexpected token: ';'"),
        ("SELECT * FROM Sale__c", "MALFORMED_QUERY", "unexpected token: '*'"),
        ("DELETE FROM Sale__c", "MALFORMED_QUERY", "unexpected token: 'DELETE'"),
        ("SELECT Id FROM Sale__c WHERE Ok__c = true AND Id = null OR Id = null", "MALFORMED_QUERY", "token: 'OR'"),
        ("SELECT Id FROM Sale__c WHERE Name = 'x", "MALFORMED_QUERY", "mismatched character '<EOF>'"),
        ("SELECT Id FROM Sale__c WHERE Name = 'a\\qb'", "MALFORMED_QUERY", "Illegal character sequence '\\q'"),
        ("SELECT Id FROM Sale__c WHERE Name = :name", "MALFORMED_QUERY", "unexpected token: ':'"),
        ("SELECT Id FROM Sale__c WHERE Day__c = SOMEDAY", "MALFORMED_QUERY", "unexpected token: 'SOMEDAY'"),
        ("SELECT Id FROM Sale__c LIMIT -1", "MALFORMED_QUERY", "unexpected token: '-1'"),
        ("SELECT Id FROM Sale__c LIMIT 1.5", "MALFORMED_QUERY", "unexpected token: '1.5'"),
        ("SELECT Id FROM Sale__c WHERE COUNT(Id) = 1", "MALFORMED_QUERY", "unexpected token: 'COUNT'"),
        ("SELECT NOPE(Id) FROM Sale__c", "MALFORMED_QUERY", "unexpected token: 'NOPE'"),
        ("SELECT Name n FROM Sale__c", "MALFORMED_QUERY", "only aggregate expressions use field aliasing"),
        ("SELECT Name, COUNT(Id) FROM Sale__c", "MALFORMED_QUERY", "Field must be grouped or aggregated: Name"),
        ("SELECT COUNT(), Id FROM Sale__c", "MALFORMED_QUERY", "COUNT() must be the only element"),
        ("SELECT COUNT(Notes__c) FROM Sale__c", "MALFORMED_QUERY", "does not support aggregate operator COUNT"),
        ("SELECT SUM(Name) FROM Sale__c", "MALFORMED_QUERY", "field Name does not support aggregate operator SUM"),
        ("SELECT COUNT(Id) FROM Sale__c GROUP BY Amount__c", "MALFORMED_QUERY", "can not be grouped in a query call"),
        ("SELECT CALENDAR_YEAR(Day__c) FROM Sale__c", "MALFORMED_QUERY", "must be grouped or aggregated"),
        ("SELECT FIELDS(ALL) FROM Sale__c", "MALFORMED_QUERY", "must have a LIMIT of at most 200"),
        ("SELECT FIELDS(CUSTOM) FROM Sale__c LIMIT 201", "MALFORMED_QUERY", "must have a LIMIT of at most 200"),
        ("SELECT Id, id FROM Sale__c", "INVALID_FIELD", "duplicate field selected: Id"),
        ("SELECT Nope__r.Name FROM Sale__c", "INVALID_FIELD", "Didn't understand relationship 'Nope__r' in field path"),
        ("SELECT Tenant__c.Name FROM Sale__c", "INVALID_FIELD", "Didn't understand relationship 'Tenant__c'"),
        (
            "SELECT Id, (SELECT Id FROM Nope__r) FROM Sale__c",
            "INVALID_FIELD",
            "Didn't understand relationship 'Nope__r'",
        ),
        (
            "SELECT Id FROM Sale__c WHERE Notes__c = 'x'",
            "INVALID_FIELD",
            "'Notes__c' can not be filtered in a query call",
        ),
        ("SELECT Id FROM Sale__c ORDER BY Notes__c", "INVALID_FIELD", "'Notes__c' can not be sorted in a query call"),
        (
            "SELECT Id FROM Sale__c WHERE Amount__c = '5'",
            "INVALID_FIELD",
            "type double and should not be enclosed in quotes",
        ),
        ("SELECT Id FROM Sale__c WHERE At__c = '2026'", "INVALID_FIELD", "type dateTime and should not be enclosed"),
        ("SELECT Id FROM Sale__c WHERE At__c = 2026-01-01", "INVALID_FIELD", "'At__c' must be of type dateTime"),
        (
            "SELECT Id FROM Sale__c WHERE Name = 5",
            "INVALID_FIELD",
            "must be of type string and should be enclosed in quotes",
        ),
        ("SELECT Id FROM Sale__c WHERE Name LIKE 5", "INVALID_FIELD", "must be of type string"),
        ("SELECT Id FROM Sale__c WHERE Day__c = 2026-02-30", "INVALID_FIELD", "Invalid date: 2026-02-30"),
        ("SELECT Id FROM Sale__c WHERE Day__c = LAST_N_DAYS:99999999999", "INVALID_FIELD", "Invalid date literal"),
        ("SELECT Id FROM Sale__c WHERE Id = 'abc'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: abc"),
        ("SELECT Id FROM Sale__c WHERE Id LIKE 'a%'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator on id field"),
        (
            "SELECT Id FROM Sale__c WHERE Ok__c > true",
            "INVALID_QUERY_FILTER_OPERATOR",
            "invalid operator on boolean field",
        ),
        ("SELECT Id FROM Sale__c WHERE Tags__c > 'A'", "INVALID_QUERY_FILTER_OPERATOR", "invalid operator"),
        (
            "SELECT Id FROM Sale__c WHERE Name IN (SELECT Id FROM Tenant__c)",
            "INVALID_QUERY_FILTER_OPERATOR",
            "must be id or reference fields",
        ),
        (
            "SELECT Id FROM Sale__c WHERE Id IN (SELECT Id FROM Sale__c)",
            "MALFORMED_QUERY",
            "The inner and outer selects should not be on the same object type",
        ),
        ("SELECT Id FROM Sale__c OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000"),
    ],
)
def test_refusal(schema: Schema, soql: str, code: str, reason: str) -> None:
    error = refused(soql, schema)
    assert error.error_code == code
    assert reason in error.message


@pytest.mark.parametrize(
    ("soql", "code", "message"),
    [
        ("SELECT COUNT() FROM Sale__c", "API_ERROR", "Aggregate functions not supported in Bulk Query"),
        ("SELECT MAX(Day__c) FROM Sale__c", "API_ERROR", "Aggregate functions not supported in Bulk Query"),
        ("SELECT Name FROM Sale__c GROUP BY Name", "API_ERROR", "GROUP BY not supported in Bulk Query"),
        ("SELECT Id FROM Sale__c LIMIT 5 OFFSET 5", "API_ERROR", "OFFSET not supported in Bulk Query"),
        (
            "SELECT Id, (SELECT Id FROM Sales__r) FROM Tenant__c",
            "API_ERROR",
            "Aggregate Relationships not supported in Bulk Query",
        ),
        ("SELECT Id FROM Nope__c", "INVALID_TYPE", "sObject type 'Nope__c' is not supported"),
    ],
)
def test_bulk_refusal(schema: Schema, soql: str, code: str, message: str) -> None:
    error = refused(soql, schema, bulk=True)
    assert error.error_code == code
    assert message in error.message


def test_words_that_begin_like_keywords_are_names() -> None:
    query = parse("SELECT Orders__r.Input__c, Notes FROM Order ORDER BY Ascent__c")
    assert str(query.select[0].expression) == "Orders__r.Input__c"
    assert str(query.object_path) == "Order"
    assert len(query.order_by) == 1


def test_deep_nesting_is_refused_and_long_lists_are_not(schema: Schema) -> None:
    assert (
        refused(f"SELECT Id FROM Sale__c WHERE {'NOT ' * 5000}Ok__c = true", schema).error_code
        == "QUERY_TOO_COMPLICATED"
    )
    compile_query(f"SELECT Id FROM Sale__c WHERE {'(' * 5000}Ok__c = true{')' * 5000}", schema)
    compile_query("SELECT Id FROM Sale__c WHERE " + " OR ".join(f"Count__c = {n}" for n in range(4000)), schema)
    assert (
        refused("SELECT Id FROM Sale__c WHERE Name = '" + "x" * 100_000 + "'", schema).error_code == "MALFORMED_QUERY"
    )
