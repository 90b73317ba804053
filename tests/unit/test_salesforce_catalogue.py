"""The error catalogue: every documented code has its advice, and what passes is told from what does not."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from forcelift.salesforce.catalogue import (
    Entry,
    Passing,
    Remedy,
    entries,
    explain,
    is_transient,
    remedy,
)
from forcelift.salesforce.errors_page import to_markdown
from forcelift.salesforce.transient import transient_expr

LOCK = "unable to obtain exclusive access to this record or 200 records: 001xxx,001yyy"
RETRIES = "Too many retries of batch save in the presence of Apex triggers with failures"
TRIGGER = "BTProjectTrigger: System.LimitException: sitetracker:Too many DML statements: 151"

# One line for each of the six errors that the requirements name (R9), with what the remedy must speak of.
R9 = [
    ("UNABLE_TO_LOCK_ROW", "UNABLE_TO_LOCK_ROW", Passing.YES, "with a delay"),
    ("Too many SOQL queries", "LIMIT_EXCEEDED", Passing.NO, "200 rows at a time"),
    ("Maximum trigger depth", "SELF_REFERENCE_FROM_TRIGGER", Passing.NO, "Switch the object's triggers off"),
    ("Field is not writeable", "INVALID_FIELD_FOR_INSERT_UPDATE", Passing.NO, "forcelift check"),
    ("INVALID_CROSS_REFERENCE_KEY", "INVALID_CROSS_REFERENCE_KEY", Passing.LATER, "Load the parents first"),
    ("REQUIRED_FIELD_MISSING", "REQUIRED_FIELD_MISSING", Passing.NO, "give it a default"),
]


@pytest.mark.parametrize(("text", "code", "passing", "words"), R9, ids=[row[0] for row in R9])
def test_the_six_errors_of_the_requirements(text: str, code: str, passing: Passing, words: str) -> None:
    found = explain(text)
    assert [advice.code for advice in found] == [code]
    assert found[0].passing is passing
    assert words in found[0].remedy


ROWS = [
    ("UNABLE_TO_LOCK_ROW", LOCK, Passing.YES),
    ("REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]", Passing.NO),
    ("STRING_TOO_LONG", "Account Name: data value too large: x (max length=255)", Passing.NO),
    ("INVALID_FIELD_FOR_INSERT_UPDATE", "Unable to create/update fields: Name.", Passing.NO),
    ("INVALID_FIELD", "Foreign key external ID: 1 not found for field Ext__c in entity Contact", Passing.LATER),
    ("INVALID_FIELD", "No such column 'Foo__c' on sobject of type Contact", Passing.NO),
    ("INVALID_FIELD", "something else", Passing.NO),
    ("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", Passing.LATER),
    ("INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "insufficient access rights", Passing.NO),
    ("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "bad value for restricted picklist field: x", Passing.NO),
    ("DUPLICATE_VALUE", "duplicate value found: A", Passing.NO),
    ("DUPLICATE_VALUE", "Duplicate external id specified: a-1", Passing.NO),
    ("DUPLICATE_EXTERNAL_ID", "more than one record found", Passing.NO),
    ("DUPLICATES_DETECTED", "Use one of these records?", Passing.NO),
    ("FIELD_CUSTOM_VALIDATION_EXCEPTION", LOCK, Passing.NO),
    ("FIELD_FILTER_VALIDATION_EXCEPTION", "", Passing.NO),
    ("FIELD_INTEGRITY_EXCEPTION", "", Passing.NO),
    ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", RETRIES, Passing.YES),
    ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"Trg: execution of AfterInsert caused by: {LOCK}", Passing.YES),
    ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", TRIGGER, Passing.NO),
    ("CANNOT_EXECUTE_FLOW_TRIGGER", "", Passing.NO),
    ("NUMBER_OUTSIDE_VALID_RANGE", "", Passing.NO),
    ("INVALID_TYPE_ON_FIELD_IN_RECORD", "", Passing.NO),
    ("INVALID_EMAIL_ADDRESS", "", Passing.NO),
    ("MALFORMED_ID", "", Passing.NO),
    ("INVALID_ID_FIELD", "", Passing.NO),
    ("MISSING_ARGUMENT", "", Passing.NO),
    ("ENTITY_IS_DELETED", "", Passing.NO),
    ("DELETE_FAILED", "", Passing.LATER),
    ("ENTITY_IS_LOCKED", "", Passing.LATER),
    ("STORAGE_LIMIT_EXCEEDED", "", Passing.LATER),
    ("INSUFFICIENT_ACCESS_OR_READONLY", "", Passing.NO),
    ("INACTIVE_OWNER_OR_USER", "", Passing.NO),
    ("OP_WITH_INVALID_USER_TYPE_EXCEPTION", "", Passing.NO),
    ("INVALID_CURRENCY_ISO", "", Passing.NO),
    ("CIRCULAR_DEPENDENCY", "", Passing.NO),
    ("UNKNOWN_EXCEPTION", "Internal Salesforce Error: 123", Passing.YES),
    ("TXN_SECURITY_METERING_ERROR", "", Passing.YES),
    ("TXN_SECURITY_RUNTIME_EXCEPTION", "", Passing.YES),
    ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", Passing.LATER),
    ("LIMIT_EXCEEDED", "Max bulk v2 query jobs (10000) per 24 hrs has been reached (10021)", Passing.LATER),
    ("QUERY_TIMEOUT", "", Passing.YES),
    ("SERVER_UNAVAILABLE", "", Passing.YES),
    ("InvalidBatch", "Field name not found : Foo__c", Passing.NO),
    ("ClientInputError", "LineEnding is invalid on user data. Current LineEnding setting is LF", Passing.NO),
    ("InvalidJob", "Unable to find object: X", Passing.NO),
    ("ExceededQuota", "", Passing.LATER),
    ("TooManyLockFailure", "", Passing.YES),
    ("Timeout", "", Passing.YES),
    ("INVALIDJOBSTATE", "Closing already Completed Job not allowed", Passing.NO),
    ("INVALIDENTITY", "Entity 'X' is not supported by the Bulk API.", Passing.NO),
    ("SOMETHING_NEW", "never seen", Passing.NO),
]


@pytest.mark.parametrize(("code", "message", "passing"), ROWS)
def test_each_documented_code_has_its_verdict(code: str, message: str, passing: Passing) -> None:
    advice = remedy(code, message)
    assert advice.passing is passing
    assert is_transient(code, message) is (passing is Passing.YES)
    assert advice.remedy
    assert advice.org


def test_only_the_new_code_is_not_in_the_catalogue() -> None:
    unknown = {code for code, message, _ in ROWS if "not in Forcelift's catalogue" in remedy(code, message).meaning}
    assert unknown == {"SOMETHING_NEW"}


def test_the_column_form_says_the_same() -> None:
    rows = [*((code, message) for code, message, _ in ROWS), (None, None), ("UNABLE_TO_LOCK_ROW", None), ("X", None)]
    frame = pl.DataFrame(rows, schema={"code": pl.String, "message": pl.String}, orient="row")
    told = frame.select(transient_expr(pl.col("code"), pl.col("message"))).to_series().to_list()
    assert told == [is_transient(code or "", message or "") for code, message in rows]


def test_one_cause_of_a_code_is_told_from_another() -> None:
    assert remedy("LIMIT_EXCEEDED", "Too many SOQL queries: 101").title == "Too many SOQL queries"
    assert remedy("DUPLICATE_VALUE", "Duplicate external id specified: 7").title == "External ID twice in one file"
    assert (
        remedy("InvalidBatch", "Failed to parse CSV. Found unescaped quote").title == "The file is not readable as CSV"
    )


def test_explain_takes_whole_error_texts() -> None:
    text = f"CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:{RETRIES}:--"
    assert [advice.title for advice in explain(text)] == ["Too many retries of batch save"]
    assert [advice.code for advice in explain("InvalidBatch : Field name not found : Foo__c")] == ["InvalidBatch"]
    assert [advice.code for advice in explain("invalidjobstate")] == ["InvalidJobState"]
    assert len(explain("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY")) == 3
    assert explain("all is well") == []


def test_explain_knows_a_failed_trigger_or_flow_by_its_text_alone() -> None:
    failed = "Trg: execution of BeforeInsert caused by: System.NullPointerException: null object, line 12, column 1"
    assert [advice.meaning for advice in explain(failed)] == ["A trigger of the org failed; the message names it."]
    flow = 'We can\'t save this record because the "X" process failed. Give your admin these details.'
    assert [advice.code for advice in explain(flow)] == ["CANNOT_EXECUTE_FLOW_TRIGGER"]
    assert remedy("CANNOT_EXECUTE_FLOW_TRIGGER", "anything else").code == "CANNOT_EXECUTE_FLOW_TRIGGER"
    assert remedy("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "anything else").passing is Passing.NO


def test_another_catalogue_can_be_asked_first() -> None:
    advice = Remedy(code="REJECTED_TOO_LONG", title="t", meaning="m", passing=Passing.NO, remedy="r", org="o")
    more = [Entry(advice=advice, texts=("longer than its field",))]
    assert remedy("REJECTED_TOO_LONG", more=more) is advice
    assert explain("REJECTED_TOO_LONG", more=more) == [advice]
    assert explain("a text longer than its field", more=more) == [advice]
    assert remedy("UNABLE_TO_LOCK_ROW", more=more).code == "UNABLE_TO_LOCK_ROW"


def test_entries_are_complete_sentences_and_their_patterns_work_in_columns() -> None:
    for entry in entries():
        advice = entry.advice
        for text in (advice.meaning, advice.remedy, advice.org):
            assert text.endswith("."), text
        if entry.pattern is not None:
            assert isinstance(pl.select(pl.lit("x").str.contains(entry.pattern.pattern)).item(), bool)


def test_commands_that_the_advice_names_exist_in_the_design() -> None:
    known = {"prepare", "check", "failed", "run", "status", "stop", "doctor"}
    text = " ".join(f"{entry.advice.remedy} {entry.advice.org}" for entry in entries())
    assert set(re.findall(r"`forcelift ([a-z]+)", text)) <= known


def test_the_page_of_the_docs_is_fresh() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
    assert page.read_text(encoding="utf-8") == to_markdown(), (
        "run: python -m forcelift.salesforce.errors_page > docs/reference/errors.md"
    )
