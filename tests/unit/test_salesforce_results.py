"""Error texts of result files taken apart, and values taken out of messages."""

from __future__ import annotations

import polars as pl
import pytest

from forcelift.salesforce.results import UNKNOWN_CODE, RecordError, scrub, scrub_series, split_error, split_error_expr

TEXTS = [
    (
        "REQUIRED_FIELD_MISSING:Required fields are missing: [Product__c, Broker__c]:Product__c,Broker__c --",
        RecordError(
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [Product__c, Broker__c]",
            ("Product__c", "Broker__c"),
        ),
    ),
    ("ENTITY_IS_DELETED:entity is deleted:--", RecordError("ENTITY_IS_DELETED", "entity is deleted", ())),
    (
        "DUPLICATE_VALUE:duplicate value found: email__c duplicates value on record with id: a0N2w000001WQcq, "
        "id__c duplicates value on record with id: a0N2w000001WQcq:--",
        RecordError(
            "DUPLICATE_VALUE",
            "duplicate value found: email__c duplicates value on record with id: a0N2w000001WQcq, "
            "id__c duplicates value on record with id: a0N2w000001WQcq",
            (),
        ),
    ),
    (
        'FIELD_CUSTOM_VALIDATION_EXCEPTION:Say: "yes",\nor: no:Status__c --',
        RecordError("FIELD_CUSTOM_VALIDATION_EXCEPTION", 'Say: "yes",\nor: no', ("Status__c",)),
    ),
    ("MISSING_ARGUMENT:Ext__c not specified:--", RecordError("MISSING_ARGUMENT", "Ext__c not specified", ())),
    ("InvalidBatch : Field name not found : Foo__c", RecordError("InvalidBatch", "Field name not found : Foo__c", ())),
    ("UNKNOWN_EXCEPTION:cut off in the mid", RecordError("UNKNOWN_EXCEPTION", "cut off in the mid", ())),
    ("X:ask: John Doe --", RecordError("X", "ask: John Doe", ())),
    ("X:see:BillingAddress, Tenant__r.Code__c --", RecordError("X", "see", ("BillingAddress", "Tenant__r.Code__c"))),
    ("no code at all", RecordError(UNKNOWN_CODE, "no code at all", ())),
    ("", RecordError(UNKNOWN_CODE, "", ())),
    ("ข้อผิดพลาด: อื่น", RecordError(UNKNOWN_CODE, "ข้อผิดพลาด: อื่น", ())),
]


@pytest.mark.parametrize(("text", "parts"), TEXTS)
def test_an_error_text_is_taken_apart(text: str, parts: RecordError) -> None:
    assert split_error(text) == parts


def test_the_column_form_says_the_same() -> None:
    frame = pl.DataFrame({"sf__Error": [*(text for text, _ in TEXTS), None]})
    rows = frame.select(split_error_expr(pl.col("sf__Error")).alias("error")).unnest("error").rows()
    assert rows[:-1] == [(parts.code, parts.message, ",".join(parts.fields)) for _, parts in TEXTS]
    assert rows[-1] == (None, None, None)


SECRET = "Somchai 0812345678 (max length=9) not found for field\n'x'"

ECHOES = [
    f"Account Name: data value too large: {SECRET} (max length=255)",
    f"Foreign key external ID: {SECRET} not found for field Ext__c in entity Contact",
    f"Stripe Charge ID: more than one record found for external id field: [{SECRET}]",
    f"Duplicate external id specified: {SECRET}",
    f"Payment Method: bad value for restricted picklist field: {SECRET}",
    f"Amount: value not of required type: {SECRET}",
    f"Discount: value outside of valid range on numeric field: {SECRET}",
    f"Email: invalid email address: {SECRET}",
    f"Close Date: invalid date: {SECRET}",
    f"Account ID: id value of incorrect type: {SECRET}",
    f"Record Type ID: this ID value isn't valid for the user: {SECRET}",
    f"Cannot deserialize instance of date from VALUE_STRING value {SECRET} or request may be missing a required field",
    f"unexpected token: {SECRET}",
    "Call 081-234-5678 or write to somchai@example.co.th (ID 1 2345 67890 12 3)",
]


@pytest.mark.parametrize("message", ECHOES)
def test_values_that_a_message_repeats_are_taken_out(message: str) -> None:
    told = scrub(message)
    for value in ("Somchai", "081", "5678", "somchai", "2345"):
        assert value not in told
    assert "<value>" in told


def test_what_helps_stays() -> None:
    for message in (
        "duplicate value found: Ext__c duplicates value on record with id: 0015g00000abcdE",
        "Required fields are missing: [Name]",
        "unable to obtain exclusive access to this record or 200 records: 001xxx,001yyy",
        "execution of BeforeInsert caused by: System.NullPointerException: ... line 12, column 1",
        "InvalidBatch : Field name not found : Foo__c",
        "Too many SOQL queries: 101",
        "operation performed with inactive user [0055g000001abcd] as owner of case",
    ):
        assert scrub(message) == message
    assert (
        scrub("Name: data value too large: abc (max length=80)")
        == "Name: data value too large: <value> (max length=80)"
    )
    told = scrub("Foreign key external ID: 0000031236 not found for field Ext__c in entity Contact")
    assert told == "Foreign key external ID: <value> not found for field Ext__c in entity Contact"


def test_a_column_of_messages() -> None:
    messages = pl.Series("m", [*ECHOES, None, *ECHOES, "plain"])
    assert scrub_series(messages).to_list() == [None if m is None else scrub(m) for m in messages.to_list()]
    assert scrub_series(messages).name == "m"
    assert scrub_series(pl.Series("m", [], dtype=pl.String)).to_list() == []
    assert scrub_series(pl.Series("m", [None], dtype=pl.String)).to_list() == [None]
