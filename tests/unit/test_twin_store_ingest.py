"""What the twin makes of the rows of a job: values, lookups, keys, required and unique fields, deletes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal

import pytest
from tests.twin_store_support import make_org, records, run_job, write_csv

from forcelift.twin.org import TwinOrg


@pytest.fixture
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


@pytest.fixture(scope="module")
def shared() -> Iterator[TwinOrg]:
    """One org for tests whose rows do not touch one another."""
    with make_org() as org:
        yield org


def test_values_are_parsed_rounded_trimmed_and_defaulted(org: TwinOrg) -> None:
    done = run_job(
        org,
        "insert",
        "Trip__c",
        "Ext__c,Place__c,Miles__c,Seats__c,Open__c,Day__c,At__c,State__c,Free__c,Name\n"
        '"  a ",BKK,1.005,-7,NO,1700-01-01,2026-01-31T12:00:00.999+07:00,,anything,x\n'
        "b,CNX,-2.5E2,+3,1,2026-02-28Z,2026-01-31T12:00:00Z,#N/A,,\n",
    )
    assert not done.failed
    stored = records(
        org, "Trip__c", "Ext__c", "Miles__c", "Seats__c", "Open__c", "Day__c", "At__c", "State__c", "Free__c"
    )
    assert sorted(stored) == [
        ("a", Decimal("1.01"), -7, False, date(1700, 1, 1), datetime(2026, 1, 31, 5), "New", "anything"),
        ("b", Decimal("-250.00"), 3, True, date(2026, 2, 28), datetime(2026, 1, 31, 12), None, None),
    ]
    [(name, record_id)] = records(org, "Trip__c", "Name", "Id", where="Ext__c = 'b'")
    assert name == record_id[:15]


@pytest.mark.parametrize(
    ("column", "cell", "error"),
    [
        ("Seats__c", "250.0", "INVALID_TYPE_ON_FIELD_IN_RECORD:Seats: value not of required type: 250.0:Seats__c --"),
        (
            "Seats__c",
            "2147483648",
            "NUMBER_OUTSIDE_VALID_RANGE:Seats: value outside of valid range on numeric field: 2147483648:Seats__c --",
        ),
        (
            "Seats__c",
            "99999999999999999999",
            "NUMBER_OUTSIDE_VALID_RANGE:Seats: value outside of valid range on numeric field: "
            "99999999999999999999:Seats__c --",
        ),
        ("Miles__c", "1_000", "INVALID_TYPE_ON_FIELD_IN_RECORD:Miles: value not of required type: 1_000:Miles__c --"),
        ("Miles__c", " 1", "INVALID_TYPE_ON_FIELD_IN_RECORD:Miles: value not of required type:  1:Miles__c --"),
        ("Miles__c", "NaN", "INVALID_TYPE_ON_FIELD_IN_RECORD:Miles: value not of required type: NaN:Miles__c --"),
        (
            "Miles__c",
            "1000000",
            "NUMBER_OUTSIDE_VALID_RANGE:Miles: value outside of valid range on numeric field: 1000000:Miles__c --",
        ),
        ("Miles__c", "1e300", None),
        ("Open__c", "maybe", "INVALID_TYPE_ON_FIELD_IN_RECORD:Open: value not of required type: maybe:Open__c --"),
        (
            "Day__c",
            "2026-02-30",
            "INVALID_TYPE_ON_FIELD_IN_RECORD:Day: value not of required type: 2026-02-30:Day__c --",
        ),
        ("Day__c", "1699-12-31", "INVALID_TYPE_ON_FIELD_IN_RECORD:Day: invalid date: 1699-12-31:Day__c --"),
        (
            "At__c",
            "4001-01-01T00:00:00Z",
            "INVALID_TYPE_ON_FIELD_IN_RECORD:At: invalid date: 4001-01-01T00:00:00Z:At__c --",
        ),
        ("At__c", "2026-01-01", "INVALID_TYPE_ON_FIELD_IN_RECORD:At: value not of required type: 2026-01-01:At__c --"),
        ("Mail__c", "foo", "INVALID_EMAIL_ADDRESS:Mail: invalid email address: foo:Mail__c --"),
        (
            "State__c",
            "Old",
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:State: bad value for restricted picklist field: Old:State__c --",
        ),
        (
            "Loose__c",
            "12345678901",
            "STRING_TOO_LONG:Loose: data value too large: 12345678901 (max length=10):Loose__c --",
        ),
        (
            "Loose__c",
            "😀😀😀😀😀x",
            "STRING_TOO_LONG:Loose: data value too large: 😀😀😀😀😀x (max length=10):Loose__c --",
        ),
        ("Plane__c", "xyz", "MALFORMED_ID:Plane: id value of incorrect type: xyz:Plane__c --"),
        (
            "Sum__c",
            "1",
            "INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update fields: Sum__c. Please check "
            "the security settings of this field and verify that it is read/write for your profile "
            "or permission set.:Sum__c --",
        ),
        (
            "Plane__r.Tail__c",
            "nope",
            "INVALID_FIELD:Foreign key external ID: nope not found for field Tail__c in entity Plane__c:--",
        ),
        ("Id", "a00000000000000", "INVALID_FIELD_FOR_INSERT_UPDATE:cannot specify Id in an insert call:Id --"),
    ],
)
def test_a_bad_cell_fails_its_row_alone_with_salesforces_words(
    shared: TwinOrg, column: str, cell: str, error: str | None
) -> None:
    content = write_csv(["Place__c", column], [["bad", cell], ["good", ""]])
    done = run_job(shared, "insert", "Trip__c", content)
    assert done.job["state"] == "JobComplete"
    assert [row["Place__c"] for row in done.saved] == ["good"]
    [failed] = done.failed
    assert failed["sf__Id"] == ""
    assert failed["sf__Error"] == error or (error is None and failed["sf__Error"].startswith("NUMBER_OUTSIDE_VALID_"))


def test_length_counts_utf16_units_and_blanks_at_the_ends_do_not_count(org: TwinOrg) -> None:
    content = write_csv(["Loose__c", "Place__c"], [["  1234567890  ", "x"], ["😀😀😀😀😀", "x"], ["ก" * 10, "x"]])
    assert len(run_job(org, "insert", "Trip__c", content).saved) == 3


def test_required_fields_are_told_together_and_update_may_not_empty_them(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Leg__c", "Plane__c\n#N/A\n")
    assert done.failed[0]["sf__Error"] == "REQUIRED_FIELD_MISSING:Required fields are missing: [Trip__c]:Trip__c --"
    done = run_job(org, "insert", "Trip__c", "Ext__c,Place__c\na,   \nb,#N/A\nc,\nd,x\n")
    assert set(done.errors("Ext__c")) == {"a", "b", "c"}
    done = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c,Loose__c\nd,#N/A,z\n", key="Ext__c")
    assert done.failed[0]["sf__Error"].startswith("REQUIRED_FIELD_MISSING:")
    assert run_job(org, "upsert", "Trip__c", "Ext__c,Place__c,Loose__c\nd,,z\n", key="Ext__c").saved
    assert records(org, "Trip__c", "Place__c", "Loose__c") == [("x", "z")]


def test_upsert_creates_updates_keeps_empty_cells_and_nulls_with_na(org: TwinOrg) -> None:
    first = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c,Miles__c,Loose__c\nK,A,5,t\n", key="Ext__c")
    assert first.saved[0]["sf__Created"] == "true"
    second = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c,Miles__c,Loose__c\n k ,,#N/A,\n", key="Ext__c")
    assert second.saved[0]["sf__Created"] == "false"
    assert second.saved[0]["sf__Id"] == first.saved[0]["sf__Id"]
    assert records(org, "Trip__c", "Ext__c", "Place__c", "Miles__c", "Loose__c") == [("K", "A", None, "t")]


def test_upsert_key_blank_repeated_in_a_chunk_and_ambiguous(org: TwinOrg) -> None:
    done = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c\n,A\nx,A\nX ,A\ny,A\n", key="Ext__c")
    assert done.errors("Ext__c") == {
        "": "MISSING_ARGUMENT:Ext__c not specified:--",
        "x": "DUPLICATE_VALUE:Duplicate external id specified: x:--",
        "X ": "DUPLICATE_VALUE:Duplicate external id specified: X:--",
    }
    run_job(org, "insert", "Trip__c", "Loose__c,Place__c\nL,A\nl,A\n")
    done = run_job(org, "upsert", "Trip__c", "Loose__c,Place__c\nL,B\n", key="Loose__c")
    ids = ", ".join(row[0] for row in records(org, "Trip__c", "Id", where="Loose__c IS NOT NULL"))
    assert done.failed[0]["sf__Error"] == (
        f"DUPLICATE_EXTERNAL_ID:Loose: more than one record found for external id field: [{ids}]:Loose__c --"
    )
    done = run_job(org, "upsert", "Trip__c", "Place__c\nA\n", key="Ext__c")
    assert done.failed[0]["sf__Error"] == "MISSING_ARGUMENT:Ext__c not specified:--"


def test_a_later_chunk_updates_what_an_earlier_one_created(org: TwinOrg) -> None:
    rows = [[f"K{number}", "A", ""] for number in range(450)]
    rows[0] = ["same", "first", "kept"]
    rows[210] = ["same", "second", ""]
    rows[449] = ["SAME", "third", ""]
    done = run_job(org, "upsert", "Trip__c", write_csv(["Ext__c", "Place__c", "Loose__c"], rows), key="Ext__c")
    assert not done.failed
    assert [row["sf__Created"] for row in done.saved if row["Ext__c"].lower() == "same"].count("true") == 1
    assert records(org, "Trip__c", "Place__c", "Loose__c", where="lower(Ext__c) = 'same'") == [("third", "kept")]
    assert len(records(org, "Trip__c", "Id")) == 448


def test_unique_fields_against_the_store_and_among_the_rows(org: TwinOrg) -> None:
    content = "Ext__c,Code__c,Place__c\nA,ab,x\nB,AB,x\nC,ab,x\na,cd,x\nE,cd,x\n"
    done = run_job(org, "insert", "Trip__c", content)
    ids = {row["Ext__c"]: row["sf__Id"] for row in done.saved}
    assert set(ids) == {"A", "B", "E"}  # row `a` fails by its own key, which leaves the code `cd` to E
    assert done.errors("Ext__c") == {
        "C": f"DUPLICATE_VALUE:duplicate value found: Code__c duplicates value on record with id: {ids['A'][:15]}:--",
        "a": f"DUPLICATE_VALUE:duplicate value found: Ext__c duplicates value on record with id: {ids['A'][:15]}:--",
    }
    done = run_job(org, "insert", "Trip__c", "Ext__c,Code__c,Place__c\nb,ab,x\n")
    assert done.failed[0]["sf__Error"] == (
        f"DUPLICATE_VALUE:duplicate value found: Ext__c duplicates value on record with id: {ids['B'][:15]}, "
        f"Code__c duplicates value on record with id: {ids['A'][:15]}:--"
    )
    assert run_job(org, "update", "Trip__c", f"Id,Code__c\n{ids['A']},ab\n").saved


def test_lookups_by_key_by_both_id_forms_and_to_deleted_parents(org: TwinOrg) -> None:
    run_job(org, "insert", "Plane__c", "Tail__c\nN1\nN2\n")
    planes = dict(records(org, "Plane__c", "Tail__c", "Id"))
    content = write_csv(["Ext__c", "Place__c", "Plane__c"], [["a", "x", planes["N1"]], ["b", "x", planes["N2"][:15]]])
    assert len(run_job(org, "insert", "Trip__c", content).saved) == 2
    assert run_job(org, "insert", "Trip__c", "Ext__c,Place__c,Plane__r.Tail__c\nc,x, n1 \nd,x,#N/A\n").failed == []
    assert dict(records(org, "Trip__c", "Ext__c", "Plane__c")) == {
        "a": planes["N1"],
        "b": planes["N2"],
        "c": planes["N1"],
        "d": None,
    }
    wrong = org.users[0].id
    missing = planes["N1"][:14] + "z"
    run_job(org, "delete", "Plane__c", f"Id\n{planes['N2']}\n")
    content = write_csv(
        ["Ext__c", "Place__c", "Plane__c"], [["e", "x", wrong], ["f", "x", missing], ["g", "x", planes["N2"]]]
    )
    assert run_job(org, "insert", "Trip__c", content).errors("Ext__c") == {
        "e": f"MALFORMED_ID:Plane: id value of incorrect type: {wrong}:Plane__c --",
        "f": "INVALID_CROSS_REFERENCE_KEY:invalid cross reference id:--",
        "g": "ENTITY_IS_DELETED:entity is deleted:--",
    }
    assert dict(records(org, "Trip__c", "Ext__c", "Plane__c"))["b"] is None  # deleting a parent empties plain lookups


def test_update_refuses_unknown_deleted_foreign_and_missing_ids(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Ext__c,Place__c\na,x\nb,x\n")
    ids = {row["Ext__c"]: row["sf__Id"] for row in done.saved}
    run_job(org, "delete", "Trip__c", f"Id\n{ids['b']}\n")
    content = write_csv(
        ["Id", "Place__c"],
        [[ids["a"][:15], "new"], [ids["b"], "1"], ["", "2"], [org.users[0].id, "3"], [ids["a"][:12] + "zzz", "4"]],
    )
    done = run_job(org, "update", "Trip__c", content)
    assert [row["sf__Id"] for row in done.saved] == [ids["a"]]
    codes = {row["Place__c"]: row["sf__Error"].split(":")[0] for row in done.failed}
    assert codes == {
        "1": "ENTITY_IS_DELETED",
        "2": "MISSING_ARGUMENT",
        "3": "MALFORMED_ID",
        "4": "INVALID_CROSS_REFERENCE_KEY",
    }
    assert records(org, "Trip__c", "Place__c") == [("new",)]


def test_delete_keeps_the_row_frees_the_key_and_hard_delete_removes_it(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Ext__c,Place__c\na,x\nb,x\n")
    ids = {row["Ext__c"]: row["sf__Id"] for row in done.saved}
    done = run_job(org, "delete", "Trip__c", f"Id\n{ids['a']}\n{ids['a'][:15]}\nxx\n{org.users[0].id}\n")
    assert [row["sf__Created"] for row in done.saved] == ["false"]
    assert sorted(row["sf__Error"].split(":")[0] for row in done.failed) == [
        "ENTITY_IS_DELETED",
        "INVALID_ID_FIELD",
        "MALFORMED_ID",
    ]
    again = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c\na,y\n", key="Ext__c")
    assert again.saved[0]["sf__Created"] == "true"
    assert len(records(org, "Trip__c", "Id", where="Ext__c = 'a'")) == 2
    run_job(org, "hardDelete", "Trip__c", f"Id\n{ids['b']}\n")
    assert records(org, "Trip__c", "Id", where="Ext__c = 'b'") == []


def test_master_detail_cascades_and_restricted_lookups_hold(org: TwinOrg) -> None:
    run_job(org, "insert", "Plane__c", "Tail__c\nN1\n")
    run_job(org, "insert", "Trip__c", "Ext__c,Place__c\na,x\n")
    [(plane,)], [(trip,)] = records(org, "Plane__c", "Id"), records(org, "Trip__c", "Id")
    run_job(org, "insert", "Leg__c", f"Trip__r.Ext__c,Plane__c\na,{plane}\na,{plane}\n")
    assert [row[0] for row in records(org, "Leg__c", "Name")] == ["L-0001", "L-0002"]
    assert run_job(org, "delete", "Plane__c", f"Id\n{plane}\n").failed[0]["sf__Error"].startswith("DELETE_FAILED:")
    [leg, _] = [row[0] for row in records(org, "Leg__c", "Id")]
    moved = run_job(org, "update", "Leg__c", f"Id,Trip__c\n{leg},{trip}\n")
    assert moved.failed[0]["sf__Error"].startswith("INVALID_FIELD_FOR_INSERT_UPDATE:")
    run_job(org, "delete", "Trip__c", f"Id\n{trip}\n")
    assert records(org, "Leg__c", "Id") == []
    assert (
        run_job(org, "delete", "Leg__c", f"Id\n{leg}\n").failed[0]["sf__Error"]
        == "ENTITY_IS_DELETED:entity is deleted:--"
    )


@pytest.mark.parametrize(
    ("operation", "content", "message"),
    [
        ("insert", "Ext__c,Foo__c,Bar__c\na,b,c\n", "InvalidBatch : Field name not found : Foo__c"),
        ("insert", "Ext__c,ext__C\na,b\n", "InvalidBatch : Duplicate field name : ext__C"),
        ("insert", "Ext__c,\na,b\n", "InvalidBatch : Field name not found : "),
        (
            "insert",
            "Plane__c:Plane__r.Tail__c\na\n",
            "InvalidBatch : type is not needed for non polymorphic foreign key references: Plane__r",
        ),
        ("insert", "Plane__c:Nope.Tail__c\na\n", "InvalidBatch : Unable to find relationship: Nope"),
        ("insert", "Plane__r.IsDeleted\na\n", "InvalidBatch : Field name not found : Plane__r.IsDeleted"),
        ("insert", "\ufeffExt__c\na\n", "InvalidBatch : Field name not found : \ufeffExt__c"),
        ("insert", '\ufeff"Ext__c"\na\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote"),
        ("insert", 'Ext__c,Place__c\na, "b"\n', "InvalidBatch : Failed to parse CSV. Found unescaped quote"),
        (
            "insert",
            "Ext__c\r\na\r\n",
            "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is LF",
        ),
        (
            "insert",
            'Ext__c,Place__c\na,"b\r\nc"\n',
            "ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is LF",
        ),
        ("delete", "Id,Place__c\na,b\n", "InvalidBatch : The 'delete' batch must contain only ids"),
        ("delete", "id\na\n", "InvalidBatch : The 'delete' batch must contain only ids"),
    ],
)
def test_a_bad_header_or_file_fails_the_job_and_nothing_is_looked_at(
    shared: TwinOrg, operation: str, content: str, message: str
) -> None:
    before = len(records(shared, "Trip__c", "Id"))
    job = shared.jobs.create({"operation": operation, "object": "Trip__c"}, shared.users[0])
    shared.jobs.put_content(job["id"], [content.encode()])
    shared.jobs.patch(job["id"], "UploadComplete")
    shared.run_until_idle()
    answer = shared.jobs.get(job["id"])
    assert (answer["state"], answer["errorMessage"]) == ("Failed", message)
    assert (answer["numberRecordsProcessed"], answer["numberRecordsFailed"]) == (0, 0)
    assert len(b"".join(shared.results(job["id"], "failedResults")).splitlines()) == 1
    assert b"a" in b"".join(shared.results(job["id"], "unprocessedRecords")).partition(b"\n")[2]
    assert len(records(shared, "Trip__c", "Id")) == before


def test_polymorphic_lookups_need_the_type_in_the_header(org: TwinOrg) -> None:
    run_job(org, "insert", "Plane__c", "Tail__c\nN1\n")
    run_job(org, "insert", "Trip__c", "Ext__c,Place__c\na,x\n")
    assert run_job(org, "insert", "Leg__c", "Trip__r.Ext__c,Any__r.Tail__c\na,N1\n").job["state"] == "Failed"
    assert run_job(org, "insert", "Leg__c", "Trip__r.Ext__c,Plane__c:Any__r.Tail__c\na,N1\n").saved
    assert records(org, "Leg__c", "Any__c") == records(org, "Plane__c", "Id")


def test_record_types_owner_and_unknown_ids_of_them(org: TwinOrg) -> None:
    [(record_type,)] = records(org, "RecordType", "Id")
    other = org.users[1].id
    content = f"Ext__c,Place__c,RecordTypeId,OwnerId\na,x,{record_type},{other}\nb,x,012000000000001,\nc,x,,#N/A\n"
    done = run_job(org, "insert", "Trip__c", content)
    assert records(org, "Trip__c", "RecordTypeId", "OwnerId", "CreatedById") == [(record_type, other, org.users[0].id)]
    errors = done.errors("Ext__c")
    assert errors["b"].startswith(
        "INVALID_CROSS_REFERENCE_KEY:Record Type ID: this ID value isn't valid for the user: 012"
    )
    assert errors["c"] == "INVALID_CROSS_REFERENCE_KEY:Owner ID: owner cannot be blank:OwnerId --"
