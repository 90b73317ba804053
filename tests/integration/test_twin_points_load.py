"""What simulators and clients get wrong about loading: a test for each point of the reference, named after its number.

Points that are rules for clients show here the behaviour of the org that makes them rules.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from tests.integration.twin_http_fixtures import BASE, Client
from tests.twin_store_support import clock_of, finished, make_org, make_schema, records, run_job, write_csv

from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import ApiError, SchemaError
from forcelift.twin.org import Options, TwinOrg
from forcelift.twin.pace import Pace
from forcelift.twin.schema import Schema
from forcelift.twin.server import TwinServer

INGEST = f"{BASE}/jobs/ingest"
CHUNK = 200


@pytest.fixture
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


@pytest.fixture(scope="module")
def served() -> Iterator[TwinServer]:
    """An org over HTTP whose jobs wait for `run_until_idle`."""
    with make_org() as org, TwinServer(org, work=False) as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def client(served: TwinServer) -> Iterator[Client]:
    with Client(served) as client:
        yield client


def new_job(org: TwinOrg, operation: str = "insert", name: str = "Plane__c", **body: str) -> str:
    job_id: str = org.jobs.create({"operation": operation, "object": name, **body}, org.users[0])["id"]
    return job_id


def loaded(client: Client, content: bytes, **body: Any) -> dict[str, Any]:
    job_id = client.create_job(**{"object": "Plane__c", **body})
    assert client.put_csv(job_id, content).status_code == 201
    assert client.close_job(job_id).status_code == 200
    client.server.org.run_until_idle()
    answer: dict[str, Any] = client.get(f"{INGEST}/{job_id}").json()
    return answer


def planes(*tails: str) -> str:
    return write_csv(["Tail__c"], [[tail] for tail in tails])


def test_point_01_the_put_looks_at_nothing_and_a_bad_header_fails_the_job_later(client: Client) -> None:
    job_id = client.create_job(object="Plane__c")
    put = client.put_csv(job_id, b'\x00\xff not,a\r\ncsv "')
    assert (put.status_code, put.content) == (201, b"")
    assert client.close_job(job_id).json()["state"] == "UploadComplete"
    client.server.org.run_until_idle()
    garbage = client.get(f"{INGEST}/{job_id}").json()
    assert (garbage["state"], garbage["numberRecordsProcessed"], garbage["numberRecordsFailed"]) == ("Failed", 0, 0)
    for content in (b"Nope__c\n1\n", b"Tail__c,Nope__c,Worse__c\nx,1,2\n"):
        job = loaded(client, content)
        assert (job["state"], job["numberRecordsProcessed"], job["numberRecordsFailed"]) == ("Failed", 0, 0)
        assert job["errorMessage"] == "InvalidBatch : Field name not found : Nope__c"


def test_point_02_one_put_for_a_job(client: Client) -> None:
    job_id = client.create_job(object="Plane__c")
    assert client.put_csv(job_id, b"Tail__c\np2\n").status_code == 201
    second = client.put_csv(job_id, b"Tail__c\np2b\n")
    assert second.status_code == 400
    assert second.json()[0]["message"].startswith(f"Found multiple contents for job: <{job_id}>")
    client.close_job(job_id)
    client.server.org.run_until_idle()
    assert [row["Tail__c"] for row in client.results(job_id, "successfulResults")] == ["p2"]


def test_point_03_create_and_patch_answer_short_jobs(client: Client) -> None:
    created = client.post(INGEST, json={"object": "Plane__c", "operation": "insert"}).json()
    assert "contentUrl" in created
    absent = {"jobType", "numberRecordsProcessed", "numberRecordsFailed", "retries", "totalProcessingTime"}
    absent |= {"apiActiveProcessingTime", "apexProcessingTime"}
    opened = client.get(f"{INGEST}/{created['id']}").json()
    assert ("contentUrl" in opened, opened["jobType"]) == (True, "V2Ingest")
    assert not absent & set(created)
    client.put_csv(created["id"], b"Tail__c\np3\n")
    closed = client.close_job(created["id"]).json()
    assert set(created) - set(closed) == {"contentUrl", "lineEnding", "columnDelimiter"}
    assert set(closed) <= set(created)
    assert "contentUrl" not in client.get(f"{INGEST}/{created['id']}").json()
    client.server.org.run_until_idle()
    ended = client.get(f"{INGEST}/{created['id']}").json()
    assert absent <= set(ended)


def test_point_04_api_version_is_a_number_and_dates_have_no_colon_in_the_offset(client: Client) -> None:
    answer = client.post(INGEST, json={"object": "Plane__c", "operation": "insert"})
    assert '"apiVersion":66.0' in answer.text
    for key in ("createdDate", "systemModstamp"):
        assert answer.json()[key].endswith(".000+0000")


def test_point_05_a_job_all_of_whose_rows_fail_is_complete(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Ext__c\na\nb\n")
    assert (done.job["state"], done.job["numberRecordsProcessed"], done.job["numberRecordsFailed"]) == (
        "JobComplete", 2, 2,
    )  # fmt: skip
    assert "errorMessage" not in done.job


def test_point_06_results_come_in_any_order_and_numbers_in_javas_form(org: TwinOrg) -> None:
    rows = [[f"R{number}", "x", value] for number, value in enumerate(["500", "912260.31", "0.5", "7"] * 50)]
    done = run_job(org, "insert", "Trip__c", write_csv(["Ext__c", "Place__c", "Miles__c"], rows))
    sent = [row[0] for row in rows]
    got = [row["Ext__c"] for row in done.saved]
    assert got != sent
    assert sorted(got) == sorted(sent)
    assert {row["Miles__c"] for row in done.saved} == {"500.0", "912260.31", "0.5", "7.0"}
    big = run_job(org, "insert", "Trip__c", "Ext__c,Place__c,Miles__c\nbig,x,912260031\n")
    assert big.failed[0]["Miles__c"] == "9.12260031E8"


def test_point_07_failed_rows_have_no_id_whatever_the_operation(org: TwinOrg) -> None:
    [record] = [row["sf__Id"] for row in run_job(org, "insert", "Plane__c", planes("F1")).saved]
    long = "much too long a text"
    updated = run_job(org, "update", "Plane__c", write_csv(["Id", "Tail__c"], [[record, long]]))
    assert [(row["sf__Id"], row["Id"]) for row in updated.failed] == [("", record)]
    for operation, key in (("insert", None), ("upsert", "Tail__c")):
        done = run_job(org, operation, "Plane__c", write_csv(["Tail__c"], [[long]]), key=key)
        assert [row["sf__Id"] for row in done.failed] == [""]
    run_job(org, "delete", "Plane__c", f"Id\n{record}\n")
    again = run_job(org, "delete", "Plane__c", f"Id\n{record}\n")
    assert [(row["sf__Id"], row["Id"]) for row in again.failed] == [("", record)]


def test_point_08_errors_end_with_the_fields_and_two_dashes(org: TwinOrg) -> None:
    content = write_csv(["Ext__c", "Loose__c", "Plane__r.Tail__c"], [["a", "", ""], ["b", "1,2:3\n45678901", "x:y"]])
    done = run_job(org, "insert", "Trip__c", content)
    errors = done.errors("Ext__c")
    assert errors["a"] == "REQUIRED_FIELD_MISSING:Required fields are missing: [Place__c]:Place__c --"
    assert errors["b"].startswith("STRING_TOO_LONG:Loose: data value too large: 1,2:3\n45678901 (max length=10)")
    assert errors["b"].endswith(":Loose__c --")
    lost = run_job(org, "insert", "Trip__c", "Place__c,Plane__r.Tail__c\nx,none\n")
    assert lost.failed[0]["sf__Error"].endswith("in entity Plane__c:--")
    needed = {"type": "string", "length": 9, "required": True}
    with make_org(objects={"Pair__c": {"fields": {"One__c": needed, "Two__c": needed}}}) as other:
        both = run_job(other, "insert", "Pair__c", 'One__c\n""\n')
        assert both.failed[0]["sf__Error"] == (
            "REQUIRED_FIELD_MISSING:Required fields are missing: [One__c, Two__c]:One__c,Two__c --"
        )


def test_point_09_empty_is_ignored_and_na_is_null(org: TwinOrg) -> None:
    head = "Ext__c,Place__c,Loose__c,State__c\n"
    run_job(org, "upsert", "Trip__c", head + "k,x,kept,\nn,x,gone,#N/A\n", key="Ext__c")
    stored = "Ext__c", "Loose__c", "State__c"
    assert sorted(records(org, "Trip__c", *stored)) == [("k", "kept", "New"), ("n", "gone", None)]
    run_job(org, "insert", "Plane__c", "Tail__c,Name\nsmall,#n/a\n")
    assert records(org, "Plane__c", "Name") == [("#n/a",)], "only this spelling is null"
    run_job(org, "upsert", "Trip__c", head + "k,,,\nn,,#N/A,\n", key="Ext__c")
    assert sorted(records(org, "Trip__c", *stored)) == [("k", "kept", "New"), ("n", None, None)]


def test_point_10_the_parser_trims_nothing_and_the_platform_does_on_save(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", 'Ext__c,Place__c\n" Smith ",x\n')
    assert done.saved[0]["Ext__c"] == " Smith "
    assert records(org, "Trip__c", "Ext__c") == [("Smith",)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "Plane__c:Plane__r.Tail__c",
            "InvalidBatch : type is not needed for non polymorphic foreign key references: Plane__r",
        ),
        ("Any__r.Tail__c", "InvalidBatch : Field name not found : Any__r.Tail__c"),
        ("Plane__c:None__r.Tail__c", "InvalidBatch : Unable to find relationship: None__r"),
    ],
)
def test_point_11_the_type_of_a_parent_is_named_exactly_when_there_are_several(
    org: TwinOrg, header: str, message: str
) -> None:
    run_job(org, "insert", "Plane__c", planes("P"))
    trip = run_job(org, "insert", "Trip__c", "Place__c\nx\n").saved[0]["sf__Id"]
    done = run_job(org, "insert", "Leg__c", f"Trip__c,{header}\n{trip},P\n")
    assert (done.job["state"], done.job["errorMessage"]) == ("Failed", message)
    good = run_job(org, "insert", "Leg__c", f"Trip__c,Plane__c:Any__r.Tail__c,Plane__r.Tail__c\n{trip},P,P\n")
    assert len(good.saved) == 1


def test_point_12_an_unknown_parent_fails_its_row_alone_and_wholly(org: TwinOrg) -> None:
    run_job(org, "insert", "Plane__c", planes("P"))
    done = run_job(org, "insert", "Trip__c", "Ext__c,Place__c,Plane__r.Tail__c\na,x,P\nb,x,nope\nc,x,\n")
    assert done.job["state"] == "JobComplete"
    assert done.errors("Ext__c") == {
        "b": "INVALID_FIELD:Foreign key external ID: nope not found for field Tail__c in entity Plane__c:--"
    }
    assert sorted(records(org, "Trip__c", "Ext__c")) == [("a",), ("c",)]
    again = "Ext__c,Place__c,Loose__c,Plane__r.Tail__c\na,new,new,nope\nc,new,new,P\n"
    assert len(run_job(org, "upsert", "Trip__c", again, key="Ext__c").failed) == 1
    stored = records(org, "Trip__c", "Ext__c", "Place__c", "Loose__c", "Plane__c IS NULL")
    assert sorted(stored) == [("a", "x", None, False), ("c", "new", "new", False)], "its other columns are lost too"


def test_point_13_copies_in_a_chunk_all_fail_and_over_chunks_the_later_one_updates(org: TwinOrg) -> None:
    rows = [["same", "first"], ["SAME ", "second"], *([f"k{n}", "x"] for n in range(CHUNK - 2)), ["k0", "again"]]
    done = run_job(org, "upsert", "Trip__c", write_csv(["Ext__c", "Place__c"], rows), key="Ext__c")
    assert {row["sf__Error"].partition(":")[0] for row in done.failed} == {"DUPLICATE_VALUE"}
    assert Counter(row["Place__c"] for row in done.failed) == {"first": 1, "second": 1}
    told = {row["Place__c"]: row for row in done.saved if row["Ext__c"] == "k0"}
    assert (told["x"]["sf__Created"], told["again"]["sf__Created"]) == ("true", "false")
    assert told["x"]["sf__Id"] == told["again"]["sf__Id"]
    assert records(org, "Trip__c", "Place__c", where="Ext__c = 'k0'") == [("again",)]


def test_point_13_batches_of_ten_thousand_are_worked_on_in_any_order() -> None:
    rows = [[f"B{number}", str(number // 10_000)] for number in range(60_000)]
    rows[5] = ["twice", "0"]
    rows[59_999] = ["twice", "5"]
    with make_org(options=Options(threads=1, commit_batches=1)) as org:
        job = new_job(org, "upsert", "Trip__c", externalIdFieldName="Ext__c")
        org.jobs.put_content(job, [write_csv(["Ext__c", "Place__c"], rows).encode()])
        org.jobs.patch(job, "UploadComplete")
        order = []
        while org.step():
            [(batch,)] = org_rows(org, "SELECT last(batch) FROM meta.ingest_batch")
            order.append(batch)
        assert sorted(order) == list(range(6))
        assert order != sorted(order)
        last = max((0, 5), key=order.index)
        assert records(org, "Trip__c", "Place__c", where="Ext__c = 'twice'") == [(str(last),)]


def org_rows(org: TwinOrg, query: str) -> list[tuple[Any, ...]]:
    with org.store.read() as cursor:
        return cursor.execute(query).fetchall()


def test_point_14_keys_ignore_case_and_blanks_unless_unique_and_case_sensitive(org: TwinOrg) -> None:
    run_job(org, "insert", "Trip__c", "Ext__c,Code__c,Place__c\nab,ab,x\n")
    done = run_job(org, "upsert", "Trip__c", "Ext__c,Place__c\n AB ,y\n", key="Ext__c")
    assert done.saved[0]["sf__Created"] == "false"
    done = run_job(org, "insert", "Trip__c", "Ext__c,Code__c,Place__c\nc,AB,x\nAb,d,x\n")
    assert [row["Ext__c"] for row in done.saved] == ["c"]
    assert done.failed[0]["sf__Error"].startswith("DUPLICATE_VALUE:duplicate value found: Ext__c duplicates value on")
    run_job(org, "insert", "Plane__c", planes("Tail"))
    run_job(org, "insert", "Trip__c", "Ext__c,Place__c,Loose__c\nl,x,loose\n")
    not_unique = run_job(org, "upsert", "Trip__c", "Loose__c,Place__c\nLOOSE ,z\n", key="Loose__c")
    assert not_unique.saved[0]["sf__Created"] == "false"
    parent = run_job(org, "insert", "Trip__c", "Ext__c,Place__c,Plane__r.Tail__c\np,x,tAIL \n")
    assert parent.failed == []
    assert run_job(org, "insert", "Trip__c", "Code__c,Place__c\nab,x\n").failed[0]["sf__Error"].startswith("DUPL")


def test_point_15_both_forms_of_an_id_name_the_same_record(org: TwinOrg) -> None:
    first = run_job(org, "insert", "Plane__c", planes("I1", "I2"))
    ids = {row["Tail__c"]: row["sf__Id"] for row in first.saved}
    done = run_job(org, "update", "Plane__c", write_csv(["Id", "Name"], [[ids["I1"][:15], "a"], [ids["I2"], "b"]]))
    assert len(done.saved) == 2
    assert {row["sf__Id"] for row in done.saved} == set(ids.values())
    assert sorted(records(org, "Plane__c", "Name")) == [("a",), ("b",)]
    wrong = ids["I1"][:15].swapcase()
    assert run_job(org, "update", "Plane__c", f"Id,Name\n{wrong},c\n").failed
    many = run_job(org, "insert", "Plane__c", planes(*(f"M{n}" for n in range(70))))
    made = [row["sf__Id"] for row in many.saved]
    assert len({each[:15].lower() for each in made}) < 70, "the short forms of some differ in case only"
    assert len({each.lower() for each in made}) == 70


def test_point_16_a_byte_order_mark_kills_the_header(org: TwinOrg) -> None:
    quoted = run_job(org, "insert", "Plane__c", b'\xef\xbb\xbf"Tail__c"\nx\n')
    assert quoted.job["errorMessage"] == "InvalidBatch : Failed to parse CSV. Found unescaped quote"
    bare = run_job(org, "insert", "Plane__c", b"\xef\xbb\xbfTail__c\nx\n")
    assert (bare.job["state"], records(org, "Plane__c", "Id")) == ("Failed", [])


@pytest.mark.parametrize("setting", ["LF", "CRLF"])
def test_point_17_the_line_ending_must_match_the_bytes(org: TwinOrg, setting: str) -> None:
    bytes_of = {"LF": "Tail__c\nL1\n", "CRLF": "Tail__c\r\nL1\r\n"}
    other = {"LF": "CRLF", "CRLF": "LF"}[setting]
    done = run_job(org, "insert", "Plane__c", bytes_of[other], lineEnding=setting)
    assert done.job["errorMessage"] == (
        f"ClientInputError : LineEnding is invalid on user data. Current LineEnding setting is {setting}"
    )
    assert len(run_job(org, "insert", "Plane__c", bytes_of[setting], lineEnding=setting).saved) == 1


def test_point_18_rows_not_looked_at_are_unprocessed_and_in_no_other_file(org: TwinOrg) -> None:
    failed = run_job(org, "insert", "Plane__c", "Nope__c\n1\n2\n")
    assert failed.job["state"] == "Failed"
    assert (len(failed.saved), len(failed.failed), len(failed.unprocessed)) == (0, 0, 2)


def test_point_44_an_abort_keeps_what_was_committed_and_the_rest_is_unprocessed() -> None:
    with make_org(options=Options(threads=1, commit_batches=1)) as org:
        job = new_job(org)
        org.jobs.put_content(job, [planes(*(f"U{n}" for n in range(25_000))).encode()])
        org.jobs.patch(job, "UploadComplete")
        done = org.step()
        assert done
        org.jobs.patch(job, "Aborted")
        assert org.step() is None
        ended = finished(org, job)
        assert ended.job["state"] == "Aborted"
        assert (len(ended.saved), len(ended.failed), len(ended.unprocessed)) == (done, 0, 25_000 - done)
        assert ended.unprocessed[0].keys() == {"Tail__c"}
        assert len(records(org, "Plane__c", "Id")) == done


def test_point_44_a_batch_that_runs_while_the_job_is_aborted_still_commits() -> None:
    """Goal: counters and files settle after the abort was answered. Method: abort from within the work on a batch."""
    with make_org(options=Options(threads=1, commit_batches=1)) as org:
        job = new_job(org)
        org.jobs.put_content(job, [planes(*(f"U{n}" for n in range(15_000))).encode()])
        org.jobs.patch(job, "UploadComplete")
        asked = org.processor._active_on

        def aborting(*of: Any) -> Any:
            assert org.jobs.patch(job, "Aborted")["state"] == "Aborted"
            assert finished(org, job).saved == []
            return asked(*of)

        org.processor._active_on = aborting
        done = org.step()
        assert done
        assert org.step() is None
        ended = finished(org, job)
        assert (ended.job["state"], ended.job["numberRecordsProcessed"]) == ("Aborted", done)
        assert (len(ended.saved), len(ended.unprocessed)) == (done, 15_000 - done)
        assert len(records(org, "Plane__c", "Id")) == done


@pytest.mark.parametrize(("operation", "twice"), [("upsert", 0), ("insert", 10_000)])
def test_point_19_rows_saved_before_a_job_failed_stay_and_only_an_upsert_can_be_sent_again_whole(
    operation: str, twice: int
) -> None:
    key = "Loose__c" if operation == "upsert" else None  # an external ID that is not unique
    with make_org(options=Options(threads=1, commit_batches=1), limits={"rows_per_day": 15_000}) as org:
        content = write_csv(["Loose__c", "Place__c"], [[f"V{n}", "x"] for n in range(20_000)])
        done = run_job(org, operation, "Trip__c", content, key=key)
        assert (done.job["state"], len(done.saved), len(done.unprocessed)) == ("Failed", 10_000, 10_000)
        assert len(records(org, "Trip__c", "Id")) == 10_000
        org.usage.override("rows_per_day", 40_000)
        again = run_job(org, operation, "Trip__c", content, key=key)
        assert (again.job["state"], again.failed) == ("JobComplete", [])
        assert len(records(org, "Trip__c", "Id")) == 20_000 + twice
        assert len(set(records(org, "Trip__c", "Loose__c"))) == 20_000


def test_the_days_salesforce_batches_are_counted_and_capped() -> None:
    with make_org(options=Options(threads=1, commit_batches=25), limits={"batches_per_day": 2}) as org:
        done = run_job(org, "insert", "Plane__c", planes(*(f"W{n}" for n in range(20_001))))
        assert (done.job["state"], done.job["errorMessage"].partition(" ")[0]) == ("Failed", "ExceededQuota")
        # Two batches fit, and the order decides whether the one of a single row is among them.
        assert len(done.saved) in (20_000, 10_001)
        assert len(done.saved) + len(done.unprocessed) == 20_001
        assert org.limits_json()["DailyBulkApiBatches"] == {"Max": 2, "Remaining": 0}
        assert run_job(org, "insert", "Plane__c", planes("more")).job["state"] == "Failed"


CROWDED = Pace(rows_per_second=1000, parallel_batches=10, lock_wait_s=5)


def crowded_org(**changes: Any) -> TwinOrg:
    """Ten batches run side by side and a chunk holds its locks for two seconds."""
    return TwinOrg.open(schema=make_schema(**changes), clock=ManualClock(), seed=7, pace=CROWDED)


def load_legs(org: TwinOrg, rows: int) -> str:
    """Close a job of details that all have the same master."""
    trip = run_timed(org, new_job(org, "insert", "Trip__c"), "Place__c\nx\n").saved[0]["sf__Id"]
    job = new_job(org, "insert", "Leg__c")
    org.jobs.put_content(job, [write_csv(["Trip__c"], [[trip]] * rows).encode()])
    org.jobs.patch(job, "UploadComplete")
    return job


def run_timed(org: TwinOrg, job: str, content: str | None = None) -> Any:
    """Process a job of an org with a pace, moving its clock from one piece of work to the next."""
    if content is not None:
        org.jobs.put_content(job, [content.encode()])
        org.jobs.patch(job, "UploadComplete")
    while not org.jobs.find(job).is_terminal:
        org.run_until_idle()
        clock_of(org).advance(timedelta(seconds=org.processor.busy_s()))
    return finished(org, job)


def test_point_20_rows_that_met_a_lock_stay_failed_and_the_untouched_rest_is_put_back() -> None:
    with crowded_org() as org:
        job = load_legs(org, 40_000)
        done = run_timed(org, job)
        # Four batches: the fourth waits six seconds for the master, in its first chunk, which is 200 rows.
        assert {row["sf__Error"].partition(":")[0] for row in done.failed} == {"UNABLE_TO_LOCK_ROW"}
        assert (len(done.failed), len(done.saved)) == (200, 39_800)
        assert done.job["retries"] == 1
        assert (done.job["state"], done.job["numberRecordsProcessed"]) == ("JobComplete", 40_000)
        again = run_timed(
            org, new_job(org, "insert", "Leg__c"), write_csv(["Trip__c"], [[r["Trip__c"]] for r in done.failed])
        )
        assert len(again.saved) == 200


def test_point_21_counters_cover_failures_and_finished_work_only() -> None:
    with make_org(options=Options(threads=1, commit_batches=1)) as org:
        job = new_job(org, "insert", "Trip__c")
        rows = [[f"C{n}", "x" if n % 2 else ""] for n in range(20_000)]
        org.jobs.put_content(job, [write_csv(["Ext__c", "Place__c"], rows).encode()])
        org.jobs.patch(job, "UploadComplete")
        org.step()
        under_way = org.jobs.get(job)
        assert (under_way["numberRecordsProcessed"], under_way["numberRecordsFailed"]) == (10_000, 5_000)
        assert under_way["totalProcessingTime"] == 0
        org.run_until_idle()
        ended = org.jobs.get(job)
        assert (ended["numberRecordsProcessed"], ended["numberRecordsFailed"]) == (20_000, 10_000)


def test_point_21_counters_go_back_to_zero_while_a_batch_is_put_back() -> None:
    slow = {"name": "Slow", "object": "Leg__c", "events": ["after insert"], "active": False}
    slow["effects"] = [{"effect": "time", "chunk_ms": 2000}]
    pace, options = Pace(rows_per_second=1e6, parallel_batches=4), Options(threads=1, commit_batches=4)
    with TwinOrg.open(
        schema=make_schema(automations={"triggers": [slow]}), clock=ManualClock(), seed=7, pace=pace, options=options
    ) as org:
        job = load_legs(org, 80_000)
        seen = []
        while not org.jobs.find(job).is_terminal:
            org.step()
            state = org.jobs.get(job)
            seen.append((state["numberRecordsProcessed"], state["numberRecordsFailed"], state["retries"]))
            if seen[-1][0] == 40_000:  # from here on the batches stand in each other's way
                trigger = org.automations.current().triggers[0]
                org.automations.put(("triggers", replace(trigger, active=True)))
            clock_of(org).advance(timedelta(seconds=org.processor.busy_s()))
        falls = [after for before, after in pairwise(seen) if after[0] < before[0]]
        assert falls == [(0, 0, 1)], "once, when a batch goes back"
        assert seen[-1] == (80_000, 200, 1)


def test_point_22_and_23_limits_answer_403_in_a_list() -> None:
    with (
        make_org(limits={"DailyApiRequests": 3}) as org,
        TwinServer(org, work=False) as server,
        Client(server) as client,
    ):
        for _ in range(3):
            assert client.get(INGEST).status_code == 200
        over = client.get(INGEST)
        assert (over.status_code, over.json()[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")
        assert "retry-after" not in over.headers


def test_point_26_unrestricted_picklists_take_anything_and_inactive_values_are_refused(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Place__c,Free__c,State__c\na,anything,Done\nb,A,Old\nc,A,nothing\n")
    assert [row["Place__c"] for row in done.saved] == ["a"]
    assert all(row["sf__Error"].startswith("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:") for row in done.failed)


NARROWED: dict[str, Any] = {
    "objects": {
        "Ride__c": {
            "fields": {
                "Ext__c": {"type": "string", "length": 20, "externalId": True, "unique": True},
                "State__c": {"type": "picklist", "restrictedPicklist": True, "values": ["New", "Done", "Lost"]},
                "Tags__c": {"type": "multipicklist", "restrictedPicklist": True, "values": ["a", "b", "c"]},
                "Free__c": {"type": "picklist", "values": ["A", "B"]},
            },
            "recordTypes": [
                {
                    "name": "Short",
                    "developerName": "Short",
                    "default": True,
                    "picklistValues": {"State__c": ["New", "Done"], "Tags__c": ["a", "b"], "Free__c": ["A"]},
                },
                {"name": "Long", "developerName": "Long", "picklistValues": {"State__c": ["Lost"]}},
            ],
        }
    }
}


def test_point_26_restricted_picklists_depend_on_the_record_type() -> None:
    with make_org(**NARROWED) as org:
        types = dict(records(org, "RecordType", "DeveloperName", "Id"))
        rows = [
            ["a", "New", "a;b", "B", ""],  # the default type; an unrestricted picklist takes anything
            ["b", "Lost", "", "", ""],
            ["c", "", "a;c", "", ""],
            ["d", "Lost", "a;c", "", types["Long"]],  # a picklist that the type does not name has all values
            ["e", "New", "", "", types["Long"]],
            ["f", "Lost", "c", "", "#N/A"],  # no default, so the master type, which has all
        ]
        header = ["Ext__c", "State__c", "Tags__c", "Free__c", "RecordTypeId"]
        done = run_job(org, "insert", "Ride__c", write_csv(header, rows))
        assert done.errors("Ext__c") == {
            key: f"INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST:{label}: bad value for restricted picklist field: {value}:"
            f"{label}__c --"
            for key, label, value in (("b", "State", "Lost"), ("c", "Tags", "a;c"), ("e", "State", "New"))
        }
        stored = dict(records(org, "Ride__c", "Ext__c", "RecordTypeId"))
        assert stored == {"a": types["Short"], "d": types["Long"], "f": None}
        changes = [["a", "Lost", ""], ["d", "Done", types["Short"]], ["f", "Done", types["Long"]]]
        done = run_job(
            org, "upsert", "Ride__c", write_csv(["Ext__c", "State__c", "RecordTypeId"], changes), key="Ext__c"
        )
        assert done.errors("Ext__c").keys() == {"a", "f"}, "the stored type counts, and the one that an update gives"
        infos = {info["name"]: info for info in org.describe("Ride__c")["recordTypeInfos"]}
        assert [name for name, info in infos.items() if info["defaultRecordTypeMapping"]] == ["Short"]
        state = next(field for field in org.describe("Ride__c")["fields"] if field["name"] == "State__c")
        assert len(state["picklistValues"]) == 3, "describe shows nothing of it"
        with TwinServer(org, work=False) as server, Client(server) as client:
            refused = client.post(f"{BASE}/sobjects/Ride__c", json={"State__c": "Lost"})
            assert refused.json()[0]["errorCode"] == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
            assert client.post(f"{BASE}/sobjects/Ride__c", json={"State__c": "Done"}).status_code == 201


@pytest.mark.parametrize(
    ("narrowed", "problem"),
    [
        ({"Nope__c": ["x"]}, "Ride__c has no picklist `Nope__c`"),
        ({"Ext__c": ["x"]}, "Ride__c has no picklist `Ext__c`"),
        ({"State__c": ["x"]}, "`State__c` has no value `x`"),
    ],
)
def test_point_26_what_record_types_narrow_must_be_there(narrowed: dict[str, list[str]], problem: str) -> None:
    ride = NARROWED["objects"]["Ride__c"]
    types = [{"name": "Odd", "developerName": "Odd", "picklistValues": narrowed}]
    with pytest.raises(SchemaError, match=problem):
        make_schema(objects={"Ride__c": {**ride, "recordTypes": types}})


def test_point_27_decimals_are_rounded_half_up_and_integer_digits_are_not(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Place__c,Miles__c\na,1.005\nb,-2.675\nc,999999.994\nd,1000000\n")
    assert [row["Place__c"] for row in done.failed] == ["d"]
    assert done.failed[0]["sf__Error"].startswith("NUMBER_OUTSIDE_VALID_RANGE:Miles: value outside of valid range")
    stored = dict(records(org, "Trip__c", "Place__c", "Miles__c"))
    assert stored == {"a": Decimal("1.01"), "b": Decimal("-2.68"), "c": Decimal("999999.99")}


def test_point_28_whole_numbers_have_no_decimal_point(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "Place__c,Seats__c,Miles__c\na,250,250\nb,250.0,250\n")
    assert [row["Place__c"] for row in done.saved] == ["a"]
    assert done.failed[0]["sf__Error"].startswith("INVALID_TYPE_ON_FIELD_IN_RECORD:Seats: value not of required type")


def test_point_29_dates_must_exist_and_know_no_zone(org: TwinOrg) -> None:
    content = "Place__c,Day__c,At__c\na,2026-02-30,\nd,2026-02-28T25:30:00.000Z,\ne,2026-02-28 23:30,\n"
    content += "b,2026-02-28,2026-02-28T23:30:00.999-01:00\nc,2026-02-28Z,\n"
    done = run_job(org, "insert", "Trip__c", content)
    assert done.errors("Place__c").keys() == {"a", "d", "e"}
    assert all(row["sf__Error"].startswith("INVALID_TYPE_ON_FIELD_IN_RECORD:Day: ") for row in done.failed)
    assert records(org, "Trip__c", "Day__c", where="Place__c = 'c'") == [(date(2026, 2, 28),)]
    assert records(org, "Trip__c", "Day__c", "At__c", where="Place__c = 'b'") == [
        (date(2026, 2, 28), datetime(2026, 3, 1, 0, 30))
    ]


def test_point_29_a_datetime_given_for_a_date_loses_its_time_and_moves_by_no_zone(org: TwinOrg) -> None:
    moments = {"a": "2026-02-28T23:30:00.000-05:00", "b": "2026-02-28T00:30:00+14:00", "c": "2026-02-28T12:00:00Z"}
    done = run_job(org, "insert", "Trip__c", write_csv(["Place__c", "Day__c"], moments.items()))
    assert done.failed == []
    assert records(org, "Trip__c", "Day__c") == [(date(2026, 2, 28),)] * 3


def test_point_30_deletes_take_ids_only_and_each_once(org: TwinOrg) -> None:
    ids = [row["sf__Id"] for row in run_job(org, "insert", "Plane__c", planes("D1", "D2")).saved]
    wide = run_job(org, "delete", "Plane__c", f"Id,Tail__c\n{ids[0]},x\n")
    assert wide.job["errorMessage"] == "InvalidBatch : The 'delete' batch must contain only ids"
    lower = run_job(org, "delete", "Plane__c", f"id\n{ids[0]}\n")
    assert lower.job["state"] == "Failed"
    done = run_job(org, "delete", "Plane__c", f"Id\n{ids[0]}\n{ids[0]}\n")
    assert (len(done.saved), [row["sf__Error"] for row in done.failed]) == (
        1,
        ["ENTITY_IS_DELETED:entity is deleted:--"],
    )
    trip = run_job(org, "insert", "Trip__c", "Place__c\nx\n").saved[0]["sf__Id"]
    leg = run_job(org, "insert", "Leg__c", f"Trip__c\n{trip}\n").saved[0]["sf__Id"]
    run_job(org, "delete", "Trip__c", f"Id\n{trip}\n")
    gone = run_job(org, "delete", "Leg__c", f"Id\n{leg}\n")
    assert gone.failed[0]["sf__Error"] == "ENTITY_IS_DELETED:entity is deleted:--"


def test_point_31_a_deleted_row_frees_its_key_and_no_upsert_matches_it(org: TwinOrg) -> None:
    first = run_job(org, "insert", "Plane__c", planes("Z")).saved[0]["sf__Id"]
    run_job(org, "delete", "Plane__c", f"Id\n{first}\n")
    done = run_job(org, "upsert", "Plane__c", planes("Z"), key="Tail__c")
    assert done.saved[0]["sf__Created"] == "true"
    assert done.saved[0]["sf__Id"] != first
    assert len(records(org, "Plane__c", "Id", where="true")) == 2
    run_job(org, "delete", "Plane__c", f"Id\n{done.saved[0]['sf__Id']}\n")
    assert run_job(org, "insert", "Plane__c", planes("Z")).failed == [], "the key is free for an insert as well"
    assert run_job(org, "insert", "Plane__c", planes("z")).failed, "and taken again"


@pytest.mark.parametrize(
    ("kind", "automation", "off", "error"),
    [
        (
            "validation_rules",
            {"name": "No_Z", "formula": "BEGINS(Tail__c, 'Z')", "error_message": "no Z", "error_field": "Tail__c"},
            {"active": False},
            "FIELD_CUSTOM_VALIDATION_EXCEPTION:no Z:Tail__c --",
        ),
        (
            "triggers",
            {"name": "Trg", "effects": [{"effect": "reject", "message": "no Z", "when": "BEGINS(Tail__c, 'Z')"}]},
            {"active": False},
            "FIELD_CUSTOM_VALIDATION_EXCEPTION:no Z:--",
        ),
        (
            "flows",
            {
                "name": "Flw",
                "condition": "BEGINS(Tail__c, 'Z')",
                "versions": [{"number": 1, "effects": [{"effect": "reject", "message": "no Z", "how": "exception"}]}],
                "active_version": 1,
            },
            {"active_version": 0},
            'CANNOT_EXECUTE_FLOW_TRIGGER:We can\'t save this record because the "Flw" process failed. '
            "System.DmlException: no Z:--",
        ),
        (
            "duplicate_rules",
            {"name": "Dup", "match_fields": ["Name"]},
            {"active": False},
            "DUPLICATES_DETECTED:Use one of these records?:--",
        ),
    ],
)
def test_point_32_automations_act_on_bulk_loads_and_switched_off_they_do_not(
    kind: str, automation: dict[str, Any], off: dict[str, Any], error: str
) -> None:
    for changes, errors in (({}, [error]), (off, [])):
        with make_org(automations={kind: [{**automation, "object": "Plane__c", **changes}]}) as org:
            rows = [[f"A{n}", f"A{n}"] for n in range(CHUNK)]
            done = run_job(org, "insert", "Plane__c", write_csv(["Tail__c", "Name"], [*rows, ["Z", "A0"]]))
            assert [row["sf__Error"] for row in done.failed] == errors


ASSIGNED: dict[str, Any] = {
    "objects": {
        "Case": {"fields": {"Subject": {"type": "string"}, "Priority": {"type": "picklist", "values": ["High", "Low"]}}}
    },
    "automations": {
        "assignment_rules": [
            {
                "name": "By priority",
                "object": "Case",
                "entries": [
                    {"condition": 'ISPICKVAL(Priority, "High")', "owner": "plain@example.com"},
                    {"condition": 'Subject = "own" || ISPICKVAL(Priority, "High")', "owner": "loader@example.com"},
                ],
            }
        ]
    },
}


def test_point_32_assignment_rules_need_to_be_asked_for() -> None:
    with make_org(**ASSIGNED) as org:
        loader, plain = (user.id for user in org.users)
        [(rule,)] = records(org, "AssignmentRule", "Id")
        content = "Subject,Priority,OwnerId\na,High,\nb,Low,\nown,Low," + plain + "\n"
        assert "assignmentRuleId" not in run_job(org, "insert", "Case", content, user=0).job
        assert dict(records(org, "Case", "Subject", "OwnerId")) == {"a": loader, "b": loader, "own": plain}
        done = run_job(org, "insert", "Case", content.replace("a,", "c,", 1), assignmentRuleId=rule[:15])
        assert (done.job["assignmentRuleId"], done.failed) == (rule[:15], [])
        assert records(org, "Case", "OwnerId", where="Subject = 'c'") == [(plain,)]
        assert sorted(records(org, "Case", "OwnerId", where="Subject = 'own'")) == sorted([(plain,), (loader,)])
        changes = [[row["sf__Id"], "Low", loader] for row in done.saved if row["Subject"] == "c"]
        update = write_csv(["Id", "Priority", "OwnerId"], changes)
        run_job(org, "update", "Case", update, assignmentRuleId=rule)
        assert records(org, "Case", "OwnerId", where="Subject = 'c'") == [(loader,)], "no entry was met"
        with pytest.raises(ApiError, match="Unable to find assignment rule") as caught:
            new_job(org, "insert", "Case", assignmentRuleId="01Q000000000000")
        assert (caught.value.http_status, caught.value.error_code) == (400, "INVALIDJOB")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"owner": "nobody@example.com"}, "no user `nobody@example.com`"),
        ({"owner": "plain@example.com", "condition": "Nope__c = 1"}, "condition: "),
    ],
)
def test_point_32_assignment_rules_name_users_and_fields_that_are_there(entry: dict[str, str], problem: str) -> None:
    rule = {"name": "Odd", "object": "Case", "entries": [entry]}
    with pytest.raises(SchemaError, match=problem):
        make_org(objects=ASSIGNED["objects"], automations={"assignment_rules": [rule]})


def test_point_35_a_field_that_the_user_cannot_see_looks_like_a_wrong_header(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Plane__c", "Tail__c,Made_Without_Access__c\nx,y\n")
    assert done.job["errorMessage"] == "InvalidBatch : Field name not found : Made_Without_Access__c"


def test_point_38_jobs_vanish_with_their_results_after_seven_days(org: TwinOrg) -> None:
    job = run_job(org, "insert", "Plane__c", planes("W")).job["id"]
    clock_of(org).advance(timedelta(days=7, seconds=-1))
    assert finished(org, job).saved
    clock_of(org).advance(timedelta(seconds=1))
    with pytest.raises(ApiError) as caught:
        org.results(job, "successfulResults")
    assert caught.value.http_status == 404
    assert list(org.store.uploads.iterdir()) == []
    other = run_job(org, "insert", "Plane__c", planes("X")).job["id"]
    org.jobs.delete(other)
    with pytest.raises(ApiError):
        org.results(other, "successfulResults")


def test_point_39_a_job_is_open_for_a_day_at_most(org: TwinOrg) -> None:
    job = new_job(org)
    clock_of(org).advance(timedelta(hours=24, seconds=-1))
    assert org.jobs.get(job)["state"] == "Open"
    clock_of(org).advance(timedelta(seconds=1))
    assert org.jobs.get(job)["state"] == "Aborted"
    with pytest.raises(ApiError):
        org.jobs.put_content(job, [b"Tail__c\nx\n"])


def test_point_40_the_size_limit_is_that_of_the_encoded_upload(org: TwinOrg) -> None:
    largest = 112_500_000  # bytes whose base64 has 150,000,000
    job = new_job(org)
    piece = bytes(500_000)
    with pytest.raises(ApiError) as caught:
        org.jobs.put_content(job, [*[piece] * (largest // len(piece)), b"x"])
    assert caught.value.http_status == 413
    assert list(org.store.uploads.iterdir()) == []
    org.jobs.put_content(job, [piece] * (largest // len(piece)))
    assert [file.stat().st_size for file in org.store.uploads.iterdir()] == [largest]


def test_point_41_a_put_that_was_stored_although_its_reply_was_lost_cannot_be_sent_again(client: Client) -> None:
    job_id = client.create_job(object="Plane__c")
    client.arm({"action": "lose_reply", "method": "PUT", "path": f"{job_id}/batches"})
    with pytest.raises(httpx.TransportError):
        client.put_csv(job_id, b"Tail__c\nlost1\n")
    assert client.put_csv(job_id, b"Tail__c\nlost1\n").status_code == 400
    aborted = client.patch(f"{INGEST}/{job_id}", json={"state": "Aborted"})
    assert aborted.json()["state"] == "Aborted"
    assert loaded(client, b"Tail__c\nlost1\n")["numberRecordsFailed"] == 0


def test_point_41_a_put_that_broke_off_or_met_a_dead_session_has_stored_nothing(client: Client) -> None:
    """Goal: the job tells which it was. Method: a PUT that is cut, and one whose session ends; the rows come once."""
    cut = client.create_job(object="Plane__c")
    client.arm({"action": "cut_request", "method": "PUT", "path": f"{cut}/batches", "after_bytes": 8})
    with pytest.raises(httpx.TransportError):
        client.put_csv(cut, planes(*(f"c{n}" for n in range(20_000))).encode())
    assert client.get(f"{INGEST}/{cut}").json()["state"] == "Open"
    client.close_job(cut)
    client.server.org.run_until_idle()
    ended = client.get(f"{INGEST}/{cut}").json()
    assert (ended["state"], ended["numberRecordsProcessed"]) == ("JobComplete", 0)
    job_id = client.create_job(object="Plane__c")
    dead = client.put_csv(job_id, b"Tail__c\nonce\n", Authorization="Bearer 00Dgone!x")
    assert (dead.status_code, dead.json()[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    assert client.put_csv(job_id, b"Tail__c\nonce\n").status_code == 201, "the whole body again, with a new session"
    client.close_job(job_id)
    client.server.org.run_until_idle()
    assert [row["Tail__c"] for row in client.results(job_id, "successfulResults")] == ["once"]


def test_point_42_a_create_whose_reply_was_lost_leaves_an_open_job_that_the_list_shows(client: Client) -> None:
    client.arm({"action": "lose_reply", "method": "POST", "path": "jobs/ingest$"})
    before = {job["id"] for job in client.get(INGEST).json()["records"]}
    with pytest.raises(httpx.TransportError):
        client.create_job(object="Trip__c")
    stray = [job for job in client.get(INGEST).json()["records"] if job["id"] not in before]
    me = client.server.org.users[0].id
    assert [(job["object"], job["state"], job["createdById"]) for job in stray] == [("Trip__c", "Open", me)]
    client.server.org.run_until_idle()
    assert client.get(f"{INGEST}/{stray[0]['id']}").json()["state"] == "Open"


def test_point_43_a_close_that_is_repeated_is_refused_although_all_is_well(client: Client) -> None:
    job_id = client.create_job(object="Plane__c")
    client.put_csv(job_id, b"Tail__c\nclose1\n")
    client.arm({"action": "lose_reply", "method": "PATCH", "path": job_id})
    with pytest.raises(httpx.TransportError):
        client.close_job(job_id)
    again = client.close_job(job_id)
    assert (again.status_code, again.json()[0]["errorCode"]) == (400, "INVALIDJOBSTATE")
    client.server.org.run_until_idle()
    assert client.get(f"{INGEST}/{job_id}").json()["state"] == "JobComplete"


def test_point_46_audit_fields_are_not_writable(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Plane__c", "Tail__c,CreatedDate\na,2020-01-01T00:00:00Z\n")
    assert done.failed[0]["sf__Error"].startswith("INVALID_FIELD_FOR_INSERT_UPDATE:Unable to create/update fields")


def test_point_47_a_record_type_must_be_one_of_the_object(org: TwinOrg) -> None:
    [(good,)] = records(org, "RecordType", "Id")
    wrong = good[:14] + ("0" if good[14] != "0" else "1")
    done = run_job(org, "insert", "Trip__c", f"Ext__c,Place__c,RecordTypeId\na,x,{good}\nb,x,{wrong}\n")
    assert [row["Ext__c"] for row in done.saved] == ["a"]
    assert done.failed[0]["sf__Error"].startswith(
        "INVALID_CROSS_REFERENCE_KEY:Record Type ID: this ID value isn't valid"
    )


def test_point_48_masters_are_locked_and_optional_lookups_are_not() -> None:
    with crowded_org() as org:
        first = run_timed(org, load_legs(org, 40_000))
        assert first.failed
        plane = run_timed(org, new_job(org), planes("L")).saved[0]["sf__Id"]
        rows = [["x", plane]] * 40_000
        done = run_timed(org, new_job(org, "insert", "Trip__c"), write_csv(["Place__c", "Plane__c"], rows))
        assert done.failed == []
        # An update that does not name the master locks it all the same.
        update = write_csv(["Id", "Plane__c"], [[row["sf__Id"], plane] for row in first.saved])
        locked = run_timed(org, new_job(org, "update", "Leg__c"), update)
        assert {row["sf__Error"].partition(":")[0] for row in locked.failed} == {"UNABLE_TO_LOCK_ROW"}
        assert 0 < len(locked.failed) < len(first.saved)


def test_point_48_deletes_lock_masters_too_and_only_the_untouched_rest_comes_again() -> None:
    with crowded_org() as org:
        legs = run_timed(org, load_legs(org, 40_000))
        ids = [row["sf__Id"] for row in legs.saved]
        done = run_timed(org, new_job(org, "delete", "Leg__c"), write_csv(["Id"], [[one] for one in ids]))
        assert {row["sf__Error"].partition(":")[0] for row in done.failed} == {"UNABLE_TO_LOCK_ROW"}
        assert (len(done.failed), len(done.saved)) == (200, len(ids) - 200)
        assert (done.job["retries"], done.job["state"]) == (1, "JobComplete")
        left = {one for (one,) in records(org, "Leg__c", "Id", where="NOT IsDeleted")}
        assert left == {row["Id"] for row in done.failed}, "the failed ones, and no other, are still there"
        tails = [f"X{number}" for number in range(40_000)]
        planes_saved = run_timed(org, new_job(org), planes(*tails)).saved
        free = run_timed(org, new_job(org, "delete"), write_csv(["Id"], [[row["sf__Id"]] for row in planes_saved]))
        assert free.failed == [], "records without a common parent do not meet"


ROLLED: dict[str, Any] = {
    "objects": {
        "Trip__c": {
            "fields": {
                "Ext__c": {"type": "string", "externalId": True, "unique": True},
                "Legs__c": {
                    "type": "double",
                    "rollUp": {"child": "Leg__c", "lookup": "Trip__c", "function": "COUNT"},
                },
                **{
                    f"{function.title()}__c": {
                        "type": "currency",
                        "scale": 2,
                        "rollUp": {"child": "Leg__c", "lookup": "Trip__c", "function": function, "of": "Miles__c"},
                    }
                    for function in ("SUM", "MIN", "MAX")
                },
                "Last__c": {
                    "type": "date",
                    "rollUp": {"child": "Leg__c", "lookup": "Trip__c", "function": "MAX", "of": "Day__c"},
                },
            }
        },
        "Leg__c": {
            "fields": {
                "Trip__c": {"type": "reference", "referenceTo": "Trip__c", "relationshipOrder": 0},
                "Miles__c": {"type": "double", "scale": 2},
                "Day__c": {"type": "date"},
            }
        },
    }
}


def test_point_48_roll_ups_follow_the_details_in_every_query() -> None:
    with make_org(**ROLLED) as org, TwinServer(org, work=False) as server, Client(server) as client:
        run_job(org, "insert", "Trip__c", "Ext__c\na\nb\n")
        content = "Trip__r.Ext__c,Miles__c,Day__c\na,1.5,2026-01-01\na,2.25,2026-03-01\na,,\n"
        legs = run_job(org, "insert", "Leg__c", content).saved
        select = "SELECT Ext__c, Legs__c, Sum__c, Min__c, Max__c, Last__c FROM Trip__c"

        def told(where: str = "") -> list[tuple[Any, ...]]:
            rows = client.query(f"{select} {where} ORDER BY Ext__c")["records"]
            return [tuple(value for key, value in row.items() if key != "attributes") for row in rows]

        assert told() == [("a", 3.0, 3.75, 1.5, 2.25, "2026-03-01"), ("b", 0.0, 0.0, None, None, None)]
        assert [row[0] for row in told("WHERE Sum__c > 3 AND Legs__c = 3")] == ["a"]
        assert [row["Ext__c"] for row in client.query(f"{select} ORDER BY Legs__c")["records"]] == ["b", "a"]
        total = client.query("SELECT SUM(Legs__c) n, MAX(Sum__c) m FROM Trip__c")["records"][0]
        assert (total["n"], total["m"]) == (3.0, 3.75)
        parent = client.query("SELECT Trip__r.Legs__c FROM Leg__c LIMIT 1")["records"][0]
        assert parent["Trip__r"]["Legs__c"] == 3.0
        trip = client.query("SELECT Id FROM Trip__c WHERE Ext__c = 'a'")["records"][0]["Id"]
        run_job(org, "delete", "Leg__c", f"Id\n{next(leg['sf__Id'] for leg in legs if leg['Miles__c'] == '2.25')}\n")
        record = client.get(f"{BASE}/sobjects/Trip__c/{trip}").json()
        assert (record["Legs__c"], record["Sum__c"], record["Last__c"]) == (2.0, 1.5, "2026-01-01")
        described = {field["name"]: field for field in org.describe("Trip__c")["fields"]}["Sum__c"]
        assert (described["calculated"], described["createable"], described["updateable"]) == (True, False, False)
        assert Schema.from_document(org.schema.to_document()) == org.schema


@pytest.mark.parametrize(
    ("roll_up", "problem"),
    [
        ({"child": "Nope__c", "lookup": "Trip__c", "function": "COUNT"}, "no object `Nope__c`"),
        ({"child": "Leg__c", "lookup": "Day__c", "function": "COUNT"}, "no master-detail field `Day__c`"),
        ({"child": "Leg__c", "lookup": "Trip__c", "function": "SUM", "of": "Day__c"}, "of which there is a SUM"),
        ({"child": "Leg__c", "lookup": "Trip__c", "function": "COUNT", "of": "Day__c"}, "takes no field"),
    ],
)
def test_point_48_roll_ups_must_fit_their_details(roll_up: dict[str, str], problem: str) -> None:
    trip = {"fields": {"Odd__c": {"type": "double", "rollUp": roll_up}}}
    with pytest.raises(SchemaError, match=problem):
        make_schema(objects={"Trip__c": trip, "Leg__c": ROLLED["objects"]["Leg__c"]})


def test_point_48_a_roll_up_without_its_definition_is_described_not_written_and_reads_as_null(org: TwinOrg) -> None:
    """A describe document does not tell what is summed: a value that looks right by chance is worse than none."""
    described = {field["name"]: field for field in org.describe("Trip__c")["fields"]}["Sum__c"]
    assert (described["calculated"], described["createable"], described["updateable"]) == (True, False, False)
    trip = run_job(org, "insert", "Trip__c", "Place__c\nx\n").saved[0]["sf__Id"]
    run_job(org, "insert", "Leg__c", f"Trip__c\n{trip}\n")
    with TwinServer(org, work=False) as server, Client(server) as client:
        assert client.query("SELECT Sum__c FROM Trip__c")["records"][0]["Sum__c"] is None
    refused = run_job(org, "insert", "Trip__c", "Place__c,Sum__c\nx,1\n")
    assert refused.failed[0]["sf__Error"].startswith("INVALID_FIELD_FOR_INSERT_UPDATE:")


def test_the_header_of_empty_result_files_stands_there(org: TwinOrg) -> None:
    job = run_job(org, "insert", "Plane__c", "Tail__c\n").job
    assert (job["state"], job["numberRecordsProcessed"]) == ("JobComplete", 0)
    saved = b"".join(org.results(job["id"], "successfulResults")).decode()
    assert next(csv.reader(io.StringIO(saved))) == ["sf__Id", "sf__Created", "Tail__c"]
