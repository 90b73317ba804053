"""Ingest jobs of the twin: states, answers by stage, refusals, retention, result files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.twin_store_support import finished, make_org, records, run_job, write_csv

from forcelift.twin.clock import ManualClock
from forcelift.twin.errors import ApiError
from forcelift.twin.jobs import LIST_PAGE
from forcelift.twin.org import Options, TwinOrg

ALWAYS = {
    "id", "operation", "object", "createdById", "createdDate", "systemModstamp", "state", "concurrencyMode",
    "contentType", "apiVersion",
}  # fmt: skip
FORM = {"lineEnding", "columnDelimiter"}
TIMES = {"retries", "totalProcessingTime", "apiActiveProcessingTime", "apexProcessingTime"}
COUNTS = {"numberRecordsProcessed", "numberRecordsFailed"}


@pytest.fixture(scope="module")
def org() -> Iterator[TwinOrg]:
    with make_org() as org:
        yield org


def open_job(org: TwinOrg, **body: str) -> str:
    job_id: str = org.jobs.create({"operation": "insert", "object": "plane__C", **body}, org.users[0])["id"]
    return job_id


def clock_of(org: TwinOrg) -> ManualClock:
    assert isinstance(org.clock, ManualClock)
    return org.clock


def refused(call: object, *arguments: object) -> ApiError:
    assert callable(call)
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value


def test_each_stage_shows_the_fields_that_salesforce_shows(org: TwinOrg) -> None:
    body = {"operation": "upsert", "object": "Plane__c", "externalIdFieldName": "tail__c"}
    created = org.jobs.create(body, org.users[0], api_version="61.0")
    assert set(created) == ALWAYS | FORM | {"contentUrl", "externalIdFieldName"}
    assert created["contentUrl"] == f"services/data/v61.0/jobs/ingest/{created['id']}/batches"
    assert (created["apiVersion"], created["createdDate"]) == (61.0, "2026-01-01T00:00:00.000+0000")
    assert (created["object"], created["externalIdFieldName"]) == ("Plane__c", "Tail__c")
    assert created["id"].startswith("750")
    assert len(created["id"]) == 18
    shown = org.jobs.get(created["id"][:15])
    assert set(shown) == ALWAYS | FORM | TIMES | {"contentUrl", "externalIdFieldName", "jobType"}
    org.jobs.put_content(created["id"], [b"Tail__c\nS1\n", b"toolongtoolong\n"])
    closed = org.jobs.patch(created["id"], "UploadComplete")
    assert set(closed) == ALWAYS | {"externalIdFieldName"}
    assert org.step() == 2
    running = org.jobs.get(created["id"])
    assert running["state"] == "InProgress"
    assert (running["numberRecordsProcessed"], running["totalProcessingTime"]) == (2, 0)
    assert org.run_until_idle() == 0
    done = org.jobs.get(created["id"])
    assert set(done) == ALWAYS | FORM | TIMES | COUNTS | {"externalIdFieldName", "jobType"}
    assert (done["state"], done["numberRecordsProcessed"], done["numberRecordsFailed"]) == ("JobComplete", 2, 1)


def test_one_put_and_only_while_open(org: TwinOrg) -> None:
    job = open_job(org)
    org.jobs.put_content(job, [b"\x00 not looked at"])
    second = refused(org.jobs.put_content, job, [b"x"])
    assert second.http_status == 400
    assert second.message.startswith(f"Found multiple contents for job: <{job}>, please 'Close'")
    org.jobs.patch(job, "Aborted")
    assert refused(org.jobs.put_content, job, [b"x"]).error_code == "INVALIDJOBSTATE"


def test_a_connection_lost_in_the_middle_of_a_put_stores_nothing(org: TwinOrg) -> None:
    def broken() -> Iterator[bytes]:
        yield b"Tail__c\n" + b"x\n" * 4_000_000
        raise ConnectionResetError

    job = open_job(org)
    with pytest.raises(ConnectionResetError):
        org.jobs.put_content(job, broken())
    known = {f"{kept.upload}.csv" for kept in (org.jobs.find(entry["id"]) for entry in org.jobs.list()["records"])}
    assert {file.name for file in org.store.uploads.iterdir()} <= known
    org.jobs.put_content(job, [b"Tail__c\nB1\n"])
    org.jobs.patch(job, "UploadComplete")
    org.run_until_idle()
    assert [row["Tail__c"] for row in finished(org, job).saved] == ["B1"]


def test_an_upload_over_the_limit_is_refused_and_forgotten(org: TwinOrg) -> None:
    piece = bytes(8_000_000)
    job = open_job(org)
    assert refused(org.jobs.put_content, job, (piece for _ in range(15))).http_status == 413
    org.jobs.put_content(job, [b"Tail__c\n"])


@pytest.mark.parametrize("end", ["UploadComplete", "Aborted"])
def test_ended_jobs_refuse_every_change_but_delete(org: TwinOrg, end: str) -> None:
    job = open_job(org)
    org.jobs.patch(job, end)
    org.run_until_idle()
    assert org.jobs.get(job)["state"] == {"UploadComplete": "JobComplete", "Aborted": "Aborted"}[end]
    assert org.jobs.get(job)["numberRecordsProcessed"] == 0
    assert refused(org.jobs.patch, job, "Aborted").message == "Aborting already Completed Job not allowed"
    assert refused(org.jobs.patch, job, "UploadComplete").message == "Closing already Completed Job not allowed"
    assert refused(org.jobs.patch, job, "Open").error_code == "INVALIDJOBSTATE"
    org.jobs.delete(job)
    for call in (org.jobs.get, org.jobs.delete):
        assert refused(call, job).body() == [
            {"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}
        ]


def test_open_and_running_jobs_cannot_be_deleted(org: TwinOrg) -> None:
    job = open_job(org)
    error = refused(org.jobs.delete, job)
    assert (error.http_status, error.error_code) == (400, "API_ERROR")
    assert error.message == "Error encountered when deleting the job because the job is not terminated"
    org.jobs.patch(job, "UploadComplete")
    org.jobs.delete(job)
    assert org.run_until_idle() == 0


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"operation": "insert", "object": "Nope__c"}, "INVALIDJOB", "InvalidJob : Unable to find object: Nope__c"),
        ({"operation": "insert", "object": "User"}, "INVALIDENTITY", "Entity 'User' is not supported by the Bulk API."),
        (
            {"operation": "upsert", "object": "Plane__c"},
            "INVALIDJOB",
            "InvalidJob : External ID was blank for Plane__c. An External ID must be specified for upsert.",
        ),
        (
            {"operation": "upsert", "object": "Trip__c", "externalIdFieldName": "Place__c"},
            "INVALIDJOB",
            "InvalidJob : Field name provided, Place__c does not match an External ID, Salesforce "
            "Id, or indexed field for Trip__c",
        ),
        ({"operation": "Insert", "object": "Plane__c"}, "INVALIDJOB", "InvalidJob : Unable to find operation: Insert"),
        (
            {"operation": "insert", "object": "Plane__c", "lineEnding": "CR"},
            "INVALIDJOB",
            "InvalidJob : Invalid lineEnding: CR",
        ),
        (
            {"operation": "insert", "object": "Plane__c", "allOrNone": True},
            "JSON_PARSER_ERROR",
            'Unrecognized field "allOrNone"',
        ),
    ],
)
def test_create_refuses_what_cannot_be_done(org: TwinOrg, body: dict[str, object], code: str, message: str) -> None:
    error = refused(org.jobs.create, body, org.users[0])
    assert (error.http_status, error.error_code, error.message) == (400, code, message)


def test_hard_delete_and_other_peoples_jobs_need_permissions(org: TwinOrg) -> None:
    assert refused(org.jobs.create, {"operation": "hardDelete", "object": "Plane__c"}, org.users[1]).http_status == 403
    job = open_job(org)
    assert refused(org.jobs.patch, job, "Aborted", org.users[1]).http_status == 403
    assert org.jobs.get(job)["state"] == "Open"


def test_multipart_jobs_need_no_close(org: TwinOrg) -> None:
    job = org.jobs.create_multipart({"operation": "insert", "object": "Plane__c"}, b"Tail__c\nM1\n", org.users[0])
    assert job["state"] == "UploadComplete"
    assert "contentUrl" not in job
    org.run_until_idle()
    assert org.jobs.get(job["id"])["numberRecordsProcessed"] == 1
    error = refused(
        org.jobs.create_multipart, {"operation": "insert", "object": "Plane__c"}, b"x" * 100_001, org.users[0]
    )
    assert error.http_status == 400


def test_results_follow_the_jobs_delimiter_line_end_and_header_as_sent(org: TwinOrg) -> None:
    content = '"Ext__c"|Place__c|Miles__c\r\n"R1"|"a|""b"|912.5\r\nR2|c|3e9\r\n'
    job = org.jobs.create(
        {"operation": "insert", "object": "Trip__c", "columnDelimiter": "PIPE", "lineEnding": "CRLF"}, org.users[0]
    )
    org.jobs.put_content(job["id"], [content.encode()])
    org.jobs.patch(job["id"], "UploadComplete")
    org.run_until_idle()
    saved = b"".join(org.results(job["id"], "successfulResults")).decode().split("\r\n")
    assert saved[0] == '"sf__Id"|"sf__Created"|"Ext__c"|Place__c|Miles__c'
    assert saved[1].endswith('|"true"|"R1"|"a|""b"|"912.5"')
    failed = b"".join(org.results(job["id"], "failedResults")).decode().split("\r\n")
    assert failed[0] == '"sf__Id"|"sf__Error"|"Ext__c"|Place__c|Miles__c'
    assert failed[1].endswith('|"R2"|"c"|"3.0E9"')


def test_a_header_in_the_wrong_case_gets_empty_values_in_results(org: TwinOrg) -> None:
    done = run_job(org, "insert", "Trip__c", "EXT__C,Place__c\nW1,x\n")
    assert [(row["EXT__C"], row["Place__c"]) for row in done.saved] == [("", "x")]
    assert len(records(org, "Trip__c", "Id", where="Ext__c = 'W1'")) == 1


def test_results_are_shuffled_and_each_row_is_in_exactly_one_file(org: TwinOrg) -> None:
    rows = [[f"S{number}", "x" if number % 3 else ""] for number in range(600)]
    done = run_job(org, "insert", "Trip__c", write_csv(["Ext__c", "Place__c"], rows))
    saved, failed = ([row["Ext__c"] for row in part] for part in (done.saved, done.failed))
    assert sorted(saved + failed) == sorted(row[0] for row in rows)
    assert len(failed) == 200
    assert saved != sorted(saved, key=lambda key: int(key[1:]))
    again = [row["Ext__c"] for row in finished(org, done.job["id"]).saved]
    assert again == saved


def test_abort_keeps_what_is_committed_and_leaves_the_rest_unprocessed() -> None:
    with make_org(options=Options(threads=1, commit_batches=1)) as org:
        content = write_csv(["Ext__c", "Place__c"], [[f"A{number}", "x"] for number in range(25_000)])
        job = open_job(org, object="Trip__c")
        org.jobs.put_content(job, [content.encode()])
        org.jobs.patch(job, "UploadComplete")
        assert org.step() in (5_000, 10_000)
        org.jobs.patch(job, "Aborted")
        assert org.step() is None
        done = finished(org, job)
        count = done.job["numberRecordsProcessed"]
        assert len(done.saved) == count == len(records(org, "Trip__c", "Id"))
        assert len(done.unprocessed) == 25_000 - count
        assert {row["Ext__c"] for row in done.saved + done.unprocessed} == {f"A{number}" for number in range(25_000)}


def test_daily_caps_leave_the_rest_unprocessed_and_free_themselves_after_a_day() -> None:
    with make_org(options=Options(threads=1, commit_batches=1), limits={"rows_per_day": 16_000}) as org:
        content = write_csv(["Tail__c"], [[f"T{number}"] for number in range(25_000)])
        done = run_job(org, "insert", "Plane__c", content)
        assert done.job["state"] == "Failed"
        assert done.job["errorMessage"].startswith("ExceededQuota")
        assert len(done.saved) + len(done.unprocessed) == 25_000
        assert 5_000 <= len(done.saved) <= 15_000
        used = org.limits_json()["DailyBulkApiBatches"]
        assert used == {"Max": 15_000, "Remaining": 15_000 - -(-len(done.saved) // 10_000)}
        clock_of(org).advance(timedelta(hours=24))
        assert org.limits_json()["DailyBulkApiBatches"]["Remaining"] == 15_000
        assert run_job(org, "insert", "Plane__c", "Tail__c\nlast\n").saved


def test_full_storage_fails_rows_in_the_order_of_work() -> None:
    with make_org(limits={"DataStorageMB": 1}) as org:
        done = run_job(org, "insert", "Plane__c", write_csv(["Tail__c"], [[f"T{n}"] for n in range(600)]))
        assert (len(done.saved), len(done.failed)) == (512, 88)
        assert {row["sf__Error"] for row in done.failed} == {"STORAGE_LIMIT_EXCEEDED:storage limit exceeded:--"}
        assert org.limits_json()["DataStorageMB"] == {"Max": 1, "Remaining": 0}


def test_open_jobs_are_aborted_after_a_day_and_all_vanish_after_seven() -> None:
    with make_org() as org:
        stale = open_job(org)
        done = run_job(org, "insert", "Plane__c", "Tail__c\nV1\n").job["id"]
        clock_of(org).advance(timedelta(hours=24))
        assert org.jobs.get(stale)["state"] == "Aborted"
        clock_of(org).advance(timedelta(days=5, hours=23))
        assert org.jobs.get(done)["state"] == "JobComplete"
        clock_of(org).advance(timedelta(hours=1))
        assert refused(org.jobs.get, done).http_status == 404
        clock_of(org).advance(timedelta(days=2))
        assert org.jobs.list()["records"] == []
        with org.store.read() as cursor:
            for table in ("ingest_job", "ingest_outcome", "ingest_batch"):
                assert cursor.execute(f"SELECT count(*) FROM meta.{table}").fetchone() == (0,)
        assert list(org.store.uploads.iterdir()) == []


def test_lists_come_in_pages_of_a_thousand() -> None:
    with make_org() as org:
        job = org.jobs.find(open_job(org))
        with org.store.write_meta() as cursor:
            cursor.execute(
                "INSERT INTO meta.ingest_job SELECT * EXCLUDE (n) REPLACE (id || n AS id) FROM "
                "meta.ingest_job, range(1, 1500) r(n)"
            )
        first = org.jobs.list()
        assert (first["done"], len(first["records"])) == (False, LIST_PAGE)
        locator = first["nextRecordsUrl"].partition("queryLocator=")[2]
        assert locator.endswith("-1000")
        second = org.jobs.list(query_locator=locator)
        assert (second["done"], second["nextRecordsUrl"], len(second["records"])) == (True, None, 500)
        assert len({entry["id"] for entry in first["records"] + second["records"]}) == 1500
        assert job.id in {entry["id"] for entry in first["records"] + second["records"]}
        assert org.jobs.list(job_type="Classic")["records"] == []


def test_strict_twins_refuse_results_of_jobs_that_have_not_ended() -> None:
    with make_org(options=Options(threads=1, strict_results=True)) as org:
        job = open_job(org)
        assert refused(org.results, job, "successfulResults").http_status == 400
        org.jobs.patch(job, "Aborted")
        assert b"".join(org.results(job, "successfulResults")).startswith(b'"sf__Id","sf__Created"')
        assert refused(org.results, job, "otherResults").http_status == 404


def test_the_worker_processes_jobs_in_the_background() -> None:
    with make_org() as org:
        org.start()
        job = open_job(org)
        org.jobs.put_content(job, [b"Tail__c\nW1\n"])
        org.jobs.patch(job, "UploadComplete")
        for _ in range(3000):
            if org.jobs.get(job)["state"] == "JobComplete":
                break
        else:
            org.stop()
            assert org.jobs.get(job)["state"] == "JobComplete"
        assert records(org, "Plane__c", "Tail__c") == [("W1",)]
